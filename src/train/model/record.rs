//! What a model records of its steps and epochs.

use std::time::Duration;

use super::{Core, PendingStep, StepContext};
use crate::loader::shard::Traffic;
use crate::memory;
use crate::render::Outcome;
use crate::run_folder::metrics::{EpochSummary, Metric, Spread};

impl Core {
    pub(super) fn write_metrics(&mut self, step: &PendingStep, outcome: &Outcome) {
        let Self { setup, timer, .. } = self;
        let particles = setup.particles();
        let Some(metrics) = &mut setup.metrics else { return };
        let rates = timer.rates(setup.device.as_mut());
        metrics.step(Metric {
            model: setup.subset.name().to_owned(),
            step: step.clock.step,
            epoch: step.clock.images as f64 / particles as f64,
            loss: outcome.loss,
            gradient_norm: outcome.gradient_norm,
            rate: step.rate,
            images: step.images,
            images_per_second: rates.images_per_second,
            input_share: rates.input_share,
            reduce_share: rates.reduce_share,
            host_bytes: memory::resident(),
            device_bytes: setup.device.memory(),
        });
        metrics.flush_if_due();
    }

    pub(super) fn finish_metrics(&mut self) {
        if let Some(metrics) = &mut self.setup.metrics {
            metrics.finish();
        }
    }

    /// The summary of an epoch that took `elapsed` from step `first_step` on, over all ranks of the group.
    pub(super) fn summarize(
        &mut self,
        elapsed: Duration,
        first_step: usize,
        traffic: Traffic,
        context: &StepContext,
    ) -> (EpochSummary, Traffic) {
        let Self { setup, position, timer, .. } = self;
        timer.add_stages(setup.device.as_mut());
        let collective = &context.group.collective;
        let gather = |value: Duration| Spread::of(&collective.all_gather_f64(value.as_secs_f64()));
        let (wait, reading) = (gather(traffic.waited), gather(traffic.reading));
        let bytes = collective.all_gather(traffic.bytes).iter().sum();
        let summary = EpochSummary {
            epoch: position.epoch + 1,
            loss: position.loss / position.images.max(1) as f64,
            images: timer.images,
            steps: (position.step - first_step) as u64,
            seconds: elapsed.as_secs_f64(),
            ranks: setup.ranks,
            compute: timer.stages.map(|stages| gather(stages.compute)),
            reduce: timer.stages.map(|stages| gather(stages.reduce)),
            update: timer.stages.map(|stages| gather(stages.update)),
            wait,
            bytes_read: bytes,
        };
        let seconds = |spread: Spread| Duration::from_secs_f64(spread.mean);
        (summary, Traffic { waited: seconds(wait), bytes, reading: seconds(reading) })
    }
}
