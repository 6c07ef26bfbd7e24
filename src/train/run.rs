//! A whole run, on every rank: set up, train, and at the end the outputs.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::checkpoint::{self, Checkpoint};
use super::devices::{self, DeviceKind};
use super::folder::{self, Older};
use super::half::{EpochSummary, Metric, Model, random_start};
use super::order::Order;
use super::outputs::{self, Finished};
use super::recipe::{Choices, Recipe, Settings};
use super::reduction::{CollectiveKind, Reduction};
use super::setup::{self, Part};
use super::shard::{CacheMode, Shard};
use crate::error::Result;
use crate::gmm::files::GmmFile;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::render::{Device, Geometry};

/// Which models a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Models {
    /// One model of each half: gold standard.
    Both,
    /// A model of half 1 alone.
    #[value(name = "1")]
    #[serde(rename = "1")]
    First,
    /// A model of half 2 alone.
    #[value(name = "2")]
    #[serde(rename = "2")]
    Second,
    /// One model of all particles: no FSC.
    All,
}

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
    pub cache: CacheMode,
    /// Keep them in 16 bits a pixel, where the device keeps them.
    pub cache_half: bool,
    /// When maps are written.
    pub maps: Maps,
    /// Write every so many steps to metrics.jsonl; `None`: about 200 lines an epoch.
    pub metrics_every: Option<u64>,
    /// A map to compare with.
    pub truth: Option<PathBuf>,
    /// What to do about an older run in the run folder.
    pub older: Older,
    /// The command line as typed.
    pub command: Vec<String>,
}

/// Trains and writes the run folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &RunOptions) -> std::result::Result<(), Failure> {
    let started = Instant::now();
    // Rank 0 looks at everything first: what is wrong for all is said once, before anybody starts.
    let (store, start_epoch) = match world.first(|| setup::open(world, options))? {
        Some((store, epoch)) => (store, epoch),
        None => (Store::open(&options.particles)?, 0),
    };
    let start_epoch = world.broadcast(start_epoch as u64) as usize;
    let mut held = Held::default();
    let outcome = train(world, options, &store, start_epoch, started, &mut held);
    if matches!(outcome, Err(Failure::Own(_))) && world.size() > 1 {
        // Other ranks may be waiting for this one, on their devices and so on this one's: giving anything back could wait
        // for them in turn. The job ends now, and all goes with it.
        std::mem::forget(held);
        return outcome;
    }
    // Graphs that captured a sum go before what adds up.
    drop((held.models, held.devices));
    let parted = held.reduction.map_or(Ok(()), Reduction::finish);
    outcome.and_then(|()| Ok(parted?))
}

/// What a rank holds that other ranks' devices may wait for.
#[derive(Default)]
struct Held<'a> {
    devices: Vec<Box<dyn Device>>,
    models: Vec<Model<'a>>,
    reduction: Option<Reduction>,
}

