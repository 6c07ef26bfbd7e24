//! Poses, shifts and CTFs of simulated particles.
//!
//! Every particle has its own stream of random numbers, so that particle `i` is the same whatever the size of the set.
//! All values are rounded to the digits that the STAR file holds, so that both outputs describe the same particles.

use rand_distr::{Distribution, StandardNormal, StandardUniform};

use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{Rotation, relion_from_rotation, rotation_from_quaternion, rotation_from_relion};
use crate::random::{self, Purpose};

/// Decimals of an angle in degrees.
pub const ANGLE_DECIMALS: usize = 8;
/// Decimals of a shift in angstrom.
pub const SHIFT_DECIMALS: usize = 7;
/// Decimals of a defocus in angstrom and of the astigmatism's angle in degrees.
pub const DEFOCUS_DECIMALS: usize = 3;

/// The least and the largest mean defocus in angstrom; draws beyond are moved there.
pub const DEFOCUS_RANGE: [f64; 2] = [3e3, 6e4];

/// What the particles are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distributions {
    /// The density of the direction of view, at an angle t from the z axis, is proportional to exp(this times cos t); 0:
    /// uniform (von Mises and Fisher; Wood, Commun. Stat. Simul. Comput. 23 (1994) 157).
    pub preference: f64,
    /// Shifts are uniform in +- this many pixels along x and y.
    pub max_shift: f64,
    /// Median of the log-normal mean defocus in angstrom.
    pub defocus_median: f64,
    /// Standard deviation of the defocus' natural logarithm.
    pub defocus_spread: f64,
    /// The defocus difference U - V is uniform from 0 to this many angstrom.
    pub astigmatism: f64,
}

/// One particle but its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// RELION's angles (rot, tilt, psi) in degrees.
    pub angles: [f64; 3],
    /// `W` of these angles.
    pub rotation: Rotation,
    /// RELION's origin (x, y) in angstrom: moving the image by plus this much centres the particle.
    pub origin: [f64; 2],
    /// Defocus and astigmatism.
    pub ctf: CtfParameters,
}

impl Geometry {
    /// Draws particle `index` of the set that `seed` names; `pixel_size` in angstrom.
    pub fn draw(distributions: &Distributions, pixel_size: f64, seed: u64, index: usize) -> Self {
        let random = &mut random::stream(seed, Purpose::Geometry, 0, index as u64);
        let quaternion: [f64; 4] = std::array::from_fn(|_| StandardNormal.sample(random));
        let [rot, tilt, psi] = relion_from_rotation(&rotation_from_quaternion(quaternion));
        let angles =
            [rot, preferred(tilt, distributions.preference), psi].map(|angle| rounded(angle, ANGLE_DECIMALS));
        let mut uniform = || -> f64 { StandardUniform.sample(random) };
        let reach = distributions.max_shift * pixel_size;
        let origin = [uniform(), uniform()].map(|u| rounded((2.0 * u - 1.0) * reach, SHIFT_DECIMALS));
        let half_difference = 0.5 * distributions.astigmatism * uniform();
        let astigmatism_angle = rounded(180.0 * uniform(), DEFOCUS_DECIMALS);
        let normal: f64 = StandardNormal.sample(random);
        let mean = (distributions.defocus_median * (distributions.defocus_spread * normal).exp())
            .clamp(DEFOCUS_RANGE[0], DEFOCUS_RANGE[1]);
        let [rot, tilt, psi] = angles;
        Self {
            angles,
            rotation: rotation_from_relion(rot, tilt, psi),
            origin,
            ctf: CtfParameters {
                defocus_u: rounded(mean + half_difference, DEFOCUS_DECIMALS),
                defocus_v: rounded(mean - half_difference, DEFOCUS_DECIMALS),
                astigmatism_angle,
                ..CtfParameters::default()
            },
        }
    }
}

