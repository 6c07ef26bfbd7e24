//! Times of the stages of steps, from events on every 64th step.

use std::time::Duration;

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use super::gpu::Gpu;
use crate::error::Result;
use crate::render::StageTimes;

/// Steps between two timed ones: more than the host can be ahead of the device, so that the events of one are done before the
/// next.
const EVERY: u64 = 64;
/// The first timed step: earlier ones wait for other ranks and for libraries to load.
const FIRST: u64 = 8;

/// A point of a step at which an event is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// Before the passes.
    Start,
    /// Before the sum over the ranks.
    Computed,
    /// Before the optimiser.
    Reduced,
    /// After the optimiser.
    End,
}

/// Times the steps of a device.
pub(super) struct StageTimer {
    /// One event per [`Mark`].
    events: [CudaEvent; 4],
    /// The events of a step are recorded and not yet read.
    pending: bool,
    /// Steps so far.
    steps: u64,
    /// Steps at the last call of [`StageTimer::take`].
    taken: u64,
    /// Sums over the steps timed since then, in seconds, and their number.
    measured: [f64; 3],
    samples: u32,
    /// Mean seconds per step at the last call.
    mean: Option<[f64; 3]>,
}

impl StageTimer {
    /// A timer before the first step.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let event = || {
            gpu.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(gpu.failed("make an event"))
        };
        Ok(Self {
            events: [event()?, event()?, event()?, event()?],
            pending: false,
            steps: 0,
            taken: 0,
            measured: [0.0; 3],
            samples: 0,
            mean: None,
        })
    }

    /// Counts a step; true if it is timed. Then every [`Mark`] must be recorded.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin(&mut self, gpu: &Gpu) -> Result<bool> {
        self.collect(gpu)?;
        let timed = self.steps % EVERY == FIRST && !self.pending;
        self.pending |= timed;
        self.steps += 1;
        Ok(timed)
    }

    /// Records the event of a mark in the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn mark(&self, gpu: &Gpu, mark: Mark) -> Result<()> {
        self.events[mark as usize].record(&gpu.stream).map_err(gpu.failed("time a step"))
    }

    /// Reads the events of the pending step, if it has ended.
    fn collect(&mut self, gpu: &Gpu) -> Result<()> {
        let [start, computed, reduced, end] = &self.events;
        if !self.pending || !end.try_is_complete().map_err(gpu.failed("compute"))? {
            return Ok(());
        }
        let between = [(start, computed), (computed, reduced), (reduced, end)];
        for (sum, (from, to)) in self.measured.iter_mut().zip(between) {
            let milliseconds = from.elapsed_ms(to).map_err(gpu.failed("time a step"))?;
            *sum += f64::from(milliseconds) / 1e3;
        }
        self.samples += 1;
        self.pending = false;
        Ok(())
    }

    /// Estimated times of the steps since the last call, from the mean of the timed ones among them, or of earlier ones if there
    /// are none; `None` before the first timed step.
    pub fn take(&mut self, gpu: &Gpu) -> Option<StageTimes> {
        // A failure recurs in the next step, which reports it.
        let _ = self.collect(gpu);
        if self.samples > 0 {
            self.mean = Some(self.measured.map(|sum| sum / f64::from(self.samples)));
        }
        let steps = (self.steps - self.taken) as f64;
        (self.taken, self.measured, self.samples) = (self.steps, [0.0; 3], 0);
        let [compute, reduce, update] = self.mean?.map(|seconds| Duration::from_secs_f64(seconds * steps));
        Some(StageTimes { compute, reduce, update })
    }
}
