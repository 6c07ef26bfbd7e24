//! A backprojection from start to end: the sums on all ranks, the maps and outputs on rank 0.

use std::time::Instant;

use super::BackprojectOptions;
use super::outputs::{self, Finished};
use crate::error::Result;
use crate::memory;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::selection::{self, Models, SubsetRows};
use crate::particles::store::{DataSetId, Store};
use crate::progress::gib;
use crate::run_folder::document::RunSummary;
use crate::run_folder::owner::{Owner, Request};
use crate::run_folder::trial::{self, Writes};
use crate::run_folder::{assessment, lifecycle, log, overwriting};
use crate::voxels::accumulator::Accumulator;
use crate::voxels::detection;
use crate::voxels::half_sums::{ParticleSample, accumulate_halves, inversion_bytes, working_bytes};
use crate::voxels::reconstruction::reconstruct;

/// Backprojects the particles and writes the run folder. Every rank calls it.
///
/// # Errors
/// When the input is invalid, a file cannot be read or written, or another rank fails.
pub fn run(world: &World, options: &BackprojectOptions) -> std::result::Result<(), Failure> {
    let started = Instant::now();
    let (store, set, owner) = match world.on_root(|| open(world, options))? {
        Some((store, set, owner)) => (store, Some(set), Some(owner)),
        None => (Store::open(&options.particles)?, None, None),
    };
    let writes = writes(options, &store);
    trial::prove(world, owner.as_ref().map(|owner| (owner.claim(), &writes)))?;
    let set: DataSetId = world.broadcast_json(&set)?.expect("rank 0 has read the particle set");
    let subsets = SubsetRows::of(&store, Models::Both);
    let HalfGroup { assignment, mut collective } = HalfGroup::split(world, subsets.len());
    log_start(world, &store, &subsets);

    let (symmetry, by_noise) = (options.symmetry, options.by_noise);
    let particles = ParticleSample { symmetry, by_noise, ..ParticleSample::default() };
    let sums = accumulate_halves(world, &store, &subsets, (&assignment, &mut collective), &particles)?;
    let backprojecting = started.elapsed().as_secs_f64();
    // All particles have been read and are usable: only now remove the files of an older run.
    world.barrier();
    let check = || owner.as_ref().map_or(Ok(()), |owner| owner.claim().check());
    world.on_root(|| {
        check()?;
        lifecycle::begin_whole(&options.output, &options.command)
    })?;
    log::open(&options.output, world, &options.command);
    if let Some(halves) = sums {
        detection::report(&store, &subsets, options.symmetry);
        let maps = reconstruct(halves, store.header().pixel_size, options.wiener)?;
        check()?;
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
    // A launcher may end the job when a rank exits: wait until rank 0 has written the outputs.
    world.barrier();
    Ok(())
}

/// Opens the particles, checks all input and takes the run folder, on rank 0.
fn open(world: &World, options: &BackprojectOptions) -> Result<(Store, DataSetId, Owner)> {
    let store = Store::open(&options.particles)?;
    overwriting::check_run(&options.output, &store, &[(options.truth.as_deref(), "the ground truth")])?;
    let set = selection::check_centred(&store)?.id();
    let subsets = SubsetRows::of(&store, Models::Both);
    selection::check_ranks(&store, &subsets, world.size(), "backproject")?;
    if let Some(truth) = &options.truth {
        assessment::check_truth(truth, &store)?;
    }
    let box_size = store.header().box_size;
    memory::require(
        u128::from(working_bytes(box_size, world.local_size())),
        || format!("the sums of a box of {box_size} pixels on {} ranks of this node", world.local_size()),
        "start fewer ranks per node, or use nodes with more memory",
    )?;
    let request = Request { command: &options.command, waits_for_own_job: false, stopped: &|| false };
    let owner = lifecycle::enter_whole(&options.output, options.overwrite, &request)?;
    Ok((store, set, owner))
}

/// What rank 0 writes.
fn writes(options: &BackprojectOptions, store: &Store) -> Writes {
    /// Half maps, map, mask and one more, for figures, tables and report.
    const MAPS: u64 = 5;
    let map = 1024 + 4 * (store.header().box_size as u64).pow(3);
    Writes {
        folder: options.output.clone(),
        checkpoint: map,
        largest: map,
        total: MAPS * map,
        ..Writes::default()
    }
}

fn log_start(world: &World, store: &Store, subsets: &[SubsetRows]) {
    selection::log(store, subsets);
    let box_size = store.header().box_size;
    tracing::info!(
        "{} {} of {} threads; memory: {:.2} GiB per rank for the sums, {:.2} GiB on rank 0 for the inversion",
        world.size(),
        if world.size() == 1 { "rank" } else { "ranks" },
        rayon::current_num_threads(),
        gib(Accumulator::bytes(box_size)),
        gib(inversion_bytes(box_size))
    );
}
