//! The loop of one model: every step of every epoch, read top-down.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Position};
use super::metrics::{self, EpochSummary, Metric, Spread};
use super::order::Order;
use super::recipe::{Clock, Settings};
use super::reduction::Reduction;
use super::saver::Saver;
use super::shard::{Batch, Shard};
use super::watch::{Notice, Watch};
use crate::error::{Error, Result};
use crate::gmm::{Gmm, Shape};
use crate::parallel::Collective;
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::{Device, Reduce, StageTimes, Step};

/// Steps between two checks that all ranks of a group hold the same bits.
const REPLICA_CHECK: u64 = 100;

/// The random start of a model. `half` is 1 or 2, or 0 for a model of all particles.
pub fn random_start(settings: &Settings, half: u8) -> Gmm {
    let shape = if settings.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    Gmm::random(settings.gaussians, shape, &mut stream(settings.seed, Purpose::Start, half, 0))
}

/// What a model is made of.
pub struct Parts {
    /// "half1", "half2" or "map".
    pub name: &'static str,
    /// Holds its random start.
    pub device: Box<dyn Device>,
    /// How it is trained.
    pub settings: Settings,
    /// Which particle comes when.
    pub order: Order,
    /// This rank's particles.
    pub shard: Shard,
    /// Names the particles that are at fault.
    pub store: Store,
    /// This rank in its group.
    pub rank: usize,
    /// Ranks in the group.
    pub ranks: usize,
    /// What a resumed run must share.
    pub identity: String,
    /// Particles of all ranks of the group.
    pub particles: usize,
    /// Where its checkpoints go.
    pub checkpoints: PathBuf,
    /// Where its metrics go, on the first rank of the group.
    pub metrics: Option<metrics::Writer>,
    /// Every so many steps.
    pub metrics_every: u64,
}

/// What a model trains with, for as long as a call lasts.
pub struct Company<'c, 'w> {
    /// The other ranks of the group.
    pub group: &'c mut Reduction,
    /// The time, and those who look at it.
    pub watch: &'c mut Watch<'w>,
    /// The user.
    pub progress: &'c mut Progress,
}

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// All particles were seen.
    Whole(EpochSummary),
    /// The job must stop; a checkpoint is being written.
    Stopped,
}

/// Everything a rank has of one model.
pub struct Model {
    core: Core,
    shard: Shard,
}

impl Model {
    /// A model at the start of its training.
    pub fn new(parts: Parts) -> Self {
        let saver = Saver::new(parts.checkpoints, parts.name.to_owned());
        let core = Core {
            name: parts.name,
            device: parts.device,
            settings: parts.settings,
            order: parts.order,
            store: parts.store,
            rank: parts.rank,
            ranks: parts.ranks,
            identity: parts.identity,
            particles: parts.particles as u64,
            clock: Clock::default(),
            position: Position::default(),
            pending: VecDeque::new(),
            spent: Spent::from_now(),
            saver,
            metrics: parts.metrics,
            metrics_every: parts.metrics_every,
        };
        Self { core, shard: parts.shard }
    }

