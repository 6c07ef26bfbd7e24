//! A whole run, on every rank: set up, train, and at the end the outputs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::outputs::{self, Finished};
use super::watch::Watch;
use crate::error::Result;
use crate::gmm::Gmm;
use crate::gmm::files::GmmFile;
use crate::loader::cache::{self, CacheOptions};
use crate::loader::sampler::Order;
use crate::loader::shard::{Place, Shard, Traffic};
use crate::parallel::{EndSignal, Failure, HalfGroup, World, first_rank};
use crate::particles::parts::{self, Models, Part};
use crate::particles::store::{DataSetId, Store};
use crate::progress::Progress;
use crate::recipe::{Choices, Recipe, Settings};
use crate::render::{Device, Geometry};
use crate::resources::devices::{self, DeviceKind};
use crate::resources::reduction::{CollectiveKind, Reduction};
use crate::run_folder::checkpoint::{self, Checkpoint};
use crate::run_folder::document::Done;
use crate::run_folder::excluded::{self, LeftOut};
use crate::run_folder::lifecycle::{self, Older, Start};
use crate::run_folder::metrics::{self, EpochSummary};
use crate::train::cross_validation;
use crate::train::ensemble::Mixtures;
use crate::train::init::from_file::InitOptions;
use crate::train::init::starts::{Begun, Known};
use crate::train::model::{self, Company, Ended, Model};
use crate::train::plan::{self, Opened};

/// When maps are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maps {
    /// At the end of the run.
    End,
    /// After every epoch, with the FSC in the log.
    Epoch,
}

/// What the command line decided.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The particle file.
    pub particles: PathBuf,
    /// The run folder.
    pub output: PathBuf,
    /// The recipe.
    pub recipe: Recipe,
    /// What the user chose within it.
    pub choices: Choices,
    /// Images per step and rank, in place of the global batch.
    pub batch_per_rank: Option<usize>,
    /// What the Gaussians start from; `None` where they are random.
    pub init: Option<InitOptions>,
    /// One scale per Gaussian.
    pub isotropic: bool,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// The seed.
    pub seed: u64,
    /// Which models.
    pub models: Models,
    /// Where ranks compute.
    pub device: DeviceKind,
    /// How gradients are added up over ranks.
    pub collective: CollectiveKind,
    /// How long a rank waits for the others' GPUs.
    pub patience: Duration,
    /// Where particles are kept.
    pub cache: CacheOptions,
    /// Keep them in 16 bits a pixel, where the device keeps them.
    pub cache_half: bool,
    /// When maps are written.
    pub maps: Maps,
    /// Write every so many steps to metrics.jsonl; `None`: about 200 lines an epoch.
    pub metrics_every: Option<u64>,
    /// A map to compare with.
    pub truth: Option<PathBuf>,
    /// Particles of each half for the voxel maps that its map is cross-validated with; 0: none.
    pub voxel_particles: usize,
    /// Particles of a model that may be left out.
    pub skip_bad_particles: usize,
    /// Time between two checkpoints; `None`: at the end of each epoch only.
    pub checkpoint_every: Option<Duration>,
    /// Where a file for Prometheus goes.
    pub prometheus: Option<PathBuf>,
    /// What to do about an older run in the run folder.
    pub older: Older,
    /// The command line as typed.
    pub command: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its outputs.
    Done,
    /// With checkpoints, because the job's time is over.
    Stopped,
}

/// Trains and writes the run folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &RunOptions) -> std::result::Result<Ending, Failure> {
    let started = Instant::now();
    let signal = EndSignal::watch()?;
    // Rank 0 looks at everything first: what is wrong for all is said once, before anybody starts.
    let mut options = options.clone();
    let (store, set, start, known) = match world.on_root(|| plan::open(world, &mut options))? {
        Some(Opened { store, set, start, known }) => (store, Some(set), Some(start), known),
        None => (Store::open(&options.particles)?, None, None, Known::default()),
    };
    plan::share(world, &mut options.choices);
    let options = &options;
    let set = parts::share_identity(world, set);
    let Some(begin) = Begin::on_all_ranks(world, start) else {
        if world.rank() == 0 {
            tracing::info!(
                "the run in {} is done: nothing is left to do (--overwrite does it again)",
                options.output.display()
            );
        }
        return Ok(Ending::Done);
    };
    let mut held = Held::default();
    let outcome = train(world, options, (&store, set), known, &begin, &signal, started, &mut held);
    if matches!(outcome, Err(Failure::Local(_))) && world.size() > 1 {
        // Other ranks may be waiting for this one, on their devices and so on this one's: giving anything back could wait
        // for them in turn. The job ends now, and all goes with it.
        std::mem::forget(held);
        return outcome;
    }
    // Graphs that captured a sum go before what adds up.
    drop((held.models, held.devices));
    let parted = held.reduction.map_or(Ok(()), Reduction::finish);
    outcome.and_then(|ending| Ok(parted.map(|()| ending)?))
}

