//! The training of one model on one rank: the steps of an epoch, read from the top down.

mod record;
mod refinement;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use super::agreement::{Agreement, Directive, LocalEvents};
use super::appraise;
use super::densify;
use super::ensemble::Ensemble;
use super::estimate::weighted_epochs;
use super::forecast::Forecast;
use super::logs;
use super::refined_model::RefinedModel;
use super::replicas::{REPLICA_CHECK, check_replicas};
use super::timing::EpochTimer;
use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::loader::sampler::Sampler;
use crate::loader::shard::{Batch, Shard, Traffic};
use crate::parallel::Collective;
use crate::particles::Subset;
use crate::particles::selection::SubsetRows;
use crate::progress::Progress;
use crate::recipe::{Clock, Settings};
use crate::render::{Device, Observation, Outcome, Reduce, Step};
use crate::resources::all_reduce::AllReduce;
use crate::run_folder::appraisal::{Appraisal, Appraised};
use crate::run_folder::checkpoint::{Checkpoint, Position};
use crate::run_folder::checkpoint_writer::CheckpointWriter;
use crate::run_folder::excluded::Excluded;
use crate::run_folder::identity::RunIdentity;
use crate::run_folder::metrics::{self, EpochSummary};
use crate::run_folder::owner::Claim;

/// What a model is trained with.
pub(super) struct ModelSetup {
    /// Its particles; names its outputs.
    pub subset: Subset,
    /// What a resumed run must share; holds the settings.
    pub identity: RunIdentity,
    /// Holds the initial Gaussians of the first mixture.
    pub device: Box<dyn Device>,
    /// All mixtures but the one on the device.
    pub ensemble: Ensemble,
    /// The order of particles.
    pub sampler: Sampler,
    /// Particles that it is trained without.
    pub excluded: Excluded,
    /// This rank in its group.
    pub rank: usize,
    /// Ranks in the group.
    pub ranks: usize,
    /// Particles of all ranks of the group.
    pub rows: SubsetRows,
    /// What it takes into account of them; `None` where that is nothing.
    pub appraisal: Option<Appraisal>,
    /// Folder of its checkpoints.
    pub checkpoints: PathBuf,
    /// What proves that the job holds the run folder.
    pub claim: Claim,
    /// Its metrics, on the first rank of the group.
    pub metrics: Option<metrics::Writer>,
    /// Steps between two lines of the metrics.
    pub metrics_every: u64,
}

impl ModelSetup {
    /// Number of particles of all ranks of the group.
    fn particles(&self) -> u64 {
        self.rows.rows.len() as u64
    }
}

/// What a step needs beside its model.
pub(super) struct StepContext<'c, 'w> {
    /// The all-reduce of the group.
    pub group: &'c mut AllReduce,
    /// The group's agreement on stops and checkpoints.
    pub agreement: &'c mut Agreement<'w>,
    /// The progress bar.
    pub progress: &'c mut Progress,
    /// The estimate of the run's time.
    pub forecast: &'c mut Forecast,
}

/// How an epoch ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum EpochEnd {
    /// All particles were seen. The traffic of the shards: bytes are the sum over the ranks, times the mean.
    Complete(Box<EpochSummary>, Traffic),
    /// The job must stop; a checkpoint is being written.
    Stopped,
}

/// One model on this rank.
pub(super) struct Model {
    core: Core,
    shard: Shard,
}

/// A model without its particles.
struct Core {
    setup: ModelSetup,
    /// What was refined of its particles.
    refined: RefinedModel,
    clock: Clock,
    position: Position,
    /// Steps whose outcomes are not known yet.
    pending: VecDeque<PendingStep>,
    /// The first step that is not finite, with its outcome. Nothing after it has an effect.
    not_finite: Option<(PendingStep, Outcome)>,
    timer: EpochTimer,
    checkpoint_writer: CheckpointWriter,
}

/// A step that was started on the device.
struct PendingStep {
    /// Its number in the epoch, from 0.
    number: usize,
    /// The clock after it.
    clock: Clock,
    rate: f64,
    images: u64,
}

