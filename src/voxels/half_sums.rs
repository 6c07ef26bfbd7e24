//! Fourier sums of both halves, over the ranks of a job.

use std::collections::BTreeSet;
use std::time::Instant;

use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::slice::{Slice, SliceExtractor};
use super::sums::FourierSums;
use crate::error::{Error, Result};
use crate::imaging::Symmetry;
use crate::loader::prefetch::{Prefetcher, READER_THREADS, ReadRequest, Traffic};
use crate::parallel::{Assignment, Collective, World, first_rank};
use crate::particles::noise::NoisePower;
use crate::particles::refinement::{RefinedRows, Refinement};
use crate::particles::selection::SubsetRows;
use crate::particles::store::{Block, Store};
use crate::progress::Progress;

/// Bytes of images per block.
const BLOCK_BYTES: usize = 4 << 20;
/// Blocks in memory: those being read, and the one being processed.
const BLOCKS: usize = READER_THREADS + 1;

/// Rows per block of a sample of the particles, at most.
const MAX_SAMPLE_BLOCK: usize = 64;
/// Number of blocks of a sample of the particles, on each rank, at least.
const MIN_SAMPLE_BLOCKS: f64 = 8.0;

/// The particles to backproject, and the symmetry of their specimen.
#[derive(Clone, Copy, Default)]
pub(crate) struct ParticleSample<'a> {
    /// Each image is inserted at all its symmetric poses.
    pub symmetry: Symmetry,
    /// Whether images count by the inverse power of the noise of their optics group, by frequency.
    pub by_noise: bool,
    /// Approximate number of particles per half, in blocks spread evenly over it; `None`: all.
    pub per_half: Option<usize>,
    /// Rows to skip; unusable particles are skipped too. `None`: an unusable particle is an error.
    pub excluded: Option<&'a BTreeSet<usize>>,
    /// What was refined: of all rows of each model of this rank, in the order of its assignment. Nothing, or nothing of a model: as in
    /// the file.
    pub refined: &'a [Vec<Refinement>],
}

/// The sums of both halves, on rank 0; `None` on other ranks. Every rank calls it, with its assignment and the group of its half.
///
/// # Errors
/// When particles cannot be read, or are unusable and not excluded.
pub(crate) fn accumulate_halves(
    world: &World,
    store: &Store,
    subsets: &[SubsetRows],
    (assignment, group): (&Assignment, &mut Collective),
    sample: &ParticleSample,
) -> Result<Option<[FourierSums; 2]>> {
    let started = Instant::now();
    let (rank, ranks) = (assignment.rank, assignment.size);
    let mut sums = Vec::new();
    for (number, &index) in assignment.models.iter().enumerate() {
        let SubsetRows { subset, rows } = &subsets[index];
        let (n, start) = (rows.len(), rows.start);
        let own = start + rank * n / ranks..start + (rank + 1) * n / ranks;
        let fraction = sample.per_half.map_or(1.0, |count| (count as f64 / n as f64).min(1.0));
        let progress = match world.rank() {
            0 => {
                let images = (fraction * own.len() as f64) as u64;
                Progress::new(format!("backproject {subset}"), images, "images")
            }
            _ => Progress::silent(),
        };
        // Every rank estimates the same: only images of a small sample are read.
        let weights = match sample.by_noise {
            true => Some(NoisePower::estimate(store, rows.clone())?.weights().0),
            false => None,
        };
        let of_model = sample.refined.get(number).filter(|of_model| !of_model.is_empty());
        let refined = of_model.map_or_else(RefinedRows::default, |of_model| {
            assert_eq!(of_model.len(), n, "one refinement for each row");
            RefinedRows::new(start, of_model)
        });
        let part = Part { rows: own, fraction, weights: weights.as_deref(), refined };
        let (mut accumulator, traffic) = accumulate(store, part, sample, progress)?;
        if world.rank() == 0 {
            tracing::debug!("{subset}: {}", traffic.describe(started.elapsed()));
        }
        accumulator.reduce_sum(group);
        if rank == 0 {
            sums.push(accumulator.finish());
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
        sums.push(FourierSums::receive(store.header().box_size, world, sender));
    }
    Ok(Some(sums.try_into().expect("the first rank has both halves' sums")))
}

/// Peak memory in bytes of `ranks` ranks on one node, of which one is rank 0.
pub(crate) fn working_bytes(box_size: usize, ranks: usize) -> u64 {
    ranks as u64 * Accumulator::bytes(box_size) + inversion_bytes(box_size)
}

/// Memory in bytes of the inversion: the sums of both halves, and the arrays of [`density_compensation`].
///
/// [`density_compensation`]: crate::voxels::gridding::density_compensation
pub(crate) fn inversion_bytes(box_size: usize) -> u64 {
    let side = 2 * box_size as u64 - 1;
    side * side * box_size as u64 * (2 * 12 + 3 * 4)
}

/// What a rank adds up of a half.
pub(super) struct Part<'a> {
    pub rows: std::ops::Range<usize>,
    /// Fraction of the images. 1: all.
    pub fraction: f64,
    /// Noise weights of each optics group.
    pub weights: Option<&'a [Vec<f32>]>,
    pub refined: RefinedRows<'a>,
}