/// A uniform draw's tilt in degrees as one of those that are preferred: the same quantile of the other distribution.
fn preferred(tilt: f64, preference: f64) -> f64 {
    if preference == 0.0 {
        return tilt;
    }
    let quantile = 0.5 * (1.0 + tilt.to_radians().cos());
    let cosine = 1.0 + (quantile + (1.0 - quantile) * (-2.0 * preference).exp()).ln() / preference;
    cosine.clamp(-1.0, 1.0).acos().to_degrees()
}

/// The number that a file with this many decimals holds.
fn rounded(value: f64, decimals: usize) -> f64 {
    let text = format!("{value:.decimals$}");
    text.parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Distributions = Distributions {
        preference: 0.0,
        max_shift: 3.0,
        defocus_median: 1.8e4,
        defocus_spread: 0.3,
        astigmatism: 300.0,
    };

    #[test]
    fn preferred_views_gather_about_the_z_axis() {
        let n = 20_000;
        for preference in [1e-6, 0.5, 3.0, 50.0] {
            let some = Distributions { preference, ..USUAL };
            let all: Vec<Geometry> = (0..n).map(|i| Geometry::draw(&some, 2.0, 1, i)).collect();
            let mean = |value: fn(&Geometry) -> f64| all.iter().map(value).sum::<f64>() / n as f64;
            // The mean cosine is coth(k) - 1/k. Whatever turns about the axis and in the plane is as likely as before.
            let expected =
                if preference < 1e-3 { preference / 3.0 } else { 1.0 / preference.tanh() - 1.0 / preference };
            assert!((mean(|g| g.rotation[2][2]) - expected).abs() < 0.03, "{preference}");
            for (i, j) in [(2, 0), (2, 1), (0, 0)] {
                let around = all.iter().map(|g| g.rotation[i][j]).sum::<f64>() / n as f64;
                assert!(around.abs() < 0.03, "{preference}");
            }
        }
        // Everything else is as in the uniform set.
        let [one, other] =
            [0.0, 3.0].map(|preference| Geometry::draw(&Distributions { preference, ..USUAL }, 2.0, 1, 7));
        assert_eq!((one.origin, one.ctf, one.angles[0]), (other.origin, other.ctf, other.angles[0]));
        assert_ne!(one.angles[1], other.angles[1]);
    }

    #[test]
    fn draws_follow_their_distributions() {
        let n = 20_000;
        let all: Vec<Geometry> = (0..n).map(|i| Geometry::draw(&USUAL, 2.0, 1, i)).collect();
        // Uniform on SO(3): every entry of W has mean 0 and mean square 1/3. Six standard errors are below 0.03.
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let mean = all.iter().map(|g| g.rotation[i][j]).sum::<f64>() / n as f64;
            let square = all.iter().map(|g| g.rotation[i][j].powi(2)).sum::<f64>() / n as f64;
            assert!(mean.abs() < 0.03 && (square - 1.0 / 3.0).abs() < 0.02, "{i} {j}: {mean} {square}");
        }
        let mut defoci: Vec<f64> = all.iter().map(|g| 0.5 * (g.ctf.defocus_u + g.ctf.defocus_v)).collect();
        defoci.sort_by(f64::total_cmp);
        assert!((defoci[n / 2] / 1.8e4 - 1.0).abs() < 0.02, "{}", defoci[n / 2]);
        assert!((defoci[n * 841 / 1000] / defoci[n / 2] - 0.3f64.exp()).abs() < 0.03);
        assert!(defoci[0] >= 3e3 && defoci[n - 1] <= 6e4);
        let shifts: Vec<f64> = all.iter().flat_map(|g| g.origin).collect();
        assert!(shifts.iter().all(|s| s.abs() <= 6.0) && shifts.iter().any(|s| s.abs() > 5.9));
        assert!(all.iter().all(|g| (0.0..=300.001).contains(&(g.ctf.defocus_u - g.ctf.defocus_v))));
    }
}