impl Model {
    /// A model at the start of its training, or at the `checkpoint` that it resumes from.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(mut setup: ModelSetup, mut shard: Shard, checkpoint: Option<Checkpoint>) -> Result<Self> {
        let (mut clock, mut position, mut refinement) = (Clock::default(), Position::default(), None);
        if let Some(checkpoint) = checkpoint {
            (clock, position) = (checkpoint.clock, checkpoint.position);
            setup.ensemble.resume(checkpoint.trained);
            setup.device.restore(checkpoint.state)?;
            setup.appraisal = checkpoint.appraisal.or(setup.appraisal);
            refinement = checkpoint.refinement;
        }
        if let Some(appraisal) = &setup.appraisal {
            let likelihood = &setup.identity.settings.likelihood;
            let (weights, _) = appraise::noise_weights(likelihood, &appraisal.noise);
            setup.device.set_noise_weights(&weights)?;
            shard.set_factors(appraise::factors(likelihood, &setup.rows, appraisal));
        }
        let mut refined = RefinedModel::new(refinement, shard.rows(), setup.rows.rows.start);
        if setup.rank > 0 {
            refined.state.particles = Vec::new();
        }
        if !setup.identity.settings.refine.is_none() {
            shard.set_refinements(refined.own().to_vec());
        }
        let core = Core {
            refined,
            clock,
            position,
            pending: VecDeque::new(),
            not_finite: None,
            timer: EpochTimer::start(),
            checkpoint_writer: CheckpointWriter::new(
                setup.checkpoints.clone(),
                setup.subset,
                setup.claim.clone(),
            ),
            setup,
        };
        Ok(Self { core, shard })
    }

    /// Names its outputs.
    pub fn subset(&self) -> Subset {
        self.core.setup.subset
    }

    /// Its device.
    pub fn device(&self) -> &dyn Device {
        self.core.setup.device.as_ref()
    }

    /// The mixtures whose mean is the model: those that are fully trained, or before any is, the current state of the first.
    ///
    /// # Errors
    /// When the device fails.
    pub fn mixtures(&self) -> Result<Vec<Gmm>> {
        let ModelSetup { ensemble, device, .. } = &self.core.setup;
        ensemble.mixtures(device.as_ref(), self.core.mixture() > ensemble.trained().len())
    }

    /// The particles that it is trained without.
    pub fn excluded(&self) -> &Excluded {
        &self.core.setup.excluded
    }

    /// How far it is trained.
    pub fn position(&self) -> Position {
        self.core.position
    }

    /// Images that it still has to see.
    pub fn images_left(&self) -> u64 {
        let Core { setup, position, .. } = &self.core;
        let epochs = (setup.identity.settings.epochs - position.epoch) as u64;
        epochs * setup.particles() - position.images
    }

    /// Trains to the end of the epoch. Writes a checkpoint there, and whenever one is due before.
    ///
    /// # Errors
    /// When particles cannot be read, a loss or gradient is not finite, or the ranks of the group hold different parameters.
    pub fn train_epoch(&mut self, context: &mut StepContext) -> Result<EpochEnd> {
        if self.core.position.step == 0 {
            let started = Instant::now();
            self.appraise(&context.group.collective)?;
            context.forecast.pause(started.elapsed());
        }
        let Self { core, shard, .. } = self;
        let started = Instant::now();
        core.begin_epoch()?;
        let (epoch, first_step) = (core.position.epoch, core.position.step);
        let weight = weighted_epochs(core.settings(), epoch..epoch + 1);
        let mut directive = Directive::Continue;
        shard.each_batch(epoch, first_step, |number, batch| {
            directive = core.before_step(context)?;
            if directive == Directive::Stop {
                return Ok(ControlFlow::Break(()));
            }
            core.step(number, batch, context)?;
            core.collect_outcomes(false, context)?;
            let images = core.setup.sampler.images(number) as u64;
            if let Some(estimate) = context.forecast.step(images, weight) {
                context.progress.then(estimate.after_training());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        core.collect_outcomes(true, context)?;
        core.share_exclusions(context)?;
        if let Some((step, outcome)) = core.not_finite.take() {
            return Err(core.not_finite_error(&step, &outcome, shard, context)?);
        }
        core.check_replicas(context.group)?;
        if directive == Directive::Stop {
            core.save_checkpoint()?;
            core.finish_metrics();
            return Ok(EpochEnd::Stopped);
        }
        let (summary, traffic) = core.summarize(started.elapsed(), first_step, shard.traffic(), context);
        core.position = Position { epoch: epoch + 1, ..Position::default() };
        if let Some(metrics) = &mut core.setup.metrics {
            metrics.epoch(core.clock.step, &summary);
        }
        core.finish_metrics();
        core.save_checkpoint()?;
        context.agreement.checkpoint_taken();
        Ok(EpochEnd::Complete(Box::new(summary), traffic))
    }

    /// Appraises the particles where that is due before the next epoch, or after the last one.
    ///
    /// # Errors
    /// When particles cannot be read, or the device fails.
    pub fn appraise(&mut self, collective: &Collective) -> Result<()> {
        let Self { core: Core { setup, position, .. }, shard, .. } = self;
        let ModelSetup { appraisal: Some(appraisal), rows, identity, device, .. } = setup else {
            return Ok(());
        };
        let settings = &identity.settings;
        // Where a checkpoint lies between appraisal and first step, the device may hold the start of the next mixture.
        if !appraise::is_due(settings, position.epoch, appraisal) || appraisal.epoch == position.epoch {
            return Ok(());
        }
        appraisal.epoch = position.epoch;
        let (model, noise) = ((settings, &*rows), &appraisal.noise);
        appraisal.particles =
            appraise::appraise(device.as_mut(), shard, collective, model, position.epoch, noise)?;
        shard.set_factors(appraise::factors(&settings.likelihood, rows, appraisal));
        // What was read for it does not count as the next epoch's.
        shard.traffic();
        Ok(())
    }

    /// Number of particles of all ranks of the group.
    pub fn rows(&self) -> usize {
        self.core.setup.rows.rows.len()
    }

    /// What it has found out about its particles; empty if they were not compared.
    pub fn appraised(&self) -> &[Appraised] {
        self.core.setup.appraisal.as_ref().map_or(&[], |appraisal| &appraisal.particles)
    }

    /// Waits until the last checkpoint is on the disk. False if it could not be written.
    pub fn wait_for_checkpoint(&mut self) -> bool {
        self.core.checkpoint_writer.wait()
    }
}

impl Core {
    fn settings(&self) -> &Settings {
        &self.setup.identity.settings
    }

    /// The mixture that the next epoch trains.
    fn mixture(&self) -> usize {
        self.settings().mixture_in(self.position.epoch)
    }

    fn begin_epoch(&mut self) -> Result<()> {
        let mixture = self.mixture();
        let ModelSetup { subset, ensemble, device, identity, metrics, .. } = &mut self.setup;
        ensemble.begin(mixture, device.as_mut())?;
        if let Some(counts) = densify::grow(device.as_mut(), &identity.settings, self.position.epoch)? {
            logs::densified(*subset, self.position.epoch, counts);
            if let Some(metrics) = metrics {
                metrics.densified(self.clock.step + 1, counts);
            }
        }
        // Times before the epoch do not count.
        device.times();
        self.timer = EpochTimer::start();
        Ok(())
    }

    /// Agrees with the group on the next step. Writes a checkpoint where one is due.
    fn before_step(&mut self, context: &mut StepContext) -> Result<Directive> {
        let events = LocalEvents {
            new_exclusions: self.setup.excluded.unshared() as u32,
            step_not_finite: self.not_finite.is_some(),
        };
        let agreed = context.agreement.before_step(&context.group.collective, events);
        if agreed.new_exclusions {
            self.share_exclusions(context)?;
        }
        if agreed.directive == Directive::Checkpoint {
            self.collect_outcomes(true, context)?;
            if self.not_finite.is_some() {
                return Ok(Directive::Stop);
            }
            self.save_checkpoint()?;
        }
        Ok(agreed.directive)
    }

    /// Starts step `number` of the epoch on the device.
    fn step(&mut self, number: usize, batch: &Batch, context: &mut StepContext) -> Result<()> {
        let Self { setup, clock, .. } = self;
        let settings = &setup.identity.settings;
        setup.excluded.find(&batch.skipped)?;
        let images = setup.sampler.images(number) as u64;
        let rate = clock.scheduled_rate(settings, images, setup.particles());
        let adam = clock.advance(settings, images, setup.particles());
        let step = Step { images, adam };
        if batch.rows.iter().any(|&row| setup.excluded.contains(row)) {
            let rows = batch.rows.iter().zip(&batch.observations);
            let used = rows.filter(|(row, _)| !setup.excluded.contains(**row));
            let used: Vec<Observation> = used.map(|(_, &observation)| observation).collect();
            setup.device.step(&used, &step, context.group)?;
        } else {
            setup.device.step(&batch.observations, &step, context.group)?;
        }
        self.timer.waited += batch.waited;
        self.position.step = number + 1;
        self.pending.push_back(PendingStep { number, clock: self.clock, rate, images });
        if self.clock.step.is_multiple_of(REPLICA_CHECK) {
            self.check_replicas(context.group)?;
        }
        Ok(())
    }

    /// Collects the outcomes of steps that have ended; with `all`, waits for all steps up to one that is not finite.
    fn collect_outcomes(&mut self, all: bool, context: &mut StepContext) -> Result<()> {
        for outcome in self.setup.device.outcomes(all, context.group)? {
            let step = self.pending.pop_front().expect("a device reports one outcome per step");
            if !outcome.is_finite() {
                self.not_finite = Some((step, outcome));
                break;
            }
            self.position.loss += outcome.loss * step.images as f64;
            self.position.images += step.images;
            self.timer.images += step.images;
            context.progress.advance(step.images);
            if step.clock.step.is_multiple_of(self.setup.metrics_every) {
                self.write_metrics(&step, &outcome);
            }
        }
        Ok(())
    }

    /// Shares newly excluded particles with the group.
    fn share_exclusions(&mut self, context: &mut StepContext) -> Result<()> {
        let collective = &context.group.collective;
        self.setup.excluded.share(collective, self.clock.step).map_err(|error| collective.report_once(error))
    }

    /// The error that a step is not finite. It names the particles whose own loss or gradient is not finite, or where there
    /// are none, all particles of the batch. Every rank calls it after the same step.
    ///
    /// # Errors
    /// When particles cannot be read again, or the device fails.
    fn not_finite_error(
        &mut self,
        step: &PendingStep,
        outcome: &Outcome,
        shard: &mut Shard,
        context: &mut StepContext,
    ) -> Result<Error> {
        let setup = &mut self.setup;
        let mut own = Vec::new();
        shard.each_batch(self.position.epoch, step.number, |_, batch| {
            for (&row, &observation) in batch.rows.iter().zip(&batch.observations) {
                let (gradient, loss) = setup.device.gradient(&[observation])?;
                if !(loss.is_finite() && gradient.iter().all(|value| value.is_finite())) {
                    own.push(row as u64);
                }
            }
            Ok(ControlFlow::Break(()))
        })?;
        let collective = &context.group.collective;
        let found = collective.all_gather_lists(&own).into_iter().map(|row| row as usize);
        let mut rows: Vec<usize> = found.filter(|&row| !setup.excluded.contains(row)).collect();
        rows.sort_unstable();
        let which = if rows.is_empty() { "its particles are" } else { "the particles that cause it are" };
        if rows.is_empty() {
            rows = setup.sampler.batch(self.position.epoch, step.number, 0..setup.sampler.slots());
        }
        let problem = format!(
            "the loss or the gradient of step {} of {} is not finite (loss {}, norm of the gradient {}); {which} {}",
            step.clock.step,
            setup.subset,
            outcome.loss,
            outcome.gradient_norm,
            setup.excluded.names(&rows)
        );
        let remedy = "lower --learning-rate, or check these particles".into();
        Ok(collective.report_once(Error::Numeric { problem, remedy }))
    }

    /// Starts to write a checkpoint, on the first rank of the group. No step is pending.
    fn save_checkpoint(&mut self) -> Result<()> {
        debug_assert!(self.pending.is_empty());
        let Self { setup, clock, position, checkpoint_writer, refined, .. } = self;
        if setup.rank > 0 || clock.step == 0 {
            return Ok(());
        }
        if let Some(metrics) = &mut setup.metrics {
            metrics.flush();
        }
        setup.claim.check()?;
        checkpoint_writer.save(Checkpoint {
            position: *position,
            clock: *clock,
            state: setup.device.state()?,
            trained: setup.ensemble.trained().to_vec(),
            excluded: setup.excluded.rows(),
            appraisal: setup.appraisal.clone(),
            refinement: (!setup.identity.settings.refine.is_none()).then(|| refined.state.clone()),
            ranks: setup.ranks,
            identity: setup.identity.clone(),
        });
        Ok(())
    }

    /// [`check_replicas`] of the device's parameters. A group of one rank has nothing to compare, and does not wait for its device.
    fn check_replicas(&mut self, group: &mut AllReduce) -> Result<()> {
        if group.ranks() == 1 {
            return Ok(());
        }
        let checksum = self.setup.device.checksum(group)?;
        check_replicas(&group.collective, checksum, self.setup.subset, self.clock.step)
    }
}
