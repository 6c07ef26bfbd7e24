//! Rounds of the refinement of the particles during a training (docs/method.md, section 15).

use std::collections::BTreeSet;
use std::time::Instant;

use ndarray::Array3;

use super::cross_validation;
use super::model::Model;
use super::refiner::map_of;
use crate::imaging::Symmetry;
use crate::parallel::{Assignment, Collective, EndSignal, Failure, World, first_rank};
use crate::particles::Subset;
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::refine::confirmed::confirmed;
use crate::run_folder::refinement::RoundSummary;

/// Particles of each half that confirm the model of the other, about.
const CONFIRMING: usize = 20_000;

/// The job of which a round is part.
pub(super) struct RoundContext<'a> {
    pub world: &'a World,
    pub store: &'a Store,
    pub subsets: &'a [SubsetRows],
    pub assignment: &'a Assignment,
    pub symmetry: Symmetry,
    /// Whether the job must stop.
    pub signal: &'a EndSignal,
}

/// Refines the particles of all models before epoch `epoch`. Every rank calls it, with the models that it trains. Where a signal asks
/// the job to stop, nothing is refined; a resumed run begins the round again.
///
/// # Errors
/// When particles cannot be read, or a device fails.
pub(super) fn round(
    context: &RoundContext,
    models: &mut [Model],
    collective: &mut Collective,
    epoch: usize,
) -> std::result::Result<(), Failure> {
    let world = context.world;
    let needed = models.iter().filter(|model| model.needs_refinement(epoch)).count();
    if world.all_reduce_sum(needed as u64) == 0 {
        return Ok(());
    }
    let curves = confirmed_curves(context, models, collective)?;
    let mut rounds = Vec::new();
    for (model, &index) in models.iter_mut().zip(&context.assignment.models) {
        if !model.needs_refinement(epoch) {
            continue;
        }
        let started = Instant::now();
        let round = model.refine(collective, &curves[index], (context.symmetry, context.signal), epoch)?;
        rounds.push((model, round, started.elapsed().as_secs_f64()));
    }
    // All models or none: the curves of a round are of the same poses for both halves.
    if world.all_reduce_sum(u64::from(context.signal.received())) > 0 {
        return Ok(());
    }
    for (model, round, seconds) in rounds {
        if world.rank() == 0 {
            log(model.subset(), &round.summary, model.rows(), seconds);
        }
        model.finish_round(round, collective)?;
    }
    Ok(())
}

/// For each model, the part that the other half's particles confirm, by shell. The halves exchange these curves alone.
fn confirmed_curves(
    context: &RoundContext,
    models: &[Model],
    collective: &mut Collective,
) -> std::result::Result<Vec<Vec<f64>>, Failure> {
    let RoundContext { world, store, subsets, assignment, symmetry, .. } = *context;
    let refined: Vec<Vec<Refinement>> =
        models.iter().map(|model| model.gather_refinements(collective)).collect();
    let rows = models.iter().flat_map(|model| model.excluded().rows());
    let excluded: BTreeSet<usize> = rows.map(|row| row as usize).collect();
    let sample = (CONFIRMING, symmetry);
    let group = (assignment, &mut *collective);
    let sums = cross_validation::half_sums(world, store, subsets, group, sample, &excluded, &refined)?;
    // Rank 0 takes the map of the other group's model.
    let n = store.header().box_size;
    let mut maps = Vec::new();
    if assignment.rank == 0 {
        for model in models {
            maps.push(map_of(&model.mixtures()?, symmetry, n, n));
        }
    }
    let sender = first_rank(world.size(), subsets.len(), 1);
    if sender > 0 && world.rank() == sender {
        world.send_values(0, maps[0].as_slice().expect("a map in standard layout"));
    }
    if sender > 0 && world.rank() == 0 {
        let mut map = Array3::zeros((n, n, n));
        world.receive_values(sender, map.as_slice_mut().expect("a new array"));
        maps.push(map);
    }
    let curves = match sums {
        Some([first, second]) => vec![confirmed(&maps[0], &second), confirmed(&maps[1], &first)],
        // On other ranks, or where the sums do not fit into memory.
        None => vec![Vec::new(); 2],
    };
    world.broadcast_json(&curves)
}

fn log(subset: Subset, summary: &RoundSummary, particles: usize, seconds: f64) {
    let RoundSummary { epoch, limit, accepted, searched, .. } = *summary;
    if limit == 0 {
        tracing::warn!(
            "{subset}: not refined after epoch {epoch}: the other half confirms too few shells of its model"
        );
        return;
    }
    let [rotation, offset, defocus] =
        [summary.rotation_width.to_degrees(), summary.offset_width, summary.defocus_width];
    tracing::info!(
        "{subset} refined after epoch {epoch} below shell {limit}: {accepted} of {particles} particles moved, {searched} searched; \
         errors of poses, shifts, defoci about {rotation:.2} degrees, {offset:.2} px, {defocus:.0} A; {:.0} particles/s",
        particles as f64 / seconds.max(1e-9)
    );
}