/// The sums of a part, without the excluded images.
pub(super) fn accumulate(
    store: &Store,
    part: Part,
    sample: &ParticleSample,
    mut progress: Progress,
) -> Result<(Accumulator, Traffic)> {
    let Part { rows, fraction, weights, refined } = part;
    let header = store.header();
    let reader = store.reader();
    let extractor = SliceExtractor::new(header.box_size, header.pixel_size);
    let mut sums = Accumulator::new(header.box_size, sample.symmetry);
    let rows_per_block = if fraction < 1.0 {
        // The sample must not depend on the number of threads.
        ((fraction * rows.len() as f64 / MIN_SAMPLE_BLOCKS) as usize).clamp(1, MAX_SAMPLE_BLOCK)
    } else {
        // At least one image per thread. Block boundaries do not affect the sums.
        (BLOCK_BYTES / (header.pixels() * size_of::<f32>())).max(rayon::current_num_threads())
    };
    let end = rows.end;
    let requests = rows
        .step_by(rows_per_block)
        .enumerate()
        .filter(move |(number, _)| {
            (fraction * (number + 1) as f64).ceil() > (fraction * *number as f64).ceil()
        })
        .map(move |(_, first)| ReadRequest { rows: first..end.min(first + rows_per_block), verify: true });
    let mut prefetcher = Prefetcher::start(reader.clone(), requests, BLOCKS);
    let mut slices: Vec<Slice> = Vec::new();
    while let Some(block) = prefetcher.take()? {
        let Block { first, particles, images, defects, .. } = &block;
        if let Some(&(row, defect)) = defects.first().filter(|_| sample.excluded.is_none()) {
            return Err(store.image_error(row, defect));
        }
        slices.resize_with(particles.len(), Slice::default);
        let all = slices.par_iter_mut().zip(particles).zip(images.par_chunks_exact(header.pixels()));
        all.enumerate().for_each_init(
            || extractor.scratch(),
            |scratch, (place, ((slice, particle), image))| {
                let view = refined.of(first + place).view(&reader, particle);
                extractor.extract(image, &view, slice, scratch);
                if let Some(weights) = weights {
                    extractor.weigh(slice, &weights[particle.optics_group as usize]);
                }
            },
        );
        if let Some(excluded) = sample.excluded {
            let is_defective = |row| defects.iter().any(|&(defective, _)| defective == row);
            let mut rows = *first..;
            slices.retain(|slice| {
                let row = rows.next().expect("the range is unbounded");
                slice.finite && !excluded.contains(&row) && !is_defective(row)
            });
        } else if let Some(index) = slices.iter().position(|slice| !slice.finite) {
            return Err(Error::input(
                store.path(),
                format!("particle {}", first + index + 1),
                "its image times its CTF is not finite",
                "check its CTF, or import again without this particle",
            ));
        }
        sums.add(&extractor, &slices);
        progress.advance(particles.len() as u64);
        prefetcher.give_back(block);
    }
    let traffic = prefetcher.traffic();
    progress.finish();
    Ok((sums, traffic))
}
