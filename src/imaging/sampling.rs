//! How evenly the views of a particle set sample the directions of Fourier space (docs/method.md, section 17).
//!
//! A projection along v fills the Fourier plane across v, so a direction k is sampled by the views with v·k = 0. On a shell of R
//! Fourier voxels, a voxel about k holds the views with |v·k| < 1/(2R). The sampling compensation factor (SCF, Baldwin and
//! Lyumkis, Prog. Biophys. Mol. Biol. 150 (2020) 160) is 1 over the product of the means of these counts and of their reciprocals: the
//! factor by which uneven sampling lowers the spectral SNR. It is 1 for even views, 0.81 for views across an axis, and 0 where
//! directions are missing. The mean of 1/(n + 1) over counts n estimates that of the reciprocal of their expectation without
//! bias (Poisson), so that few views are not taken for uneven ones, and empty voxels count as with one view (SCF*).

use std::fmt;

use super::Symmetry;
use super::pose::{Rotation, product};

/// Number of directions of a hemisphere.
const DIRECTIONS: usize = 1024;
/// Radii R of the shells, in Fourier voxels.
const RADII: [f64; 5] = [50.0, 25.0, 12.0, 6.0, 3.0];
/// Fewest views per voxel, on average: the largest shell with as many is used.
const VIEWS_PER_VOXEL: f64 = 25.0;
/// A voxel with fewer views than this part of the mean is empty.
const EMPTY: f64 = 0.08;
/// Smallest share of empty directions about an axis, within the cone of as large a solid angle, that is called a cone.
const COMPACT: f64 = 0.75;

/// `count` unit vectors (x, y, z), spread evenly over the hemisphere z > 0 (Fibonacci lattice).
pub(crate) fn hemisphere(count: usize) -> Vec<[f64; 3]> {
    let turn = std::f64::consts::PI * (3.0 - 5f64.sqrt());
    let direction = |i: usize| {
        let z = 1.0 - (i as f64 + 0.5) / count as f64;
        let (r, angle) = ((1.0 - z * z).sqrt(), turn * i as f64);
        [r * angle.cos(), r * angle.sin(), z]
    };
    (0..count).map(direction).collect()
}

/// Counts of the views of each direction of Fourier space, in constant memory.
#[derive(Clone, Debug)]
pub struct ViewCounts {
    directions: Vec<[f64; 3]>,
    operators: Vec<Rotation>,
    /// Views of each direction, for each of [`RADII`].
    counts: Vec<[u32; RADII.len()]>,
    particles: usize,
}

impl ViewCounts {
    /// For a specimen with `symmetry`: each particle counts at all its symmetric views.
    pub fn new(symmetry: Symmetry) -> Self {
        let directions = hemisphere(DIRECTIONS);
        let counts = vec![[0; RADII.len()]; directions.len()];
        Self { directions, operators: symmetry.operators(), counts, particles: 0 }
    }

    /// Counts a particle in the orientation W.
    pub fn add(&mut self, rotation: &Rotation) {
        self.particles += 1;
        for operator in &self.operators {
            // The viewing direction in the volume.
            let view = product(rotation, operator)[2];
            for (direction, counts) in self.directions.iter().zip(&mut self.counts) {
                let across = 2.0 * dot(&view, direction).abs();
                for (count, radius) in counts.iter_mut().zip(RADII) {
                    *count += u32::from(across * radius < 1.0);
                }
            }
        }
    }

