//! What a finished run writes of its particles: noise.csv, particles.csv, refinement.h5, particles.star or
//! particles.cs.

use std::path::Path;

use bytemuck::Pod;

use super::appraise;
use super::model::Model;
use super::plan::Plan;
use crate::error::Result;
use crate::parallel::{Collective, World, first_rank};
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;
use crate::recipe::likelihood::NoiseModel;
use crate::run_folder::appraisal::Appraised;
use crate::run_folder::refinement::{RefinementState, RoundSummary};
use crate::run_folder::{finished, tables};

/// Appraises the particles with the finished models where that is due. Then writes the files on rank 0. Every rank calls it with its
/// models.
///
/// # Errors
/// When particles cannot be read, a device fails, or a file cannot be written.
pub(super) fn write(
    (world, store, plan): (&World, &Store, &Plan),
    models: &mut [Model],
    collective: &Collective,
    folder: &Path,
) -> Result<()> {
    let settings = &plan.models[0].settings;
    let likelihood = &settings.likelihood;
    for model in &mut *models {
        model.appraise(collective)?;
    }
    let weighs = models.iter().any(|model| appraise::has_empty(model.appraised()));
    let compares = likelihood.compares() || world.all_reduce_sum(u64::from(weighs)) > 0;
    if world.rank() == 0 && (compares || likelihood.noise == NoiseModel::Spectrum) {
        let noise = plan.models.iter().filter_map(|model| Some((model.name(), model.noise.as_ref()?)));
        let edge = store.header().box_size as f64 * store.header().pixel_size;
        tables::write_noise(folder, &noise.collect::<Vec<_>>(), edge)?;
    }
    let refines = !settings.refine.is_none();
    if !compares && !refines {
        return Ok(());
    }
    let rows: Vec<usize> = plan.models.iter().map(|model| model.subset.rows.len()).collect();
    // A model without images that fit as noise may not have been compared.
    let appraised = |model: &Model| {
        let mut table = model.appraised().to_vec();
        table.resize(model.rows(), Appraised::UNKNOWN);
        table
    };
    let appraised = to_root(world, models.iter().map(appraised).collect(), &rows, Appraised::UNKNOWN);
    let mut states = Vec::new();
    if refines {
        let particles = models.iter().map(|model| model.gather_refinements(collective)).collect();
        let particles = to_root(world, particles, &rows, Refinement::default());
        let rounds: Vec<_> = models.iter().map(|model| model.rounds().to_vec()).collect();
        let count = vec![rounds[0].len(); rows.len()];
        let rounds = to_root(world, rounds, &count, RoundSummary::default());
        let state = |(particles, rounds)| RefinementState { particles, rounds };
        states = particles.into_iter().zip(rounds).map(state).collect();
    }
    if world.rank() > 0 {
        return Ok(());
    }
    let subsets = || plan.models.iter().map(|model| &model.subset);
    if refines {
        let states: Vec<_> = subsets().zip(&states).collect();
        finished::write_refinement(folder, store, plan.data_set.id(), &states)?;
    }
    let refined = |index: usize| states.get(index).map_or(&[][..], |state| &state.particles);
    let tables: Vec<_> = subsets()
        .zip(&appraised)
        .enumerate()
        .map(|(index, (model, appraised))| tables::ParticleTable {
            model,
            appraised,
            refined: refined(index),
        })
        .collect();
    tables::write_particles(folder, store, &tables)
}

/// The tables of all models on rank 0, where every rank has those of its own models, of these `lengths`. Other ranks get their own.
fn to_root<T: Pod>(world: &World, mut own: Vec<Vec<T>>, lengths: &[usize], blank: T) -> Vec<Vec<T>> {
    let last = lengths.len() - 1;
    let sender = first_rank(world.size(), lengths.len(), last);
    if sender > 0 && world.rank() == sender {
        world.send_values(0, bytemuck::cast_slice(&own[0]));
    }
    if sender > 0 && world.rank() == 0 {
        let mut table = vec![blank; lengths[last]];
        world.receive_values(sender, bytemuck::cast_slice_mut(&mut table));
        own.push(table);
    }
    own
}
