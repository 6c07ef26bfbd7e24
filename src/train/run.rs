//! A whole run, on every rank: set up, train, and at the end the outputs.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::checkpoint::{self, Checkpoint};
use super::devices::{self, Choice, DeviceKind};
use super::folder::{self, Older};
use super::half::{EpochSummary, Metric, Model, random_start};
use super::order::Order;
use super::outputs::{self, Finished};
use super::recipe::{Choices, Recipe, Settings};
use super::reduction::{CollectiveKind, Reduction};
use super::shard::{CacheMode, Shard};
use crate::error::{Error, Result};
use crate::gmm::files::GmmFile;
use crate::parallel::{HalfGroup, World, group_size};
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::render::cuda::card;
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

/// One model of the run: its name, its half (1, 2; 0 for all) and its particles.
#[derive(Clone, Debug)]
struct Part {
    name: &'static str,
    half: u8,
    members: Vec<usize>,
}

fn parts(store: &Store, models: Models) -> Vec<Part> {
    let metadata = store.metadata();
    let half = |name, half: u8| Part { name, half, members: metadata.members(half - 1) };
    match models {
        Models::Both => vec![half("half1", 1), half("half2", 2)],
        Models::First => vec![half("half1", 1)],
        Models::Second => vec![half("half2", 2)],
        Models::All => vec![Part { name: "map", half: 0, members: (0..metadata.len()).collect() }],
    }
}

/// Trains and writes the run folder. Every rank calls it.
///
/// # Errors
/// `Err(None)` where rank 0 says what is wrong for all; `Err(Some(_))` where this rank has to.
pub fn run(world: &World, options: &RunOptions) -> std::result::Result<(), Option<Error>> {
    let started = Instant::now();
    // Rank 0 looks at everything first: what is wrong for all is said once, before anybody starts.
    let (store, start_epoch) = match world.first(|| open(world, options))? {
        Some((store, epoch)) => (store, epoch),
        None => (Store::open(&options.particles)?, 0),
    };
    let start_epoch = world.broadcast(start_epoch as u64) as usize;
    let parts = parts(&store, options.models);
    let HalfGroup { assignment, collective } = HalfGroup::split(world, parts.len());
    let (rank, ranks) = (assignment.rank, assignment.size);
    let largest = largest(&parts);
    let settings = resolve(options, largest, ranks);
    let identity = checkpoint::identity(&settings, store.identity());
    let checkpoints = folder::checkpoints(&options.output);

    let geometry = Geometry {
        box_size: store.metadata().box_size,
        pixel_size: store.metadata().pixel_size,
        cutoff: settings.cutoff,
    };
    let choice = devices::choose(options.device, world)?;
    let mut models = Vec::new();
    for &index in &assignment.models {
        let part = &parts[index];
        let order = Order::new(&part.members, settings.batch, settings.seed, part.half);
        let slots = order.slots_of(rank, ranks);
        let start = random_start(&settings, part.half);
        let mut device = devices::open(choice, start, geometry, slots.len(), options.cache_half)?;
        let mine = order.shard(slots);
        let progress = quiet_unless_first(world, &format!("read {}", part.name), mine.len() as u64);
        let shard = Shard::load(&store, &mine, options.cache, world.local_size(), device.as_mut(), progress)?;
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
    let mut reduction = match choice {
        Choice::Cpu if options.collective == CollectiveKind::Nccl => {
            return Err(Some(Error::request(
                "NCCL adds up between GPUs, and this run computes on processors",
                "leave out --collective nccl, or use --device cuda",
            )));
        }
        Choice::Cpu => Reduction::over_mpi(collective),
        Choice::Gpu(ordinal) => {
            let gpu = card::identity(ordinal)?;
            Reduction::between_gpus(collective, options.collective, gpu, options.patience)?
        }
    };
    // All particles that are kept in memory were read, and are sound: from here on an older run's files go.
    world.barrier();
    world.first(|| folder::begin(&options.output, start_epoch, &options.command))?;
    introduce(
        world,
        &store,
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
            let summary = model.run_epoch(&mut reduction, &mut progress, &sender, metrics_every)?;
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
            write_models(&models, rank, &options.output, &geometry)?;
            world.barrier();
            if world.rank() == 0 && options.models == Models::Both {
                outputs::preview(&options.output, epoch + 1)?;
            }
            world.barrier();
        }
    }
    let training = training.elapsed().as_secs_f64();
    progress.finish();

    write_models(&models, rank, &options.output, &geometry)?;
    world.barrier();
    if world.rank() == 0 {
        outputs::finish(&Finished {
            options,
            settings: &settings,
            store: &store,
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

fn largest(parts: &[Part]) -> usize {
    parts.iter().map(|p| p.members.len()).max().unwrap_or(0)
}

/// Everything that can be wrong before the start, seen from rank 0. The store, and the epochs that are done.
fn open(world: &World, options: &RunOptions) -> Result<(Store, usize)> {
    let store = Store::open(&options.particles)?;
    if let Some(i) = store.metadata().shift.iter().position(|s| *s != [0.0, 0.0]) {
        return Err(Error::input(
            &options.particles,
            format!("particle {}", i + 1),
            format!("has a shift of {:?} pixels still to apply", store.metadata().shift[i]),
            "make the file with `cryosplat-mpi import`, which centres the particles",
        ));
    }
    let parts = parts(&store, options.models);
    for (index, part) in parts.iter().enumerate() {
        let n = part.members.len();
        if n == 0 {
            return Err(Error::input(
                &options.particles,
                "/half",
                format!("no particle is in {}", part.name),
                "import again with another --seed, or train one model with --half all",
            ));
        }
        let ranks = group_size(world.size(), parts.len(), index);
        if ranks > n {
            return Err(Error::request(
                format!("{ranks} ranks are to train {} with {n} particles: some would have none", part.name),
                format!("start at most {} ranks", n * parts.len()),
            ));
        }
        let batch = resolve(options, n, ranks).batch;
        if batch < ranks {
            return Err(Error::request(
                format!("a batch of {batch} images cannot be shared by {ranks} ranks: some would have none"),
                format!("use --batch {ranks} or more, or fewer ranks"),
            ));
        }
    }
    if let Some(truth) = &options.truth {
        let volume = crate::evaluate::maps::read_cube(truth)?;
        if volume.data.dim().0 != store.metadata().box_size {
            return Err(Error::input(
                truth,
                "",
                format!(
                    "has a box of {} voxels, and the particles one of {} pixels",
                    volume.data.dim().0,
                    store.metadata().box_size
                ),
                "give the map that the particles were made from, in their box",
            ));
        }
    }
    let identities: Vec<(&str, String)> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let ranks = group_size(world.size(), parts.len(), index);
            let settings = resolve(options, largest(&parts), ranks);
            (part.name, checkpoint::identity(&settings, store.identity()))
        })
        .collect();
    let epoch = folder::prepare(&options.output, options.older, &identities)?;
    Ok((store, epoch))
}

fn resolve(options: &RunOptions, particles: usize, ranks: usize) -> Settings {
    let mut choices = options.choices.clone();
    if let Some(each) = options.batch_per_rank {
        choices.batch = Some(each * ranks);
    }
    Settings::resolve(options.recipe, &choices, options.isotropic, options.cutoff, options.seed, particles)
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
        if ranks > 1 { format!("; sums over {collective}") } else { String::new() }
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
