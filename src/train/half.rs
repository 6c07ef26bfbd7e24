//! The loop of one model: every step of every epoch, read top-down.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::order::Order;
use super::recipe::{Clock, Settings};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::gmm::{Gmm, Shape};
use crate::parallel::Collective;
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::Device;

/// Steps between two checks that all ranks of a group hold the same bits.
const REPLICA_CHECK: u64 = 100;

/// One line of metrics.jsonl.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// The model: "half1", "half2" or "map".
    pub model: String,
    /// Steps taken, this one included.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss of the step's images.
    pub loss: f64,
    /// Base learning rate of the step, at batch 1.
    pub rate: f64,
    /// Images in the step, over all ranks.
    pub images: u64,
}

/// What an epoch came to, on this rank.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EpochSummary {
    /// Mean loss over the epoch's images.
    pub loss: f64,
    /// Images of the epoch, over all ranks of the group.
    pub images: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds in rendering and differentiating.
    pub compute_seconds: f64,
    /// Seconds in sums over the ranks, waiting for the slowest included.
    pub reduce_seconds: f64,
    /// Seconds in the optimiser.
    pub update_seconds: f64,
    /// Seconds waiting for the file.
    pub wait_seconds: f64,
}

/// The random start of a model. `half` is 1 or 2, or 0 for a model of all particles.
pub fn random_start(settings: &Settings, half: u8) -> Gmm {
    let shape = if settings.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    Gmm::random(settings.gaussians, shape, &mut stream(settings.seed, Purpose::Start, half, 0))
}

/// Everything a rank has of one model.
pub struct Model<'a, D: Device> {
    /// "half1", "half2" or "map".
    pub name: String,
    /// Its device.
    pub device: D,
    settings: Settings,
    order: Order,
    shard: Shard<'a>,
    rank: usize,
    ranks: usize,
    clock: Clock,
    epoch: usize,
    identity: String,
    particles: u64,
}

impl<'a, D: Device + Sync> Model<'a, D> {
    /// A model at the start of its training, on rank `rank` of `ranks`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        name: String,
        device: D,
        settings: Settings,
        order: Order,
        shard: Shard<'a>,
        (rank, ranks): (usize, usize),
        identity: String,
        particles: usize,
    ) -> Self {
        Self {
            name,
            device,
            settings,
            order,
            shard,
            rank,
            ranks,
            clock: Clock::default(),
            epoch: 0,
            identity,
            particles: particles as u64,
        }
    }

    /// Epochs done.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Goes on from a checkpoint of the same run.
    pub fn resume(&mut self, checkpoint: Checkpoint) {
        self.clock = checkpoint.clock;
        self.epoch = checkpoint.epoch;
        self.device.restore(checkpoint.state);
    }

    /// The state to write.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            epoch: self.epoch,
            clock: self.clock,
            state: self.device.state(),
            identity: self.identity.clone(),
        }
    }

    /// One pass over the half.
    ///
    /// Every `metrics_every`-th step goes to `metrics`.
    ///
    /// # Errors
    /// When particles cannot be read, the loss or gradient is not finite, or the ranks of the group drift apart.
    pub fn run_epoch(
        &mut self,
        collective: &mut Collective,
        progress: &mut Progress,
        metrics: &Sender<Metric>,
        metrics_every: u64,
    ) -> Result<EpochSummary> {
        let started = Instant::now();
        let total = self.particles * self.settings.epochs as u64;
        let mut summary = EpochSummary::default();
        let mut loss = 0.0f64;
        let slots = self.order.slots_of(self.rank, self.ranks);
        let batches = self.order.epoch(self.epoch, slots);
        let (settings, clock, name, particles) =
            (&self.settings, &mut self.clock, &self.name, self.particles);

        let waited = self.shard.each_batch(batches, &mut self.device, |device, batch| {
            let at = Instant::now();
            device.accumulate(batch);
            summary.compute_seconds += at.elapsed().as_secs_f64();

            let at = Instant::now();
            device.reduce(&mut |buffer| {
                collective.sum(buffer);
                Ok(())
            })?;
            summary.reduce_seconds += at.elapsed().as_secs_f64();

            let at = Instant::now();
            let mut rate = 0.0;
            let outcome = device.step(&mut |images| {
                rate = clock.base_rate(settings, images, total, particles);
                clock.advance(settings, images, total, particles)
            })?;
            summary.update_seconds += at.elapsed().as_secs_f64();

            loss += outcome.loss * outcome.images as f64;
            summary.images += outcome.images;
            progress.advance(outcome.images);
            if clock.step.is_multiple_of(metrics_every) {
                // Whoever listens may have gone; the training does not depend on it.
                let _ = metrics.send(Metric {
                    model: name.clone(),
                    step: clock.step,
                    epoch: clock.images as f64 / particles as f64,
                    loss: outcome.loss,
                    rate,
                    images: outcome.images,
                });
            }
            if clock.step.is_multiple_of(REPLICA_CHECK) {
                check_replicas(collective, &device.state().gmm, name, clock.step)?;
            }
            Ok(())
        })?;

        check_replicas(collective, &self.device.state().gmm, &self.name, self.clock.step)?;
        self.epoch += 1;
        summary.loss = loss / summary.images.max(1) as f64;
        summary.wait_seconds = waited.max(Duration::ZERO).as_secs_f64();
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }
}

/// Checks that all ranks of the group hold the same parameters, to the bit.
///
/// # Errors
/// On every rank, when they do not.
pub fn check_replicas(collective: &Collective, gmm: &Gmm, model: &str, step: u64) -> Result<()> {
    if collective.all_equal(u64::from(gmm.checksum())) {
        return Ok(());
    }
    Err(Error::Numeric {
        problem: format!("the ranks that train {model} hold different parameters after step {step}"),
        remedy: "a machine computes wrongly or differs from the others: run on nodes of one kind, and check their memory".into(),
    })
}