    /// The sampling of the particles; `None` without particles.
    pub fn sampling(&self) -> Option<FourierSampling> {
        if self.particles == 0 {
            return None;
        }
        let views = (self.particles * self.operators.len()) as f64;
        let level = RADII.iter().position(|radius| views / (2.0 * radius) >= VIEWS_PER_VOXEL);
        let level = level.unwrap_or(RADII.len() - 1);
        let counts: Vec<f64> = self.counts.iter().map(|counts| f64::from(counts[level])).collect();
        let count = counts.len() as f64;
        let mean = counts.iter().sum::<f64>() / count;
        let reciprocal = counts.iter().map(|n| 1.0 / (n + 1.0)).sum::<f64>() / count;
        let least = counts.iter().zip(&self.directions).min_by(|a, b| a.0.total_cmp(b.0));
        let is_empty = |n: f64| mean >= 0.8 * VIEWS_PER_VOXEL && n < EMPTY * mean;
        let empty: Vec<[f64; 3]> =
            self.directions.iter().zip(&counts).filter(|(_, n)| is_empty(**n)).map(|(&k, _)| k).collect();
        let missing = (!empty.is_empty()).then(|| self.missing(&empty));
        Some(FourierSampling {
            particles: self.particles,
            radius: RADII[level],
            scf: (1.0 / (mean * reciprocal).max(f64::MIN_POSITIVE)).min(1.0),
            least: least.map_or([0.0, 0.0, 1.0], |(_, &direction)| direction),
            missing,
        })
    }

    /// The region of the `empty` directions.
    fn missing(&self, empty: &[[f64; 3]]) -> MissingDirections {
        let axis = principal_axis(empty);
        let share = empty.len() as f64 / self.directions.len() as f64;
        let cosine = 1.0 - share;
        let within = empty.iter().filter(|direction| dot(direction, &axis).abs() >= cosine).count();
        let is_cone = within as f64 >= COMPACT * empty.len() as f64;
        MissingDirections { share, axis, half_angle: is_cone.then(|| cosine.acos().to_degrees()) }
    }
}

/// How the views of a set sample the directions of Fourier space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FourierSampling {
    /// Number of particles.
    pub particles: usize,
    /// Radius of the shell in Fourier voxels.
    pub radius: f64,
    /// SCF*, corrected for the number of views: 0 to 1.
    pub scf: f64,
    /// The direction (x, y, z) of Fourier space with the fewest views.
    pub least: [f64; 3],
    /// Directions without views.
    pub missing: Option<MissingDirections>,
}

/// Directions of Fourier space without views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MissingDirections {
    /// Share of all directions.
    pub share: f64,
    /// Their principal axis (x, y, z).
    pub axis: [f64; 3],
    /// Half angle in degrees of the missing cone about this axis; `None` if they have another shape.
    pub half_angle: Option<f64>,
}

impl FourierSampling {
    /// SCF* below which views are called uneven. Views across an axis, which leave no direction out, have 0.81.
    pub const UNEVEN: f64 = 0.81;

    /// Fewest particles that are judged.
    pub const FEWEST: usize = 20;

    /// Whether the views are uneven. Of even views of 20 particles, SCF* is above 0.9.
    pub fn is_uneven(&self) -> bool {
        self.particles >= Self::FEWEST && self.scf < Self::UNEVEN
    }
}

