//! A whole backprojection, on every rank: the sums, and at the end the outputs on the first.

use std::collections::BTreeSet;
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
use crate::parallel::{Assignment, Collective, Failure, HalfGroup, World, first_rank};
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

/// Where a part of the images is chosen: how many of them lie together, at most, ...
const CHOSEN_AT_A_TIME: usize = 64;
/// ...and in how many places at least.
const BLOCKS_CHOSEN: f64 = 8.0;

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
    introduce(world, &store, &parts);

    let own = &assignment;
    let sums = of_halves(world, &store, &parts, (own, &mut collective), &Chosen::default())?;
    let backprojecting = started.elapsed().as_secs_f64();
    // All particles were read and are sound: from here on an older run's files go.
    world.barrier();
    world.first(|| folder::begin_whole(&options.output, &options.command))?;
    if let Some(halves) = sums {
        let maps = reconstruct(halves, store.header().pixel_size, options.wiener)?;
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

/// Which particles are backprojected.
#[derive(Clone, Copy, Default)]
pub struct Chosen<'a> {
    /// About so many of each half, in blocks that are spread over it; `None`: all.
    pub most: Option<usize>,
    /// Those that are passed over, by row, and with them all that cannot be used; `None`: the first such is an error.
    pub passed_over: Option<&'a BTreeSet<usize>>,
}

