//! Voxel maps of both halves behind a training, to cross-validate the half maps with.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::imaging::mrc::Volume;
use crate::parallel::{Assignment, Collective, World};
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::resources::memory;
use crate::voxels::half_sums::{Chosen, of_halves, working_bytes};
use crate::voxels::reconstruction::plain;

/// The part of the memory at hand that they may take.
const SHARE: f64 = 0.8;

/// The voxel maps of at most `most` particles of each half, without those to pass over, on the first rank. `None` elsewhere,
/// and where there are not two halves, none are wanted, or they do not fit into memory. Every rank calls it, with its place in
/// the group of its half.
///
/// # Errors
/// When particles cannot be read.
pub fn half_maps(
    world: &World,
    store: &Store,
    subsets: &[SubsetRows],
    group: (&Assignment, &mut Collective),
    most: usize,
    passed_over: &BTreeSet<usize>,
) -> Result<Option<[Volume; 2]>> {
    let both = subsets.len() == 2;
    if !both || most == 0 || !fits(world, store.header().box_size) {
        return Ok(None);
    }
    let chosen = Chosen { most: Some(most), passed_over: Some(passed_over) };
    let pixel_size = store.header().pixel_size;
    let Some([first, second]) = of_halves(world, store, subsets, group, &chosen)? else { return Ok(None) };
    let first = plain(&{ first }, pixel_size)?;
    Ok(Some([first, plain(&second, pixel_size)?]))
}

/// Is there the memory for it on every machine?
fn fits(world: &World, box_size: usize) -> bool {
    let needed = working_bytes(box_size, world.local_size());
    let available = memory::available();
    let short = available > 0 && needed as f64 > SHARE * available as f64;
    let all = world.all_reduce_sum(u64::from(short)) == 0;
    if !all && world.rank() == 0 {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        tracing::warn!(
            "no cross-validation: voxel maps of this box take {:.1} GiB on a machine, and {:.1} GiB are free here; with more, \
             `backproject` makes them, and `fsc HALF1 HALF2 --voxels` sets them against the half maps",
            gib(needed),
            gib(available)
        );
    }
    all
}
