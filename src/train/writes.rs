//! What each rank of a run will write, foretold from its plan.

use super::options::RunOptions;
use super::plan::{ModelPlan, Plan};
use crate::parallel::{World, first_rank};
use crate::particles::store::Header;
use crate::run_folder::trial::Writes;
use crate::run_folder::{metrics, names};

/// Checkpoints of a model that exist at the same time: the last two, and one that is being written.
const CHECKPOINTS: u64 = 3;
/// Bytes of a particle in a checkpoint that appraises or refines it, or in a table.
const PARTICLE: u64 = 256;
/// Bytes of the attributes of an HDF5 file, of figures and the report.
const DOCUMENTS: u64 = 4 << 20;
/// Values of a Gaussian in a PLY file, as floats.
const PLY_VALUES: u64 = 17;

/// Sizes of the files of a model in bytes.
struct ModelFiles {
    checkpoint: u64,
    /// Its map and mixture files.
    outputs: u64,
}

impl ModelFiles {
    fn of(model: &ModelPlan, header: &Header) -> Self {
        let settings = &model.settings;
        let gaussians = settings.gaussians as u64;
        let mixture = 4 * gaussians * settings.shape().planes() as u64;
        // Parameters, both moments of Adam, and the mixtures that are trained.
        let mixtures = 2 + settings.all_mixtures() as u64;
        Self {
            checkpoint: mixture * mixtures + PARTICLE * particle_rows(model) + (16 << 10),
            outputs: map(header) + mixture + 4 * PLY_VALUES * gaussians,
        }
    }
}

/// Particles of a model that checkpoints and tables list.
fn particle_rows(model: &ModelPlan) -> u64 {
    if model.noise.is_some() { model.subset.rows.len() as u64 } else { 0 }
}

/// Size of a map in bytes.
fn map(header: &Header) -> u64 {
    1024 + 4 * (header.box_size as u64).pow(3)
}

/// Size of the tables of particles in bytes.
fn tables(plan: &Plan) -> u64 {
    PARTICLE * plan.models.iter().map(particle_rows).sum::<u64>()
}

/// Size of the whole run folder in bytes, at its largest.
pub(super) fn run_folder(plan: &Plan, header: &Header) -> u64 {
    let of_model = |model| {
        let files = ModelFiles::of(model, header);
        CHECKPOINTS * files.checkpoint + files.outputs
    };
    // With map, mask and voxel half maps of the run.
    plan.models.iter().map(of_model).sum::<u64>() + 4 * map(header) + tables(plan) + DOCUMENTS
}

/// What this rank writes; `None` if that is nothing.
pub(super) fn of_rank(world: &World, options: &RunOptions, plan: &Plan, header: &Header) -> Option<Writes> {
    let files: Vec<ModelFiles> = plan.models.iter().map(|model| ModelFiles::of(model, header)).collect();
    let leads = |index: &usize| first_rank(world.size(), plan.models.len(), *index) == world.rank();
    let own: Vec<usize> = (0..plan.models.len()).filter(leads).collect();
    if own.is_empty() && world.rank() > 0 {
        return None;
    }
    let tables = tables(plan);
    let checkpoint = own.iter().map(|&index| files[index].checkpoint).max().unwrap_or(0);
    let subsets = || own.iter().map(|&index| plan.models[index].subset.subset);
    Some(Writes {
        folder: names::checkpoints(&options.output),
        checkpoint,
        largest: checkpoint.max(map(header)).max(tables),
        total: run_folder(plan, header),
        appended: subsets().map(|subset| metrics::path(&options.output, subset)).collect(),
    })
}
