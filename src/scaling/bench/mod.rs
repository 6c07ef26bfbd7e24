//! `bench`: how fast a device is, or a set of ranks, without a run around it.
//!
//! All ranks are one group and take steps of one model, with a rate of zero: the mixture stays as it is. A measurement goes
//! one way: [`particles`] (made here, or of a file) ▶ [`steps`], then [`all_reduce`] alone and, of a file, [`reading`]
//! alone; [`outcome`] is all of it, on the first rank.

pub mod all_reduce;
pub mod outcome;
mod particles;
mod reading;
mod steps;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::Pending;
use crate::gmm::{Gmm, START_SCALE, Shape};
use crate::loader::cache::CacheOptions;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::store::{DataSetId, Store};
use crate::random::{Purpose, stream};
use crate::render::{Device, Geometry, Sampling, Weights};
use crate::resources::devices::{self, Choice, DeviceKind};
use crate::resources::memory;
use crate::resources::reduction::{CollectiveKind, Reduction};
use crate::run_folder::metrics::Spread;
use outcome::{Outcome, Setup};
use particles::{Particles, Source};
use steps::Sums;

/// Standard deviation of a trained Gaussian in pixels, in a box of 64.
const TRAINED_DEVIATION: f64 = 0.75;
/// How much farther apart trained Gaussians are than those of the random start.
const TRAINED_SPREAD: f32 = 1.6;

/// What the command line decided.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The particle file; `None`: images of noise, made in memory.
    pub particles: Option<PathBuf>,
    /// Box in pixels, without a file.
    pub box_size: usize,
    /// Pixel size in angstrom, without a file.
    pub pixel_size: f64,
    /// Gaussians.
    pub gaussians: usize,
    /// Images of a step, over all ranks.
    pub batch: usize,
    /// One scale per Gaussian.
    pub isotropic: bool,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// How splats are sampled.
    pub sampling: Sampling,
    /// The seed.
    pub seed: u64,
    /// Where ranks compute.
    pub device: DeviceKind,
    /// How gradients are added up over ranks.
    pub collective: CollectiveKind,
    /// How long a rank waits for the others' GPUs.
    pub patience: Duration,
    /// Where particles of a file are kept.
    pub cache: CacheOptions,
    /// Keep them in 16 bits a pixel, where the device keeps them.
    pub cache_half: bool,
    /// How long each measurement takes, about.
    pub time: Duration,
    /// Where the numbers go, besides the table.
    pub json: Option<PathBuf>,
    /// The command line as typed.
    pub command: Vec<String>,
}

/// Measures, and writes the file that was asked for. Every rank calls it; the first gets what came out.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &BenchOptions) -> std::result::Result<Option<Outcome>, Failure> {
    let (store, set, json) = match world.on_root(|| open(world, options))? {
        Some(opened) => opened,
        None => (options.particles.as_deref().map(Store::open).transpose()?, None, None),
    };
    let mut held = Held::default();
    let outcome = measure(world, options, (store.as_ref(), set), &mut held);
    if matches!(outcome, Err(Failure::Local(_))) && world.size() > 1 {
        // As at the end of a training: others may wait for this rank's device until the job ends, and giving it back for them.
        std::mem::forget(held);
        return outcome;
    }
    drop(held.device);
    let parted = held.reduction.map_or(Ok(()), Reduction::finish);
    let outcome = outcome?;
    parted?;
    let written = world.on_root(|| match (json, &outcome) {
        (Some(file), Some(outcome)) => write(file, outcome),
        _ => Ok(()),
    });
    written.map(|_| outcome)
}

/// What a rank holds that other ranks' devices may wait for.
#[derive(Default)]
struct Held {
    device: Option<Box<dyn Device>>,
    reduction: Option<Reduction>,
}

/// Everything that can be wrong before the start, seen from the first rank. The particles and their identity, and the file to
/// write.
fn open(
    world: &World,
    options: &BenchOptions,
) -> Result<(Option<Store>, Option<DataSetId>, Option<Pending>)> {
    let ranks = world.size();
    if options.batch < ranks {
        return Err(Error::request(
            format!(
                "a batch of {} images cannot be shared by {ranks} ranks: some would have none",
                options.batch
            ),
            format!("use --batch {ranks} or more, or fewer ranks"),
        ));
    }
    let store = options.particles.as_deref().map(Store::open).transpose()?;
    let mut set = None;
    if let Some(store) = &store {
        if store.len() < ranks {
            return Err(Error::input(
                store.path(),
                "",
                format!("holds {} particles, and there are {ranks} ranks: some would have none", store.len()),
                "start fewer ranks, or give more particles",
            ));
        }
        set = Some(store.validate()?);
    }
    Ok((store, set, options.json.as_deref().map(Pending::new).transpose()?))
}

