//! How much of each shell is signal: the Wiener filter's constant, as RELION finds it.
//!
//! The FSC of two half maps tells the ratio of signal to noise of each, FSC / (1 - FSC). The noise of a grid point falls with
//! its weight W, so the filter divides by W + w / ratio, with w the shell's mean weight (Scheres, J. Struct. Biol. 180 (2012)
//! 519: 1 / tau^2).
//!
//! That does two things. Within a shell it evens out the weights, which each point must have for itself, on the grid. And it
//! gives the shell as a whole a gain, which falls steeply where the signal ends. On the grid that would let the strong shells
//! leak into the weak ones when the map is cut to its sphere; so the gain is taken out there, and comes after the cut.

use rayon::prelude::*;

use crate::evaluate::Fsc;
use crate::evaluate::filter::radial;
use crate::imaging::mrc::Volume;
use crate::voxels::PADDING;
use crate::voxels::accumulator::{Sums, square};

/// Part of a shell's mean weight that a weight has at least.
const FLOOR: f64 = 1e-3;
/// FSCs outside this are taken for its ends, as RELION takes them.
const RANGE: (f64, f64) = (0.001, 0.999);

/// The filter of maps of one number of images.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Mean weight of each shell of an image's transform, from 0 up to Nyquist.
    means: Vec<f64>,
    /// The shell's constant.
    constants: Vec<f64>,
}

impl Filter {
    /// For each of two halves with this `fsc`, whose mean weights are `means`.
    pub fn new(fsc: &Fsc, means: &[f64]) -> Self {
        let constant = |(shell, mean): (usize, &f64)| {
            // Shell 0 has no FSC but a sign, and is sure; the shell at Nyquist has that of the last.
            let found = if shell == 0 { 1.0 } else { fsc.shells[shell.min(fsc.last_shell())] };
            let found = found.clamp(RANGE.0, RANGE.1);
            mean * (1.0 - found) / found
        };
        Self { means: means.to_vec(), constants: means.iter().enumerate().map(constant).collect() }
    }

    /// One that only keeps a point with few samples from being noise, before the FSC is known.
    pub fn floor(means: &[f64]) -> Self {
        Self { means: means.to_vec(), constants: means.iter().map(|mean| mean * FLOOR).collect() }
    }

    /// For both halves together: their weights add up, and the signal, so the constant, is the same.
    pub fn of_both(&self) -> Self {
        Self { means: self.means.iter().map(|mean| 2.0 * mean).collect(), constants: self.constants.clone() }
    }

    /// `weight` of `sums` evened out within each shell, whose mean stays; those beyond Nyquist as they are.
    pub fn weights(&self, sums: &Sums) -> Vec<f32> {
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

    /// `map`, of those weights, with each shell's gain; between shells the gain is interpolated.
    pub fn apply(&self, map: &Volume) -> Volume {
        let last = self.means.len() - 1;
        let data = radial(&map.data, |radius| {
            let below = (radius as usize).min(last);
            let (low, high) = (self.gain(below), self.gain((below + 1).min(last)));
            low + (high - low) * (radius - below as f64).min(1.0)
        });
        Volume { data, pixel_size: map.pixel_size }
    }

    /// What a shell's mean weight has of that with the constant.
    fn gain(&self, shell: usize) -> f64 {
        let (mean, constant) = (self.means[shell], self.constants[shell]);
        if mean > 0.0 { mean / (mean + constant) } else { 0.0 }
    }
}

/// The shell of a grid point; none from Nyquist on.
fn shell(box_size: usize, x: usize, y: usize, z: usize) -> Option<usize> {
    let square = square(box_size, x, y, z);
    (square < box_size * box_size).then(|| ((square as f64).sqrt() / PADDING as f64).round() as usize)
}

/// The mean weight of each shell, over both halves.
pub fn mean_weights(halves: [&Sums; 2]) -> Vec<f64> {
    let [first, second] = halves.map(mean_weights_of);
    first.into_iter().zip(second).map(|(a, b)| 0.5 * (a + b)).collect()
}

fn mean_weights_of(sums: &Sums) -> Vec<f64> {
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
    // Added in order, so that the result does not depend on the number of threads.
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
    const FOUND: [f64; BOX / 2] = [-1.0, 1.0, 0.8, 0.5, 0.1, -0.3];
    /// What these are taken for, to Nyquist.
    const TAKEN: [f64; BOX / 2 + 1] = [0.999, 0.999, 0.8, 0.5, 0.1, 0.001, 0.001];

    fn uneven() -> Sums {
        let mut sums = Sums::zero(BOX);
        let (n, side) = (BOX, sums.side());
        for (i, weight) in sums.weight.iter_mut().enumerate() {
            if shell(n, i % n, i / n % side, i / n / side).is_some() {
                *weight = 1.0 + ((i * 7919) % 101) as f32;
            }
        }
        sums
    }

    fn filter(means: &[f64]) -> Filter {
        Filter::new(&Fsc { pixel_size: 2.0, box_size: BOX, shells: FOUND.to_vec() }, means)
    }

    #[test]
    fn weights_come_as_near_to_their_shells_mean_as_the_shell_is_noise() {
        let sums = uneven();
        let means = mean_weights([&sums, &sums]);
        let found = filter(&means).weights(&sums);
        let side = sums.side();
        for (i, (&found, &weight)) in found.iter().zip(&sums.weight).enumerate() {
            let expected = match shell(BOX, i % BOX, i / BOX % side, i / BOX / side) {
                Some(shell) => means[shell] + TAKEN[shell] * (f64::from(weight) - means[shell]),
                None => 0.0,
            };
            assert!((f64::from(found) - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn a_shell_has_its_fsc_as_gain_and_that_of_both_halves_together() {
        let sums = uneven();
        let filter = filter(&mean_weights([&sums, &sums]));
        let wave = |kx: f64, ky: f64| {
            let data = ndarray::Array3::from_shape_fn((BOX, BOX, BOX), |(_, y, x)| {
                (TAU * (kx * x as f64 + ky * y as f64) / BOX as f64).cos() as f32
            });
            Volume { data, pixel_size: 2.0 }
        };
        let gain = |filter: &Filter, wave: &Volume| {
            let found = filter.apply(wave);
            assert_eq!(found.pixel_size, 2.0);
            f64::from(found.data[[0, 0, 0]] / wave.data[[0, 0, 0]])
        };
        for (shell, &fsc) in TAKEN.iter().enumerate().take(BOX / 2) {
            let wave = wave(shell as f64, 0.0);
            assert!((gain(&filter, &wave) - fsc).abs() < 1e-5, "{shell}");
            assert!((gain(&filter.of_both(), &wave) - 2.0 * fsc / (1.0 + fsc)).abs() < 1e-5, "{shell}");
        }
        let expected = 0.8 + (5f64.sqrt() - 2.0) * (0.5 - 0.8);
        assert!((gain(&filter, &wave(2.0, 1.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn the_mean_weight_is_that_of_both_halves_and_none_is_no_gain() {
        let (sums, none) = (uneven(), Sums::zero(BOX));
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
