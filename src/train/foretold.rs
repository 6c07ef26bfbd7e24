//! What a run would need, computed before it starts, so that too large a run is refused and not ended by the system.

use super::options::RunOptions;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::gmm::voxelize::{Grid, sampling_bytes};
use crate::imaging::Symmetry;
use crate::loader::cache::CacheMode;
use crate::memory;
use crate::parallel::World;
use crate::recipe::Settings;
use crate::render::cpu::CpuDevice;
use crate::resources::devices;
use crate::voxels::half_sums;

/// Number of Gaussians that is allowed in any box.
const ALWAYS_ALLOWED: usize = 1 << 16;

/// Bytes of a particle in a particle file beside its image.
pub(super) const PARTICLE_BYTES: u64 = 190;

/// Memory of a rank before it has done anything: program, libraries, MPI.
const PROGRAM: u128 = 60 << 20;

/// Images of a thread: drawn, observed, gradient and their transforms.
const BUFFERS_PER_THREAD: usize = 8;

/// Checks the number of Gaussians against the voxels of a box of `box_size` pixels: the data determine no more values than those.
///
/// # Errors
/// When the whole of the specimen would have more Gaussians than the box has voxels.
pub(super) fn check_gaussians(settings: &Settings, box_size: usize) -> Result<()> {
    let (order, most) = (settings.symmetry.order(), box_size.pow(3).max(ALWAYS_ALLOWED));
    let whole = settings.gaussians.saturating_mul(order);
    if whole <= most {
        return Ok(());
    }
    let group = match settings.symmetry {
        Symmetry::C1 => String::new(),
        symmetry => format!(" ({} in each of the {order} units of {symmetry})", settings.gaussians),
    };
    Err(Error::request(
        format!("{whole} Gaussians{group} are more than the box of {box_size} pixels allows"),
        format!("use --gaussians {most} or fewer: about one for each voxel of the box at most"),
    ))
}

/// Checks that this node has memory for the mixtures of the `models`, which its ranks train with these settings, and for their maps. The
/// largest model has `particles` particles, in a box of `box_size` pixels.
/// On a GPU, the device reports what does not fit its own memory.
///
/// # Errors
/// When it has not.
pub(super) fn check_memory(
    world: &World,
    options: &RunOptions,
    models: &[Settings],
    (box_size, particles): (usize, usize),
) -> Result<()> {
    let Some(settings) = models.first() else { return Ok(()) };
    let node = world.local_size();
    let job = Job { ranks: world.size(), node, models: models.len() };
    let total = working_bytes(job, options, settings, (box_size, particles));
    let what = || {
        let mixtures = match settings.all_mixtures() {
            1 => "a mixture".to_owned(),
            several => format!("{several} mixtures"),
        };
        format!(
            "training {mixtures} of {} Gaussians in batches of {}, with {} on this node,",
            settings.gaussians,
            settings.batch,
            if node == 1 { "1 rank".to_owned() } else { format!("{node} ranks") }
        )
    };
    memory::require(
        total,
        what,
        "use fewer --gaussians, --mixtures, --threads or ranks per node, a smaller --batch, or a node with more memory",
    )
}

/// Ranks of a job, those on a node, and the models that they train.
#[derive(Clone, Copy)]
struct Job {
    ranks: usize,
    node: usize,
    models: usize,
}

/// Bytes of host memory of the ranks of a node without the particles that they keep.
fn working_bytes(
    Job { ranks, node, models }: Job,
    options: &RunOptions,
    settings: &Settings,
    (box_size, particles): (usize, usize),
) -> u128 {
    // A single rank trains all models.
    let on_each = if ranks == 1 { models } else { 1 };
    let shape = settings.shape();
    let values = (shape.planes() * settings.gaussians * size_of::<f32>()) as u128;
    let group = (ranks / models).max(1);
    let batch = settings.batch.min(particles).div_ceil(group);
    let device = if devices::expects_cpu(options.device) {
        let views = settings.symmetry.order();
        CpuDevice::bytes_for([settings.gaussians, views], shape, batch)
    } else {
        0
    };
    // The mixtures that wait or are trained, and the parameters and moments of a checkpoint that is being written.
    let host = values * (settings.all_mixtures() as u128 + 3);
    // Images that are read, drawn and transformed.
    let images = batch + BUFFERS_PER_THREAD * rayon::current_num_threads();
    let images = (box_size.pow(2) * size_of::<f32>()) as u128 * images as u128;
    let maps = sampling_bytes(&Grid::of_box(box_size)) * node.min(models) as u128;
    (device + host + images) * (on_each * node) as u128 + maps
}

/// Bytes of host memory that a run of `plan` takes on a node with `node` of its `ranks` ranks: programs, buffers and mixtures, the voxel
/// maps of the cross-validation, and the `particles` of each model where they are kept in memory.
pub(super) fn host_bytes(
    (ranks, node): (usize, usize),
    options: &RunOptions,
    plan: &Plan,
    (box_size, particles): (usize, &[usize]),
) -> u64 {
    let settings = &plan.models[0].settings;
    let (models, most) = (particles.len(), particles.iter().copied().max().unwrap_or(0));
    let working = working_bytes(Job { ranks, node, models }, options, settings, (box_size, most));
    let all: usize = particles.iter().sum();
    let images = all as u128 * (4 * box_size.pow(2)) as u128 * node as u128 / ranks.max(1) as u128;
    let kept = match options.cache.mode {
        CacheMode::Host => images,
        CacheMode::Auto if images < u128::from(memory::available()) / 2 => images,
        _ => 0,
    };
    // The voxel maps come after the training.
    let voxels = match options.voxel_particles {
        0 => 0,
        _ => u128::from(half_sums::working_bytes(box_size, node)),
    };
    u64::try_from(working.max(voxels) + kept + PROGRAM * node as u128).unwrap_or(u64::MAX)
}