    /// "half1", "half2" or "map".
    pub fn name(&self) -> &'static str {
        self.core.name
    }

    /// Its device.
    pub fn device(&self) -> &dyn Device {
        self.core.device.as_ref()
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        self.core.position
    }

    /// Goes on from a checkpoint of the same run.
    ///
    /// # Errors
    /// When the device fails.
    pub fn resume(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.core.clock = checkpoint.clock;
        self.core.position = checkpoint.position;
        self.core.device.restore(checkpoint.state)
    }

    /// Trains to the end of the epoch, and writes a checkpoint there, and when one is due before.
    ///
    /// # Errors
    /// When particles cannot be read, the loss or gradient is not finite, or the ranks of the group drift apart.
    pub fn run_epoch(&mut self, company: &mut Company) -> Result<Ended> {
        let Self { core, shard } = self;
        let started = Instant::now();
        core.device.times();
        shard.traffic();
        core.spent = Spent::from_now();
        let (epoch, first) = (core.position.epoch, core.position.step);
        let mut stopped = false;
        shard.each_batch(epoch, first, |number, batch| {
            match company.watch.before_step(&company.group.collective, 0).0 {
                Notice::GoOn => {}
                Notice::Checkpoint => {
                    core.settle(true, company)?;
                    core.save()?;
                }
                Notice::Stop => {
                    stopped = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            core.step(number, batch, company)?;
            core.settle(false, company)?;
            Ok(ControlFlow::Continue(()))
        })?;
        core.settle(true, company)?;
        core.compare_replicas(company.group)?;
        if stopped {
            core.save()?;
            core.finish_metrics();
            return Ok(Ended::Stopped);
        }
        let traffic = shard.traffic();
        core.spent.take(core.device.as_mut());
        let gather = |value: Duration| spread(&company.group.collective, value);
        let times = core.spent.times;
        let summary = EpochSummary {
            epoch: epoch + 1,
            loss: core.position.loss / core.position.images.max(1) as f64,
            images: core.spent.images,
            steps: (core.position.step - first) as u64,
            seconds: started.elapsed().as_secs_f64(),
            ranks: core.ranks,
            compute: times.map(|t| gather(t.compute)),
            reduce: times.map(|t| gather(t.reduce)),
            update: times.map(|t| gather(t.update)),
            wait: gather(traffic.waited),
            bytes_read: company.group.collective.gather(traffic.bytes).iter().sum(),
        };
        core.position = Position { epoch: epoch + 1, ..Position::default() };
        if let Some(metrics) = &mut core.metrics {
            metrics.epoch(core.clock.step, &summary);
        }
        core.finish_metrics();
        core.save()?;
        company.watch.checkpoint_taken();
        Ok(Ended::Whole(summary))
    }

    /// Waits until the last checkpoint is on the disk. False if it could not be written.
    pub fn saved(&mut self) -> bool {
        self.core.saver.wait()
    }
}

fn spread(group: &Collective, value: Duration) -> Spread {
    let all = group.gather(value.as_secs_f64().to_bits());
    Spread::of(&all.into_iter().map(f64::from_bits).collect::<Vec<_>>())
}

/// All of a model but its particles.
struct Core {
    name: &'static str,
    device: Box<dyn Device>,
    settings: Settings,
    order: Order,
    store: Store,
    rank: usize,
    ranks: usize,
    identity: String,
    particles: u64,
    clock: Clock,
    position: Position,
    /// Steps whose outcomes are not known yet.
    pending: VecDeque<Pending>,
    spent: Spent,
    saver: Saver,
    metrics: Option<metrics::Writer>,
    metrics_every: u64,
}

/// A step that was taken.
struct Pending {
    step: u64,
    epoch: f64,
    rate: f64,
    images: u64,
}

impl Core {
    /// Takes step `number` of the epoch.
    fn step(&mut self, number: usize, batch: &Batch, company: &mut Company) -> Result<()> {
        if let Some(&(row, defect)) = batch.skipped.first() {
            return Err(self.store.defect(row, defect));
        }
        let total = self.particles * self.settings.epochs as u64;
        let images = self.order.images(number) as u64;
        let rate = self.clock.base_rate(&self.settings, images, total, self.particles);
        let adam = self.clock.advance(&self.settings, images, total, self.particles);
        self.device.step(&batch.observations, &Step { images, adam }, company.group)?;
        self.spent.waited += batch.waited;
        self.position.step = number + 1;
        self.pending.push_back(Pending {
            step: self.clock.step,
            epoch: self.clock.images as f64 / self.particles as f64,
            rate,
            images,
        });
        if self.clock.step.is_multiple_of(REPLICA_CHECK) {
            self.compare_replicas(company.group)?;
        }
        Ok(())
    }

    /// Takes the losses of the oldest steps; with `all`, of all.
    fn settle(&mut self, all: bool, company: &mut Company) -> Result<()> {
        for loss in self.device.outcomes(all, company.group)? {
            let step = self.pending.pop_front().expect("no loss without a step");
            self.position.loss += loss * step.images as f64;
            self.position.images += step.images;
            self.spent.images += step.images;
            company.progress.advance(step.images);
            if step.step.is_multiple_of(self.metrics_every) {
                self.report(&step, loss, f64::NAN);
            }
        }
        Ok(())
    }

    fn report(&mut self, step: &Pending, loss: f64, gradient_norm: f64) {
        let Some(metrics) = &mut self.metrics else { return };
        let shares = self.spent.line(self.device.as_mut());
        metrics.step(Metric {
            model: self.name.to_owned(),
            step: step.step,
            epoch: step.epoch,
            loss,
            gradient_norm,
            rate: step.rate,
            images: step.images,
            images_per_second: shares.images_per_second,
            input_share: shares.input,
            reduce_share: shares.reduce,
            host_bytes: metrics::resident_memory(),
            device_bytes: 0,
        });
        metrics.flush_if_due();
    }

    fn finish_metrics(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            metrics.finish();
        }
    }

    /// Starts to write a checkpoint, on the first rank of the group. All steps are settled.
    fn save(&mut self) -> Result<()> {
        debug_assert!(self.pending.is_empty());
        if self.rank > 0 || self.clock.step == 0 {
            return Ok(());
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.flush();
        }
        self.saver.save(Checkpoint {
            position: self.position,
            clock: self.clock,
            state: self.device.state()?,
            left_out: Vec::new(),
            ranks: self.ranks,
            identity: self.identity.clone(),
        });
        Ok(())
    }

    /// [`check_replicas`] of what the device holds; a rank alone has nobody to compare with, and need not stop for it.
    fn compare_replicas(&mut self, group: &mut Reduction) -> Result<()> {
        if group.ranks() == 1 {
            return Ok(());
        }
        let checksum = self.device.checksum(group)?;
        check_replicas(&group.collective, checksum, self.name, self.clock.step)
    }
}

