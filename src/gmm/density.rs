//! The density of a specimen in the box, and Gaussians placed in it.

use std::f64::consts::PI;

use ndarray::Array3;
use rand_distr::{Distribution, StandardUniform};

use crate::gmm::{Gmm, START_SPREAD};
use crate::random::Random;

/// The positive density of a map on the particles' box, or on a coarser grid over it.
#[derive(Clone, Debug)]
pub struct Density {
    box_size: usize,
    voxels: Vec<u32>,
    /// Cumulative density up to and including each of these voxels.
    cumulative: Vec<f64>,
}

impl Density {
    /// The voxels of `map` (`[z][y][x]`) above `threshold`, which must not be negative. `None` where there are none, or their sum
    /// is not finite.
    pub fn above(threshold: f32, map: &Array3<f32>) -> Option<Self> {
        let (mut voxels, mut sums, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (voxel, &value) in map.iter().enumerate().filter(|(_, value)| **value > threshold) {
            sum += f64::from(value);
            voxels.push(voxel as u32);
            sums.push(sum);
        }
        let found = sum.is_finite() && sum > 0.0;
        found.then_some(Self { box_size: map.dim().0, voxels, cumulative: sums })
    }

    /// Position (x, y, z) of a voxel relative to the origin, in voxels.
    fn position_of(&self, voxel: u32) -> [f64; 3] {
        let (n, voxel) = (self.box_size, voxel as usize);
        [voxel % n, voxel / n % n, voxel / (n * n)].map(|index| index as f64 - (n / 2) as f64)
    }

    /// Draws the means of a mixture: a voxel with a probability proportional to its density, then a uniform point within it.
    pub fn draw_means(&self, gmm: &mut Gmm, random: &mut Random) {
        let count = gmm.len();
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let mut uniform = || -> f64 { StandardUniform.sample(random) };
        for i in 0..count {
            let drawn = total * uniform();
            let place = self.cumulative.partition_point(|&sum| sum <= drawn).min(self.voxels.len() - 1);
            for (axis, at) in self.position_of(self.voxels[place]).into_iter().enumerate() {
                let at = at + uniform() - 0.5;
                gmm.values_mut()[axis * count + i] = (at / self.box_size as f64) as f32;
            }
        }
    }

    /// Centre (x, y, z) and covariance of the density, in box units.
    pub fn moments(&self) -> ([f64; 3], [[f64; 3]; 3]) {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let (mut first, mut second, mut before) = ([0.0; 3], [[0.0; 3]; 3], 0.0);
        for (&voxel, &sum) in self.voxels.iter().zip(&self.cumulative) {
            let weight = (sum - before) / total;
            before = sum;
            let place = self.position_of(voxel).map(|at| at / self.box_size as f64);
            for i in 0..3 {
                first[i] += weight * place[i];
                for j in 0..3 {
                    second[i][j] += weight * place[i] * place[j];
                }
            }
        }
        for i in 0..3 {
            for j in 0..3 {
                second[i][j] -= first[i] * first[j];
            }
            // Variance of a uniform distribution over a voxel.
            second[i][i] += 1.0 / (12.0 * (self.box_size * self.box_size) as f64);
        }
        (first, second)
    }

    /// Effective volume as a fraction of the box: (sum of density)² / (sum of density²) voxels.
    pub fn filled_fraction(&self) -> f64 {
        let (mut squares, mut before) = (0.0, 0.0);
        for &sum in &self.cumulative {
            squares += (sum - before).powi(2);
            before = sum;
        }
        before * before / squares / (self.box_size as f64).powi(3)
    }

    /// Volume of the solid ellipsoid with the covariance of this density, as a fraction of the box.
    pub fn ellipsoid_fraction(&self) -> f64 {
        let (_, covariance) = self.moments();
        // Its semi-axes are sqrt(5) times the standard deviations along them.
        let root = cholesky(covariance);
        4.0 / 3.0 * PI * 5f64.powf(1.5) * (0..3).map(|k| root[k][k]).product::<f64>()
    }

    /// Transforms the means of a random mixture so that they have the centre and the covariance of this density.
    pub fn match_moments(&self, gmm: &mut Gmm) {
        let (centre, covariance) = self.moments();
        let root = cholesky(covariance);
        let count = gmm.len();
        let values = gmm.values_mut();
        for i in 0..count {
            let normal = [0, 1, 2].map(|axis| f64::from(values[axis * count + i]) / START_SPREAD);
            for axis in 0..3 {
                let moved: f64 = (0..=axis).map(|k| root[axis][k] * normal[k]).sum();
                values[axis * count + i] = (centre[axis] + moved) as f32;
            }
        }
    }
}

/// Cholesky factor: the lower triangular L with L L^T = `a`, which is positive definite.
fn cholesky(a: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut l = [[0.0f64; 3]; 3];
    for i in 0..3 {
        for j in 0..=i {
            let rest = a[i][j] - (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
            l[i][j] = if i == j { rest.max(0.0).sqrt() } else { rest / l[j][j] };
        }
    }
    l
}

#[cfg(test)]
mod tests {
    use crate::gmm::Shape;
    use crate::gmm::density::*;
    use crate::random::{Purpose, stream};

    const BOX: usize = 40;

    /// A prolate ellipsoid off the centre, rotated by 45 degrees in the xy plane, on a non-zero background.
    fn ellipsoid() -> Array3<f32> {
        Array3::from_shape_fn((BOX, BOX, BOX), |(z, y, x)| {
            let [x, y, z] = [x, y, z].map(|i| i as f64 - (BOX / 2) as f64);
            let (x, y, z) = (x - 3.0, y + 2.0, z - 1.0);
            let (along, across) = ((x + y) / 2f64.sqrt(), (x - y) / 2f64.sqrt());
            let inside = (along / 12.0).powi(2) + (across / 5.0).powi(2) + (z / 5.0).powi(2) <= 1.0;
            if inside { 2.0 } else { 0.1 }
        })
    }

    #[test]
    fn a_density_with_holes_fills_less_than_its_ellipsoid() {
        let volume = |share: f64| share * (BOX as f64).powi(3);
        let (solid, ellipsoid) = (ellipsoid(), 4.0 / 3.0 * PI * 12.0 * 5.0 * 5.0);
        let whole = Density::above(0.5, &solid).unwrap();
        assert!(
            (volume(whole.filled_fraction()) / ellipsoid - 1.0).abs() < 0.03,
            "{}",
            whole.filled_fraction()
        );
        assert!(
            (volume(whole.ellipsoid_fraction()) / ellipsoid - 1.0).abs() < 0.05,
            "{}",
            whole.ellipsoid_fraction()
        );
        // One voxel in eight: an eighth of the volume, the same extent.
        let holes =
            Array3::from_shape_fn(
                (BOX, BOX, BOX),
                |(z, y, x)| {
                    if (x | y | z) & 1 == 0 { solid[[z, y, x]] } else { 0.0 }
                },
            );
        let holes = Density::above(0.5, &holes).unwrap();
        assert!(
            (volume(holes.filled_fraction()) / ellipsoid - 0.125).abs() < 0.01,
            "{}",
            holes.filled_fraction()
        );
        assert!(
            (volume(holes.ellipsoid_fraction()) / ellipsoid - 1.0).abs() < 0.1,
            "{}",
            holes.ellipsoid_fraction()
        );
        // Densities of 10 and 1: (10 + 1)² / (10² + 1²) voxels.
        let mut two = Array3::zeros((BOX, BOX, BOX));
        (two[[20, 20, 20]], two[[20, 20, 21]]) = (10.0, 1.0);
        assert!((volume(Density::above(0.5, &two).unwrap().filled_fraction()) - 121.0 / 101.0).abs() < 1e-9);
    }

    #[test]
    fn matched_means_have_the_centre_and_covariance_of_the_density() {
        let density = Density::above(0.5, &ellipsoid()).unwrap();
        let mut gmm = Gmm::random(20_000, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        let before = gmm.clone();
        density.match_moments(&mut gmm);
        let mean = |k: usize| gmm.plane(k).iter().map(|&v| f64::from(v)).sum::<f64>() / 20_000.0;
        let centre = [0, 1, 2].map(mean);
        for (got, want) in centre.iter().zip([3.0, -2.0, 1.0]) {
            assert!((got * BOX as f64 - want).abs() < 0.1, "{centre:?}");
        }
        let along = |direction: [f64; 3]| {
            let sum: f64 = (0..20_000)
                .map(|i| {
                    (0..3)
                        .map(|k| direction[k] * (f64::from(gmm.plane(k)[i]) - centre[k]))
                        .sum::<f64>()
                        .powi(2)
                })
                .sum();
            (sum / 20_000.0).sqrt() * BOX as f64
        };
        // A solid ellipsoid's standard deviation along an axis is its semi-axis over sqrt(5).
        let r = 0.5f64.sqrt();
        for (direction, half) in [([r, r, 0.0], 12.0), ([r, -r, 0.0], 5.0), ([0.0, 0.0, 1.0], 5.0)] {
            assert!((along(direction) / (half / 5f64.sqrt()) - 1.0).abs() < 0.04, "{}", along(direction));
        }
        let solid = 4.0 / 3.0 * PI * 12.0 * 5.0 * 5.0 / (BOX * BOX * BOX) as f64;
        assert!(
            (density.ellipsoid_fraction() / solid - 1.0).abs() < 0.04,
            "{} instead of {solid}",
            density.ellipsoid_fraction()
        );
        assert_eq!(gmm.values()[3 * 20_000..], before.values()[3 * 20_000..], "only the means move");
    }

    #[test]
    fn an_empty_or_non_finite_map_has_no_density() {
        assert!(Density::above(3.0, &ellipsoid()).is_none());
        assert!(Density::above(0.0, &Array3::from_elem((4, 4, 4), f32::NAN)).is_none());
        assert!(Density::above(0.0, &Array3::from_elem((4, 4, 4), f32::INFINITY)).is_none());
    }
}
