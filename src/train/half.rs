//! The loop of one model: every step of every epoch, read top-down.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc::Sender;
use std::time::Instant;

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::order::Order;
use super::recipe::{Clock, Settings};
use super::reduction::Reduction;
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::gmm::{Gmm, Shape};
use crate::parallel::Collective;
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::{Device, Reduce, Step};

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
    /// Seconds in rendering and differentiating; nothing here and in the next two where the device cannot tell.
    pub compute_seconds: Option<f64>,
    /// Seconds in sums over the ranks, waiting for the slowest included.
    pub reduce_seconds: Option<f64>,
    /// Seconds in the optimiser.
    pub update_seconds: Option<f64>,
    /// Seconds waiting for the file.
    pub wait_seconds: f64,
}

/// The random start of a model. `half` is 1 or 2, or 0 for a model of all particles.
pub fn random_start(settings: &Settings, half: u8) -> Gmm {
    let shape = if settings.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    Gmm::random(settings.gaussians, shape, &mut stream(settings.seed, Purpose::Start, half, 0))
}

/// Everything a rank has of one model.
pub struct Model {
    /// "half1", "half2" or "map".
    pub name: String,
    /// Its device.
    pub device: Box<dyn Device>,
    settings: Settings,
    order: Order,
    store: Store,
    shard: Shard,
    clock: Clock,
    epoch: usize,
    identity: String,
    particles: u64,
}

impl Model {
    /// A model at the start of its training.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        name: String,
        device: Box<dyn Device>,
        settings: Settings,
        order: Order,
        store: Store,
        shard: Shard,
        identity: String,
        particles: usize,
    ) -> Self {
        Self {
            name,
            device,
            settings,
            order,
            store,
            shard,
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
    ///
    /// # Errors
    /// When the device fails.
    pub fn resume(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.clock = checkpoint.clock;
        self.epoch = checkpoint.epoch;
        self.device.restore(checkpoint.state)
    }

    /// The state to write.
    ///
    /// # Errors
    /// When the device fails.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint {
            epoch: self.epoch,
            clock: self.clock,
            state: self.device.state()?,
            identity: self.identity.clone(),
        })
    }

    /// One pass over the half.
    ///
    /// Every `metrics_every`-th step goes to `metrics`.
    ///
    /// # Errors
    /// When particles cannot be read, the loss or gradient is not finite, or the ranks of the group drift apart.
    pub fn run_epoch(
        &mut self,
        group: &mut Reduction,
        progress: &mut Progress,
        metrics: &Sender<Metric>,
        metrics_every: u64,
    ) -> Result<EpochSummary> {
        let started = Instant::now();
        let total = self.particles * self.settings.epochs as u64;
        let mut ledger = Ledger { name: &self.name, pending: VecDeque::new(), loss: 0.0, images: 0 };
        let (settings, clock, particles) = (&self.settings, &mut self.clock, self.particles);
        let (device, order, store) = (&mut self.device, &self.order, &self.store);
        device.times();

        self.shard.each_batch(self.epoch, 0, |number, batch| {
            if let Some(&(row, defect)) = batch.skipped.first() {
                return Err(store.defect(row, defect));
            }
            let images = order.images(number) as u64;
            let rate = clock.base_rate(settings, images, total, particles);
            let adam = clock.advance(settings, images, total, particles);
            device.step(&batch.observations, &Step { images, adam }, group)?;
            ledger.pending.push_back(Metric {
                model: ledger.name.to_owned(),
                step: clock.step,
                epoch: clock.images as f64 / particles as f64,
                loss: f64::NAN,
                rate,
                images,
            });
            ledger.settle(device.outcomes(false, group)?, progress, metrics, metrics_every);
            if clock.step.is_multiple_of(REPLICA_CHECK) {
                compare_replicas(device.as_mut(), group, ledger.name, clock.step)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;

        ledger.settle(device.outcomes(true, group)?, progress, metrics, metrics_every);
        compare_replicas(device.as_mut(), group, ledger.name, clock.step)?;
        self.epoch += 1;
        let times = device.times();
        Ok(EpochSummary {
            loss: ledger.loss / ledger.images.max(1) as f64,
            images: ledger.images,
            seconds: started.elapsed().as_secs_f64(),
            compute_seconds: times.map(|t| t.compute.as_secs_f64()),
            reduce_seconds: times.map(|t| t.reduce.as_secs_f64()),
            update_seconds: times.map(|t| t.update.as_secs_f64()),
            wait_seconds: self.shard.traffic().waited.as_secs_f64(),
        })
    }
}

/// The steps of an epoch whose losses are not known yet, and the sums over those that are.
struct Ledger<'a> {
    name: &'a str,
    pending: VecDeque<Metric>,
    loss: f64,
    images: u64,
}

impl Ledger<'_> {
    /// Takes the losses of the oldest steps.
    fn settle(&mut self, losses: Vec<f64>, progress: &mut Progress, metrics: &Sender<Metric>, every: u64) {
        for loss in losses {
            let mut metric = self.pending.pop_front().expect("no loss without a step");
            metric.loss = loss;
            self.loss += loss * metric.images as f64;
            self.images += metric.images;
            progress.advance(metric.images);
            if metric.step.is_multiple_of(every) {
                // Whoever listens may have gone; the training does not depend on it.
                let _ = metrics.send(metric);
            }
        }
    }
}

/// [`check_replicas`] of what a device holds; a rank alone has nobody to compare with, and need not stop for it.
fn compare_replicas(device: &mut dyn Device, group: &mut Reduction, model: &str, step: u64) -> Result<()> {
    if group.ranks() == 1 {
        return Ok(());
    }
    let checksum = device.checksum(group)?;
    check_replicas(&group.collective, checksum, model, step)
}

/// Checks that all ranks of the group hold the same parameters, to the bit: that they have the same `checksum`.
///
/// # Errors
/// On every rank, when they do not.
pub fn check_replicas(collective: &Collective, checksum: u64, model: &str, step: u64) -> Result<()> {
    if collective.all_equal(checksum) {
        return Ok(());
    }
    Err(Error::Numeric {
        problem: format!("the ranks that train {model} hold different parameters after step {step}"),
        remedy: "a machine computes wrongly or differs from the others: run on nodes of one kind, and check their memory".into(),
    })
}
