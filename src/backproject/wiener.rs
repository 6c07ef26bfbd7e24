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

use super::PADDING;
use super::sums::{Sums, square};
use crate::evaluate::Fsc;
use crate::evaluate::filter::radial;
use crate::imaging::mrc::Volume;

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
