//! The rules of the default recipe, `scaled`: its constants, and the formulas for numbers of Gaussians, mixtures and epochs and for
//! the learning rate (docs/method.md, section 7). What led to them: benches/results/notebook.md.

use std::ops::RangeInclusive;

use crate::render::RateFactors;

/// Allowed numbers of Gaussians of a mixture.
pub const GAUSSIANS_ALLOWED: RangeInclusive<u64> = 1..=50_000_000;

/// Number of images that one model sees in a run: at least this many, unless [`MAX_EPOCHS`] is reached.
pub const IMAGES_SEEN: usize = 100_000;
/// Smallest number of epochs.
const MIN_EPOCHS: usize = 5;
/// Largest number of epochs: with more, the model fits the noise.
const MAX_EPOCHS: usize = 100;

/// Base rate for [`IMAGES_SEEN`] images.
const RATE: f64 = 4e-4;
/// Largest base rate.
pub(super) const MAX_RATE: f64 = 1.5e-3;
/// Mean SNR per Fourier voxel above which the base rate is halved: the final step size, not noise, then limits the map.
const HIGH_SNR: f64 = 20.0;

/// Largest number of mixtures of a model.
const MAX_MIXTURES: usize = 4;
/// Smallest number of epochs per mixture: many noisy images converge slowly.
const EPOCHS_PER_MIXTURE: usize = 8;
/// Smallest number of images per mixture.
const IMAGES_PER_MIXTURE: f64 = 6_250.0;
/// Total SNR per image of a mixture, at most: particles of high SNR need more images per mixture.
const SNR_PER_IMAGE: f64 = 40.0;

/// Images of a half before the first round of refinement, and between two rounds.
const FIRST_ROUND: usize = 7_500;
const NEXT_ROUND: usize = 4_500;
/// Rounds of refinement of the refining mixture.
const ROUNDS: usize = 4;
/// Largest length of the refining mixture over that of all others.
const REFINING_SHARE: f64 = 0.35;

/// Learning-rate factors. Amplitudes must change a hundredfold where a Gaussian lies in solvent. Scales hardly change: where they
/// move as fast as means, they fit the noise.
pub(super) const FACTORS: RateFactors =
    RateFactors { mean: 1.0, scale: 0.3, quaternion: 1.0, amplitude: 10.0 };

/// Gaussians of the recipe `paper`, and the cap of `scaled` up to a box of [`REFERENCE_BOX`] pixels. In larger boxes the cap
/// grows with the number of pixels of an image.
pub(super) const GAUSSIANS: usize = 30_000;
const REFERENCE_BOX: usize = 128;
/// Pixels of all images of a half per Gaussian beyond that cap, up to twice the cap.
const PIXELS_PER_EXTRA_GAUSSIAN: usize = 1_300;
/// Voxels of the box per Gaussian, at least.
const VOXELS_PER_GAUSSIAN: usize = 16;
/// Pixels of all images of a half per Gaussian, at least, not counting solvent: with fewer, Gaussians fit the noise.
const PIXELS_PER_GAUSSIAN: f64 = 22.0;
/// Fraction of the box that a specimen fills, without a pilot reconstruction.
const FILLED_FRACTION: f64 = 0.069;

/// Standard deviation of a Gaussian at the start, in distances between Gaussians. Scales change little, and a Gaussian that is
/// too wide loses the last shells.
const START_SPACING: f64 = 0.31;
/// Range of that standard deviation in pixels. The upper end grows with the box above [`REFERENCE_BOX`].
const START_PIXELS: RangeInclusive<f64> = 0.25..=0.48;
/// Smallest standard deviation in distances between Gaussians, for few Gaussians in a large box.
const MIN_SPACING: f64 = 0.25;
/// Volume of the specimen's ellipsoid as a fraction of the box, without a pilot reconstruction.
pub(super) const ELLIPSOID_FRACTION: f64 = 0.095;

/// Number of epochs for a half of `particles` particles: [`IMAGES_SEEN`] images, within 5 to 100 epochs.
pub fn epochs_for(particles: usize) -> usize {
    IMAGES_SEEN.div_ceil(particles.max(1)).clamp(MIN_EPOCHS, MAX_EPOCHS)
}

