//! The sums of both halves, over the ranks of a job.

use std::collections::BTreeSet;
use std::time::Instant;

use rayon::prelude::*;

use super::accumulator::{Accumulator, Sums};
use super::slice::{Cutter, Samples};
use crate::error::{Error, Result};
use crate::imaging::View;
use crate::loader::prefetch::{Prefetcher, READER_THREADS, ReadRequest, Traffic};
use crate::parallel::{Assignment, Collective, World, first_rank};
use crate::particles::selection::SubsetRows;
use crate::particles::store::{Block, Store};
use crate::progress::Progress;

/// Bytes of images that are read, and cut, at a time.
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks in memory: those that are read, and the one that is cut.
const BLOCKS: usize = READER_THREADS + 1;

/// Where a part of the images is chosen: how many of them lie together, at most, ...
const CHOSEN_AT_A_TIME: usize = 64;
/// ...and in how many places at least.
const BLOCKS_CHOSEN: f64 = 8.0;

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
    subsets: &[SubsetRows],
    (assignment, group): (&Assignment, &mut Collective),
    chosen: &Chosen,
) -> Result<Option<[Sums; 2]>> {
    let started = Instant::now();
    let (rank, ranks) = (assignment.rank, assignment.size);
    let mut sums = Vec::new();
    for &index in &assignment.models {
        let SubsetRows { subset, rows } = &subsets[index];
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
        of_half.reduce_sum(group);
        // The others' part is in the first one's.
        if rank == 0 {
            sums.push(of_half.finish());
        }
    }
    let sender = first_rank(world.size(), subsets.len(), 1);
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

/// Bytes that `ranks` ranks of one machine take together at most, one of them the first.
pub fn working_bytes(box_size: usize, ranks: usize) -> u64 {
    ranks as u64 * Accumulator::bytes(box_size) + inversion_bytes(box_size)
}

/// Bytes that the inversion takes: the sums of both halves, and what [`density::balanced`] works on.
pub fn inversion_bytes(box_size: usize) -> u64 {
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
        .map(move |(_, first)| ReadRequest { rows: first..end.min(first + at_a_time), verify: true });
    let mut ahead = Prefetcher::start(reader.clone(), wanted, BLOCKS);
    let mut samples: Vec<Samples> = Vec::new();
    while let Some(block) = ahead.take()? {
        let Block { first, particles, images, defects, .. } = &block;
        if let Some(&(row, defect)) = defects.first().filter(|_| passed_over.is_none()) {
            return Err(store.image_error(row, defect));
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
