//! What the host sends ahead of each pass: its record, and the particles that are not kept on the device.

use cudarc::driver::CudaEvent;
use rayon::prelude::*;

use super::card::Card;
use super::host::{Pinned, wait};
use super::pipeline::Pipeline;
use super::plan::STAGES;
use super::records::{ImageRecord, PassRecord, pass_bytes, write_pass};
use crate::error::Result;
use crate::render::{Observation, Reduce, Target};

/// Passes that the host may be ahead of the device.
const AHEAD: usize = 32;

/// Buffers of the host that copies take from, each with the event after which it can be written again.
pub struct Feed {
    records: Pinned<u8>,
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
}

/// An event without a time.
pub fn event(card: &Card) -> Result<CudaEvent> {
    card.context.new_event(None).map_err(card.failed("make an event"))
}

impl Feed {
    /// For passes of `images` images at most.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(card: &Card, images: usize) -> Result<Self> {
        Ok(Self {
            records: Pinned::zeros(card, AHEAD * pass_bytes(images))?,
            done: (0..AHEAD).map(|_| event(card)).collect::<Result<_>>()?,
            passes: 0,
            stages: None,
        })
    }

    /// Sends a pass over `images`, and enqueues what must come before its stages. [`Feed::passed`] must follow them.
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
        let slot = self.passes % AHEAD;
        wait(card, &self.done[slot], group)?;
        let stage = match images.first().map(|seen| seen.target) {
            None | Some(Target::Kept(_)) => None,
            Some(Target::Prepared(_) | Target::Observed(_)) => {
                Some(self.stage(card, pipeline, images, group)?)
            }
        };
        let first = stage.map_or(0, |stage| stage * pipeline.plan.images);
        let records: Vec<ImageRecord> = images
            .iter()
            .enumerate()
            .map(|(k, seen)| {
                let place = match seen.target {
                    Target::Kept(place) => place as i64,
                    Target::Prepared(_) | Target::Observed(_) => -1 - (first + k) as i64,
                };
                ImageRecord::new(&seen.view.rotation, &seen.view.ctf, seen.energy, place)
            })
            .collect();
        let length = pass_bytes(pipeline.plan.images);
        let range = slot * length..slot * length + pass_bytes(images.len());
        write_pass(&pass, &records, &mut self.records.as_mut_slice(card)?[range.clone()]);
        // SAFETY: the device's record has this length; the slot is written again only after its event.
        unsafe { self.records.copy_to(card, &card.stream, range, pipeline.buffers.pass.address())? };
        if let Some(stage) = stage {
            let stages = self.stages.as_ref().expect("it was just used");
            card.stream.wait(&stages.arrived[stage]).map_err(card.failed("order its streams"))?;
            if matches!(images[0].target, Target::Observed(_)) {
                let staged = pipeline.buffers.staged.as_ref().expect("made with the stages").address();
                let offset = stage * pipeline.plan.images * pipeline.plan.pixels() * 4;
                // SAFETY: a stage is memory for as many images as the plan has.
                unsafe { pipeline.enqueue_prepare(card, staged + offset as u64)? };
            }
        }
        Ok(())
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
        let host = stages.images[stage].as_mut_slice(card)?;
        host.par_chunks_exact_mut(pixels).zip(images).for_each(|(to, seen)| match seen.target {
            Target::Prepared(image) | Target::Observed(image) => to.copy_from_slice(image),
            Target::Kept(_) => unreachable!("all images of a step are of one kind"),
        });
        card.copies.wait(&stages.used[stage]).map_err(card.failed("order its streams"))?;
        let staged = pipeline.buffers.staged.as_ref().expect("made above").address();
        // SAFETY: a stage is memory for `size` values; the host's is written again only after `arrived`.
        unsafe {
            let to = staged + (stage * size * 4) as u64;
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
        let stages = self.stages.as_ref().expect("images were sent");
        let last = (stages.next + STAGES - 1) % STAGES;
        let staged = pipeline.buffers.staged.as_ref().expect("made with the stages").address();
        staged + (last * pipeline.plan.images * pipeline.plan.pixels() * 4) as u64
    }

    /// Marks the end of the pass that was sent last, in the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn passed(&mut self, card: &Card) -> Result<()> {
        self.done[self.passes % AHEAD].record(&card.stream).map_err(card.failed("order its streams"))?;
        self.passes += 1;
        if let Some(stages) = &self.stages {
            // The stage of this pass, or one that was used before it.
            let last = (stages.next + STAGES - 1) % STAGES;
            stages.used[last].record(&card.stream).map_err(card.failed("order its streams"))?;
        }
        Ok(())
    }
}
