//! What the host sends ahead of each pass: its record, and the particles that are not kept on the device.

use cudarc::driver::{CudaEvent, result};
use rayon::prelude::*;

use super::card::Card;
use super::host::{Pinned, wait};
use super::pipeline::Pipeline;
use super::plan::{PASSES, STAGES};
use super::records::{ImageRecord, PassRecord, RingRecord, pass_bytes, write_pass};
use crate::error::Result;
use crate::render::{Observation, Reduce, Target};

/// Buffers of the host that copies take from, each with the event after which it can be written again.
pub struct Feed {
    records: Pinned<u8>,
    /// The copy of a record to the device has ended.
    sent: Vec<CudaEvent>,
    /// The pass of a record has ended.
    done: Vec<CudaEvent>,
    passes: usize,
    stages: Option<Stages>,
}

/// Particles on their way.
struct Stages {
    images: Vec<Pinned<f32>>,
    /// The copy of a stage to the device has ended.
    arrived: Vec<CudaEvent>,
    /// The pass that used it on the device has ended.
    used: Vec<CudaEvent>,
    next: usize,
}

impl Stages {
    fn new(card: &Card, pixels: usize) -> Result<Self> {
        let events = || (0..STAGES).map(|_| event(card)).collect::<Result<Vec<_>>>();
        Ok(Self {
            images: (0..STAGES).map(|_| Pinned::zeros(card, pixels)).collect::<Result<_>>()?,
            arrived: events()?,
            used: events()?,
            next: 0,
        })
    }

    /// The stage that was used last.
    fn last(&self) -> usize {
        (self.next + STAGES - 1) % STAGES
    }
}

/// An event without a time.
pub fn event(card: &Card) -> Result<CudaEvent> {
    card.context.new_event(None).map_err(card.failed("make an event"))
}

