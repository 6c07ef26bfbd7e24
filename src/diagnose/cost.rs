//! How long a diagnosis takes: a model of it, for the estimate of a run.

use super::subject::FITTED;
use super::trial;
use crate::imaging::Symmetry;
use crate::voxels::insertions;

/// Trials of a diagnosis that finds nothing.
const TRIALS: f64 = 52.0;
/// Seconds of a trial per pixel of an image of both halves, half of them for each pose at which it is inserted, and per voxel of the box.
const PER_TRIED_PIXEL: f64 = 3e-8;
const PER_TRIED_VOXEL: f64 = 2.3e-7;
/// Seconds of a trial per voxel that symmetry adds: for itself, and for each of its operators of the grid.
const PER_SYMMETRIC_VOXEL: f64 = 2.3e-7;
const PER_ADDED_VOXEL: f64 = 1.4e-8;
/// Seconds of a comparison of a particle with the map of the other half, and of an imitated one.
const PER_FITTED: f64 = 2.5e-3;
/// Seconds of the other tests per square of the box.
const PER_PLANE: f64 = 3.9e-4;

/// Seconds of the diagnosis of a run with `particles` particles of each half, of `box_size` pixels, on two threads of the machine that
/// the constants were measured on (benches/results/estimate.md).
pub(crate) fn seconds(particles: usize, box_size: usize, symmetry: Symmetry) -> f64 {
    if particles < super::FEWEST_PARTICLES {
        return 0.0;
    }
    let [poses, operators] = insertions(symmetry).map(|count| count as f64);
    let tried = particles.min(trial::particles_of(symmetry));
    let small = box_size.min(trial::LARGEST_BOX) as f64;
    let added = if operators > 1.0 { PER_SYMMETRIC_VOXEL + PER_ADDED_VOXEL * operators } else { 0.0 };
    let inserted = PER_TRIED_PIXEL * tried as f64 * 0.5 * (1.0 + poses);
    let trials = inserted * small.powi(2) + (PER_TRIED_VOXEL + added) * small.powi(3);
    let fitted = 2.0 * tried.min(FITTED) as f64;
    TRIALS * trials + PER_FITTED * fitted + PER_PLANE * (box_size as f64).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_bounded_and_grows_up_to_there() {
        let of = |particles, box_size| seconds(particles, box_size, Symmetry::C1);
        assert_eq!(of(99, 64), 0.0, "too few particles are not tested");
        assert!(of(500, 64) > of(200, 64) && of(500, 64) > of(500, 48));
        assert_eq!(of(12_000, 128), of(1_200_000, 128));
        let symmetric = |symmetry: &str| seconds(500, 64, symmetry.parse().unwrap());
        assert!(symmetric("C2") > of(500, 64) && symmetric("C3") > of(400, 64));
    }
}