/// What a rank holds that other ranks' devices may wait for.
#[derive(Default)]
struct Held {
    devices: Vec<Box<dyn Device>>,
    models: Vec<Model>,
    reduction: Option<Reduction>,
}

/// Where the run begins, as every rank knows it.
#[derive(Clone, Copy, Debug)]
struct Begin {
    /// Steps that each model has done.
    steps: [u64; 2],
    /// First epoch that some model has not done.
    epoch: usize,
    /// Ranks of a group that did them; 0 where none were done.
    ranks: usize,
}

impl Begin {
    /// What rank 0 has found, on all ranks; `None` where all is done.
    fn on_all_ranks(world: &World, start: Option<Start>) -> Option<Self> {
        let words = match start {
            Some(Start::At { steps, epoch, ranks }) => {
                let second = steps.get(1).copied().unwrap_or(0);
                [1, steps[0], second, epoch as u64, ranks as u64]
            }
            _ => [0; 5],
        };
        let [work, first, second, epoch, ranks] = words.map(|word| world.broadcast(word));
        let begin = Self { steps: [first, second], epoch: epoch as usize, ranks: ranks as usize };
        (work == 1).then_some(begin)
    }
}

#[allow(clippy::too_many_arguments)]
fn train(
    world: &World,
    options: &RunOptions,
    (store, set): (&Store, DataSetId),
    known: Known,
    begin: &Begin,
    signal: &EndSignal,
    started: Instant,
    held: &mut Held,
) -> std::result::Result<Ending, Failure> {
    let Held { devices: opened, models, reduction } = held;
    let parts = parts::parts(store, options.models);
    let HalfGroup { assignment, collective } = HalfGroup::split(world, parts.len());
    let (rank, ranks) = (assignment.rank, assignment.size);
    let largest = parts::largest(&parts);
    let settings = plan::resolve(options, store.header(), largest, ranks);
    let identity = checkpoint::identity(&settings, set);
    let checkpoints = lifecycle::checkpoints(&options.output);

    let weights = plan::weights(world, store, settings.weighting)?;
    let geometry = Geometry {
        box_size: store.header().box_size,
        pixel_size: store.header().pixel_size,
        cutoff: settings.cutoff,
        sampling: settings.sampling,
        weights,
    };
    let choice = devices::choose(options.device, world)?;
    let orders: Vec<Order> = assignment
        .models
        .iter()
        .map(|&index| {
            let image_bytes = store.header().pixels() * size_of::<f32>();
            let Part { rows, subset } = &parts[index];
            Order::new(rows.clone(), settings.batch, image_bytes, settings.seed, *subset)
        })
        .collect();
    let begun = Begun { steps: &begin.steps, epochs: begin.epoch };
    let box_size = store.header().box_size;
    let starts = known.starts(world, &settings, box_size, &parts, begun, &assignment.models);
    drop(known);
    // All devices first, and the network between them: particles take what memory they leave.
    let mut mixtures = Vec::new();
    for (mut starts, order) in starts.into_iter().zip(&orders) {
        let batch = order.slots_of(rank, ranks).len();
        let first = starts[0].take().expect("a device is made with a mixture");
        opened.push(devices::open(choice, first, geometry, batch, options.cache_half)?);
        mixtures.push(Mixtures::new(starts));
    }
    let connected = devices::connect(world, choice, options.collective, collective, options.patience)?;
    let reduction = reduction.insert(connected);
    for device in opened.iter_mut() {
        device.join(reduction)?;
    }
    let steps = largest.div_ceil(settings.batch) as u64;
    let metrics_every = options.metrics_every.unwrap_or((steps / 200).max(1)).max(1);
    let particles = orders.iter().map(|order| order.shard(order.slots_of(rank, ranks)).len());
    let shards = particles.zip(opened.iter_mut());
    let (places, reader) = cache::decide(world, &options.cache, store, shards)?;
    let each = assignment.models.iter().zip(orders).zip(opened.drain(..).zip(mixtures)).zip(places);
    for (((&index, order), (mut device, mixtures)), place) in each {
        let part = &parts[index];
        let slots = order.slots_of(rank, ranks);
        let images = order.shard(slots.clone()).len() as u64;
        let progress = match place {
            Place::File => Progress::silent(),
            _ => quiet_unless_first(world, &format!("read {}", part.name()), images),
        };
        let reader = reader.clone();
        let shard = Shard::load(reader, &order, slots, settings.epochs, place, device.as_mut(), progress)?;
        let list = (rank == 0).then(|| excluded::path(&options.output, part.name()));
        let mut left_out = LeftOut::new(options.skip_bad_particles, store.clone(), list);
        let checkpoint = if begin.steps[index] > 0 {
            let path = checkpoint::path(&checkpoints, part.name(), begin.steps[index]);
            let checkpoint = Checkpoint::read(&path)?;
            lifecycle::same_run(&path, &checkpoint.identity, Some(&identity))?;
            checkpoint.check_within(&path, &settings, order.steps(), &part.rows)?;
            left_out.resume(&checkpoint.left_out);
            Some(checkpoint)
        } else {
            None
        };
        left_out.find(&shard.defects())?;
        left_out.foresee(&reduction.collective).map_err(|error| reduction.collective.report_once(error))?;
        let metrics = metrics::Writer::new(&options.output, part.name(), options.prometheus.as_deref());
        let mut model = Model::new(model::Parts {
            name: part.name(),
            device,
            mixtures,
            settings: settings.clone(),
            order,
            shard,
            left_out,
            rank,
            ranks,
            identity: identity.clone(),
            particles: part.rows.len(),
            checkpoints: checkpoints.clone(),
            metrics: (rank == 0).then_some(metrics),
            metrics_every,
        });
        if let Some(checkpoint) = checkpoint {
            model.resume(checkpoint)?;
        }
        models.push(model);
    }
    // All particles that are kept in memory were read, and enough of them are sound: from here on an older run's files go.
    world.barrier();
    let done: Vec<(&str, u64)> = parts.iter().map(Part::name).zip(begin.steps).collect();
    world.on_root(|| lifecycle::begin(&options.output, &done, &options.command))?;
    let device = models[0].device().name();
    introduce(world, store, &parts, &settings, &device, reduction.name(), ranks, begin);

    let others = (0..parts.len()).filter(|model| !assignment.models.contains(model));
    let peers = others.map(|model| first_rank(world.size(), parts.len(), model)).collect();
    let mut watch = Watch::new(world, signal, peers, rank == 0, options.checkpoint_every);
    let names: Vec<&str> = models.iter().map(Model::name).collect();
    let label = format!("train {}", names.join(" and "));
    let left = assignment.models.iter().zip(&*models).map(|(&index, model)| {
        let all = settings.epochs * parts[index].rows.len();
        let position = model.position();
        (all - position.epoch * parts[index].rows.len()) as u64 - position.images
    });
    let mut progress = quiet_unless_first(world, &label, left.sum());
    let training = Instant::now();
    for epoch in begin.epoch..settings.epochs {
        for model in models.iter_mut().filter(|model| model.position().epoch == epoch) {
            let mut company = Company { group: reduction, watch: &mut watch, progress: &mut progress };
            match model.run_epoch(&mut company)? {
                Ended::Whole(summary, traffic) => {
                    say_epoch(model.name(), &settings, &summary, &traffic);
                }
                Ended::Stopped => break,
            }
        }
        // The halves stay within an epoch of each other.
        if watch.between_epochs() {
            return stop(world, options, models);
        }
        if options.maps == Maps::Epoch && epoch + 1 < settings.epochs {
            write_models(models, rank, &options.output, &geometry)?;
            world.barrier();
            if world.rank() == 0 && options.models == Models::Both {
                outputs::preview(&options.output, epoch + 1)?;
            }
            world.barrier();
        }
    }
    let training = training.elapsed().as_secs_f64();
    progress.finish();

    // One that could not be written was said; what counts now are the outputs.
    models.iter_mut().for_each(|model| _ = model.saved());
    write_models(models, rank, &options.output, &geometry)?;
    world.barrier();
    let left_out = models.iter().flat_map(|model| model.left_out().rows()).map(|row| row as usize).collect();
    let group = (&assignment, &mut reduction.collective);
    let voxels =
        cross_validation::half_maps(world, store, &parts, group, options.voxel_particles, &left_out)?;
    if world.rank() == 0 {
        outputs::finish(&Finished {
            voxels,
            options,
            settings: &settings,
            identity: &identity,
            done: Done::new(world, store, set, &parts, &options.command, options.truth.as_deref()),
            device,
            training_seconds: training,
            total_seconds: started.elapsed().as_secs_f64(),
        })?;
    }
    // Nobody leaves, and lets the launcher end the job, before the outputs are there.
    world.barrier();
    Ok(Ending::Done)
}

