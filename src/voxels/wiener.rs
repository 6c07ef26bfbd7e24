//! The Wiener filter, with the SNR of each shell from the FSC, as in RELION.
//!
//! The FSC of two half maps gives the SNR of each, FSC / (1 - FSC). The noise variance of a grid point is inverse to its weight W,
//! so the filter divides by W + w / SNR, where w is the mean weight of the shell (Scheres, J. Struct. Biol. 180 (2012) 519:
//! 1 / tau^2).
//!
//! The filter is applied in two parts. On the grid, the weights within each shell are regularised, with their mean unchanged
//! ([`WienerFilter::weights`]). The gain of the shell as a whole is applied to the map after the spherical mask
//! ([`WienerFilter::apply_gain`]): it falls steeply where the signal ends, and if it came first, the mask would leak strong shells
//! into weak ones.

use rayon::prelude::*;

use crate::evaluate::Fsc;
use crate::evaluate::filter::radial;
use crate::imaging::mrc::Volume;
use crate::voxels::PADDING;
use crate::voxels::sums::{FourierSums, squared_radius};

/// Constant of [`WienerFilter::floor`], as a fraction of the shell's mean weight.
const FLOOR: f64 = 1e-3;
/// The FSC is clamped to this range, as in RELION.
const FSC_RANGE: (f64, f64) = (0.001, 0.999);

/// The Wiener filter for a map of a given mean weight.
#[derive(Clone, Debug)]
pub(crate) struct WienerFilter {
    /// Mean weight of each shell, from 0 to Nyquist.
    means: Vec<f64>,
    /// Wiener constant of each shell, w / SNR.
    constants: Vec<f64>,
}

impl WienerFilter {
    /// For each of two half maps with this `fsc`, where `means` are the mean weights of the shells.
    pub fn new(fsc: &Fsc, means: &[f64]) -> Self {
        let constant = |(shell, mean): (usize, &f64)| {
            // In shell 0 the FSC is only a sign: use 1. The shell at Nyquist has the FSC of the last shell.
            let correlation = if shell == 0 { 1.0 } else { fsc.shells[shell.min(fsc.last_shell())] };
            let correlation = correlation.clamp(FSC_RANGE.0, FSC_RANGE.1);
            mean * (1.0 - correlation) / correlation
        };
        Self { means: means.to_vec(), constants: means.iter().enumerate().map(constant).collect() }
    }

    /// A filter that only bounds the weights away from 0, for the maps whose FSC is measured.
    pub fn floor(means: &[f64]) -> Self {
        Self::proportional(means, FLOOR)
    }

    /// A filter whose constant is `fraction` of the shell's mean weight.
    pub fn proportional(means: &[f64], fraction: f64) -> Self {
        Self { means: means.to_vec(), constants: means.iter().map(|mean| mean * fraction).collect() }
    }

    /// For the map of both halves: the weights double, and the constant, which depends on the signal alone, is the same.
    pub fn for_whole_set(&self) -> Self {
        Self { means: self.means.iter().map(|mean| 2.0 * mean).collect(), constants: self.constants.clone() }
    }

    /// The weights of `sums` plus the constant of their shell, scaled so that the mean of the shell is unchanged. Weights beyond
    /// Nyquist are unchanged.
    pub fn weights(&self, sums: &FourierSums) -> Vec<f32> {
        let (n, side) = (sums.box_size, sums.side());
        let gains: Vec<f64> = (0..self.means.len()).map(|shell| self.gain(shell)).collect();
        let mut weights = sums.weight.clone();
        weights.par_chunks_exact_mut(n).enumerate().for_each(|(line, weights)| {
            for (x, weight) in weights.iter_mut().enumerate() {
                if let Some(shell) = shell(n, x, line % side, line / side) {
                    *weight = ((f64::from(*weight) + self.constants[shell]) * gains[shell]) as f32;
                }
            }
        });
        weights
    }

    /// Applies the gain of each shell to `map`, linearly interpolated between shells.
    pub fn apply_gain(&self, map: &Volume) -> Volume {
        let last = self.means.len() - 1;
        let data = radial(&map.data, |radius| {
            let below = (radius as usize).min(last);
            let (low, high) = (self.gain(below), self.gain((below + 1).min(last)));
            low + (high - low) * (radius - below as f64).min(1.0)
        });
        Volume::new(data, map.pixel_size)
    }

    /// The gain of a shell: w / (w + constant), with its mean weight w; 0 without samples.
    fn gain(&self, shell: usize) -> f64 {
        let (mean, constant) = (self.means[shell], self.constants[shell]);
        if mean > 0.0 { mean / (mean + constant) } else { 0.0 }
    }
}

/// The shell of a grid point; `None` from Nyquist on.
fn shell(box_size: usize, x: usize, y: usize, z: usize) -> Option<usize> {
    let square = squared_radius(box_size, x, y, z);
    (square < box_size * box_size).then(|| ((square as f64).sqrt() / PADDING as f64).round() as usize)
}

