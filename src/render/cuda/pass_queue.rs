//! The queue of passes from host to device: their records, and the images of particles that are not resident.
//!
//! The host is up to [`PASSES`] passes ahead of the device. Events guard every slot that is reused: in the pinned records, the
//! device's ring, and the staging buffers on both sides.

use cudarc::driver::CudaEvent;
use rayon::prelude::*;

use super::buffer_plan::{PASSES, STAGING_BUFFERS};
use super::gpu::Gpu;
use super::interface::{Address, ImageRecord, PassRecord, RingRecord, pass_bytes, write_pass};
use super::pinned::{Pinned, wait};
use super::pipeline::Pipeline;
use crate::error::Result;
use crate::render::{Observation, Reduce, Target};

/// Pinned memory of the passes under way, each place with the events after which it can be written again.
pub(super) struct PassQueue {
    records: Pinned<u8>,
    /// The copy of a record to the device has ended.
    sent: Vec<CudaEvent>,
    /// The pass of a record has ended.
    done: Vec<CudaEvent>,
    passes: usize,
    staging: Option<Staging>,
}

/// Staging buffers, in pinned memory and on the device.
struct Staging {
    images: Vec<Pinned<f32>>,
    /// The copy of a buffer to the device has ended.
    arrived: Vec<CudaEvent>,
    /// The pass that used a buffer on the device has ended.
    used: Vec<CudaEvent>,
    next: usize,
}

impl Staging {
    /// Buffers of `values` values.
    fn new(gpu: &Gpu, values: usize) -> Result<Self> {
        let events = || (0..STAGING_BUFFERS).map(|_| gpu.event()).collect::<Result<Vec<_>>>();
        Ok(Self {
            images: (0..STAGING_BUFFERS).map(|_| Pinned::zeros(gpu, values)).collect::<Result<_>>()?,
            arrived: events()?,
            used: events()?,
            next: 0,
        })
    }

    /// The buffer that was used last.
    fn last(&self) -> usize {
        (self.next + STAGING_BUFFERS - 1) % STAGING_BUFFERS
    }
}