/// What the time went to, since the start of the epoch or of this process, and since the last line of the metrics.
struct Spent {
    images: u64,
    waited: Duration,
    times: Option<StageTimes>,
    line: Line,
}

/// Where the last line of the metrics was written.
#[derive(Clone, Copy)]
struct Line {
    at: Instant,
    images: u64,
    waited: Duration,
    reduce: Duration,
}

/// Of the time between two lines.
struct Shares {
    images_per_second: f64,
    input: f64,
    reduce: Option<f64>,
}

impl Spent {
    fn from_now() -> Self {
        let line = Line { at: Instant::now(), images: 0, waited: Duration::ZERO, reduce: Duration::ZERO };
        Self { images: 0, waited: Duration::ZERO, times: None, line }
    }

    /// Adds the device's times since the last call.
    fn take(&mut self, device: &mut dyn Device) {
        if let Some(new) = device.times() {
            let times = self.times.get_or_insert_default();
            times.compute += new.compute;
            times.reduce += new.reduce;
            times.update += new.update;
        }
    }

    /// Of the time since the last call.
    fn line(&mut self, device: &mut dyn Device) -> Shares {
        self.take(device);
        let (last, now) = (self.line, Instant::now());
        let reduce = self.times.map_or(Duration::ZERO, |times| times.reduce);
        self.line = Line { at: now, images: self.images, waited: self.waited, reduce };
        let seconds = now.duration_since(last.at).as_secs_f64().max(1e-9);
        Shares {
            images_per_second: (self.images - last.images) as f64 / seconds,
            input: (self.waited - last.waited).as_secs_f64() / seconds,
            reduce: self.times.map(|_| (reduce - last.reduce).as_secs_f64() / seconds),
        }
    }
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
