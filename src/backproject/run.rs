//! A whole backprojection, on every rank: the sums, and at the end the outputs on the first.

use std::time::Instant;

use super::BackprojectOptions;
use super::outputs::{self, Finished};
use crate::error::Result;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::selection::{self, Models, SubsetRows};
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::document::RunSummary;
use crate::run_folder::{assessment, lifecycle};
use crate::voxels::accumulator::Accumulator;
use crate::voxels::half_sums::{Chosen, inversion_bytes, of_halves};
use crate::voxels::reconstruction::reconstruct;

/// Backprojects and writes the run folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &BackprojectOptions) -> std::result::Result<(), Failure> {
    let started = Instant::now();
    let (store, set) = match world.on_root(|| open(world, options))? {
        Some(opened) => opened,
        None => (Store::open(&options.particles)?, None),
    };
    let set: DataSetId = world.broadcast_json(&set)?.expect("rank 0 has read the particle set");
    let subsets = SubsetRows::of(&store, Models::Both);
    let HalfGroup { assignment, mut collective } = HalfGroup::split(world, subsets.len());
    introduce(world, &store, &subsets);

    let own = &assignment;
    let sums = of_halves(world, &store, &subsets, (own, &mut collective), &Chosen::default())?;
    let backprojecting = started.elapsed().as_secs_f64();
    // All particles were read and are sound: from here on an older run's files go.
    world.barrier();
    world.on_root(|| lifecycle::begin_whole(&options.output, &options.command))?;
    if let Some(halves) = sums {
        let maps = reconstruct(halves, store.header().pixel_size, options.wiener)?;
        outputs::write(&Finished {
            options,
            summary: RunSummary::new(
                world,
                &store,
                set,
                &subsets,
                &options.command,
                options.truth.as_deref(),
            ),
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
fn open(world: &World, options: &BackprojectOptions) -> Result<(Store, Option<DataSetId>)> {
    let store = Store::open(&options.particles)?;
    let set = selection::check_centred(&store)?;
    let subsets = SubsetRows::of(&store, Models::Both);
    selection::check_ranks(&store, &subsets, world.size(), "backproject")?;
    if let Some(truth) = &options.truth {
        assessment::check_truth(truth, &store)?;
    }
    lifecycle::prepare_whole(&options.output, options.overwrite)?;
    Ok((store, Some(set)))
}

fn introduce(world: &World, store: &Store, subsets: &[SubsetRows]) {
    selection::log(store, subsets);
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