impl fmt::Display for FourierSampling {
    /// "SCF* 0.21 (uneven below 0.81), no views of a cone of 31 degrees about (0.00, 0.00, 1.00)".
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SCF* {:.2} (uneven below {})", self.scf, Self::UNEVEN)?;
        let Some(MissingDirections { share, axis: [x, y, z], half_angle }) = self.missing else {
            return Ok(());
        };
        match half_angle {
            Some(angle) => {
                write!(formatter, ", no views of a cone of {angle:.0} degrees about ({x:.2}, {y:.2}, {z:.2})")
            }
            None => {
                write!(formatter, ", no views of {:.0}% of the directions of Fourier space", 100.0 * share)
            }
        }
    }
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The axis (x, y, z) along which directions and their opposites are most frequent, by power iteration.
pub(crate) fn principal_axis(directions: &[[f64; 3]]) -> [f64; 3] {
    const ITERATIONS: usize = 200;
    let mut axis = directions.first().copied().unwrap_or([0.0, 0.0, 1.0]);
    for _ in 0..ITERATIONS {
        let mut next = [0.0; 3];
        for direction in directions {
            let along = dot(direction, &axis);
            next = [0, 1, 2].map(|i| next[i] + along * direction[i]);
        }
        let length = dot(&next, &next).sqrt();
        if length > 0.0 {
            axis = next.map(|v| v / length);
        }
    }
    // One of the two opposite axes: that with z > 0, or the last coordinate that is not 0.
    let sign = axis.iter().rev().find(|v| v.abs() > 1e-6).map_or(1.0, |v| v.signum());
    axis.map(|v| sign * v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::{rotation_from_quaternion, rotation_from_relion};
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal, StandardUniform};

    /// Sampling of `count` views that `draw` makes from random numbers.
    fn sampling(
        count: usize,
        seed: u64,
        symmetry: Symmetry,
        draw: impl Fn(&mut crate::random::Random) -> Rotation,
    ) -> FourierSampling {
        let random = &mut stream(seed, Purpose::Geometry, 0, 0);
        let mut counts = ViewCounts::new(symmetry);
        (0..count).for_each(|_| counts.add(&draw(random)));
        counts.sampling().unwrap()
    }

    fn uniform(random: &mut crate::random::Random) -> Rotation {
        rotation_from_quaternion(std::array::from_fn(|_| StandardNormal.sample(random)))
    }

    /// Views within a cosine range of an axis.
    fn tilted(random: &mut crate::random::Random, cosines: [f64; 2]) -> Rotation {
        let mut draw = || -> f64 { StandardUniform.sample(random) };
        let cosine = cosines[0] + (cosines[1] - cosines[0]) * draw();
        rotation_from_relion(360.0 * draw(), cosine.acos().to_degrees(), 360.0 * draw())
    }

    #[test]
    fn few_even_views_are_not_uneven() {
        for (count, seeds) in [(10, 10), (20, 20), (100, 20), (1000, 2)] {
            for seed in 0..seeds {
                let found = sampling(count, seed, Symmetry::C1, uniform);
                assert!(
                    found.scf > 0.9 && found.missing.is_none() && !found.is_uneven(),
                    "{count}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn views_across_an_axis_have_the_factor_of_the_paper() {
        let side = sampling(3_000, 1, Symmetry::C1, |random| tilted(random, [0.0, 0.0]));
        // 8 / pi squared.
        assert!((side.scf - 0.811).abs() < 0.02 && !side.is_uneven() && side.missing.is_none(), "{side:?}");
    }

    #[test]
    fn a_missing_cone_is_found_with_its_axis_and_angle() {
        for (count, tilt) in [(500, 60.0f64), (2_000, 60.0), (2_000, 45.0)] {
            let cosine = tilt.to_radians().cos();
            let found = sampling(count, 1, Symmetry::C1, |random| tilted(random, [cosine, 1.0]));
            assert!(found.is_uneven() && found.scf < 0.3, "{found:?}");
            let missing = found.missing.unwrap();
            let angle = missing.half_angle.expect("a cone");
            assert!((angle - (90.0 - tilt)).abs() < 4.0 && missing.axis[2] > 0.999, "{tilt}: {found:?}");
            let text = found.to_string();
            assert!(text.contains("degrees about (") && text.ends_with(" 1.00)"), "{text}");
        }
        // Symmetric views fill it.
        let found = sampling(100, 1, Symmetry::O, |random| tilted(random, [0.5, 1.0]));
        assert!(!found.is_uneven() && found.missing.is_none(), "{found:?}");
    }

    #[test]
    fn preferred_views_without_a_missing_cone_are_uneven() {
        let preferred = |concentration: f64| {
            sampling(2_000, 2, Symmetry::C1, move |random| {
                let u: f64 = StandardUniform.sample(random);
                let cosine = 1.0 + (u + (1.0 - u) * (-2.0 * concentration).exp()).ln() / concentration;
                tilted(random, [cosine, cosine])
            })
        };
        assert!(!preferred(1.0).is_uneven() && !preferred(2.0).is_uneven());
        let found = preferred(5.0);
        assert!(found.is_uneven() && found.least[2] > 0.8, "{found:?}");
    }
}
