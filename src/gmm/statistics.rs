//! Statistics of a mixture.

use super::{Gmm, Shape};

/// Statistics of a mixture, in box units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MixtureStatistics {
    /// Number of Gaussians.
    pub count: usize,
    pub isotropic: bool,
    /// Sum of all amplitudes: the sum of a projection over D^2.
    pub amplitude: f64,
    /// Smallest, median and largest standard deviation along the principal axes.
    pub scales: [f64; 3],
    /// Number of Gaussians whose mean lies outside the box.
    pub outside: usize,
}

impl MixtureStatistics {
    pub(crate) fn of(gmm: &Gmm) -> Self {
        let mut scales: Vec<f64> = gmm.scales().collect();
        scales.sort_unstable_by(f64::total_cmp);
        let amplitude = gmm.amplitudes().sum();
        let out = |i: usize| (0..3).any(|plane| gmm.plane(plane)[i].abs() > 0.5);
        Self {
            count: gmm.len(),
            isotropic: gmm.shape() == Shape::Isotropic,
            amplitude,
            // A mixture has at least one Gaussian.
            scales: [scales[0], scales[scales.len() / 2], scales[scales.len() - 1]],
            outside: (0..gmm.len()).filter(|&i| out(i)).count(),
        }
    }
}