impl Feed {
    /// For the passes of a pipeline, whose ring it starts.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(card: &Card, pipeline: &Pipeline) -> Result<Self> {
        let pitch = pass_bytes(pipeline.plan.images);
        let events = || (0..PASSES).map(|_| event(card)).collect::<Result<Vec<_>>>();
        let feed = Self {
            records: Pinned::zeros(card, PASSES * pitch)?,
            sent: events()?,
            done: events()?,
            passes: 0,
            stages: None,
        };
        let ring = [RingRecord { pitch: pitch as u32, ..RingRecord::default() }];
        // SAFETY: the ring starts with this record; the copy is waited for.
        unsafe { result::memcpy_htod_async(pipeline.buffers.ring.address(), &ring, card.stream.cu_stream()) }
            .map_err(card.failed("copy to the device"))?;
        card.stream.synchronize().map_err(card.failed("copy to the device"))?;
        Ok(feed)
    }

    /// Sends a pass over `images`. [`Feed::prepare`] and the stages of the pass come after it, and then [`Feed::passed`].
    ///
    /// # Errors
    /// When the device or the group fails.
    pub fn send(
        &mut self,
        card: &Card,
        pipeline: &mut Pipeline,
        pass: PassRecord,
        images: &[Observation],
        group: &mut dyn Reduce,
    ) -> Result<()> {
        let slot = self.passes % PASSES;
        wait(card, &self.done[slot], group)?;
        let stage = match images.first().map(|seen| seen.target) {
            None | Some(Target::Kept(_)) => None,
            Some(Target::Prepared(_) | Target::Observed(_)) => {
                Some(self.stage(card, pipeline, images, group)?)
            }
        };
        let first = stage.map_or(0, |stage| stage * pipeline.plan.stage_pitch());
        let records: Vec<ImageRecord> = images
            .iter()
            .enumerate()
            .map(|(k, seen)| {
                let place = match seen.target {
                    Target::Kept(place) => place as i64,
                    Target::Prepared(_) | Target::Observed(_) => {
                        -1 - (first + k * pipeline.plan.pixels()) as i64
                    }
                };
                ImageRecord::new(&seen.view.rotation, &seen.view.ctf, seen.energy, place)
            })
            .collect();
        let pitch = pass_bytes(pipeline.plan.images);
        let range = slot * pitch..slot * pitch + pass_bytes(images.len());
        let ring = pipeline.buffers.ring.address() + (size_of::<RingRecord>() + slot * pitch) as u64;
        // SAFETY: the pass that used this slot has ended, here and on the device, as was waited for above.
        unsafe {
            write_pass(&pass, &records, self.records.write(range.clone()));
            self.records.copy_to(card, &card.copies, range, ring)?;
        }
        // Behind the images of the pass on the same stream: this event is for both.
        self.sent[slot].record(&card.copies).map_err(card.failed("order its streams"))?;
        card.stream.wait(&self.sent[slot]).map_err(card.failed("order its streams"))
    }

    /// Prepares the images that were sent last, where they are observed ones.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn prepare(&self, card: &Card, pipeline: &Pipeline, images: &[Observation]) -> Result<()> {
        match images.first().map(|seen| seen.target) {
            // SAFETY: a stage is memory for as many images as the plan has.
            Some(Target::Observed(_)) => unsafe { pipeline.enqueue_prepare(card, self.last_stage(pipeline)) },
            None | Some(Target::Prepared(_) | Target::Kept(_)) => Ok(()),
        }
    }

    /// Copies images into the next stage, and that to the device; which stage it was.
    fn stage(
        &mut self,
        card: &Card,
        pipeline: &mut Pipeline,
        images: &[Observation],
        group: &mut dyn Reduce,
    ) -> Result<usize> {
        let pixels = pipeline.plan.pixels();
        let size = pipeline.plan.images * pixels;
        pipeline.make_stages(card)?;
        if self.stages.is_none() {
            self.stages = Some(Stages::new(card, size)?);
        }
        let stages = self.stages.as_mut().expect("just made");
        let stage = stages.next;
        stages.next = (stage + 1) % STAGES;
        wait(card, &stages.arrived[stage], group)?;
        // SAFETY: the copy from it has ended, as was just waited for.
        let host = unsafe { stages.images[stage].write(0..images.len() * pixels) };
        host.par_chunks_exact_mut(pixels).zip(images).for_each(|(to, seen)| match seen.target {
            Target::Prepared(image) | Target::Observed(image) => to.copy_from_slice(image),
            Target::Kept(_) => unreachable!("all images of a step are of one kind"),
        });
        card.copies.wait(&stages.used[stage]).map_err(card.failed("order its streams"))?;
        // SAFETY: a stage is memory for `size` values; the host's is written again only after `arrived`.
        unsafe {
            let to = stage_address(pipeline, stage);
            stages.images[stage].copy_to(card, &card.copies, 0..images.len() * pixels, to)?;
        }
        stages.arrived[stage].record(&card.copies).map_err(card.failed("order its streams"))?;
        Ok(stage)
    }

    /// The device address of the stage that was sent last.
    ///
    /// # Panics
    /// If none was.
    pub fn last_stage(&self, pipeline: &Pipeline) -> u64 {
        stage_address(pipeline, self.stages.as_ref().expect("images were sent").last())
    }

    /// Marks the end of the pass that was sent last, in the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn passed(&mut self, card: &Card) -> Result<()> {
        self.mark(card)?;
        self.passes += 1;
        Ok(())
    }

    /// Marks the end of the pass that was passed last once more: something that reads its record came after.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn read_on(&mut self, card: &Card) -> Result<()> {
        let last = (self.passes + PASSES - 1) % PASSES;
        self.done[last].record(&card.stream).map_err(card.failed("order its streams"))
    }

    /// As [`Feed::passed`], for a pass that was prepared and never projected: the kernels stand where they stood, and the
    /// next pass takes its place. Waits until that can be.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn dropped(&mut self, card: &Card) -> Result<()> {
        self.mark(card)?;
        card.stream.synchronize().map_err(card.failed("prepare particles"))
    }

    fn mark(&self, card: &Card) -> Result<()> {
        let fail = || card.failed("order its streams");
        self.done[self.passes % PASSES].record(&card.stream).map_err(fail())?;
        if let Some(stages) = &self.stages {
            // The stage of this pass, or one that was used before it.
            stages.used[stages.last()].record(&card.stream).map_err(fail())?;
        }
        Ok(())
    }
}

/// Where a stage starts on the device.
fn stage_address(pipeline: &Pipeline, stage: usize) -> u64 {
    let staged = pipeline.buffers.staged.as_ref().expect("made with the stages").address();
    staged + (stage * pipeline.plan.stage_pitch() * 4) as u64
}
