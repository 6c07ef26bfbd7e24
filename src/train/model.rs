//! The loop of one model: every step of every epoch, read top-down.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::loader::sampler::Order;
use crate::loader::shard::{Batch, Shard, Traffic};
use crate::parallel::Collective;
use crate::progress::Progress;
use crate::recipe::{Clock, Settings};
use crate::render::{Device, Observation, Outcome, Reduce, StageTimes, Step};
use crate::resources::memory;
use crate::resources::reduction::Reduction;
use crate::run_folder::checkpoint::{Checkpoint, Position};
use crate::run_folder::checkpoint_writer::Saver;
use crate::run_folder::excluded::LeftOut;
use crate::run_folder::metrics::{self, EpochSummary, Metric, Spread};
use crate::train::ensemble::Mixtures;
use crate::train::watch::{Notice, Watch};

/// Steps between two checks that all ranks of a group hold the same bits.
const REPLICA_CHECK: u64 = 100;

/// What a model is made of.
pub struct Parts {
    /// "half1", "half2" or "map".
    pub name: &'static str,
    /// Holds the start of the first of its mixtures.
    pub device: Box<dyn Device>,
    /// Where they start.
    pub mixtures: Mixtures,
    /// How it is trained.
    pub settings: Settings,
    /// Which particle comes when.
    pub order: Order,
    /// This rank's particles.
    pub shard: Shard,
    /// Those it is trained without.
    pub left_out: LeftOut,
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
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// All particles were seen; what reading them came to, in the mean over the ranks but for the bytes, which are of all.
    Whole(Box<EpochSummary>, Traffic),
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
            mixtures: parts.mixtures,
            settings: parts.settings,
            order: parts.order,
            left_out: parts.left_out,
            broken: None,
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

    /// The mixtures whose mean it is: those that are trained to their end, or the first, as it stands, before any is.
    ///
    /// # Errors
    /// When the device fails.
    pub fn mixtures(&self) -> Result<Vec<Gmm>> {
        let Core { mixtures, device, .. } = &self.core;
        mixtures.all(device.as_ref(), self.core.mixture() > mixtures.trained().len())
    }

    /// The particles that it is trained without.
    pub fn left_out(&self) -> &LeftOut {
        &self.core.left_out
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        self.core.position
    }

    /// Goes on from a checkpoint of the same run, which the particles left out come from too.
    ///
    /// # Errors
    /// When the device fails.
    pub fn resume(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.core.clock = checkpoint.clock;
        self.core.position = checkpoint.position;
        self.core.mixtures.resume(checkpoint.trained);
        self.core.device.restore(checkpoint.state)
    }

    /// Trains to the end of the epoch, and writes a checkpoint there, and when one is due before.
    ///
    /// # Errors
    /// When particles cannot be read, the loss or gradient is not finite, or the ranks of the group drift apart.
    pub fn run_epoch(&mut self, company: &mut Company) -> Result<Ended> {
        let Self { core, shard } = self;
        let started = Instant::now();
        core.mixtures.begin(core.mixture(), core.device.as_mut())?;
        core.device.times();
        core.spent = Spent::from_now();
        let (epoch, first) = (core.position.epoch, core.position.step);
        let mut notice = Notice::GoOn;
        shard.each_batch(epoch, core.position.step, |number, batch| {
            notice = core.before_step(company)?;
            if notice == Notice::Stop {
                return Ok(ControlFlow::Break(()));
            }
            core.step(number, batch, company)?;
            core.settle(false, company)?;
            Ok(ControlFlow::Continue(()))
        })?;
        core.settle(true, company)?;
        let shared = core.left_out.share(&company.group.collective, core.clock.step);
        shared.map_err(|error| company.group.collective.report_once(error))?;
        if let Some(broken) = core.broken.take() {
            return Err(core.step_not_finite(&broken, shard, company)?);
        }
        let stopped = notice == Notice::Stop;
        core.compare_replicas(company.group)?;
        if stopped {
            core.save()?;
            core.finish_metrics();
            return Ok(Ended::Stopped);
        }
        core.spent.take(core.device.as_mut());
        let collective = &company.group.collective;
        let gather = |value: Duration| Spread::of(&collective.all_gather_f64(value.as_secs_f64()));
        let Traffic { waited, bytes, reading } = shard.traffic();
        let (wait, reading) = (gather(waited), gather(reading));
        let traffic = Traffic {
            waited: Duration::from_secs_f64(wait.mean),
            bytes: collective.all_gather(bytes).iter().sum(),
            reading: Duration::from_secs_f64(reading.mean),
        };
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
            wait,
            bytes_read: traffic.bytes,
        };
        core.position = Position { epoch: epoch + 1, ..Position::default() };
        if let Some(metrics) = &mut core.metrics {
            metrics.epoch(core.clock.step, &summary);
        }
        core.finish_metrics();
        core.save()?;
        company.watch.checkpoint_taken();
        Ok(Ended::Whole(Box::new(summary), traffic))
    }

    /// Waits until the last checkpoint is on the disk. False if it could not be written.
    pub fn saved(&mut self) -> bool {
        self.core.saver.wait()
    }
}

/// All of a model but its particles.
struct Core {
    name: &'static str,
    device: Box<dyn Device>,
    mixtures: Mixtures,
    settings: Settings,
    order: Order,
    left_out: LeftOut,
    /// A step that was not finite, until all ranks have come to know of it.
    broken: Option<Broken>,
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
    /// In its epoch.
    number: usize,
    /// Behind it.
    clock: Clock,
    rate: f64,
    images: u64,
}

/// A step that was not finite.
struct Broken {
    step: Pending,
    outcome: Outcome,
}

