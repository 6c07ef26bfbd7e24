//! What a rank holds during a training run: its devices, its models, and the all-reduce of its group. Each stage of a run is a
//! method.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::agreement::Agreement;
use super::cross_validation;
use super::densify;
use super::ensemble::Ensemble;
use super::estimate::{self, Bytes, Seconds};
use super::forecast::Forecast;
use super::foretold;
use super::init::starts::InitialGuess;
use super::logs;
use super::model::{EpochEnd, Model, ModelSetup, StepContext};
use super::options::{Maps, RunOptions};
use super::outputs::{self, Finished};
use super::pace;
use super::particle_outputs;
use super::plan::{ModelPlan, Plan};
use super::rounds::{self, RoundContext};
use super::writes;
use crate::error::Result;
use crate::gmm::Gmm;
use crate::gmm::files::GmmFile;
use crate::loader::cache;
use crate::loader::sampler::Sampler;
use crate::loader::shard::{Residency, Shard};
use crate::parallel::{Assignment, Collective, EndSignal, Failure, HalfGroup, World, first_rank};
use crate::particles::Subset;
use crate::particles::selection::{Models, SubsetRows};
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::render::{Device, Geometry};
use crate::resources::all_reduce::AllReduce;
use crate::resources::devices::{self, RankDevice};
use crate::run_folder::appraisal::Appraisal;
use crate::run_folder::checkpoint::{self, Checkpoint};
use crate::run_folder::document::RunSummary;
use crate::run_folder::excluded::{self, Excluded};
use crate::run_folder::owner::Claim;
use crate::run_folder::{lifecycle, log, metrics, names};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its outputs.
    Done,
    /// With checkpoints, because a signal has asked the job to stop.
    Stopped,
}

/// Lines of metrics_*.jsonl per epoch, about.
const LINES_PER_EPOCH: u64 = 200;

/// The result of [`Session::train_epochs`].
pub(super) enum Trained {
    /// All epochs are done.
    ToTheEnd,
    /// A signal has stopped the job; checkpoints are being written.
    Stopped,
}

/// A model whose particles are not loaded yet.
struct OpenModel {
    /// Its index in the plan.
    index: usize,
    sampler: Sampler,
    device: Box<dyn Device>,
    ensemble: Ensemble,
}

/// One rank's part of a training run.
///
/// Invariant: fields are dropped in the order of their declaration. Devices hold graphs that have captured an all-reduce, so they go
/// before the communicator of the all-reduce.
pub(super) struct Session<'a> {
    world: &'a World,
    options: &'a RunOptions,
    store: &'a Store,
    plan: &'a Plan,
    claim: &'a Claim,
    /// Models of this rank, and its place in their group.
    assignment: Assignment,
    geometry: Geometry,
    started: Instant,
    /// The time of the parts that are done.
    spent: Seconds,
    /// The estimate of all of them.
    estimate: Option<Seconds>,
    open: Vec<OpenModel>,
    models: Vec<Model>,
    /// Until the devices are connected.
    collective: Option<Collective>,
    reduction: Option<AllReduce>,
}

