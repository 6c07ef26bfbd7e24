//! `bench`: the speed of a device, or of several ranks, outside a training run.
//!
//! All ranks form one group and run steps of one model with a learning rate of zero, so the mixture does not change. Stages:
//! [`particles`] (synthetic or from a file), [`steps`], then [`all_reduce`] alone and, for a file, [`reading`] alone. [`outcome`] is
//! the report on rank 0.

mod all_reduce;
mod outcome;
mod particles;
mod reading;
mod steps;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::{Claims, Pending};
use crate::gmm::{Gmm, START_SCALE, Shape};
use crate::loader::cache::CacheOptions;
use crate::memory;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::sources;
use crate::particles::store::{DataSetId, Store};
use crate::random::{Purpose, stream};
use crate::render::cpu::CpuDevice;
use crate::render::{Device, Geometry, Sampling, Symmetry, Weights};
use crate::resources::all_reduce::{AllReduce, CollectiveKind};
use crate::resources::devices::{self, DeviceKind, RankDevice};
use crate::run_folder::metrics::Spread;
use outcome::{BenchReport, Measurements, RankSetup};
use particles::{BenchParticles, ParticleSource};
use steps::SumOver;

/// Typical standard deviation of a trained Gaussian in pixels, for a box of 64.
const TRAINED_DEVIATION: f64 = 0.75;
/// Ratio of the spread of trained means to that of the random initialisation.
const TRAINED_SPREAD: f32 = 1.6;

/// Settings of a bench.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Particle file; `None` for synthetic images of noise.
    pub particles: Option<PathBuf>,
    /// Box size in pixels, without a file.
    pub box_size: usize,
    /// Pixel size in angstrom, without a file.
    pub pixel_size: f64,
    /// Point group.
    pub symmetry: Symmetry,
    /// Number of Gaussians, those of the asymmetric unit.
    pub gaussians: usize,
    /// Images per step, over all ranks.
    pub batch: usize,
    /// One scale per Gaussian.
    pub isotropic: bool,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// Sampling of splats.
    pub sampling: Sampling,
    /// Seed of mixture, images and order.
    pub seed: u64,
    /// Device of the ranks.
    pub device: DeviceKind,
    /// Library for the all-reduce.
    pub collective: CollectiveKind,
    /// Where particles of a file are kept.
    pub cache: CacheOptions,
    /// If the device keeps particles: 16 bits per pixel.
    pub cache_half: bool,
    /// Approximate duration of each measurement.
    pub time: Duration,
    /// File for the report as JSON.
    pub json: Option<PathBuf>,
    /// The command line as typed.
    pub command: Vec<String>,
}

/// Measures, and writes the JSON file. Collective; returns the report on rank 0.
///
/// # Errors
/// A failure of all ranks, or of this rank alone.
pub fn run(world: &World, options: &BenchOptions) -> std::result::Result<Option<BenchReport>, Failure> {
    let (store, set, json) = match world.on_root(|| open(world, options))? {
        Some(opened) => opened,
        None => (options.particles.as_deref().map(Store::open).transpose()?, None, None),
    };
    let mut session = Session::default();
    let outcome = measure(world, options, (store.as_ref(), set), &mut session);
    if matches!(outcome, Err(Failure::Local(_))) && world.size() > 1 {
        // Other ranks may wait for this device until the abort, and releasing it may wait for them: leak it.
        std::mem::forget(session);
        return outcome;
    }
    drop(session.device);
    let finished = session.reduction.map_or(Ok(()), AllReduce::finish);
    let outcome = outcome?;
    finished?;
    let written = world.on_root(|| match (json, &outcome) {
        (Some(file), Some(outcome)) => write(file, outcome),
        _ => Ok(()),
    });
    written.map(|_| outcome)
}

/// Resources of a rank that other ranks' devices may wait for.
#[derive(Default)]
struct Session {
    device: Option<Box<dyn Device>>,
    reduction: Option<AllReduce>,
}

/// Validates the input on rank 0. Returns the particle set, its identity, and the output file.
fn open(
    world: &World,
    options: &BenchOptions,
) -> Result<(Option<Store>, Option<DataSetId>, Option<Pending>)> {
    let ranks = world.size();
    if options.batch < ranks {
        return Err(Error::request(
            format!(
                "a batch of {} images is too small for {ranks} ranks: some would have no image",
                options.batch
            ),
            format!("use --batch {ranks} or more, or fewer ranks"),
        ));
    }
    let mut claims = Claims::new();
    claims.reads_some(options.particles.as_ref(), "the particle file");
    claims.writes_all(&options.json).check()?;
    let store = options.particles.as_deref().map(Store::open).transpose()?;
    if let Some(store) = &store {
        sources::reads(&mut claims, store);
        claims.check()?;
    }
    let mut set = None;
    if let Some(store) = &store {
        if store.len() < ranks {
            return Err(Error::input(
                store.path(),
                "",
                format!("contains {} particles for {ranks} ranks: some would have none", store.len()),
                "start fewer ranks, or give more particles",
            ));
        }
        set = Some(store.validate()?);
    }
    Ok((store, set, options.json.as_deref().map(Pending::new).transpose()?))
}

