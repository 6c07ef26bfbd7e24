//! A whole backprojection, on every rank: the sums, and at the end the outputs on the first.

use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;

use super::outputs::{self, Finished};
use super::plane::{Cutter, Samples};
use super::sums::{Accumulator, Sums};
use super::wiener::{Filter, mean_weights};
use super::{density, inverse};
use crate::error::{Error, Result};
use crate::evaluate::{Fsc, Mask};
use crate::imaging::View;
use crate::imaging::mrc::Volume;
use crate::parallel::{Failure, HalfGroup, World, first_rank};
use crate::particles::store::{Block, Store};
use crate::particles::stream::{READERS, ReadAhead, Traffic, Wanted};
use crate::progress::Progress;
use crate::train::done::Done;
use crate::train::setup::{self, Part};
use crate::train::{Models, folder};

/// Bytes of images that are read, and cut, at a time.
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks in memory: those that are read, and the one that is cut.
const BLOCKS: usize = READERS + 1;

/// Width of the edge of the sphere about the box's content, in voxels, as RELION has it.
const MASK_EDGE: f64 = 3.0;

/// What the command line decided.
#[derive(Clone, Debug)]
pub struct BackprojectOptions {
    /// The particle file.
    pub particles: PathBuf,
    /// The run folder.
    pub output: PathBuf,
    /// Filter by signal and noise of each shell.
    pub wiener: bool,
    /// A map to compare with.
    pub truth: Option<PathBuf>,
    /// Replace an older run in the run folder.
    pub overwrite: bool,
    /// The command line as typed.
    pub command: Vec<String>,
}

/// The maps.
pub struct Maps {
    /// Of half 1 and half 2.
    pub halves: [Volume; 2],
    /// Of all particles.
    pub whole: Volume,
}

/// Backprojects and writes the run folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &BackprojectOptions) -> std::result::Result<(), Failure> {
    let started = Instant::now();
    let (store, set) = match world.first(|| open(world, options))? {
        Some(opened) => opened,
        None => (Store::open(&options.particles)?, 0),
    };
    let parts = setup::parts(&store, Models::Both);
    let HalfGroup { assignment, mut collective } = HalfGroup::split(world, parts.len());
    let (rank, ranks) = (assignment.rank, assignment.size);
    introduce(world, &store, &parts);

    let mut sums = Vec::new();
    for &index in &assignment.models {
        let Part { name, rows, .. } = &parts[index];
        let (n, start) = (rows.len(), rows.start);
        let own = start + rank * n / ranks..start + (rank + 1) * n / ranks;
        let progress = match world.rank() {
            0 => Progress::new(format!("backproject {name}"), own.len() as u64, "images"),
            _ => Progress::silent(),
        };
        let (mut of_half, traffic) = accumulate(&store, own, progress)?;
        if world.rank() == 0 {
            tracing::debug!("{name}: {}", traffic.describe(started.elapsed()));
        }
        of_half.sum_at_first(&mut collective);
        // The others' part is in the first one's.
        if rank == 0 {
            sums.push(of_half.finish());
        }
    }
    let backprojecting = started.elapsed().as_secs_f64();
    // All particles were read and are sound: from here on an older run's files go.
    world.barrier();
    world.first(|| folder::begin_whole(&options.output, &options.command))?;
    let sender = first_rank(world.size(), parts.len(), 1);
    if sender > 0 && world.rank() == sender {
        sums[0].send(world, 0);
    }
    if world.rank() == 0 {
        if sender > 0 {
            sums.push(Sums::receive(store.header().box_size, world, sender));
        }
        let [half1, half2] = sums.try_into().expect("the first rank has both halves' sums");
        let maps = reconstruct([half1, half2], store.header().pixel_size, options.wiener)?;
        outputs::write(&Finished {
            options,
            done: Done::new(world, &store, set, &parts, &options.command, options.truth.as_deref()),
            maps: &maps,
            backprojecting_seconds: backprojecting,
            started,
        })?;
    }
    // Nobody leaves, and lets the launcher end the job, before the outputs are there.
    world.barrier();
    Ok(())
}

/// Everything that can be wrong before the start, seen from rank 0.
fn open(world: &World, options: &BackprojectOptions) -> Result<(Store, u32)> {
    let store = Store::open(&options.particles)?;
    let set = setup::inspect(&store)?;
    let parts = setup::parts(&store, Models::Both);
    for index in 0..parts.len() {
        setup::check_part(&store, &parts, index, world.size(), "backproject")?;
    }
    if let Some(truth) = &options.truth {
        setup::check_truth(truth, &store)?;
    }
    folder::prepare_whole(&options.output, options.overwrite)?;
    Ok((store, set))
}