impl<'a> Session<'a> {
    /// Joins the group of this rank. Every rank calls it. `started` is when the run started, before its plan was made.
    pub fn new(
        world: &'a World,
        options: &'a RunOptions,
        (store, plan, claim): (&'a Store, &'a Plan, &'a Claim),
        started: Instant,
    ) -> Self {
        let HalfGroup { assignment, collective } = HalfGroup::split(world, plan.models.len());
        let geometry = plan.geometry(assignment.models[0], store.header());
        Self {
            world,
            options,
            store,
            plan,
            claim,
            assignment,
            geometry,
            started,
            spent: Seconds::default(),
            estimate: None,
            open: Vec::new(),
            models: Vec::new(),
            collective: Some(collective),
            reduction: None,
        }
    }

    /// Opens a device for each model of this rank, with its initial Gaussians, and connects the group: all devices are opened before
    /// any particles are loaded, which take the remaining memory.
    ///
    /// # Errors
    /// When a device or the network fails.
    pub fn open_devices(&mut self, guess: InitialGuess) -> std::result::Result<(), Failure> {
        let Self { world, options, plan, assignment, geometry, .. } = self;
        let rank_device = devices::choose(options.device, world)?;
        if let Some(gpus) = devices::more_gpus(world, rank_device) {
            logs::advise_more_ranks(gpus, &options.command);
        }
        // The first rank of a node compiles the kernels; the others then find them in the cache.
        if rank_device != RankDevice::Cpu && world.local_rank() > 0 {
            world.local_barrier();
        }
        let starts = guess.starts(world, plan, geometry.box_size, &assignment.models);
        drop(guess);
        for (&index, mut starts) in assignment.models.iter().zip(starts) {
            let sampler = self.plan.sampler(index, self.store.header());
            let batch = sampler.slots_of(assignment.rank, assignment.size).len();
            let first: Gmm = starts[0].take().expect("the first mixture of a model always has a start");
            let open = |gmm| devices::open(rank_device, gmm, *geometry, batch, options.cache_half);
            let device = densify::open_for_growth(first, &self.plan.models[index].settings, open)?;
            self.open.push(OpenModel {
                index,
                sampler,
                device,
                ensemble: Ensemble::new(starts, self.plan.models[index].settings.refining_mixtures()),
            });
        }
        if rank_device != RankDevice::Cpu && world.local_rank() == 0 {
            world.local_barrier();
        }
        let collective = self.collective.take().expect("devices are opened once");
        let connected = devices::connect(world, rank_device, options.collective, collective)?;
        let reduction = self.reduction.insert(connected);
        for open in &mut self.open {
            open.device.join(reduction)?;
        }
        self.spent.preparing = self.started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Loads this rank's particles, and the checkpoints of a resumed run. Then takes over the run folder.
    ///
    /// # Errors
    /// When particles or a checkpoint cannot be read, or more particles are unusable than may be excluded.
    pub fn load_shards(&mut self) -> std::result::Result<(), Failure> {
        let Self { world, options, store, plan, .. } = *self;
        let Assignment { rank, size: ranks, .. } = self.assignment;
        let shards = self
            .open
            .iter_mut()
            .map(|open| (open.sampler.shard(open.sampler.slots_of(rank, ranks)).len(), &mut open.device));
        let (residencies, reader) = cache::decide(world, &options.cache, store, shards)?;
        for (open, residency) in std::mem::take(&mut self.open).into_iter().zip(residencies) {
            let OpenModel { index, sampler, mut device, ensemble } = open;
            let ModelPlan { settings, .. } = &plan.models[index];
            let slots = sampler.slots_of(rank, ranks);
            let images = sampler.shard(slots.clone()).len() as u64;
            let progress = match residency {
                Residency::Streamed => Progress::silent(),
                _ => progress(world, &format!("read {}", plan.models[index].name()), images),
            };
            let (reader, epochs) = (reader.clone(), settings.epochs);
            let shard = Shard::load(reader, &sampler, slots, epochs, residency, device.as_mut(), progress)?;
            let (excluded, checkpoint) = self.read_checkpoint(index, &sampler, &shard)?;
            let setup = self.setup(index, device, ensemble, sampler, excluded)?;
            self.models.push(Model::new(setup, shard, checkpoint)?);
        }
        // From here on nothing but training is left to do: files of an older run are removed.
        world.barrier();
        let done: Vec<(Subset, u64)> =
            plan.models.iter().map(|model| (model.subset.subset, model.steps_done)).collect();
        world.on_root(|| {
            self.claim.check()?;
            lifecycle::begin(&options.output, &done, &options.command)
        })?;
        log::open(&options.output, world, &options.command);
        self.spent.reading = self.started.elapsed().as_secs_f64() - self.spent.total();
        Ok(())
    }

    /// The particles that model `index` is trained without so far, and the checkpoint that it resumes from.
    fn read_checkpoint(
        &self,
        index: usize,
        sampler: &Sampler,
        shard: &Shard,
    ) -> Result<(Excluded, Option<Checkpoint>)> {
        let Self { options, plan, .. } = *self;
        let ModelPlan { subset: SubsetRows { subset, rows }, settings, steps_done, .. } = &plan.models[index];
        let list = (self.assignment.rank == 0).then(|| excluded::path(&options.output, *subset));
        let mut excluded = Excluded::new(options.skip_bad_particles, self.store.clone(), list);
        let mut checkpoint = None;
        if *steps_done > 0 {
            let folder = names::checkpoints(&options.output);
            let path = checkpoint::path(&folder, *subset, *steps_done);
            let read = Checkpoint::read(&path)?;
            read.identity.check_continues(&path, &plan.identity(index), read.position.epoch)?;
            read.check_within(&path, settings, sampler.steps(), rows)?;
            excluded.resume(&read.excluded);
            checkpoint = Some(read);
        }
        excluded.find(&shard.defects())?;
        let collective = &self.reduction.as_ref().expect("devices are connected").collective;
        excluded.check_budget(collective).map_err(|error| collective.report_once(error))?;
        Ok((excluded, checkpoint))
    }

    fn setup(
        &self,
        index: usize,
        device: Box<dyn Device>,
        ensemble: Ensemble,
        sampler: Sampler,
        excluded: Excluded,
    ) -> Result<ModelSetup> {
        let Self { options, plan, .. } = *self;
        let Assignment { rank, size: ranks, .. } = self.assignment;
        let ModelPlan { subset: rows, settings, noise, .. } = &plan.models[index];
        let subset = &rows.subset;
        let (folder, claim) = (&options.output, self.claim.clone());
        // The first rank of the group writes them.
        let metrics = || metrics::Writer::new(folder, *subset, options.prometheus.as_deref(), claim);
        // The same for both halves, which may differ by a particle.
        let steps = plan.most_particles().div_ceil(settings.batch) as u64;
        Ok(ModelSetup {
            subset: *subset,
            identity: plan.identity(index),
            device,
            ensemble,
            sampler,
            excluded,
            rank,
            ranks,
            rows: rows.clone(),
            appraisal: noise.clone().map(|noise| Appraisal { noise, ..Appraisal::default() }),
            checkpoints: names::checkpoints(&options.output),
            claim: self.claim.clone(),
            metrics: (rank == 0).then(metrics).transpose()?,
            metrics_every: options.metrics_every.unwrap_or(steps / LINES_PER_EPOCH).max(1),
        })
    }

    /// Trains all epochs that are left. The halves stay within an epoch of each other.
    ///
    /// # Errors
    /// When a model fails, or a map cannot be written.
    pub fn train_epochs(&mut self, signal: &EndSignal) -> std::result::Result<Trained, Failure> {
        let Self { world, options, plan, .. } = *self;
        let mut forecast = self.forecast()?;
        let reduction = self.reduction.as_mut().expect("devices are connected");
        logs::introduce(world, self.store, plan, &self.assignment, self.models[0].device(), reduction);
        let others = (0..plan.models.len()).filter(|model| !self.assignment.models.contains(model));
        let peers = others.map(|model| first_rank(world.size(), plan.models.len(), model)).collect();
        let is_leader = self.assignment.rank == 0;
        let mut agreement = Agreement::new(world, signal, peers, is_leader, options.checkpoint_every);
        let names: Vec<&str> = self.models.iter().map(|model| model.subset().name()).collect();
        let images_left = self.models.iter().map(Model::images_left).sum();
        let mut bar = progress(world, &format!("train {}", names.join(" and ")), images_left);
        let epochs = plan.models[0].settings.epochs;
        let started = Instant::now();
        for epoch in plan.first_epoch..epochs {
            if plan.models[0].settings.refines_before(epoch) {
                let context = RoundContext {
                    world,
                    store: self.store,
                    subsets: &plan.subsets(),
                    assignment: &self.assignment,
                    symmetry: self.geometry.symmetry,
                    signal,
                };
                let started = Instant::now();
                rounds::round(&context, &mut self.models, &mut reduction.collective, epoch)?;
                forecast.round(started.elapsed());
                self.spent.refining += started.elapsed().as_secs_f64();
                if agreement.between_epochs() {
                    return Ok(Trained::Stopped);
                }
            }
            for model in self.models.iter_mut().filter(|model| model.position().epoch == epoch) {
                let mut context = StepContext {
                    group: reduction,
                    agreement: &mut agreement,
                    progress: &mut bar,
                    forecast: &mut forecast,
                };
                match model.train_epoch(&mut context)? {
                    EpochEnd::Complete(summary, traffic) => {
                        logs::epoch(model.subset(), &plan.models[0].settings, &summary, &traffic);
                    }
                    EpochEnd::Stopped => break,
                }
            }
            if agreement.between_epochs() {
                return Ok(Trained::Stopped);
            }
            if options.maps == Maps::Epoch && epoch + 1 < epochs {
                self.claim.check()?;
                write_models(&self.models, &self.assignment, &options.output, &self.geometry)?;
                world.barrier();
                if world.rank() == 0 && options.models == Models::Both {
                    outputs::log_fsc(&options.output, epoch + 1)?;
                }
                world.barrier();
            }
        }
        self.spent.training = started.elapsed().as_secs_f64() - self.spent.refining;
        self.estimate = forecast.estimate();
        bar.finish();
        Ok(Trained::ToTheEnd)
    }

    /// The estimate of time, memory and disk, which rank 0 logs after its first steps. It times a piece of the work that follows the
    /// training.
    fn forecast(&mut self) -> Result<Forecast> {
        let Self { world, options, store, plan, .. } = *self;
        let header = store.header();
        let particles: Vec<usize> = plan.models.iter().map(|model| model.subset.rows.len()).collect();
        let node = (world.size(), world.local_size());
        let bytes = Bytes {
            memory: foretold::host_bytes(node, options, plan, (header.box_size, &particles)),
            run_folder: writes::run_folder(plan, header),
            ..Bytes::default()
        };
        let around = (world.rank() == 0).then(|| {
            let started = Instant::now();
            let slowness = pace::slowness(store, &plan.subsets())?;
            self.spent.preparing += started.elapsed().as_secs_f64();
            let ending = estimate::Ending::of(
                options,
                &plan.models[0].settings,
                (header.box_size, plan.most_particles()),
                (world.local_size(), slowness),
            );
            Ok::<_, crate::error::Error>(ending.follow(self.spent))
        });
        // The other ranks would share the cores of what is timed.
        world.barrier();
        Ok(Forecast::new((plan, &self.assignment.models), around.transpose()?, bytes))
    }

    /// Writes mixtures and maps of all models, and on rank 0 everything that is made from them.
    ///
    /// # Errors
    /// When particles cannot be read for the voxel maps, or an output cannot be written.
    pub fn write_outputs(&mut self) -> std::result::Result<Ending, Failure> {
        let Self { world, options, store, plan, .. } = *self;
        // A checkpoint that could not be written is logged; what counts now are the outputs.
        self.models.iter_mut().for_each(|model| _ = model.wait_for_checkpoint());
        self.claim.check()?;
        write_models(&self.models, &self.assignment, &options.output, &self.geometry)?;
        world.barrier();
        let collective = &self.reduction.as_ref().expect("devices are connected").collective;
        particle_outputs::write((world, store, plan), &mut self.models, collective, &options.output)?;
        let rows = self.models.iter().flat_map(|model| model.excluded().rows());
        let excluded: BTreeSet<usize> = rows.map(|row| row as usize).collect();
        let reduction = self.reduction.as_mut().expect("devices are connected");
        let subsets = plan.subsets();
        let refined: Vec<_> =
            self.models.iter().map(|model| model.gather_refinements(&reduction.collective)).collect();
        let group = (&self.assignment, &mut reduction.collective);
        let voxels = (options.voxel_particles, self.geometry.symmetry);
        let started = Instant::now();
        let voxels = cross_validation::half_maps(world, store, &subsets, group, voxels, &excluded, &refined)?;
        self.spent.cross_validation = started.elapsed().as_secs_f64();
        if world.rank() == 0 {
            self.claim.check()?;
            let truth = options.truth.as_deref();
            outputs::finish(&Finished {
                voxels,
                options,
                identity: &plan.identity(0),
                summary: RunSummary::new(world, store, plan.data_set.id(), &subsets, &options.command, truth),
                device: self.models[0].device().name(),
                spent: self.spent,
                estimate: self.estimate,
                started: self.started,
            })?;
        }
        // No rank leaves before the outputs are there: the launcher would end the job.
        world.barrier();
        Ok(Ending::Done)
    }

    /// Waits for the checkpoints of a job that a signal has stopped.
    pub fn stop(&mut self) -> std::result::Result<Ending, Failure> {
        let Self { world, options, .. } = *self;
        let unsaved = self.models.iter_mut().map(|model| u64::from(!model.wait_for_checkpoint())).sum();
        let unsaved = world.all_reduce_sum(unsaved);
        if world.rank() == 0 {
            // Only the checkpoints matter for a resumed run.
            let write = || lifecycle::write_state(&options.output, "stopped", &options.command);
            if let Err(error) = self.claim.check().and_then(|()| write()) {
                tracing::warn!("{error}");
            }
            let state = match unsaved {
                0 => "checkpoints are written",
                _ => "NOT ALL CHECKPOINTS COULD BE WRITTEN",
            };
            tracing::info!("stopped by a signal; {state} (exit code 75); to continue:");
            tracing::info!("  {}", logs::resuming(&options.command, world.size()));
        }
        // The launcher ends the job when the first rank leaves.
        world.barrier();
        Ok(Ending::Stopped)
    }

    /// Releases the devices, then the network. Every rank calls it with its `outcome`.
    ///
    /// # Errors
    /// That of `outcome`, or when the network fails.
    pub fn close(
        self,
        outcome: std::result::Result<Ending, Failure>,
    ) -> std::result::Result<Ending, Failure> {
        if matches!(outcome, Err(Failure::Local(_))) && self.world.size() > 1 {
            // Other ranks may wait for this one, on their devices and so on this one's: releasing anything could block in
            // turn. The process ends now, and the driver releases all.
            std::mem::forget(self);
            return outcome;
        }
        let Self { open, models, reduction, .. } = self;
        drop((models, open));
        let finished = reduction.map_or(Ok(()), AllReduce::finish);
        outcome.and_then(|ending| Ok(finished.map(|()| ending)?))
    }
}

/// A progress bar of images on rank 0.
fn progress(world: &World, label: &str, total: u64) -> Progress {
    if world.rank() == 0 { Progress::new(label, total, "images") } else { Progress::silent() }
}

/// Writes mixture and map of each model, on the first rank of its group.
fn write_models(models: &[Model], assignment: &Assignment, folder: &Path, geometry: &Geometry) -> Result<()> {
    if assignment.rank != 0 {
        return Ok(());
    }
    for model in models {
        let file = GmmFile {
            gmm: Gmm::mean(&model.mixtures()?),
            symmetry: geometry.symmetry,
            box_size: geometry.box_size,
            pixel_size: geometry.pixel_size,
        };
        outputs::write_model(folder, model.subset(), &file)?;
    }
    Ok(())
}
