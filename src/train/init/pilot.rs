//! Pilot reconstruction: a quick low-resolution voxel map before a training run, for the position and shape of the specimen and
//! the signal-to-noise ratio (SNR) of the particles.
//!
//! A sample of a half's particles, downsampled, is backprojected as `backproject` does; this takes a second or two. Each model
//! uses its own half alone, so the halves stay independent.

use std::f64::consts::PI;
use std::ops::Range;

use crate::error::Result;
use crate::evaluate::Fsc;
use crate::gmm::density::Density;
use crate::imaging::Symmetry;
use crate::particles::preprocess::MIN_BOX;
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::voxels::reconstruction::reconstruct;
use crate::voxels::sample::{SampledSums, Sampling, sampled_sums};

/// Number of particles in the sample.
const PARTICLES: usize = 2_000;
/// Box sizes, in pixels, that images are downsampled to: half their own box within this range. Enough to separate specimen
/// and solvent, without the noise of higher frequencies.
const BOXES: std::ops::RangeInclusive<usize> = MIN_BOX..=32;
/// Fraction of the largest density above which a voxel belongs to the specimen.
const THRESHOLD: f32 = 0.1;
/// FSC values are limited to this, so that the SNR stays finite.
const LARGEST_FSC: f64 = 0.9999;

/// The box that images of `box_size` pixels are downsampled to.
fn small_box(box_size: usize) -> usize {
    (box_size / 2).clamp(*BOXES.start(), *BOXES.end()).min(box_size)
}

/// The result of a pilot reconstruction.
#[derive(Clone, Debug, Default)]
pub struct PilotReconstruction {
    /// Density of the specimen; `None` where no voxel is above the threshold.
    pub density: Option<Density>,
    /// Sum over the Fourier voxels of the SNR (a ratio of powers), extrapolated to all particles of the half: about the SNR of a
    /// pixel times the number of pixels of all images. With symmetry G, each image counts |G| times.
    pub total_snr: f64,
}

/// The pilot reconstruction of each part, with `symmetry`; logs its result. A part that cannot be read has an empty one.
pub fn reconstruct_subsets(
    store: &Store,
    subsets: &[SubsetRows],
    symmetry: Symmetry,
) -> Vec<PilotReconstruction> {
    subsets.iter().map(|subset| reconstruct_subset(store, subset, symmetry)).collect()
}

fn reconstruct_subset(store: &Store, subset: &SubsetRows, symmetry: Symmetry) -> PilotReconstruction {
    let SubsetRows { subset, rows } = subset;
    let pilot = match reconstruct_rows(store, rows, symmetry) {
        Ok(pilot) => pilot,
        Err(error) => {
            // The training reads the same file, and reports the error.
            tracing::warn!("{subset}: no pilot reconstruction: {error}");
            return PilotReconstruction::default();
        }
    };
    let Some(density) = &pilot.density else {
        tracing::warn!(
            "{subset}: the pilot reconstruction shows no specimen; starting from the published distribution"
        );
        return pilot;
    };
    let header = store.header();
    let edge = header.box_size as f64 * header.pixel_size;
    let (centre, covariance) = density.moments();
    // Without a sign for what rounds to 0.
    let [x, y, z] = centre.map(|at| (edge * at).round() + 0.0);
    let [a, b, c] = [0, 1, 2].map(|k| edge * covariance[k][k].sqrt());
    let snr = pilot.total_snr / (rows.len() * header.pixels() * symmetry.order()) as f64;
    tracing::info!(
        "{subset}: pilot reconstruction: specimen at ({x:.0}, {y:.0}, {z:.0}) A, standard deviations {a:.0}, {b:.0}, {c:.0} A, \
         SNR about {snr:.2}",
    );
    pilot
}

/// The pilot reconstruction of the particles in `rows`.
///
/// # Errors
/// When the file cannot be read.
fn reconstruct_rows(store: &Store, rows: &Range<usize>, symmetry: Symmetry) -> Result<PilotReconstruction> {
    let small = small_box(store.header().box_size);
    // The FSC between the two halves of the sample gives the SNR, for the Wiener filter too.
    let sampling = Sampling { rows: rows.clone(), particles: PARTICLES, box_size: small, symmetry };
    let SampledSums { parts, particles, pixel_size } = sampled_sums::<2>(store, sampling)?;
    let maps = reconstruct(parts, pixel_size, true)?;
    let largest = maps.whole.data.iter().copied().fold(0.0, f32::max);
    let fsc = Fsc::between(&maps.halves[0], &maps.halves[1])?;
    Ok(PilotReconstruction {
        density: Density::above(THRESHOLD * largest, &maps.whole.data),
        total_snr: total_snr(&fsc.shells[..small / 2]) * rows.len() as f64 / particles.max(1) as f64,
    })
}

/// SNR of the sum of two half sets whose FSC per shell is `shells`, summed over the Fourier voxels of these shells:
/// 2 FSC / (1 - FSC) per voxel.
fn total_snr(shells: &[f64]) -> f64 {
    let of_shell = |(shell, &fsc): (usize, &f64)| {
        let fsc = if fsc.is_nan() { 0.0 } else { fsc.clamp(0.0, LARGEST_FSC) };
        4.0 * PI * (shell * shell) as f64 * 2.0 * fsc / (1.0 - fsc)
    };
    shells.iter().enumerate().map(of_shell).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_snr_sums_over_voxels() {
        // An FSC of 1/2 between the halves: SNR 1 each, and 2 for both together.
        let expected = 4.0 * PI * (1.0 + 4.0) * 2.0;
        assert!((total_snr(&[1.0, 0.5, 0.5, -0.1, f64::NAN]) - expected).abs() < 1e-9);
        assert!(total_snr(&[1.0; 3]).is_finite());
    }
}
