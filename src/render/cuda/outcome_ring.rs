//! Outcomes of steps on their way from the device to the host: a ring on each side, copied every few steps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cudarc::driver::CudaEvent;

use super::buffer_plan::OUTCOMES;
use super::gpu::Gpu;
use super::interface::{Address, OutcomeRecord};
use super::pinned::Pinned;
use super::pipeline::Pipeline;
use crate::error::Result;
use crate::render::Outcome;
use crate::render::outcome::OutcomeQueue;

/// Steps whose outcomes are copied together.
const STEPS_PER_COPY: u64 = 32;
/// Longest time between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(1);

/// The outcomes of a device's steps.
pub(super) struct OutcomeRing {
    /// Steps that are enqueued.
    steps: u64,
    /// Images of each step whose outcome has not arrived.
    images: VecDeque<u64>,
    host: Pinned<OutcomeRecord>,
    /// Address of the device's ring.
    device: Address,
    copies: VecDeque<PendingCopy>,
    /// Steps whose outcomes are copied, or on their way.
    copied: u64,
    last_copy: Instant,
    arrived: OutcomeQueue,
}

/// A copy of the outcomes of steps `from..to`.
struct PendingCopy {
    ended: CudaEvent,
    from: u64,
    to: u64,
}

impl OutcomeRing {
    /// For the steps of a pipeline.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &Gpu, pipeline: &Pipeline) -> Result<Self> {
        Ok(Self {
            steps: 0,
            images: VecDeque::new(),
            host: Pinned::zeros(gpu, OUTCOMES)?,
            device: pipeline.buffers.outcomes.address(),
            copies: VecDeque::new(),
            copied: 0,
            last_copy: Instant::now(),
            arrived: OutcomeQueue::default(),
        })
    }

    /// Place in the ring of the next step.
    pub fn place(&self) -> u32 {
        (self.steps % OUTCOMES as u64) as u32
    }

    /// Counts an enqueued step over `images` images of all ranks, and collects what has arrived of earlier ones.
    ///
    /// # Errors
    /// When the device fails.
    pub fn stepped(&mut self, gpu: &Gpu, images: u64) -> Result<()> {
        self.steps += 1;
        self.images.push_back(images);
        if self.steps.is_multiple_of(STEPS_PER_COPY) || self.last_copy.elapsed() > COPY_INTERVAL {
            self.enqueue_copies(gpu)?;
        }
        self.collect(gpu)
    }

    /// Enqueues copies of the outcomes since the last copy.
    ///
    /// # Errors
    /// When the device fails.
    pub fn enqueue_copies(&mut self, gpu: &Gpu) -> Result<()> {
        self.last_copy = Instant::now();
        while self.copied < self.steps {
            // A copy does not wrap around the end of the ring.
            let start = self.copied as usize % OUTCOMES;
            let count = (OUTCOMES - start).min((self.steps - self.copied) as usize);
            let address = self.device + (start * size_of::<OutcomeRecord>()) as u64;
            // SAFETY: both rings have these places. The device is at most 32 passes behind, so the host has read the old values.
            unsafe { self.host.copy_from(gpu, &gpu.stream, start..start + count, address)? };
            let ended = gpu.event()?;
            gpu.record(&ended, &gpu.stream)?;
            let to = self.copied + count as u64;
            self.copies.push_back(PendingCopy { ended, from: self.copied, to });
            self.copied = to;
        }
        Ok(())
    }

    /// Collects the outcomes of all copies that have ended.
    ///
    /// # Errors
    /// When the device fails.
    pub fn collect(&mut self, gpu: &Gpu) -> Result<()> {
        while let Some(PendingCopy { ended, from, to }) = self.copies.front() {
            if !ended.try_is_complete().map_err(gpu.failed("compute"))? {
                break;
            }
            let start = *from as usize % OUTCOMES;
            // SAFETY: the copy into this range has ended.
            let records = unsafe { self.host.read(start..start + (to - from) as usize) };
            for record in records {
                let images = self.images.pop_front().expect("every step has its number of images") as f64;
                self.arrived.push(Outcome {
                    loss: f64::from(record.loss) / images,
                    gradient_norm: record.norm / images,
                });
            }
            self.copies.pop_front();
        }
        Ok(())
    }

    /// Takes the outcomes that have arrived since the last call, up to a step that is not finite.
    pub fn take(&mut self) -> Vec<Outcome> {
        self.arrived.take()
    }
}