fn introduce(world: &World, store: &Store, parts: &[Part]) {
    setup::introduce(store, parts);
    let box_size = store.header().box_size;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    tracing::info!(
        "{} ranks of {} threads; the sums take {:.2} GiB on each, and on the first {:.2} GiB at the end",
        world.size(),
        rayon::current_num_threads(),
        gib(Accumulator::bytes(box_size)),
        gib(inversion_bytes(box_size))
    );
}

/// Bytes that the inversion takes: the sums of both halves, and what [`density::balanced`] works on.
fn inversion_bytes(box_size: usize) -> u64 {
    let side = 2 * box_size as u64 - 1;
    side * side * box_size as u64 * (2 * 12 + 3 * 4)
}

/// Adds up the images in `rows`.
fn accumulate(
    store: &Store,
    rows: std::ops::Range<usize>,
    mut progress: Progress,
) -> Result<(Accumulator, Traffic)> {
    let header = store.header();
    let reader = store.reader();
    let cutter = Cutter::new(header.box_size, header.pixel_size);
    let mut sums = Accumulator::new(header.box_size);
    // An image for each thread at least; where a block ends has no part in the sums.
    let at_a_time = (BLOCK_BYTES / (header.pixels() * size_of::<f32>())).max(rayon::current_num_threads());
    let end = rows.end;
    let wanted = rows
        .step_by(at_a_time)
        .map(move |first| Wanted { rows: first..end.min(first + at_a_time), check: true });
    let mut ahead = ReadAhead::start(reader.clone(), wanted, BLOCKS);
    let mut samples: Vec<Samples> = Vec::new();
    while let Some(block) = ahead.take()? {
        let Block { first, particles, images, defects, .. } = &block;
        if let Some(&(row, defect)) = defects.first() {
            return Err(store.defect(row, defect));
        }
        samples.resize_with(particles.len(), Samples::default);
        let all = samples.par_iter_mut().zip(particles).zip(images.par_chunks_exact(header.pixels()));
        all.for_each_init(
            || cutter.scratch(),
            |scratch, ((samples, particle), image)| {
                let view = View { rotation: particle.rotation, ctf: reader.ctf(particle) };
                cutter.cut(image, &view, samples, scratch);
            },
        );
        if let Some(place) = samples.iter().position(|samples| !samples.finite) {
            return Err(Error::input(
                store.path(),
                format!("particle {}", first + place + 1),
                "its image times its CTF is not finite",
                "check its CTF, or import again without this particle",
            ));
        }
        sums.add(&samples);
        progress.advance(particles.len() as u64);
        ahead.give_back(block);
    }
    let traffic = ahead.traffic();
    progress.finish();
    Ok((sums, traffic))
}

/// The maps from the sums of both halves.
///
/// # Errors
/// When the maps are too small for an FSC.
pub fn reconstruct(halves: [Sums; 2], pixel_size: f64, wiener: bool) -> Result<Maps> {
    let box_size = halves[0].box_size;
    // Beyond the sphere that the box holds there is noise alone: RELION cuts it off alike.
    let mask = Mask::sphere(box_size, (box_size / 2) as f64 + MASK_EDGE, MASK_EDGE)?;
    let volume = |sums: &Sums, factors: Vec<f32>| {
        let mut data = inverse::map(sums, &factors);
        data.zip_mut_with(mask.weights(), |value, &weight| *value = (f64::from(*value) * weight) as f32);
        Volume { data, pixel_size }
    };
    let evened = |sums: &Sums, filter: &Filter| volume(sums, density::inverses(filter.weights(sums)));
    let filtered = |sums: &Sums, filter: &Filter| filter.apply(&evened(sums, filter));
    let plain = |sums: &Sums| volume(sums, density::balanced(box_size, &sums.weight));
    let [mut all, second] = halves;
    if !wiener {
        let maps = [plain(&all), plain(&second)];
        all.add(&second);
        drop(second);
        return Ok(Maps { halves: maps, whole: plain(&all) });
    }
    let means = mean_weights([&all, &second]);
    let first_guess = Filter::floor(&means);
    let fsc = Fsc::between(&evened(&all, &first_guess), &evened(&second, &first_guess))?;
    let filter = Filter::new(&fsc, &means);
    let maps = [filtered(&all, &filter), filtered(&second, &filter)];
    all.add(&second);
    drop(second);
    Ok(Maps { halves: maps, whole: filtered(&all, &filter.of_both()) })
}
