//! How one particle was seen, and how much there was to see.

use super::ctf::Ctf;
use super::pose::Rotation;
use crate::simd::{Isa, vectorize};

/// How one particle was seen.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Its CTF.
    pub ctf: Ctf,
}

vectorize! {
    /// The sum of the squares of an observed image's pixels: the same bits on every processor.
    pub fn energy(image: &[f32]) -> f64 = sum_of_squares
}

// In any instruction set the same operations, of which the compiler makes what the set offers.
#[inline(always)]
fn sum_of_squares<I: Isa>(image: &[f32]) -> f64 {
    // Sums of their own for neighbours, which the processor can add side by side.
    let mut sums = [0.0f64; 16];
    let (groups, rest) = image.as_chunks::<16>();
    for pixels in groups {
        for (sum, &y) in sums.iter_mut().zip(pixels) {
            *sum += f64::from(y) * f64::from(y);
        }
    }
    for (sum, &y) in sums.iter_mut().zip(rest) {
        *sum += f64::from(y) * f64::from(y);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn an_energy_has_the_bits_of_the_portable_sum_and_counts_every_pixel() {
        for length in [0, 1, 15, 16, 17, 1000] {
            let image: Vec<f32> = (0..length).map(|i| (i as f32 * 0.7).sin()).collect();
            let portable = sum_of_squares::<Portable>(&image);
            assert_eq!(energy(&image).to_bits(), portable.to_bits());
            let plain: f64 = image.iter().map(|&y| f64::from(y).powi(2)).sum();
            assert!((plain - portable).abs() <= 1e-12 * plain);
        }
    }
}
