//! Voxel maps of both halves, computed after a training run to cross-validate its half maps.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::imaging::Symmetry;
use crate::imaging::mrc::Volume;
use crate::memory;
use crate::parallel::{Assignment, Collective, World};
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::progress::gib;
use crate::voxels::half_sums::{ParticleSample, accumulate_halves, working_bytes};
use crate::voxels::reconstruction::unfiltered_map;
use crate::voxels::sums::FourierSums;

/// Fraction of the free memory that the voxel maps may take.
const MEMORY_FRACTION: f64 = 0.8;

/// The voxel maps of both halves, on rank 0: those of [`half_sums`].
///
/// # Errors
/// When particles cannot be read.
pub fn half_maps(
    world: &World,
    store: &Store,
    subsets: &[SubsetRows],
    group: (&Assignment, &mut Collective),
    sample: (usize, Symmetry),
    excluded: &BTreeSet<usize>,
    refined: &[Vec<Refinement>],
) -> Result<Option<[Volume; 2]>> {
    let Some([first, second]) = half_sums(world, store, subsets, group, sample, excluded, refined)? else {
        return Ok(None);
    };
    let pixel_size = store.header().pixel_size;
    // The block drops the first sums before the second map is computed.
    let first = unfiltered_map(&{ first }, pixel_size)?;
    Ok(Some([first, unfiltered_map(&second, pixel_size)?]))
}

/// The Fourier sums of about `per_half` particles of each half without the `excluded` rows, with `symmetry`, on rank 0. `None` on other
/// ranks, if there are not two halves, if `per_half` is 0, and if the sums do not fit into memory.
///
/// Every rank calls it, with its assignment and the group of its half. `refined` holds, for each model of the rank, the refinements of
/// all its rows; it is empty where nothing was refined. Each half is summed with its own refinements.
///
/// # Errors
/// When particles cannot be read.
pub fn half_sums(
    world: &World,
    store: &Store,
    subsets: &[SubsetRows],
    group: (&Assignment, &mut Collective),
    (per_half, symmetry): (usize, Symmetry),
    excluded: &BTreeSet<usize>,
    refined: &[Vec<Refinement>],
) -> Result<Option<[FourierSums; 2]>> {
    let both = subsets.len() == 2;
    if !both || per_half == 0 || !fits(world, store.header().box_size) {
        return Ok(None);
    }
    let sample = ParticleSample {
        symmetry,
        by_noise: false,
        per_half: Some(per_half),
        excluded: Some(excluded),
        refined,
    };
    accumulate_halves(world, store, subsets, group, &sample)
}

/// Whether every node has memory for the voxel maps.
fn fits(world: &World, box_size: usize) -> bool {
    let needed = working_bytes(box_size, world.local_size());
    let available = memory::available();
    let short = available > 0 && needed as f64 > MEMORY_FRACTION * available as f64;
    let lack = format!(
        "{:.1} GiB per node, but {} has only {:.1} GiB free",
        gib(needed),
        World::host(),
        gib(available)
    );
    let lacks = world.gather_text(if short { &lack } else { "" }).unwrap_or_default();
    // One node is enough to say why.
    if let Some(lack) = lacks.iter().find(|lack| !lack.is_empty()) {
        tracing::warn!(
            "no cross-validation: voxel maps of this box take {lack}; on nodes with more memory, run `backproject`, then `fsc \
             HALF1 HALF2 --voxels`"
        );
    }
    world.all_reduce_sum(u64::from(short)) == 0
}
