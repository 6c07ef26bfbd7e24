//! Poses, shifts and CTF parameters of simulated particles.
//!
//! Each particle has its own random stream, so that particle `i` does not depend on the size of the set. All values are rounded to
//! the decimals of the STAR file, so that the particle file and the STAR file agree.

use rand_distr::{Distribution, StandardNormal, StandardUniform};

use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{
    Rotation, relion_from_rotation, rotation_from_quaternion, rotation_from_relion, rotation_from_vector,
};
use crate::random::{self, Purpose};

/// Decimals of an angle in degrees.
pub const ANGLE_DECIMALS: usize = 8;
/// Decimals of a shift in angstrom.
pub const SHIFT_DECIMALS: usize = 7;
/// Decimals of a defocus in angstrom and of the astigmatism angle in degrees.
pub const DEFOCUS_DECIMALS: usize = 3;

/// Range of the mean defocus in angstrom; draws are clamped to it.
pub const DEFOCUS_RANGE: [f64; 2] = [3e3, 6e4];

/// Distributions of the parameters of simulated particles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distributions {
    /// Concentration K of the von Mises-Fisher distribution of viewing directions about the z axis; 0 is uniform (Wood, Commun.
    /// Stat. Simul. Comput. 23 (1994) 157).
    pub preference: f64,
    /// Shifts along x and y are uniform in [-max_shift, max_shift], in pixels.
    pub max_shift: f64,
    /// Median of the log-normal mean defocus in angstrom.
    pub defocus_median: f64,
    /// Standard deviation of the natural logarithm of the defocus.
    pub defocus_spread: f64,
    /// The difference of defocus U - V is uniform in [0, astigmatism], in angstrom.
    pub astigmatism: f64,
}

/// Pose, shift and CTF parameters of one particle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedParticle {
    /// Euler angles (rot, tilt, psi) of RELION in degrees.
    pub angles: [f64; 3],
    /// Rotation matrix W of these angles.
    pub rotation: Rotation,
    /// Origin (x, y) of RELION in angstrom: shifting the image by plus this vector centres the particle.
    pub origin: [f64; 2],
    /// Defocus and astigmatism.
    pub ctf: CtfParameters,
}

impl SimulatedParticle {
    /// Draws particle `index` of the set with `seed`; `pixel_size` in angstrom.
    pub fn draw(distributions: &Distributions, pixel_size: f64, seed: u64, index: usize) -> Self {
        let random = &mut random::stream(seed, Purpose::Geometry, 0, index as u64);
        let quaternion: [f64; 4] = std::array::from_fn(|_| StandardNormal.sample(random));
        let [rot, tilt, psi] = relion_from_rotation(&rotation_from_quaternion(quaternion));
        let angles = [rot, preferred_tilt(tilt, distributions.preference), psi]
            .map(|angle| rounded(angle, ANGLE_DECIMALS));
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

    /// The particle with its view turned by the rotation vector `turn` (radians, in view coordinates), `shift` (angstrom) added to
    /// its origin and `defocus` (angstrom) to its defoci. Zeros change nothing.
    pub fn moved(&self, turn: [f64; 3], shift: [f64; 2], defocus: f64) -> Self {
        let mut moved = *self;
        if turn != [0.0; 3] {
            let (r, w) = (rotation_from_vector(turn), &self.rotation);
            let turned: Rotation =
                std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| r[i][k] * w[k][j]).sum()));
            moved.angles = relion_from_rotation(&turned).map(|angle| rounded(angle, ANGLE_DECIMALS));
            let [rot, tilt, psi] = moved.angles;
            moved.rotation = rotation_from_relion(rot, tilt, psi);
        }
        if shift != [0.0; 2] {
            let [x, y] = moved.origin;
            moved.origin = [x + shift[0], y + shift[1]].map(|origin| rounded(origin, SHIFT_DECIMALS));
        }
        if defocus != 0.0 {
            for value in [&mut moved.ctf.defocus_u, &mut moved.ctf.defocus_v] {
                *value = rounded(*value + defocus, DEFOCUS_DECIMALS);
            }
        }
        moved
    }
}

/// Maps the tilt of a uniform draw, in degrees, to the same quantile of the von Mises-Fisher distribution.
fn preferred_tilt(tilt: f64, preference: f64) -> f64 {
    if preference == 0.0 {
        return tilt;
    }
    let quantile = 0.5 * (1.0 + tilt.to_radians().cos());
    let cosine = 1.0 + (quantile + (1.0 - quantile) * (-2.0 * preference).exp()).ln() / preference;
    cosine.clamp(-1.0, 1.0).acos().to_degrees()
}

/// The value as printed with this number of decimals.
fn rounded(value: f64, decimals: usize) -> f64 {
    let text = format!("{value:.decimals$}");
    text.parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFORM: Distributions = Distributions {
        preference: 0.0,
        max_shift: 3.0,
        defocus_median: 1.8e4,
        defocus_spread: 0.3,
        astigmatism: 300.0,
    };

    #[test]
    fn preferred_views_concentrate_about_the_z_axis() {
        let n = 20_000;
        for preference in [1e-6, 0.5, 3.0, 50.0] {
            let concentrated = Distributions { preference, ..UNIFORM };
            let all: Vec<SimulatedParticle> =
                (0..n).map(|i| SimulatedParticle::draw(&concentrated, 2.0, 1, i)).collect();
            let mean = |value: fn(&SimulatedParticle) -> f64| all.iter().map(value).sum::<f64>() / n as f64;
            // The mean cosine is coth(k) - 1/k. Rotations about the axis and in the plane stay uniform.
            let expected =
                if preference < 1e-3 { preference / 3.0 } else { 1.0 / preference.tanh() - 1.0 / preference };
            assert!((mean(|g| g.rotation[2][2]) - expected).abs() < 0.03, "{preference}");
            for (i, j) in [(2, 0), (2, 1), (0, 0)] {
                let around = all.iter().map(|g| g.rotation[i][j]).sum::<f64>() / n as f64;
                assert!(around.abs() < 0.03, "{preference}");
            }
        }
        // All other parameters equal those of the uniform set.
        let [one, other] = [0.0, 3.0]
            .map(|preference| SimulatedParticle::draw(&Distributions { preference, ..UNIFORM }, 2.0, 1, 7));
        assert_eq!((one.origin, one.ctf, one.angles[0]), (other.origin, other.ctf, other.angles[0]));
        assert_ne!(one.angles[1], other.angles[1]);
    }

    #[test]
    fn draws_follow_the_distributions() {
        let n = 20_000;
        let all: Vec<SimulatedParticle> =
            (0..n).map(|i| SimulatedParticle::draw(&UNIFORM, 2.0, 1, i)).collect();
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
