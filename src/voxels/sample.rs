//! Fourier sums of a downsampled sample of the particles, for quick maps of low resolution.

use std::ops::Range;

use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::slice::{Slice, SliceExtractor};
use super::small_images::Shrinker;
use super::sums::FourierSums;
use crate::error::Result;
use crate::imaging::Symmetry;
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;

/// Images per parallel block.
const BLOCK: usize = 250;

/// What to sample.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    /// Particles to choose from; every n-th is taken.
    pub rows: Range<usize>,
    /// Largest number of particles.
    pub particles: usize,
    /// Box size, in pixels, that images are downsampled to.
    pub box_size: usize,
    /// Symmetry of the sums.
    pub symmetry: Symmetry,
}

/// Sums of a sample.
pub(crate) struct SampledSums<const PARTS: usize> {
    /// Of equal parts of the sample.
    pub parts: [FourierSums; PARTS],
    /// Number of particles in the sample.
    pub particles: usize,
    /// Pixel size of the downsampled images in angstrom.
    pub pixel_size: f64,
}

/// The sums of a sample of the particles, divided into `PARTS` parts.
///
/// Images that cannot be used are skipped: the training reads them again and reports them.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sampled_sums<const PARTS: usize>(
    store: &Store,
    sampling: Sampling,
) -> Result<SampledSums<PARTS>> {
    sampled_sums_of(store, sampling, |_| Some(Refinement::default()))
}

/// [`sampled_sums`] with what `refinement_of` a row returns; `None` leaves it out.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sampled_sums_of<const PARTS: usize>(
    store: &Store,
    sampling: Sampling,
    refinement_of: impl Fn(usize) -> Option<Refinement> + Sync,
) -> Result<SampledSums<PARTS>> {
    let Sampling { rows, particles, box_size, symmetry } = sampling;
    let header = store.header();
    let pixel_size = header.pixel_size * header.box_size as f64 / box_size as f64;
    let shrinker = Shrinker::new(store, box_size)?;
    let extractor = SliceExtractor::new(box_size, pixel_size);
    let sample: Vec<usize> = rows.clone().step_by(rows.len().div_ceil(particles).max(1)).collect();
    let mut parts: [Accumulator; PARTS] = std::array::from_fn(|_| Accumulator::new(box_size, symmetry));
    for rows in sample.chunks(BLOCK) {
        let slices: Vec<Result<Option<Slice>>> = rows
            .par_iter()
            .map_init(
                || (shrinker.scratch(), extractor.scratch()),
                |(reading, cutting), &row| {
                    let Some(refinement) = refinement_of(row) else { return Ok(None) };
                    let Some(particle) = shrinker.read((row, &refinement), reading)? else { return Ok(None) };
                    let mut slice = Slice::default();
                    extractor.extract(&reading.1, &shrinker.reader().view(&particle), &mut slice, cutting);
                    Ok(slice.finite.then_some(slice))
                },
            )
            .collect();
        let slices = slices.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        for (part, sums) in parts.iter_mut().enumerate() {
            let of_part = part * slices.len() / PARTS..(part + 1) * slices.len() / PARTS;
            sums.add(&extractor, &slices[of_part]);
        }
    }
    Ok(SampledSums { parts: parts.map(Accumulator::finish), particles: sample.len(), pixel_size })
}