impl PassQueue {
    /// An empty queue; initialises the pipeline's ring.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &Gpu, pipeline: &Pipeline) -> Result<Self> {
        let pitch = pass_bytes(pipeline.plan.images);
        let events = || (0..PASSES).map(|_| gpu.event()).collect::<Result<Vec<_>>>();
        let queue = Self {
            records: Pinned::zeros(gpu, PASSES * pitch)?,
            sent: events()?,
            done: events()?,
            passes: 0,
            staging: None,
        };
        // The ring starts with this record.
        gpu.upload(&pipeline.buffers.ring, &[RingRecord { pitch: pitch as u32, ..RingRecord::default() }])?;
        Ok(queue)
    }

    /// Sends a pass over `images`. The caller then enqueues [`PassQueue::prepare`], the stages of the pass, and
    /// [`PassQueue::passed`].
    ///
    /// # Errors
    /// When the device or the group fails.
    pub fn send(
        &mut self,
        gpu: &Gpu,
        pipeline: &mut Pipeline,
        pass: PassRecord,
        images: &[Observation],
        group: &mut dyn Reduce,
    ) -> Result<()> {
        let slot = self.passes % PASSES;
        wait(gpu, &self.done[slot], group)?;
        let staged = match images.first().map(|image| image.target) {
            None | Some(Target::Resident(_)) => None,
            Some(Target::Prepared(_) | Target::Observed(_)) => {
                Some(self.send_images(gpu, pipeline, images, group)?)
            }
        };
        let first = staged.map_or(0, |buffer| buffer * pipeline.plan.staging_pitch());
        let groups = pipeline.noise_groups();
        assert!(images.iter().all(|image| image.noise_group < groups), "a noise group has no weights");
        let records: Vec<ImageRecord> = images
            .iter()
            .enumerate()
            .map(|(k, image)| {
                let place = match image.target {
                    Target::Resident(place) => place as i64,
                    Target::Prepared(_) | Target::Observed(_) => {
                        -1 - (first + k * pipeline.plan.pixels()) as i64
                    }
                };
                ImageRecord::new(image, place)
            })
            .collect();
        let pitch = pass_bytes(pipeline.plan.images);
        let range = slot * pitch..slot * pitch + pass_bytes(images.len());
        let ring = pipeline.buffers.ring.address() + (size_of::<RingRecord>() + slot * pitch) as u64;
        // SAFETY: the pass that used this slot has ended, as was waited for above, so that nothing reads it on either side.
        unsafe {
            write_pass(&pass, &records, self.records.write(range.clone()));
            self.records.copy_to(gpu, &gpu.copies, range, ring)?;
        }
        // After the images of the pass on the same stream: this event covers both.
        gpu.record(&self.sent[slot], &gpu.copies)?;
        gpu.order(&gpu.stream, &self.sent[slot])
    }

    /// Enqueues the preparation of the images that were sent last, if they are observed ones.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn prepare(&self, gpu: &Gpu, pipeline: &Pipeline, images: &[Observation]) -> Result<()> {
        match images.first().map(|image| image.target) {
            // SAFETY: a staging buffer has room for as many images as the plan has.
            Some(Target::Observed(_)) => unsafe { pipeline.enqueue_prepare(gpu, self.last_staged(pipeline)) },
            None | Some(Target::Prepared(_) | Target::Resident(_)) => Ok(()),
        }
    }

    /// Copies images into the next staging buffer, and that to the device; returns the buffer's number.
    fn send_images(
        &mut self,
        gpu: &Gpu,
        pipeline: &mut Pipeline,
        images: &[Observation],
        group: &mut dyn Reduce,
    ) -> Result<usize> {
        let pixels = pipeline.plan.pixels();
        pipeline.allocate_staging(gpu)?;
        if self.staging.is_none() {
            self.staging = Some(Staging::new(gpu, pipeline.plan.images * pixels)?);
        }
        let staging = self.staging.as_mut().expect("just allocated");
        let buffer = staging.next;
        staging.next = (buffer + 1) % STAGING_BUFFERS;
        wait(gpu, &staging.arrived[buffer], group)?;
        // SAFETY: the last copy from this buffer has ended, as was just waited for.
        let host = unsafe { staging.images[buffer].write(0..images.len() * pixels) };
        host.par_chunks_exact_mut(pixels).zip(images).for_each(|(to, image)| match image.target {
            Target::Prepared(values) | Target::Observed(values) => to.copy_from_slice(values),
            Target::Resident(_) => unreachable!("all images of a step have targets of one kind"),
        });
        gpu.order(&gpu.copies, &staging.used[buffer])?;
        // SAFETY: the device's buffer is as large; the host's is written again only after `arrived`.
        unsafe {
            let to = staging_address(pipeline, buffer);
            staging.images[buffer].copy_to(gpu, &gpu.copies, 0..images.len() * pixels, to)?;
        }
        gpu.record(&staging.arrived[buffer], &gpu.copies)?;
        Ok(buffer)
    }

    /// Device address of the staging buffer that was sent last.
    ///
    /// # Panics
    /// If none was sent.
    pub fn last_staged(&self, pipeline: &Pipeline) -> Address {
        staging_address(pipeline, self.staging.as_ref().expect("images were sent").last())
    }

    /// Records the end of the pass that was sent last in the stream of steps.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn passed(&mut self, gpu: &Gpu) -> Result<()> {
        self.record_end(gpu)?;
        self.passes += 1;
        Ok(())
    }

    /// Records the end of the last pass again, after later work that reads its record.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn extend_last(&mut self, gpu: &Gpu) -> Result<()> {
        let last = (self.passes + PASSES - 1) % PASSES;
        gpu.record(&self.done[last], &gpu.stream)
    }

    /// Ends a pass that was prepared and not projected: the device's ring does not advance, and the next pass takes its place.
    /// Waits for the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn dropped(&mut self, gpu: &Gpu) -> Result<()> {
        self.record_end(gpu)?;
        gpu.stream.synchronize().map_err(gpu.failed("prepare particles"))
    }

    fn record_end(&self, gpu: &Gpu) -> Result<()> {
        gpu.record(&self.done[self.passes % PASSES], &gpu.stream)?;
        match &self.staging {
            // The buffer of this pass, or one that was used earlier.
            Some(staging) => gpu.record(&staging.used[staging.last()], &gpu.stream),
            None => Ok(()),
        }
    }
}

/// Device address of a staging buffer.
fn staging_address(pipeline: &Pipeline, buffer: usize) -> Address {
    let staged = pipeline.buffers.staged.as_ref().expect("allocated with the host's buffers").address();
    staged + (buffer * pipeline.plan.staging_pitch() * size_of::<f32>()) as u64
}
