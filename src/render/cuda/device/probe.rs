//! What tests, benches and pictures ask of the GPU, besides steps.

use cudarc::driver::result;
use cudarc::driver::sys::CUevent_flags;

use super::super::pipeline::Stage;
use super::super::records::PassRecord;
use super::CudaDevice;
use crate::error::Result;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::cpu::residual::Filter;
use crate::render::{Alone, Observation, Target, View};

/// Passes that are under way when one is timed stage by stage: the host must be ahead, or its own time would be measured.
const PASSES_AHEAD: usize = 8;

impl CudaDevice {
    /// Renders one view without a CTF, `[y][x]`: for tests, benches and pictures.
    ///
    /// # Errors
    /// When the device fails.
    pub fn render(&mut self, view: &Rotation) -> Result<Vec<f32>> {
        let seen = Observation {
            view: View { rotation: *view, ctf: Ctf::identity() },
            target: Target::Kept(0),
            energy: 0.0,
        };
        let pass = PassRecord { images: 1, first: 1, ..PassRecord::default() };
        self.feed.send(&self.card, &mut self.pipeline, pass, &[seen], &mut Alone)?;
        self.enqueue(&[Stage::Project, Stage::Draw], None)?;
        self.feed.passed(&self.card)?;
        let mut image = vec![0.0f32; self.pipeline.plan.points()];
        let address = self.pipeline.buffers.projections.address();
        // SAFETY: the first projection has that length; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut image, address, self.card.stream.cu_stream()) }
            .map_err(self.card.failed("copy from the device"))?;
        self.card.stream.synchronize().map_err(self.card.failed("render"))?;
        let geometry = &self.pipeline.geometry;
        let mut seen = vec![0.0; geometry.box_size.pow(2)];
        Filter::new(geometry).image(&Ctf::identity(), &image, geometry.grid(), &mut seen);
        Ok(seen)
    }

    /// Milliseconds of each stage over `batch` (one pass of it) by the device's own clock, the optimiser included, with a
    /// rate of zero: for benches.
    ///
    /// # Errors
    /// When the device fails.
    pub fn stage_times(&mut self, batch: &[Observation]) -> Result<Vec<(&'static str, f32)>> {
        let timed = || {
            self.card
                .context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(self.card.failed("make an event"))
        };
        let images = &batch[..batch.len().min(self.pipeline.plan.images)];
        let stages: Vec<Stage> = Stage::PASS.into_iter().chain(Stage::UPDATE).collect();
        let events = (0..=stages.len()).map(|_| timed()).collect::<Result<Vec<_>>>()?;
        let pass = PassRecord {
            images: images.len() as u32,
            first: 1,
            last: 1,
            epsilon: 1.0,
            ..PassRecord::default()
        };
        for k in 0..=PASSES_AHEAD {
            self.feed.send(&self.card, &mut self.pipeline, pass, images, &mut Alone)?;
            let record = |event: usize| match k {
                PASSES_AHEAD => {
                    events[event].record(&self.card.stream).map_err(self.card.failed("time a stage"))
                }
                _ => Ok(()),
            };
            record(0)?;
            self.feed.prepare(&self.card, &self.pipeline, images)?;
            for (stage, after) in stages.iter().zip(1..) {
                self.pipeline.enqueue(&self.card, *stage)?;
                record(after)?;
            }
            self.feed.passed(&self.card)?;
        }
        stages
            .iter()
            .enumerate()
            .map(|(k, stage)| {
                let time = events[k].elapsed_ms(&events[k + 1]).map_err(self.card.failed("time a stage"))?;
                Ok((stage.name(), time))
            })
            .collect()
    }
}