/// Numbers of epochs of the refining mixture after which particles are refined, in a run of `epochs` epochs of `particles` particles:
/// two to [`ROUNDS`], within [`REFINING_SHARE`] of the epochs where that leaves two.
pub(super) fn rounds_for(epochs: usize, particles: usize) -> Vec<usize> {
    let [first, next] = [FIRST_ROUND, NEXT_ROUND].map(|images| images.div_ceil(particles.max(1)));
    let longest = ((REFINING_SHARE * epochs as f64) as usize).max(2);
    if first + next > longest {
        return vec![(longest * first / (first + next)).clamp(1, longest - 1), longest];
    }
    (0..ROUNDS).map(|round| first + round * next).take_while(|&end| end <= longest).collect()
}

/// Base rate for `images` images per mixture: proportional to 1 / images above [`IMAGES_SEEN`], so that Gaussians travel as far in
/// all, and to its square root below, so that they do not follow the noise.
pub(super) fn base_rate(images: usize) -> f64 {
    let ratio = IMAGES_SEEN as f64 / images as f64;
    (RATE * ratio.min(ratio.sqrt())).min(MAX_RATE)
}

/// Whether the particles carry so much signal that the base rate is halved: a `total_snr` above [`HIGH_SNR`] per voxel of the box, and
/// [`IMAGES_SEEN`] images for each mixture.
pub(super) fn halves_rate(total_snr: f64, box_size: usize, images: usize, mixtures: usize) -> bool {
    let is_high = total_snr > HIGH_SNR * (box_size as f64).powi(3);
    is_high && images >= IMAGES_SEEN * mixtures
}

/// Number of mixtures for `epochs` epochs of `particles` particles with a sum of `total_snr` over the Fourier voxels: as many as have
/// enough epochs and images.
pub(super) fn mixtures_for(total_snr: f64, epochs: usize, particles: usize) -> usize {
    let images = (epochs * particles) as f64;
    let of_images = (images / IMAGES_PER_MIXTURE.max(total_snr / SNR_PER_IMAGE)) as usize;
    MAX_MIXTURES.min(epochs / EPOCHS_PER_MIXTURE).min(of_images).max(1)
}

/// Standard deviation of the Gaussians at the start, in box units, where `gaussians` of them lie in a specimen whose ellipsoid takes
/// `ellipsoid_fraction` of a box of `box_size` pixels.
pub fn start_scale(gaussians: usize, box_size: usize, ellipsoid_fraction: f64) -> f64 {
    let distance = (ellipsoid_fraction / gaussians as f64).cbrt();
    let least = START_PIXELS.start() / box_size as f64;
    let most = START_PIXELS.end() / box_size.min(REFERENCE_BOX) as f64;
    (START_SPACING * distance).clamp(least, most).max(MIN_SPACING * distance)
}

/// Number of Gaussians of a mixture for a half of `particles` particles in a box of `box_size` pixels. `filled_fraction` is the fraction of
/// the box that the specimen fills, from a pilot reconstruction.
pub fn gaussians_for(box_size: usize, particles: usize, filled_fraction: Option<f64>) -> usize {
    let pixels = particles * box_size.pow(2);
    let cap = GAUSSIANS * box_size.max(REFERENCE_BOX).pow(2) / REFERENCE_BOX.pow(2);
    let most = (pixels / PIXELS_PER_EXTRA_GAUSSIAN).clamp(cap, 2 * cap);
    let voxels = box_size.pow(3);
    let filled_voxels = filled_fraction.map_or(voxels, |fraction| (fraction * voxels as f64) as usize);
    let of_pixels =
        (filled_fraction.unwrap_or(FILLED_FRACTION) * pixels as f64 / PIXELS_PER_GAUSSIAN) as usize;
    (voxels / VOXELS_PER_GAUSSIAN).min(filled_voxels).min(of_pixels).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaussians_follow_voxels_pixels_and_the_filled_fraction() {
        let filled = |fraction| gaussians_for(64, 5_000, Some(fraction));
        assert_eq!([0.5, 0.0625, 0.03].map(filled), [16_384, 16_384, 7_864]);
        assert_eq!(gaussians_for(64, 500, Some(0.03)), 2_792, "0.03 64^2 500 / 22");
        assert_eq!(gaussians_for(64, 500, Some(1e-9)), 1);
        assert_eq!(gaussians_for(128, 5_000, Some(0.5)), 60_000);
    }
}