/// The end of a job whose time is over.
fn stop(world: &World, options: &RunOptions, models: &mut [Model]) -> std::result::Result<Ending, Failure> {
    let unsaved = models.iter_mut().map(|model| u64::from(!model.saved())).sum();
    let unsaved = world.all_reduce_sum(unsaved);
    if world.rank() == 0 {
        // Whether this file can be written decides nothing: the checkpoints do.
        if let Err(error) = lifecycle::write_state(&options.output, "stopped", &options.command) {
            tracing::warn!("{error}");
        }
        let state =
            if unsaved == 0 { "checkpoints are written" } else { "NOT ALL CHECKPOINTS COULD BE WRITTEN" };
        tracing::info!(
            "stopped by a signal; {state}; the same command with --resume auto goes on (exit code 75)"
        );
    }
    // The launcher ends the job when the first rank leaves.
    world.barrier();
    Ok(Ending::Stopped)
}

fn quiet_unless_first(world: &World, label: &str, total: u64) -> Progress {
    if world.rank() == 0 { Progress::new(label, total, "images") } else { Progress::silent() }
}

fn say_epoch(model: &str, settings: &Settings, summary: &EpochSummary, traffic: &Traffic) {
    let mixture = match settings.mixtures {
        1 => String::new(),
        all => format!(" (mixture {} of {all})", settings.mixture_in(summary.epoch - 1) + 1),
    };
    let read = if traffic.bytes == 0 {
        String::new()
    } else {
        format!(", {}", traffic.describe(Duration::from_secs_f64(summary.seconds)))
    };
    tracing::info!(
        "{model} epoch {} of {}{mixture}: loss {:.6}, {:.0} images/s{read}",
        summary.epoch,
        settings.epochs,
        summary.loss,
        summary.images as f64 / summary.seconds.max(1e-9),
    );
}

