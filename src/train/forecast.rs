//! The estimate of a run that has begun, from its own first steps.

use std::time::{Duration, Instant};

use super::estimate::{self, Bytes, Seconds, size, weighted_epochs};
use super::plan::Plan;
use crate::progress::duration;

/// Steps that are not timed, and that are timed at least.
const WARM_UP: u64 = 2;
const TIMED: u64 = 4;
/// The least time that is timed, where it is this share of the images; otherwise it ends at the longest time or the largest share.
const SHORT: Duration = Duration::from_millis(1500);
const SHARE: f64 = 0.02;
const LONGEST: Duration = Duration::from_secs(6);
const LARGEST_SHARE: f64 = 0.2;

/// The estimate of a run that has begun, from its first steps. Only rank 0 reports it.
pub(super) struct Forecast {
    /// Images left to this rank's models at the start, each counted by the Gaussians of its epoch.
    images: f64,
    /// The parts before the training as measured, and those after it.
    around: Seconds,
    /// Time of all refinement over that of training, and the number of rounds.
    refining: f64,
    rounds: usize,
    /// The times of rounds before the estimate.
    rounds_done: Vec<f64>,
    /// Memory and disk, for the log.
    bytes: Bytes,
    steps: u64,
    seen: u64,
    /// When the steps after the warm-up began, and the images before.
    from: Option<(Instant, u64)>,
    /// Time since then that was spent on rounds, and on what does not recur.
    pauses: Duration,
    /// Time spent on what does not recur.
    once: Duration,
    estimate: Option<Seconds>,
    done: bool,
}

impl Forecast {
    /// For the models `mine` of `plan` on this rank. `around`: seconds of the parts before and after the training; `None` on ranks that
    /// report nothing.
    pub fn new((plan, mine): (&Plan, &[usize]), around: Option<Seconds>, bytes: Bytes) -> Self {
        let images = mine.iter().map(|&index| {
            let model = &plan.models[index];
            let epochs = weighted_epochs(&model.settings, plan.first_epoch..model.settings.epochs);
            epochs * model.subset.rows.len() as f64
        });
        let settings = &plan.models[0].settings;
        let epochs = weighted_epochs(settings, plan.first_epoch..settings.epochs);
        Self {
            images: images.sum(),
            refining: estimate::refining(settings, plan.first_epoch, 1.0) / epochs.max(1e-9),
            rounds: estimate::rounds(settings, plan.first_epoch),
            rounds_done: Vec::new(),
            bytes,
            steps: 0,
            seen: 0,
            from: None,
            pauses: Duration::ZERO,
            once: Duration::ZERO,
            estimate: None,
            done: around.is_none(),
            around: around.unwrap_or_default(),
        }
    }

    /// The estimate, once enough steps are timed.
    pub fn estimate(&self) -> Option<Seconds> {
        self.estimate
    }

    /// Counts time between steps that was spent on work that does not recur.
    pub fn pause(&mut self, time: Duration) {
        self.once += time;
        self.pauses += if self.from.is_some() { time } else { Duration::ZERO };
    }

    /// Counts the time of a round of refinement.
    pub fn round(&mut self, time: Duration) {
        self.rounds_done.push(time.as_secs_f64());
        self.pauses += if self.from.is_some() { time } else { Duration::ZERO };
    }

    /// Counts a step of `images` images; logs the estimate once enough are timed, and returns it that time. `weight`: Gaussians of this
    /// epoch over those at the end.
    pub fn step(&mut self, images: u64, weight: f64) -> Option<Seconds> {
        if self.done {
            return None;
        }
        self.steps += 1;
        self.seen += images;
        let Some((from, before)) = self.from else {
            if self.steps == WARM_UP {
                self.from = Some((Instant::now(), self.seen));
            }
            return None;
        };
        let (time, timed) = (from.elapsed().saturating_sub(self.pauses), (self.seen - before) as f64);
        let share = timed * weight / self.images;
        let enough = (time >= SHORT && share >= SHARE) || time >= LONGEST || share >= LARGEST_SHARE;
        if self.steps < WARM_UP + TIMED || !enough {
            return None;
        }
        self.done = true;
        let rate = timed / time.as_secs_f64().max(1e-9);
        let training = self.images / (rate * weight);
        let refining = match self.rounds_done.len() {
            0 => training * self.refining,
            done => self.rounds_done.iter().sum::<f64>() * self.rounds as f64 / done as f64,
        };
        let training = training + self.once.as_secs_f64();
        let seconds = Seconds { training, refining, ..self.around };
        tracing::info!(
            "estimate: about {} in all: {}; {rate:.0} images/s; memory {} on this node, run folder {}",
            duration(seconds.total()),
            seconds.split(),
            size(self.bytes.memory),
            size(self.bytes.run_folder)
        );
        self.estimate = Some(seconds);
        self.estimate
    }
}
