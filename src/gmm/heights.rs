//! Mixtures whose splats are not normalised: their amplitudes are heights, and what these are in a map.
//!
//! Without the normalisation of METHOD.md section 3 a splat is A k exp(-1/2 d^T C d), with one k for all Gaussians and
//! views. It weighs 2 pi k A |Sigma2|^(1/2), more from where the Gaussian is broad, and no volume projects like that: each
//! normalised Gaussian weighs the same from everywhere. The map of such a model is therefore made of those normalised
//! Gaussians whose projections come nearest to its splats, in least squares over all pixels and directions of view:
//!   A' = 2 pi k A / <|Sigma2|^(-1/2)>,   <> the mean over directions,
//! with Sigma2 as it is sampled, its blur included. Where Gaussians are round, of whatever widths, the splats are
//! projections, and these are they: A' = 2 pi k s^2 A. So what a map lacks, the missing normalisation has cost it, and not
//! the way from model to map. (V = sum A exp(-1/2 r^T Sigma^-1 r), which splatting for pictures has in mind, would be
//! A' = (2 pi)^(3/2) |Sigma|^(1/2) A up to a constant. It takes a splat's height for a density, though a projection is also
//! the higher the deeper a Gaussian is: even round ones of different widths would then weigh wrongly, by a factor s.)
//!
//! Files of mixtures and all that is made from them hold A', the convention of METHOD.md section 2; checkpoints hold A.

use std::f64::consts::TAU;

use super::parameters::scaled_amplitude;
use super::{Gmm, S_MIN, Shape, softplus};

/// How high splats are that are not normalised; box units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heights {
    /// k: the height of a splat of amplitude 1.
    pub unit: f64,
    /// Standard deviation by which splats are widened before they are sampled.
    pub blur: f64,
}

impl Heights {
    /// Those with which a round Gaussian of standard deviation `scale` looks like a normalised one.
    pub fn of_scale(scale: f64, blur: f64) -> Self {
        Self { unit: 1.0 / (TAU * (scale * scale + blur * blur)), blur }
    }

    /// The normalised mixture nearest to `gmm`, whose amplitudes are heights.
    pub fn to_normalized(&self, gmm: &Gmm) -> Gmm {
        self.times(gmm, |weight| weight)
    }

    /// The mixture of heights that [`Heights::to_normalized`] makes into `gmm`.
    pub fn from_normalized(&self, gmm: &Gmm) -> Gmm {
        self.times(gmm, |weight| 1.0 / weight)
    }

    /// Multiplies amplitudes by what `factor` makes of A'/A.
    fn times(&self, gmm: &Gmm, factor: impl Fn(f64) -> f64) -> Gmm {
        let (mut values, count) = (gmm.values().to_vec(), gmm.len());
        let first = (gmm.shape().planes() - 1) * count;
        for i in 0..count {
            let [x, y, z] = self.variances(gmm, i);
            // |Sigma2| = n_x^2 (y z) + n_y^2 (x z) + n_z^2 (x y), with n the direction of view along the Gaussian's axes.
            let weight = TAU * self.unit / mean_inverse_root([y * z, x * z, x * y]);
            let raw = &mut values[first + i];
            *raw = scaled_amplitude(f64::from(*raw), factor(weight)) as f32;
        }
        Gmm::from_values(gmm.shape(), count, values)
    }

    /// The variances along the axes of Gaussian `i`, widened.
    fn variances(&self, gmm: &Gmm, i: usize) -> [f64; 3] {
        let planes = match gmm.shape() {
            Shape::Isotropic => [3; 3],
            Shape::Anisotropic => [3, 4, 5],
        };
        planes.map(|plane| softplus(f64::from(gmm.plane(plane)[i])).max(S_MIN).powi(2) + self.blur.powi(2))
    }
}

/// The mean of (n_x^2 x + n_y^2 y + n_z^2 z)^(-1/2) over all directions n: Carlson's symmetric elliptic integral R_F, by
/// duplication (NIST Digital Library of Mathematical Functions, 19.23 and 19.36).
fn mean_inverse_root([mut x, mut y, mut z]: [f64; 3]) -> f64 {
    loop {
        let mean = (x + y + z) / 3.0;
        let [dx, dy, dz] = [x, y, z].map(|v| 1.0 - v / mean);
        // What is left out of the series is of the sixth power of these.
        if dx.abs().max(dy.abs()).max(dz.abs()) < 3e-3 {
            let (e2, e3) = (dx * dy - dz * dz, dx * dy * dz);
            return (1.0 - e2 / 10.0 + e3 / 14.0 + e2 * e2 / 24.0 - 3.0 * e2 * e3 / 44.0) / mean.sqrt();
        }
        let step = (x * y).sqrt() + (x * z).sqrt() + (y * z).sqrt();
        [x, y, z] = [x, y, z].map(|v| (v + step) / 4.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::{START_SCALE, softplus_inverse};
    use crate::random::{Purpose, stream};

    #[test]
    fn the_mean_over_directions_is_the_mean_over_directions() {
        for sides in [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [0.1, 5.0, 0.7], [4.0, 4.0, 0.2]] {
            // The midpoint rule over height and half a turn; along the turn it converges faster than any power.
            let (heights, turns) = (2000, 200);
            let mut sum = 0.0;
            for height in (0..heights).map(|i| (f64::from(i) + 0.5) / f64::from(heights)) {
                for turn in (0..turns).map(|i| 0.5 * TAU * (f64::from(i) + 0.5) / f64::from(turns)) {
                    let across = (1.0 - height * height).sqrt();
                    let n = [across * turn.cos(), across * turn.sin(), height];
                    sum += (0..3).map(|k| n[k] * n[k] * sides[k]).sum::<f64>().powf(-0.5);
                }
            }
            let want = sum / f64::from(heights * turns);
            let got = mean_inverse_root(sides);
            assert!((got / want - 1.0).abs() < 1e-6, "{sides:?}: {got} {want}");
        }
    }

    #[test]
    fn the_start_keeps_its_amplitudes() {
        let gmm = Gmm::random(5, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        for blur in [0.0, 0.004] {
            let map = Heights::of_scale(START_SCALE, blur).to_normalized(&gmm);
            for (a, b) in gmm.amplitudes().zip(map.amplitudes()) {
                // Scales are kept in single precision.
                assert!((a / b - 1.0).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn there_and_back_again() {
        let mut values: Vec<f32> = [0.1f32, -0.2, 0.3].to_vec();
        values.extend([0.002, 0.03, 0.01].map(|s| softplus_inverse(s) as f32));
        // An amplitude that single precision of softplus would lose.
        values.extend([0.5, 0.5, -0.5, 0.5, -90.0]);
        let gmm = Gmm::from_values(Shape::Anisotropic, 1, values);
        let heights = Heights::of_scale(0.0075, 0.004);
        let map = heights.to_normalized(&gmm);
        let again = heights.from_normalized(&map);
        assert!((again.plane(10)[0] + 90.0).abs() < 1e-4 && (map.plane(10)[0] + 90.0).abs() > 0.1);
        assert_eq!(again.values()[..10], gmm.values()[..10]);
    }
}