/// In the word of a rank to its group: it knows of a step that was not finite. Below that, the damaged particles it has found.
const BROKEN: u32 = 1 << 31;

impl Core {
    /// The mixture that is trained in the epoch that comes next.
    fn mixture(&self) -> usize {
        self.settings.mixture_in(self.position.epoch)
    }

    /// What the group does before its next step; checkpoints are written here.
    fn before_step(&mut self, company: &mut Company) -> Result<Notice> {
        let word = self.left_out.untold() as u32 | if self.broken.is_some() { BROKEN } else { 0 };
        let (notice, words) = company.watch.before_step(&company.group.collective, word);
        let words = words.unwrap_or_default();
        if words.iter().any(|word| word & !BROKEN > 0) {
            let shared = self.left_out.share(&company.group.collective, self.clock.step);
            shared.map_err(|error| company.group.collective.report_once(error))?;
        }
        // Ranks' devices report outcomes at different times: all ranks of the group stop here.
        let notice = if words.iter().any(|word| word & BROKEN > 0) { Notice::Stop } else { notice };
        if notice == Notice::Checkpoint {
            self.settle(true, company)?;
            if self.broken.is_some() {
                return Ok(Notice::Stop);
            }
            self.save()?;
        }
        Ok(notice)
    }

    /// Takes step `number` of the epoch.
    fn step(&mut self, number: usize, batch: &Batch, company: &mut Company) -> Result<()> {
        self.left_out.find(&batch.skipped)?;
        let images = self.order.images(number) as u64;
        let rate = self.clock.base_rate(&self.settings, images, self.particles);
        let adam = self.clock.advance(&self.settings, images, self.particles);
        let step = Step { images, adam };
        if batch.rows.iter().any(|&row| self.left_out.contains(row)) {
            let used =
                batch.rows.iter().zip(&batch.observations).filter(|(row, _)| !self.left_out.contains(**row));
            let used: Vec<Observation> = used.map(|(_, &observation)| observation).collect();
            self.device.step(&used, &step, company.group)?;
        } else {
            self.device.step(&batch.observations, &step, company.group)?;
        }
        self.spent.waited += batch.waited;
        self.position.step = number + 1;
        self.pending.push_back(Pending { number, clock: self.clock, rate, images });
        if self.clock.step.is_multiple_of(REPLICA_CHECK) {
            self.compare_replicas(company.group)?;
        }
        Ok(())
    }

    /// Takes the outcomes of the oldest steps; with `all`, of all up to one that was not finite.
    fn settle(&mut self, all: bool, company: &mut Company) -> Result<()> {
        for outcome in self.device.outcomes(all, company.group)? {
            let step = self.pending.pop_front().expect("no outcome without a step");
            if !outcome.is_finite() {
                self.broken = Some(Broken { step, outcome });
                break;
            }
            self.position.loss += outcome.loss * step.images as f64;
            self.position.images += step.images;
            self.spent.images += step.images;
            company.progress.advance(step.images);
            if step.clock.step.is_multiple_of(self.metrics_every) {
                self.report(&step, &outcome);
            }
        }
        Ok(())
    }

    /// The error that a step is not finite. It names the particles whose own loss or gradient is not, or else all of the
    /// batch. Every rank calls it after the same step.
    ///
    /// # Errors
    /// When particles cannot be read again, or the device fails.
    fn step_not_finite(
        &mut self,
        broken: &Broken,
        shard: &mut Shard,
        company: &mut Company,
    ) -> Result<Error> {
        let Broken { step, outcome } = broken;
        let mut own = Vec::new();
        shard.each_batch(self.position.epoch, step.number, |_, batch| {
            for (&row, &observation) in batch.rows.iter().zip(&batch.observations) {
                let (gradient, loss) = self.device.gradient(&[observation])?;
                if !(loss.is_finite() && gradient.iter().all(|value| value.is_finite())) {
                    own.push(row as u64);
                }
            }
            Ok(ControlFlow::Break(()))
        })?;
        let collective = &company.group.collective;
        let found = collective.all_gather_lists(&own).into_iter().map(|row| row as usize);
        let mut rows: Vec<usize> = found.filter(|&row| !self.left_out.contains(row)).collect();
        rows.sort_unstable();
        let which = if rows.is_empty() { "its particles are" } else { "the particles that cause it are" };
        if rows.is_empty() {
            rows = self.order.batch(self.position.epoch, step.number, 0..self.order.slots());
        }
        let problem = format!(
            "the loss or the gradient of step {} of {} is not finite (loss {}, norm of the gradient {}); {which} {}",
            step.clock.step,
            self.name,
            outcome.loss,
            outcome.gradient_norm,
            self.left_out.names(&rows)
        );
        let remedy = "lower --learning-rate, or check these particles".into();
        Ok(collective.report_once(Error::Numeric { problem, remedy }))
    }

    fn report(&mut self, step: &Pending, outcome: &Outcome) {
        let Some(metrics) = &mut self.metrics else { return };
        let shares = self.spent.line(self.device.as_mut());
        metrics.step(Metric {
            model: self.name.to_owned(),
            step: step.clock.step,
            epoch: step.clock.images as f64 / self.particles as f64,
            loss: outcome.loss,
            gradient_norm: outcome.gradient_norm,
            rate: step.rate,
            images: step.images,
            images_per_second: shares.images_per_second,
            input_share: shares.input,
            reduce_share: shares.reduce,
            host_bytes: memory::resident(),
            device_bytes: self.device.memory(),
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
            trained: self.mixtures.trained().to_vec(),
            left_out: self.left_out.rows(),
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
