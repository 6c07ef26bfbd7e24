//! Learning rate and Adam constants of each step (docs/method.md, section 7).

use std::ops::Range;

use super::{Schedule, Settings};
use crate::render::AdamStep;

/// Progress of the optimiser: steps, images and Adam's bias corrections. Part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Steps done.
    pub step: u64,
    /// Images seen.
    pub images: u64,
    /// Product of all beta1 so far.
    pub beta1_power: f64,
    /// Product of all beta2 so far.
    pub beta2_power: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { step: 0, images: 0, beta1_power: 1.0, beta2_power: 1.0 }
    }
}

impl Clock {
    /// The images, counted from the start of the run, of the cycle of the rate that the next step is in; an epoch has `per_epoch` images.
    fn images_of_cycle(&self, settings: &Settings, per_epoch: u64) -> Range<u64> {
        let Range { start, end } = settings.cycle_in((self.images / per_epoch) as usize);
        start as u64 * per_epoch..end as u64 * per_epoch
    }

    /// Learning rate of a step over `count` images by the schedule, where an epoch has `per_epoch` images. Each mixture runs through
    /// the whole schedule, the refining one between two rounds.
    pub fn scheduled_rate(&self, settings: &Settings, count: u64, per_epoch: u64) -> f64 {
        let images = self.images_of_cycle(settings, per_epoch);
        let middle = (self.images - images.start) as f64 + 0.5 * count as f64;
        let total = images.end - images.start;
        let refines = self.images < settings.refine.epochs() as u64 * per_epoch;
        let base = if refines { settings.refine.learning_rate } else { settings.learning_rate };
        base * match settings.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * middle / total as f64).cos()),
            Schedule::Step => 0.1f64.powi((middle / per_epoch as f64) as i32),
            Schedule::Constant => 1.0,
        }
    }

    /// Advances by a step over `count` images, and returns the constants of the step. A short last batch counts with its own number of
    /// images. Bias corrections start again with each mixture.
    pub fn advance(&mut self, settings: &Settings, count: u64, per_epoch: u64) -> AdamStep {
        let base = self.scheduled_rate(settings, count, per_epoch);
        let epoch = (self.images / per_epoch) as usize;
        if self.images == settings.first_epoch(settings.mixture_in(epoch)) as u64 * per_epoch {
            (self.beta1_power, self.beta2_power) = (1.0, 1.0);
        }
        // With symmetry an image has the information of as many images as it has views.
        let images = (count as usize * settings.symmetry.order()) as f64;
        let images = if settings.scale_with_batch { images } else { 1.0 };
        let (beta1, beta2) = (settings.beta1.powf(images), settings.beta2.powf(images));
        self.step += 1;
        self.images += count;
        self.beta1_power *= beta1;
        self.beta2_power *= beta2;
        AdamStep {
            rate: base * images.sqrt(),
            beta1,
            beta2,
            epsilon: settings.epsilon / images.sqrt(),
            correction1: 1.0 - self.beta1_power,
            correction2: 1.0 - self.beta2_power,
            factors: settings.rate_factors,
        }
    }
}
