//! What a run would need, computed before it starts, so that too large a run is refused and not ended by the system.

use super::options::RunOptions;
use crate::error::{Error, Result};
use crate::gmm::voxelize::{Grid, sampling_bytes};
use crate::imaging::Symmetry;
use crate::memory;
use crate::parallel::World;
use crate::recipe::Settings;
use crate::render::cpu::CpuDevice;
use crate::resources::devices;

/// Number of Gaussians that is allowed in any box.
const ALWAYS_ALLOWED: usize = 1 << 16;

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
    // A single rank trains all models.
    let (node, alone) = (world.local_size(), world.size() == 1);
    let on_each = if alone { models.len() } else { 1 };
    let shape = settings.shape();
    let values = (shape.planes() * settings.gaussians * size_of::<f32>()) as u128;
    let group = (world.size() / models.len()).max(1);
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
    let maps = sampling_bytes(&Grid::of_box(box_size)) * node.min(models.len()) as u128;
    let total = (device + host + images) * (on_each * node) as u128 + maps;
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
