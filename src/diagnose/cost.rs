//! How long a diagnosis takes: a model of it, for the estimate of a run.

use super::subject::{FITTED, VOXEL_BOX};
use super::trial;
use crate::imaging::Symmetry;

/// Trials of a diagnosis that finds nothing.
const TRIALS: f64 = 40.0;
/// Seconds of a trial per pixel of an image of both halves and view of the symmetry, and per voxel of the box.
const PER_TRIED_PIXEL: f64 = 4.5e-8;
const PER_TRIED_VOXEL: f64 = 1.9e-7;
/// Seconds of a comparison of a particle with the map of the other half, and of an imitated one.
const PER_FITTED: f64 = 5.5e-3;
/// Seconds of the other tests per square of the box of the voxel maps.
const PER_PLANE: f64 = 4e-4;

/// Seconds of the diagnosis of a run with `particles` particles of each half, of `box_size` pixels, on two threads of the machine that
/// the constants were measured on (benches/results/estimate.md).
pub(crate) fn seconds(particles: usize, box_size: usize, symmetry: Symmetry) -> f64 {
    if particles < super::FEWEST_PARTICLES {
        return 0.0;
    }
    let views = symmetry.order();
    let tried = particles.min(trial::particles_of(symmetry));
    let small = box_size.min(trial::LARGEST_BOX) as f64;
    let trials = PER_TRIED_PIXEL * (tried * views) as f64 * small.powi(2) + PER_TRIED_VOXEL * small.powi(3);
    let fitted = 2.0 * tried.min(FITTED) as f64;
    TRIALS * trials + PER_FITTED * fitted + PER_PLANE * (box_size.min(VOXEL_BOX) as f64).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_bounded_and_grows_up_to_there() {
        let of = |particles, box_size| seconds(particles, box_size, Symmetry::C1);
        assert_eq!(of(99, 64), 0.0, "too few particles are not tested");
        assert!(of(500, 64) > of(200, 64) && of(500, 64) > of(500, 48));
        assert_eq!(of(12_000, 128), of(1_200_000, 256));
    }
}