fn train<'a>(
    world: &World,
    options: &RunOptions,
    store: &'a Store,
    start_epoch: usize,
    started: Instant,
    held: &mut Held<'a>,
) -> std::result::Result<(), Failure> {
    let Held { devices: opened, models, reduction } = held;
    let parts = setup::parts(store, options.models);
    let HalfGroup { assignment, collective } = HalfGroup::split(world, parts.len());
    let (rank, ranks) = (assignment.rank, assignment.size);
    let largest = setup::largest(&parts);
    let settings = setup::resolve(options, largest, ranks);
    let identity = checkpoint::identity(&settings, store.identity());
    let checkpoints = folder::checkpoints(&options.output);

    let geometry = Geometry {
        box_size: store.metadata().box_size,
        pixel_size: store.metadata().pixel_size,
        cutoff: settings.cutoff,
    };
    let choice = devices::choose(options.device, world)?;
    let orders: Vec<Order> = assignment
        .models
        .iter()
        .map(|&index| Order::new(&parts[index].members, settings.batch, settings.seed, parts[index].half))
        .collect();
    // All devices first, and the network between them: particles take what memory they leave.
    for (&index, order) in assignment.models.iter().zip(&orders) {
        let start = random_start(&settings, parts[index].half);
        let batch = order.slots_of(rank, ranks).len();
        opened.push(devices::open(choice, start, geometry, batch, options.cache_half)?);
    }
    let connected = devices::connect(world, choice, options.collective, collective, options.patience)?;
    let reduction = reduction.insert(connected);
    for device in opened.iter_mut() {
        device.join(reduction)?;
    }
    for ((&index, order), mut device) in assignment.models.iter().zip(orders).zip(opened.drain(..)) {
        let part = &parts[index];
        let mine = order.shard(order.slots_of(rank, ranks));
        let progress = quiet_unless_first(world, &format!("read {}", part.name), mine.len() as u64);
        let shard = Shard::load(store, &mine, options.cache, world.local_size(), device.as_mut(), progress)?;
        let mut model = Model::new(
            part.name.to_owned(),
            device,
            settings.clone(),
            order,
            shard,
            (rank, ranks),
            identity.clone(),
            part.members.len(),
        );
        if start_epoch > 0 {
            let path = checkpoint::path(&checkpoints, part.name, start_epoch);
            let checkpoint = Checkpoint::read(&path)?;
            folder::same_run(&path, &checkpoint.identity, Some(&identity))?;
            model.resume(checkpoint)?;
        }
        models.push(model);
    }
    // All particles that are kept in memory were read, and are sound: from here on an older run's files go.
    world.barrier();
    world.first(|| folder::begin(&options.output, start_epoch, &options.command))?;
    introduce(
        world,
        store,
        &parts,
        &settings,
        models[0].device.as_ref(),
        reduction.name(),
        ranks,
        start_epoch,
    );

    let steps = largest.div_ceil(settings.batch) as u64;
    let metrics_every = options.metrics_every.unwrap_or((steps / 200).max(1)).max(1);
    let (sender, receiver) = channel();
    let remaining = (settings.epochs.saturating_sub(start_epoch) * models.len()) as u64;
    let per_epoch = models.first().map_or(0, |_| parts[assignment.models[0]].members.len() as u64);
    let names: Vec<&str> = assignment.models.iter().map(|&index| parts[index].name).collect();
    let label = format!("train {}", names.join(" and "));
    let mut progress = quiet_unless_first(world, &label, remaining * per_epoch);
    let training = Instant::now();
    let mut history: Vec<Vec<EpochSummary>> = vec![Vec::new(); parts.len()];
    for epoch in start_epoch..settings.epochs {
        for (model, &index) in models.iter_mut().zip(&assignment.models) {
            let summary = model.run_epoch(reduction, &mut progress, &sender, metrics_every)?;
            history[index].push(summary);
            tracing::info!(
                "{} epoch {} of {}: loss {:.6}, {:.0} images/s{}",
                model.name,
                epoch + 1,
                settings.epochs,
                summary.loss,
                summary.images as f64 / summary.seconds.max(1e-9),
                waiting(&summary)
            );
            if rank == 0 {
                write_checkpoint(
                    &model.checkpoint()?,
                    &checkpoints,
                    &model.name,
                    epoch + 1 == settings.epochs,
                )?;
            }
        }
        let lines: Vec<Metric> = receiver.try_iter().collect();
        collect_metrics(world, rank, &options.output, lines)?;
        // The halves stay within an epoch of each other, so that their kept checkpoints have one in common.
        world.barrier();
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

    write_models(models, rank, &options.output, &geometry)?;
    world.barrier();
    if world.rank() == 0 {
        outputs::finish(&Finished {
            options,
            settings: &settings,
            store,
            identity: &identity,
            particles: parts.iter().map(|p| (p.name, p.members.len())).collect(),
            ranks: world.size(),
            threads: rayon::current_num_threads(),
            device: models[0].device.name(),
            epochs_here: settings.epochs.saturating_sub(start_epoch),
            training_seconds: training,
            total_seconds: started.elapsed().as_secs_f64(),
            history: &history,
        })?;
    }
    // Nobody leaves, and lets the launcher end the job, before the outputs are there.
    world.barrier();
    Ok(())
}

fn quiet_unless_first(world: &World, label: &str, total: u64) -> Progress {
    if world.rank() == 0 { Progress::new(label, total, "images") } else { Progress::silent() }
}

fn waiting(summary: &EpochSummary) -> String {
    let share = summary.wait_seconds / summary.seconds.max(1e-9);
    if share < 0.05 {
        String::new()
    } else {
        format!(", {:.0}% of the time waiting for the file", 100.0 * share)
    }
}

#[allow(clippy::too_many_arguments)]
fn introduce(
    world: &World,
    store: &Store,
    parts: &[Part],
    settings: &Settings,
    device: &dyn Device,
    collective: &str,
    ranks: usize,
    start_epoch: usize,
) {
    let metadata = store.metadata();
    let sizes: Vec<String> = parts.iter().map(|p| format!("{} in {}", p.members.len(), p.name)).collect();
    tracing::info!(
        "{}: {} px at {:.4} A; particles: {}",
        store.path().display(),
        metadata.box_size,
        metadata.pixel_size,
        sizes.join(", ")
    );
    tracing::info!(
        "{} Gaussians, {} epochs, batch {} a half, rate {:.2e} ({}), seed {}",
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
        parts[0].name,
        device.name(),
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
    if start_epoch > 0 {
        tracing::info!("resuming after epoch {start_epoch}");
    }
}

/// A checkpoint that cannot be written does not end a run, unless it is the last.
fn write_checkpoint(checkpoint: &Checkpoint, folder: &Path, model: &str, last: bool) -> Result<()> {
    match checkpoint.write(folder, model) {
        Err(error) if !last => {
            tracing::warn!("no checkpoint after epoch {}: {error}; training goes on", checkpoint.epoch);
            Ok(())
        }
        outcome => outcome,
    }
}

/// Brings the metrics of all groups to rank 0, which appends them to metrics.jsonl.
fn collect_metrics(world: &World, rank: usize, folder: &Path, lines: Vec<Metric>) -> Result<()> {
    let mine = if rank == 0 {
        lines
            .iter()
            .filter_map(|line| serde_json::to_string(line).ok())
            .fold(String::new(), |all, line| all + &line + "\n")
    } else {
        String::new()
    };
    let Some(all) = world.gather(&mine) else { return Ok(()) };
    outputs::append_metrics(folder, &all.concat())
}

/// The first rank of each group writes the group's mixture and map.
fn write_models(models: &[Model], rank: usize, folder: &Path, geometry: &Geometry) -> Result<()> {
    if rank != 0 {
        return Ok(());
    }
    for model in models {
        let file = GmmFile {
            gmm: model.device.state()?.gmm,
            box_size: geometry.box_size,
            pixel_size: geometry.pixel_size,
        };
        outputs::write_model(folder, &model.name, &file)?;
    }
    Ok(())
}
