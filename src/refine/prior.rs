//! The prior of the changes of a model's particles: normal about no change, with a width of each kind that is estimated from all
//! (docs/method.md, section 15). A rotation may also be that of a lost particle, whose pose is unknown.

use std::f64::consts::{PI, TAU};

use super::REFINED;
use super::linear::{Matrix, Vector, solve};
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
/// Iterations of expectation maximisation of an estimate, at most.
const ITERATIONS: usize = 100;
/// Relative change of the widths at which it ends.
const SETTLED: f64 = 1e-3;

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
    let mean = solve(&matrix, drive, |p| widths.is_refined(p))?;
    let mut variances = [0.0; REFINED];
    for p in (0..REFINED).filter(|&p| widths.is_refined(p)) {
        let unit = std::array::from_fn(|q| f64::from(u8::from(p == q)));
        variances[p] = solve(&matrix, &unit, |p| widths.is_refined(p))?[p];
    }
    Some((mean, variances))
}

/// The widths that maximise the likelihood of the particles, from `widths` on, within the range from `least` to `most`; `total` sums the
/// [`PriorSums`] of all ranks.
pub(crate) fn estimate(
    particles: &[Quadratic],
    widths: &Widths,
    [least, most]: [&Widths; 2],
    mut total: impl FnMut(PriorSums) -> PriorSums,
) -> Widths {
    let mut widths = *widths;
    for _ in 0..ITERATIONS {
        let sums = total(sums(particles, &widths));
        if sums[KINDS] <= 0.0 {
            break;
        }
        let before = widths;
        for kind in (0..KINDS).filter(|&kind| before.0[kind] > 0.0) {
            widths.0[kind] = (sums[kind] / sums[KINDS]).sqrt().clamp(least.0[kind], most.0[kind]);
        }
        let settled = |kind: usize| (widths.0[kind] - before.0[kind]).abs() <= SETTLED * before.0[kind];
        if (0..KINDS).all(settled) {
            break;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    /// Particles with changes of these widths, measured with this standard deviation.
    fn particles(widths: [f64; KINDS], error: f64) -> Vec<Quadratic> {
        let random = &mut stream(5, Purpose::Noise, 0, 0);
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        (0..4000)
            .map(|_| {
                let mut curvature = [[0.0; REFINED]; REFINED];
                (0..REFINED).for_each(|p| curvature[p][p] = error.powi(-2));
                let drive =
                    std::array::from_fn(|p| (widths[kind(p)] * normal() + error * normal()) * error.powi(-2));
                Quadratic { curvature, drive, weight: 1.0 }
            })
            .collect()
    }

    #[test]
    fn widths_are_found_from_a_wide_start() {
        let truth = [0.05, 1.0, 0.3];
        let start = Widths([0.15, 2.0, 0.5]);
        let range = [&Widths([1e-3; KINDS]), &Widths([9.0; KINDS])];
        let found = estimate(&particles(truth, 0.04), &start, range, |sums| sums);
        for (found, truth) in found.0.iter().zip(truth) {
            assert!((found / truth - 1.0).abs() < 0.05, "{found} {truth}");
        }
        // Right poses: less than a third of the errors of 0.04 is left, and falls slowly.
        let none = estimate(&particles([0.0; KINDS], 0.04), &start, range, |sums| sums);
        assert!(none.0.iter().all(|width| *width < 0.04 / 3.0), "{none:?}");
        let narrow = [&Widths([1e-3; KINDS]), &Widths([0.02; KINDS])];
        assert_eq!(estimate(&particles(truth, 0.04), &start, narrow, |sums| sums).0, [0.02; KINDS]);
        let some = Widths([0.15, 0.0, 0.0]);
        assert_eq!(estimate(&particles(truth, 0.04), &some, range, |sums| sums).0[1..], [0.0, 0.0]);
    }

    #[test]
    fn a_lost_pose_is_not_pulled_back() {
        let widths = Widths([0.05, 1.0, 0.0]);
        let [near, far] = [0.1, 2.0].map(|angle| [angle, 0.0, 0.0, 0.5, 0.0, 0.0]);
        assert!(widths.regularity(&near) > 0.99 && widths.regularity(&far) < 1e-6);
        let [of_near, of_far] = [near, far].map(|change| widths.precisions(&change));
        assert!((of_near[0] / 400.0 - 1.0).abs() < 0.01 && of_far[0] < 1e-3);
        assert_eq!((of_near[3], of_far[3], of_far[5]), (1.0, 1.0, 0.0));
        // ln(0.99 / 0.01 (8 pi^2) / (2 pi 0.05^2)^1.5) = 15.2, and 1/2 0.5^2 of the offset.
        assert!((widths.penalty(&far) - 15.3).abs() < 0.1, "{}", widths.penalty(&far));
    }
}