fn write(file: Pending, outcome: &BenchReport) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut writer = file.file();
        serde_json::to_writer_pretty(&mut writer, outcome)?;
        writeln!(writer)
    };
    write().map_err(Error::io(file.path(), "write the report", "check that the disk is not full"))?;
    file.commit()
}

/// A mixture with the widths and spread of a trained one: a scaled random initialisation.
fn mixture(options: &BenchOptions, box_size: usize) -> Gmm {
    let shape = if options.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    let count = options.gaussians;
    let mut gmm = Gmm::random(count, shape, &mut stream(options.seed, Purpose::Start, 0, 0));
    gmm.set_scale((TRAINED_DEVIATION / box_size as f64).max(START_SCALE));
    gmm.values_mut()[..3 * count].iter_mut().for_each(|mean| *mean *= TRAINED_SPREAD);
    gmm
}

/// Checks that this node has memory for the mixtures and the `images` images of this bench, of `pixels` pixels, of all its ranks. Every
/// rank calls it.
fn check_memory(
    world: &World,
    options: &BenchOptions,
    (images, pixels): (usize, usize),
    on_cpu: bool,
) -> Result<()> {
    let shape = if options.isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    let views = options.symmetry.order();
    let device = if on_cpu { CpuDevice::bytes_for([options.gaussians, views], shape, images) } else { 0 };
    let bytes = device + (images * pixels * size_of::<f32>()) as u128;
    let total = world.local_all_reduce_sum(u64::try_from(bytes).unwrap_or(u64::MAX));
    let fits = memory::require(
        u128::from(total),
        || format!("{} Gaussians and a batch of {}", options.gaussians, options.batch),
        "use fewer --gaussians, a smaller --batch or --box, or fewer ranks per node",
    );
    // No rank allocates before all have looked.
    world.barrier();
    fits
}

fn measure(
    world: &World,
    options: &BenchOptions,
    (store, set): (Option<&Store>, Option<DataSetId>),
    session: &mut Session,
) -> std::result::Result<Option<BenchReport>, Failure> {
    let HalfGroup { assignment, collective } = HalfGroup::split(world, 1);
    let share = particles::RankShare { rank: assignment.rank, ranks: assignment.size, batch: options.batch };
    let rank_device = devices::choose(options.device, world)?;
    let (box_size, pixel_size) = match store {
        Some(store) => (store.header().box_size, store.header().pixel_size),
        None => (options.box_size, options.pixel_size),
    };
    let &BenchOptions { cutoff, sampling, symmetry, .. } = options;
    let geometry = Geometry { box_size, pixel_size, cutoff, sampling, weights: Weights::UNIFORM, symmetry };
    let make = || {
        devices::open(rank_device, mixture(options, box_size), geometry, share.images(), options.cache_half)
    };
    check_memory(world, options, (share.images(), box_size.pow(2)), rank_device == RankDevice::Cpu)?;
    let device = session.device.insert(make()?);
    let connected = devices::connect(world, rank_device, options.collective, collective)?;
    let reduction = session.reduction.insert(connected);
    device.join(reduction)?;
    let source = ParticleSource::new(store, share, world, options, device)?;
    let mut particles = BenchParticles::new(&source, share, &geometry, device.as_mut())?;
    world.barrier();

    let together = steps::measure(device.as_mut(), &mut particles, reduction, SumOver::Group, options.time)?;
    let setup = RankSetup {
        device: device.name(),
        collective: reduction.name(),
        ranks: world.size(),
        nodes: world.nodes(),
        set,
        device_memory: match rank_device {
            RankDevice::Cpu => None,
            RankDevice::Gpu(_) => {
                Some(Spread::of(&reduction.collective.all_gather_f64(device.memory() as f64)))
            }
        },
    };
    // If the device does not time its stages, steps of each rank alone give the time of the all-reduce by difference.
    let alone = if together.stages.is_none() && share.ranks > 1 {
        // The device that captured the group's all-reduce is dropped while no rank waits for another.
        world.barrier();
        session.device = None;
        let device = session.device.insert(make()?);
        source.reserve(share, device.as_mut())?;
        let mut particles = BenchParticles::new(&source, share, &geometry, device.as_mut())?;
        world.barrier();
        Some(steps::measure(device.as_mut(), &mut particles, reduction, SumOver::Alone, options.time)?)
    } else {
        None
    };
    let values = mixture(options, box_size).values().len();
    let all_reduce = all_reduce::measure(rank_device, reduction, values + 1, options.time)?;
    let reading = reading::measure(&source, share, &reduction.collective, options.time)?;
    let peaks = reduction.collective.all_gather_f64(memory::peak() as f64);
    let host_memory = (!peaks.contains(&0.0)).then(|| Spread::of(&peaks));
    Ok((world.rank() == 0).then(|| {
        BenchReport::new(
            options,
            store,
            &geometry,
            setup,
            Measurements { together, alone, all_reduce, reading, host_memory },
        )
    }))
}