#[allow(clippy::too_many_arguments)]
fn introduce(
    world: &World,
    store: &Store,
    parts: &[Part],
    settings: &Settings,
    device: &str,
    collective: &str,
    ranks: usize,
    begin: &Begin,
) {
    parts::introduce(store, parts);
    let mixtures = match settings.mixtures {
        1 => String::new(),
        several => format!("{several} mixtures of "),
    };
    tracing::info!(
        "{mixtures}{} Gaussians, {} epochs, batch {} a half, rate {:.2e} ({}), seed {}",
        settings.gaussians,
        settings.epochs,
        settings.batch,
        settings.learning_rate,
        settings.schedule,
        settings.seed
    );
    tracing::info!(
        "{} ranks, {} in the group of {}; each: {}{}",
        world.size(),
        ranks,
        parts[0].name(),
        device,
        if ranks > 1 || collective == "NCCL" { format!("; sums over {collective}") } else { String::new() }
    );
    if world.size() % 2 == 1 && world.size() > 1 && parts.len() == 2 {
        tracing::warn!(
            "{} ranks cannot be shared evenly: {} train half1, {} half2",
            world.size(),
            ranks,
            world.size() - ranks
        );
    }
    if begin.ranks > 0 && world.rank() == 0 {
        let steps: Vec<String> = parts
            .iter()
            .zip(begin.steps)
            .map(|(part, step)| format!("step {step} of {}", part.name()))
            .collect();
        tracing::info!("resuming after {}", steps.join(" and "));
        if begin.ranks != ranks {
            tracing::warn!(
                "{} ranks trained {} until then, now {ranks} do: sums are in another order, and the result differs from that \
                 of an uninterrupted run by rounding",
                begin.ranks,
                parts[0].name()
            );
        }
    }
}

/// The first rank of each group writes the group's mixture and map.
fn write_models(models: &[Model], rank: usize, folder: &Path, geometry: &Geometry) -> Result<()> {
    if rank != 0 {
        return Ok(());
    }
    for model in models {
        let mixtures = model.mixtures()?;
        let file = GmmFile {
            gmm: Gmm::mean(&mixtures),
            box_size: geometry.box_size,
            pixel_size: geometry.pixel_size,
        };
        outputs::write_model(folder, model.name(), &file)?;
    }
    Ok(())
}
