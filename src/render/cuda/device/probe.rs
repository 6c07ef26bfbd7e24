//! Renderings and stage times, without steps: for tests, benches and pictures.

use cudarc::driver::result;
use cudarc::driver::sys::CUevent_flags;

use super::super::interface::PassRecord;
use super::super::pipeline::Stage;
use super::CudaDevice;
use crate::error::Result;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::cpu::residual::Filter;
use crate::render::{Alone, Observation, Target, View};

/// Passes enqueued before the one that is timed stage by stage, so that the host is ahead and its own time is not measured.
const PASSES_AHEAD: usize = 8;

impl CudaDevice {
    /// Renders one view without a CTF, `[y][x]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn render(&mut self, view: &Rotation) -> Result<Vec<f32>> {
        let view = View::new(*view, Ctf::identity());
        let observation = Observation::new(view, Target::Resident(0), 0.0);
        let pass = PassRecord { images: 1, first: 1, ..PassRecord::default() };
        self.queue.send(&self.gpu, &mut self.pipeline, pass, &[observation], &mut Alone)?;
        self.enqueue(&[Stage::Project, Stage::Draw])?;
        self.queue.passed(&self.gpu)?;
        let mut projection = vec![0.0f32; self.pipeline.plan.points()];
        let address = self.pipeline.buffers.projections.address();
        // SAFETY: the first projection has that length; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut projection, address, self.gpu.stream.cu_stream()) }
            .map_err(self.gpu.failed("copy from the device"))?;
        self.gpu.stream.synchronize().map_err(self.gpu.failed("render"))?;
        let geometry = &self.pipeline.geometry;
        let mut image = vec![0.0; geometry.box_size.pow(2)];
        Filter::new(geometry).image(&Ctf::identity(), &projection, geometry.grid(), &mut image);
        Ok(image)
    }

    /// Milliseconds of each stage of one pass over `batch`, by the device's clock, with an optimiser step of rate 0.
    ///
    /// # Errors
    /// When the device fails.
    pub fn stage_times(&mut self, batch: &[Observation]) -> Result<Vec<(&'static str, f32)>> {
        let timed_event = || {
            self.gpu
                .context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(self.gpu.failed("make an event"))
        };
        let images = &batch[..batch.len().min(self.pipeline.plan.images)];
        let stages: Vec<Stage> = Stage::PASS.into_iter().chain(Stage::UPDATE).collect();
        let events = (0..=stages.len()).map(|_| timed_event()).collect::<Result<Vec<_>>>()?;
        let pass = PassRecord {
            images: images.len() as u32,
            first: 1,
            last: 1,
            epsilon: 1.0,
            ..PassRecord::default()
        };
        for k in 0..=PASSES_AHEAD {
            self.queue.send(&self.gpu, &mut self.pipeline, pass, images, &mut Alone)?;
            let record = |event: usize| match k {
                PASSES_AHEAD => {
                    events[event].record(&self.gpu.stream).map_err(self.gpu.failed("time a stage"))
                }
                _ => Ok(()),
            };
            record(0)?;
            self.queue.prepare(&self.gpu, &self.pipeline, images)?;
            for (stage, after) in stages.iter().zip(1..) {
                self.pipeline.enqueue(&self.gpu, *stage)?;
                record(after)?;
            }
            self.queue.passed(&self.gpu)?;
        }
        stages
            .iter()
            .enumerate()
            .map(|(k, stage)| {
                let time = events[k].elapsed_ms(&events[k + 1]).map_err(self.gpu.failed("time a stage"))?;
                Ok((stage.name(), time))
            })
            .collect()
    }
}
