//! How long the stages of steps take, by the device's own clock: measured of every 64th step, for all of them.

use std::time::Duration;

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use super::card::Card;
use crate::error::Result;
use crate::render::StageTimes;

/// Steps from one that is timed to the next: more than the host can be ahead, so that the marks of one have been passed
/// before the next.
const EVERY: u64 = 64;
/// The first that is timed: the very first ones wait for ranks and libraries that are not ready.
const FIRST: u64 = 8;

/// Places in a step.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// Before its passes.
    Start,
    /// Before the sum over the ranks.
    Computed,
    /// Before the optimiser.
    Reduced,
    /// Behind it.
    End,
}

/// The clock of a device's steps.
pub struct Timing {
    /// By [`Mark`].
    marks: [CudaEvent; 4],
    /// A step was marked and not yet measured.
    under_way: bool,
    /// Steps taken.
    steps: u64,
    /// Of them, those since it was last asked.
    asked: u64,
    /// The steps measured since then: seconds by stage, and how many.
    measured: [f64; 3],
    samples: u32,
    /// The mean step by stage, as known when it was last asked.
    mean: Option<[f64; 3]>,
}

impl Timing {
    /// At rest.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(card: &Card) -> Result<Self> {
        let event = || {
            card.context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(card.failed("make an event"))
        };
        Ok(Self {
            marks: [event()?, event()?, event()?, event()?],
            under_way: false,
            steps: 0,
            asked: 0,
            measured: [0.0; 3],
            samples: 0,
            mean: None,
        })
    }

    /// Counts a step; is it one to mark? All marks follow where it is.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin(&mut self, card: &Card) -> Result<bool> {
        self.collect(card)?;
        let timed = self.steps % EVERY == FIRST && !self.under_way;
        self.under_way |= timed;
        self.steps += 1;
        Ok(timed)
    }

    /// Puts a mark into the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn mark(&self, card: &Card, mark: Mark) -> Result<()> {
        self.marks[mark as usize].record(&card.stream).map_err(card.failed("time a step"))
    }

    /// Measures the step under way if it has ended.
    fn collect(&mut self, card: &Card) -> Result<()> {
        let [start, computed, reduced, end] = &self.marks;
        if !self.under_way || !end.try_is_complete().map_err(card.failed("compute"))? {
            return Ok(());
        }
        let between = [(start, computed), (computed, reduced), (reduced, end)];
        for (sum, (from, to)) in self.measured.iter_mut().zip(between) {
            let milliseconds = from.elapsed_ms(to).map_err(card.failed("time a step"))?;
            *sum += f64::from(milliseconds) / 1e3;
        }
        self.samples += 1;
        self.under_way = false;
        Ok(())
    }

    /// The steps since the last call, as long as those measured among them, or before them if none was; `None` before the
    /// first measurement.
    pub fn take(&mut self, card: &Card) -> Option<StageTimes> {
        // What fails here fails in the next step too, and is told there.
        let _ = self.collect(card);
        if self.samples > 0 {
            self.mean = Some(self.measured.map(|sum| sum / f64::from(self.samples)));
        }
        let steps = (self.steps - self.asked) as f64;
        (self.asked, self.measured, self.samples) = (self.steps, [0.0; 3], 0);
        let [compute, reduce, update] = self.mean?.map(|seconds| Duration::from_secs_f64(seconds * steps));
        Some(StageTimes { compute, reduce, update })
    }
}