/// The sums of both halves, on the first rank. Every rank calls it, with its place in the group of its half.
///
/// # Errors
/// When particles cannot be read or used.
pub fn of_halves(
    world: &World,
    store: &Store,
    parts: &[Part],
    (assignment, group): (&Assignment, &mut Collective),
    chosen: &Chosen,
) -> Result<Option<[Sums; 2]>> {
    let started = Instant::now();
    let (rank, ranks) = (assignment.rank, assignment.size);
    let mut sums = Vec::new();
    for &index in &assignment.models {
        let Part { subset, rows } = &parts[index];
        let (n, start) = (rows.len(), rows.start);
        let own = start + rank * n / ranks..start + (rank + 1) * n / ranks;
        let part = chosen.most.map_or(1.0, |most| (most as f64 / n as f64).min(1.0));
        let progress = match world.rank() {
            0 => Progress::new(format!("backproject {subset}"), (part * own.len() as f64) as u64, "images"),
            _ => Progress::silent(),
        };
        let (mut of_half, traffic) = accumulate(store, own, part, chosen.passed_over, progress)?;
        if world.rank() == 0 {
            tracing::debug!("{subset}: {}", traffic.describe(started.elapsed()));
        }
        of_half.sum_at_first(group);
        // The others' part is in the first one's.
        if rank == 0 {
            sums.push(of_half.finish());
        }
    }
    let sender = first_rank(world.size(), parts.len(), 1);
    if sender > 0 && world.rank() == sender {
        sums[0].send(world, 0);
    }
    if world.rank() > 0 {
        return Ok(None);
    }
    if sender > 0 {
        sums.push(Sums::receive(store.header().box_size, world, sender));
    }
    Ok(Some(sums.try_into().expect("the first rank has both halves' sums")))
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

/// Bytes that `ranks` ranks of one machine take together at most, one of them the first.
pub fn working_bytes(box_size: usize, ranks: usize) -> u64 {
    ranks as u64 * Accumulator::bytes(box_size) + inversion_bytes(box_size)
}

/// Bytes that the inversion takes: the sums of both halves, and what [`density::balanced`] works on.
fn inversion_bytes(box_size: usize) -> u64 {
    let side = 2 * box_size as u64 - 1;
    side * side * box_size as u64 * (2 * 12 + 3 * 4)
}

/// Adds up a `part` of the images in `rows` (1: all), without those to pass over.
fn accumulate(
    store: &Store,
    rows: std::ops::Range<usize>,
    part: f64,
    passed_over: Option<&BTreeSet<usize>>,
    mut progress: Progress,
) -> Result<(Accumulator, Traffic)> {
    let header = store.header();
    let reader = store.reader();
    let cutter = Cutter::new(header.box_size, header.pixel_size);
    let mut sums = Accumulator::new(header.box_size);
    // An image for each thread at least; where a block ends has no part in the sums.
    let at_a_time = if part < 1.0 {
        // Which are chosen is the same for any threads.
        ((part * rows.len() as f64 / BLOCKS_CHOSEN) as usize).clamp(1, CHOSEN_AT_A_TIME)
    } else {
        (BLOCK_BYTES / (header.pixels() * size_of::<f32>())).max(rayon::current_num_threads())
    };
    let end = rows.end;
    let wanted = rows
        .step_by(at_a_time)
        .enumerate()
        .filter(move |(number, _)| (part * (number + 1) as f64).ceil() > (part * *number as f64).ceil())
        .map(move |(_, first)| Wanted { rows: first..end.min(first + at_a_time), check: true });
    let mut ahead = ReadAhead::start(reader.clone(), wanted, BLOCKS);
    let mut samples: Vec<Samples> = Vec::new();
    while let Some(block) = ahead.take()? {
        let Block { first, particles, images, defects, .. } = &block;
        if let Some(&(row, defect)) = defects.first().filter(|_| passed_over.is_none()) {
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
        if let Some(passed_over) = passed_over {
            let damaged = |row| defects.iter().any(|&(of, _)| of == row);
            let mut row = *first..;
            samples.retain(|samples| {
                let row = row.next().expect("rows do not end");
                samples.finite && !passed_over.contains(&row) && !damaged(row)
            });
        } else if let Some(place) = samples.iter().position(|samples| !samples.finite) {
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

/// The map of `sums` times `factors`. Beyond the sphere that the box holds there is noise alone: RELION cuts it off alike.
fn inverted(sums: &Sums, factors: &[f32], pixel_size: f64) -> Result<Volume> {
    let mask = Mask::sphere(sums.box_size, (sums.box_size / 2) as f64 + MASK_EDGE, MASK_EDGE)?;
    let mut data = inverse::map(sums, factors);
    data.zip_mut_with(mask.weights(), |value, &weight| *value = (f64::from(*value) * weight) as f32);
    Ok(Volume { data, pixel_size })
}

/// The map of `sums` that is only divided by the weights.
///
/// # Errors
/// When the box has no voxels.
pub fn plain(sums: &Sums, pixel_size: f64) -> Result<Volume> {
    inverted(sums, &density::balanced(sums.box_size, &sums.weight), pixel_size)
}

/// The maps from the sums of both halves.
///
/// # Errors
/// When the maps are too small for an FSC.
pub fn reconstruct(halves: [Sums; 2], pixel_size: f64, wiener: bool) -> Result<Maps> {
    let [mut all, second] = halves;
    if !wiener {
        let maps = [plain(&all, pixel_size)?, plain(&second, pixel_size)?];
        all.add(&second);
        drop(second);
        return Ok(Maps { halves: maps, whole: plain(&all, pixel_size)? });
    }
    let evened =
        |sums: &Sums, filter: &Filter| inverted(sums, &density::inverses(filter.weights(sums)), pixel_size);
    let filtered =
        |sums: &Sums, filter: &Filter| -> Result<Volume> { Ok(filter.apply(&evened(sums, filter)?)) };
    let means = mean_weights([&all, &second]);
    let first_guess = Filter::floor(&means);
    let fsc = Fsc::between(&evened(&all, &first_guess)?, &evened(&second, &first_guess)?)?;
    let filter = Filter::new(&fsc, &means);
    let maps = [filtered(&all, &filter)?, filtered(&second, &filter)?];
    all.add(&second);
    drop(second);
    Ok(Maps { halves: maps, whole: filtered(&all, &filter.of_both())? })
}
