//! How much of each shell is signal: the Wiener filter's constant, as RELION finds it.
//!
//! The FSC of two half maps tells the ratio of signal to noise of each, FSC / (1 - FSC). The noise of a grid point falls with
//! its weight W, so the filter divides by W + w / ratio, with w the shell's mean weight (Scheres, J. Struct. Biol. 180 (2012)
//! 519: 1 / tau^2).

use rayon::prelude::*;

use super::PADDING;
use super::sums::{Sums, square};
use crate::evaluate::Fsc;

/// Part of a shell's mean weight that a weight has at least.
const FLOOR: f64 = 1e-3;
/// FSCs outside this are taken for its ends, as RELION takes them.
const RANGE: (f64, f64) = (0.001, 0.999);

/// The constant of each shell of an image's transform, from 0 up to Nyquist, whose mean weights are `means`; the same for both
/// halves and for all particles.
pub fn constants(fsc: &Fsc, means: &[f64]) -> Vec<f32> {
    let of_shell = means.iter().enumerate();
    of_shell
        .map(|(shell, mean)| {
            // Shell 0 has no FSC but a sign, and is sure; the shell at Nyquist has that of the last.
            let found = if shell == 0 { 1.0 } else { fsc.shells[shell.min(fsc.last_shell())] };
            let found = found.clamp(RANGE.0, RANGE.1);
            (mean * (1.0 - found) / found) as f32
        })
        .collect()
}

/// Constants that only keep a point with few samples from being noise, before the FSC is known.
pub fn floor(means: &[f64]) -> Vec<f32> {
    means.iter().map(|mean| (mean * FLOOR) as f32).collect()
}

/// `weight` of `sums` with the constants added, within Nyquist.
pub fn weights(sums: &Sums, constants: &[f32]) -> Vec<f32> {
    let (n, side) = (sums.box_size, sums.side());
    let mut weights = sums.weight.clone();
    weights.par_chunks_exact_mut(n).enumerate().for_each(|(line, weights)| {
        for (x, weight) in weights.iter_mut().enumerate() {
            if let Some(shell) = shell(n, x, line % side, line / side) {
                *weight += constants[shell];
            }
        }
    });
    weights
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
