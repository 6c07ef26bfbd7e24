//! How one particle was seen, and how much there was to see.

use super::ctf::Ctf;
use super::pose::Rotation;
use crate::simd::{Isa, LANES, Vector, vectorize};

/// How one particle was seen.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Its CTF.
    pub ctf: Ctf,
}

vectorize! {
    /// The sum of the squares of an observed image's pixels.
    pub fn energy(image: &[f32]) -> f64 = energy_of
}

/// The squares are exact in double precision: with and without vector instructions the sum has the same bits.
#[inline(always)]
fn energy_of<I: Isa>(image: &[f32]) -> f64 {
    let mut sums = I::F64::splat(0.0);
    for at in (0..image.len()).step_by(LANES) {
        let pixels = I::widen(I::F32::load_padded(image, at, 0.0));
        sums = pixels.times_plus(pixels, sums);
    }
    sums.to_array().iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn the_energy_counts_every_pixel_and_has_the_same_bits_everywhere() {
        for length in [0, 1, 7, 8, 9, 64, 1089] {
            let image: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let plain: f64 = image.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
            assert!((energy(&image) - plain).abs() <= 1e-13 * plain);
            assert_eq!(energy(&image).to_bits(), energy_of::<Portable>(&image).to_bits());
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!energy(&[1.0, 2.0, value]).is_finite());
        }
    }
}
