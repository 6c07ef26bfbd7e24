//! Random initial Gaussians.

use crate::gmm::{Gmm, START_MASS};
use crate::particles::Subset;
use crate::random::{Purpose, Random, stream};
use crate::recipe::Settings;

/// The random start of mixture `mixture` (from 0) of the model of `subset`.
pub fn random_start(settings: &Settings, subset: Subset, mixture: usize) -> Gmm {
    let mut random = stream(settings.seed, Purpose::Start, subset.seed_index(), mixture as u64);
    let mut gmm = Gmm::random(settings.gaussians_at_start(), settings.shape(), &mut random);
    gmm.set_scale(settings.start_scale);
    gmm.set_amplitude(START_MASS / (gmm.len() * settings.symmetry.order()) as f64);
    gmm
}

/// The random stream that draws the means of a mixture from a density.
pub(super) fn placement(settings: &Settings, subset: Subset, mixture: usize) -> Random {
    stream(settings.seed, Purpose::Placement, subset.seed_index(), mixture as u64)
}