fn write(file: Pending, outcome: &Outcome) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut writer = std::fs::File::create(file.path())?;
        serde_json::to_writer_pretty(&mut writer, outcome)?;
        writeln!(writer)
    };
    write().map_err(Error::io(file.path(), "write the numbers", "check that the disk is not full"))?;
    file.commit()
}

/// A mixture as it is for most of a training: the random start, as wide as trained Gaussians are, and as far apart.
fn mixture(options: &BenchOptions, box_size: usize) -> Gmm {
    let shape = if options.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    let count = options.gaussians;
    let mut gmm = Gmm::random(count, shape, &mut stream(options.seed, Purpose::Start, 0, 0));
    gmm.set_scale((TRAINED_DEVIATION / box_size as f64).max(START_SCALE));
    gmm.values_mut()[..3 * count].iter_mut().for_each(|mean| *mean *= TRAINED_SPREAD);
    gmm
}

fn measure(
    world: &World,
    options: &BenchOptions,
    (store, set): (Option<&Store>, Option<DataSetId>),
    held: &mut Held,
) -> std::result::Result<Option<Outcome>, Failure> {
    let HalfGroup { assignment, collective } = HalfGroup::split(world, 1);
    let share = particles::Share { rank: assignment.rank, ranks: assignment.size, batch: options.batch };
    let choice = devices::choose(options.device, world)?;
    let (box_size, pixel_size) = match store {
        Some(store) => (store.header().box_size, store.header().pixel_size),
        None => (options.box_size, options.pixel_size),
    };
    let &BenchOptions { cutoff, sampling, .. } = options;
    let geometry = Geometry { box_size, pixel_size, cutoff, sampling, weights: Weights::UNIFORM };
    let make =
        || devices::open(choice, mixture(options, box_size), geometry, share.images(), options.cache_half);
    let device = held.device.insert(make()?);
    let connected = devices::connect(world, choice, options.collective, collective, options.patience)?;
    let reduction = held.reduction.insert(connected);
    device.join(reduction)?;
    let source = Source::new(store, share, world, options, device)?;
    let mut particles = Particles::new(&source, share, &geometry, device.as_mut())?;
    world.barrier();

    let together = steps::measure(device.as_mut(), &mut particles, reduction, Sums::Group, options.time)?;
    let setup = Setup {
        device: device.name(),
        collective: reduction.name(),
        ranks: world.size(),
        nodes: world.nodes(),
        set,
        device_memory: match choice {
            Choice::Cpu => None,
            Choice::Gpu(_) => Some(Spread::of(&reduction.collective.all_gather_f64(device.memory() as f64))),
        },
    };
    // A device that cannot tell its stages apart takes its steps once more, on every rank alone.
    let alone = if together.stages.is_none() && share.ranks > 1 {
        // What captured the group's sum goes first, when nobody waits for anybody.
        world.barrier();
        held.device = None;
        let device = held.device.insert(make()?);
        source.make_room(share, device.as_mut())?;
        let mut particles = Particles::new(&source, share, &geometry, device.as_mut())?;
        world.barrier();
        Some(steps::measure(device.as_mut(), &mut particles, reduction, Sums::Alone, options.time)?)
    } else {
        None
    };
    let values = mixture(options, box_size).values().len();
    let all_reduce = all_reduce::measure(choice, reduction, values + 1, options.time)?;
    let reading = reading::measure(&source, share, &reduction.collective, options.time)?;
    let peaks = reduction.collective.all_gather_f64(memory::peak() as f64);
    let host_memory = (!peaks.contains(&0.0)).then(|| Spread::of(&peaks));
    Ok((world.rank() == 0).then(|| {
        Outcome::new(
            options,
            store,
            &geometry,
            setup,
            outcome::Measured { together, alone, all_reduce, reading, host_memory },
        )
    }))
}