/// The mean weight of each shell, averaged over both halves.
pub(crate) fn mean_weights(halves: [&FourierSums; 2]) -> Vec<f64> {
    let [first, second] = halves.map(mean_weights_of);
    first.into_iter().zip(second).map(|(a, b)| 0.5 * (a + b)).collect()
}

fn mean_weights_of(sums: &FourierSums) -> Vec<f64> {
    let (n, side) = (sums.box_size, sums.side());
    let planes: Vec<Vec<(f64, f64)>> = (0..side)
        .into_par_iter()
        .map(|z| {
            let mut shells = vec![(0.0, 0.0); n / PADDING + 2];
            for y in 0..side {
                for x in 0..n {
                    if let Some(shell) = shell(n, x, y, z) {
                        shells[shell].0 += f64::from(sums.weight[(z * side + y) * n + x]);
                        shells[shell].1 += 1.0;
                    }
                }
            }
            shells
        })
        .collect();
    // Summed in the order of planes, for the same bits on any number of threads.
    let mut shells = vec![(0.0, 0.0); n / PADDING + 2];
    for plane in planes {
        for (sum, part) in shells.iter_mut().zip(plane) {
            *sum = (sum.0 + part.0, sum.1 + part.1);
        }
    }
    shells.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use crate::voxels::wiener::*;
    use std::f64::consts::TAU;

    const BOX: usize = 12;
    const MEASURED: [f64; BOX / 2] = [-1.0, 1.0, 0.8, 0.5, 0.1, -0.3];
    /// The same, clamped, and extended to Nyquist.
    const CLAMPED: [f64; BOX / 2 + 1] = [0.999, 0.999, 0.8, 0.5, 0.1, 0.001, 0.001];

    fn uneven() -> FourierSums {
        let mut sums = FourierSums::zero(BOX);
        let (n, side) = (BOX, sums.side());
        for (i, weight) in sums.weight.iter_mut().enumerate() {
            if shell(n, i % n, i / n % side, i / n / side).is_some() {
                *weight = 1.0 + ((i * 7919) % 101) as f32;
            }
        }
        sums
    }

    fn filter(means: &[f64]) -> WienerFilter {
        WienerFilter::new(&Fsc { pixel_size: 2.0, box_size: BOX, shells: MEASURED.to_vec() }, means)
    }

    #[test]
    fn weights_approach_the_mean_of_their_shell_as_its_fsc_falls() {
        let sums = uneven();
        let means = mean_weights([&sums, &sums]);
        let found = filter(&means).weights(&sums);
        let side = sums.side();
        for (i, (&found, &weight)) in found.iter().zip(&sums.weight).enumerate() {
            let expected = match shell(BOX, i % BOX, i / BOX % side, i / BOX / side) {
                Some(shell) => means[shell] + CLAMPED[shell] * (f64::from(weight) - means[shell]),
                None => 0.0,
            };
            assert!((f64::from(found) - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn the_gain_is_fsc_for_a_half_and_2_fsc_over_1_plus_fsc_for_the_whole_set() {
        let sums = uneven();
        let filter = filter(&mean_weights([&sums, &sums]));
        let wave = |kx: f64, ky: f64| {
            let data = ndarray::Array3::from_shape_fn((BOX, BOX, BOX), |(_, y, x)| {
                (TAU * (kx * x as f64 + ky * y as f64) / BOX as f64).cos() as f32
            });
            Volume::new(data, 2.0)
        };
        let gain = |filter: &WienerFilter, wave: &Volume| {
            let found = filter.apply_gain(wave);
            assert_eq!(found.pixel_size, 2.0);
            f64::from(found.data[[0, 0, 0]] / wave.data[[0, 0, 0]])
        };
        for (shell, &fsc) in CLAMPED.iter().enumerate().take(BOX / 2) {
            let wave = wave(shell as f64, 0.0);
            assert!((gain(&filter, &wave) - fsc).abs() < 1e-5, "{shell}");
            assert!((gain(&filter.for_whole_set(), &wave) - 2.0 * fsc / (1.0 + fsc)).abs() < 1e-5, "{shell}");
        }
        let expected = 0.8 + (5f64.sqrt() - 2.0) * (0.5 - 0.8);
        assert!((gain(&filter, &wave(2.0, 1.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn mean_weights_average_the_halves_and_the_gain_is_0_without_samples() {
        let (sums, none) = (uneven(), FourierSums::zero(BOX));
        let (alone, with_none) = (mean_weights([&sums, &sums]), mean_weights([&none, &sums]));
        for (alone, with_none) in alone.iter().zip(with_none) {
            assert!((0.5 * alone - with_none).abs() < 1e-9);
        }
        assert!(alone[..=BOX / 2].iter().all(|mean| (1.0..=101.0).contains(mean)), "{alone:?}");
        let empty = filter(&mean_weights([&none, &none]));
        assert!((0..=BOX / 2).all(|shell| empty.gain(shell) == 0.0));
        assert!(empty.weights(&none).iter().all(|&weight| weight == 0.0));
    }
}
