//! The prior of the changes of a model's particles: normal about no change, with a width of each kind that is estimated from all
//! (docs/method.md, section 15). A rotation may also be that of a lost particle, whose pose is unknown.

use std::f64::consts::{PI, TAU};

use super::REFINED;
use super::newton::{Matrix, Vector, solve};
use crate::render::reference::{DEFOCUS, OFFSET};

/// Kinds of numbers: rotation vector, offset, defocus.
pub(crate) const KINDS: usize = 3;

/// The kind of parameter `p`.
pub(crate) fn kind(p: usize) -> usize {
    match p {
        p if p < OFFSET => 0,
        p if p < DEFOCUS => 1,
        _ => 2,
    }
}

/// Share of particles whose pose may be anything.
const LOST: f64 = 0.01;
/// Iterations of expectation maximisation of an estimate.
const ITERATIONS: usize = 30;

/// Standard deviation of each kind of change: in radians, pixels, and units of the defocus; 0: not refined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Widths(pub [f64; KINDS]);

impl Widths {
    /// Whether parameter `p` is refined.
    pub fn is_refined(&self, p: usize) -> bool {
        self.0[kind(p)] > 0.0
    }

    /// Inverse variance of parameter `p`; 0 where it is not refined.
    fn precision(&self, p: usize) -> f64 {
        if self.is_refined(p) { self.0[kind(p)].powi(-2) } else { 0.0 }
    }

    /// Inverse variances at the `change`. For a rotation they are those of a normal distribution times the probability that the pose is
    /// not lost.
    pub fn precisions(&self, change: &Vector) -> Vector {
        let regular = self.regularity(change);
        std::array::from_fn(|p| if p < OFFSET { regular * self.precision(p) } else { self.precision(p) })
    }

    /// Minus the logarithm of the prior of `change`, up to a constant.
    pub fn penalty(&self, change: &Vector) -> f64 {
        let others: f64 = (OFFSET..REFINED).map(|p| 0.5 * change[p] * change[p] * self.precision(p)).sum();
        let (normal, lost) = self.rotation_densities(change);
        others - (normal + lost).ln()
    }

    /// Probability that the rotation of `change` is an error of the normal distribution, and not that of a lost particle.
    pub fn regularity(&self, change: &Vector) -> f64 {
        let (normal, lost) = self.rotation_densities(change);
        normal / (normal + lost)
    }

    /// Density of the rotation of `change` by the normal distribution, and that of lost particles, over the density of no change.
    fn rotation_densities(&self, change: &Vector) -> (f64, f64) {
        if !self.is_refined(0) {
            return (1.0, 0.0);
        }
        let square: f64 = change[..OFFSET].iter().map(|x| x * x).sum();
        let peak = (TAU * self.0[0] * self.0[0]).powf(-1.5);
        ((-0.5 * square * self.precision(0)).exp(), LOST / (1.0 - LOST) / (8.0 * PI * PI) / peak)
    }
}

/// The log-likelihood of a particle near its best change, to second order: -1/2 (x - c)^T H (x - c).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quadratic {
    /// H, per unit of log-likelihood.
    pub curvature: Matrix,
    /// H c.
    pub drive: Vector,
    /// Weight of the particle.
    pub weight: f64,
}

/// Sums of an iteration over the particles of a rank: weighted mean squares of each kind, and the weight.
pub(crate) type PriorSums = [f64; KINDS + 1];

/// The sums of `particles` with the prior `widths`.
pub(crate) fn sums(particles: &[Quadratic], widths: &Widths) -> PriorSums {
    let mut sums = [0.0; KINDS + 1];
    for Quadratic { curvature, drive, weight } in particles {
        let Some((mean, covariance)) = posterior(curvature, drive, widths) else { continue };
        for p in (0..REFINED).filter(|&p| widths.is_refined(p)) {
            let count = [3.0, 2.0, 1.0][kind(p)];
            sums[kind(p)] += weight * (mean[p] * mean[p] + covariance[p]) / count;
        }
        sums[KINDS] += weight;
    }
    sums
}

/// Mean of a change and the variances of its numbers.
fn posterior(curvature: &Matrix, drive: &Vector, widths: &Widths) -> Option<(Vector, Vector)> {
    let mut matrix = *curvature;
    for (p, row) in matrix.iter_mut().enumerate().filter(|(p, _)| widths.is_refined(*p)) {
        row[p] += widths.precision(p);
    }
    let mean = solve(&matrix, drive, widths)?;
    let mut variances = [0.0; REFINED];
    for p in (0..REFINED).filter(|&p| widths.is_refined(p)) {
        let unit = std::array::from_fn(|q| f64::from(u8::from(p == q)));
        variances[p] = solve(&matrix, &unit, widths)?[p];
    }
    Some((mean, variances))
}

/// The widths that maximise the likelihood of the particles, from `widths` on; `total` sums the [`PriorSums`] of all ranks. No width falls
/// below that in `least`.
pub(crate) fn estimate(
    particles: &[Quadratic],
    widths: &Widths,
    least: &Widths,
    mut total: impl FnMut(PriorSums) -> PriorSums,
) -> Widths {
    let mut widths = *widths;
    for _ in 0..ITERATIONS {
        let sums = total(sums(particles, &widths));
        if sums[KINDS] <= 0.0 {
            break;
        }
        for kind in 0..KINDS {
            if widths.0[kind] > 0.0 {
                widths.0[kind] = (sums[kind] / sums[KINDS]).sqrt().max(least.0[kind]);
            }
        }
    }
    widths
}
