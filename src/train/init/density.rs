//! Where in the box a specimen lies, and Gaussians placed by it.

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
    /// The sum of the density up to each of these voxels.
    sums: Vec<f64>,
}

impl Density {
    /// What of `map` (`[z][y][x]`) lies above `threshold`, which is at least 0; `None` where nothing does.
    pub fn above(threshold: f32, map: &Array3<f32>) -> Option<Self> {
        let (mut voxels, mut sums, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (voxel, &value) in map.iter().enumerate().filter(|(_, value)| **value > threshold) {
            sum += f64::from(value);
            voxels.push(voxel as u32);
            sums.push(sum);
        }
        let found = sum.is_finite() && sum > 0.0;
        found.then_some(Self { box_size: map.dim().0, voxels, sums })
    }

    /// Where a voxel lies, in voxels from the origin.
    fn place_of(&self, voxel: u32) -> [f64; 3] {
        let (n, voxel) = (self.box_size, voxel as usize);
        [voxel % n, voxel / n % n, voxel / (n * n)].map(|index| index as f64 - (n / 2) as f64)
    }

    /// Draws the means of a mixture: a voxel as often as it is dense, and a point in it.
    pub fn place(&self, gmm: &mut Gmm, random: &mut Random) {
        let count = gmm.len();
        let total = self.sums.last().copied().unwrap_or(0.0);
        let mut uniform = || -> f64 { StandardUniform.sample(random) };
        for i in 0..count {
            let drawn = total * uniform();
            let place = self.sums.partition_point(|&sum| sum <= drawn).min(self.voxels.len() - 1);
            for (axis, at) in self.place_of(self.voxels[place]).into_iter().enumerate() {
                let at = at + uniform() - 0.5;
                gmm.values_mut()[axis * count + i] = (at / self.box_size as f64) as f32;
            }
        }
    }

    /// Its centre (x, y, z) and covariance, in box units.
    pub fn moments(&self) -> ([f64; 3], [[f64; 3]; 3]) {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let (mut first, mut second, mut before) = ([0.0; 3], [[0.0; 3]; 3], 0.0);
        for (&voxel, &sum) in self.voxels.iter().zip(&self.sums) {
            let weight = (sum - before) / total;
            before = sum;
            let place = self.place_of(voxel).map(|at| at / self.box_size as f64);
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
            // A voxel is no point.
            second[i][i] += 1.0 / (12.0 * (self.box_size * self.box_size) as f64);
        }
        (first, second)
    }

    /// The share of the box that it fills: that of a density with one value, where it is not zero, whose mean square is as large
    /// beside the square of its mean.
    pub fn filled(&self) -> f64 {
        let (mut squares, mut before) = (0.0, 0.0);
        for &sum in &self.sums {
            squares += (sum - before).powi(2);
            before = sum;
        }
        before * before / squares / (self.box_size as f64).powi(3)
    }

    /// The share of the box that a solid ellipsoid takes with the covariance of this density.
    pub fn share(&self) -> f64 {
        let (_, covariance) = self.moments();
        // Its half axes are the deviations along them times the root of 5.
        let root = cholesky(covariance);
        4.0 / 3.0 * PI * 5f64.powf(1.5) * (0..3).map(|k| root[k][k]).product::<f64>()
    }

    /// Gives the means of a random mixture the centre and the covariance of this density.
    pub fn fit(&self, gmm: &mut Gmm) {
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

/// The lower triangle L with L L^T = `a`, which is positive.
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
    use crate::random::{Purpose, stream};
    use crate::train::init::density::*;

    const BOX: usize = 40;

    /// A long ellipsoid off the centre, tilted in the plane of x and y, on a background that is not zero.
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
    fn what_a_density_fills_is_less_than_it_spans() {
        let volume = |share: f64| share * (BOX as f64).powi(3);
        let (solid, ellipsoid) = (ellipsoid(), 4.0 / 3.0 * PI * 12.0 * 5.0 * 5.0);
        let whole = Density::above(0.5, &solid).unwrap();
        assert!((volume(whole.filled()) / ellipsoid - 1.0).abs() < 0.03, "{}", whole.filled());
        assert!((volume(whole.share()) / ellipsoid - 1.0).abs() < 0.05, "{}", whole.share());
        // One voxel in eight of it, which spans as much.
        let holes =
            Array3::from_shape_fn(
                (BOX, BOX, BOX),
                |(z, y, x)| {
                    if (x | y | z) & 1 == 0 { solid[[z, y, x]] } else { 0.0 }
                },
            );
        let holes = Density::above(0.5, &holes).unwrap();
        assert!((volume(holes.filled()) / ellipsoid - 0.125).abs() < 0.01, "{}", holes.filled());
        assert!((volume(holes.share()) / ellipsoid - 1.0).abs() < 0.1, "{}", holes.share());
        // A voxel of ten times the density has the weight of ten, and fills one.
        let mut two = Array3::zeros((BOX, BOX, BOX));
        (two[[20, 20, 20]], two[[20, 20, 21]]) = (10.0, 1.0);
        assert!((volume(Density::above(0.5, &two).unwrap().filled()) - 121.0 / 101.0).abs() < 1e-9);
    }

    #[test]
    fn a_fitted_start_has_the_place_and_the_shape_of_the_density() {
        let density = Density::above(0.5, &ellipsoid()).unwrap();
        let mut gmm = Gmm::random(20_000, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        let before = gmm.clone();
        density.fit(&mut gmm);
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
        // A solid ellipsoid's deviation along an axis is its half length over the root of 5.
        let r = 0.5f64.sqrt();
        for (direction, half) in [([r, r, 0.0], 12.0), ([r, -r, 0.0], 5.0), ([0.0, 0.0, 1.0], 5.0)] {
            assert!((along(direction) / (half / 5f64.sqrt()) - 1.0).abs() < 0.04, "{}", along(direction));
        }
        let solid = 4.0 / 3.0 * PI * 12.0 * 5.0 * 5.0 / (BOX * BOX * BOX) as f64;
        assert!((density.share() / solid - 1.0).abs() < 0.04, "{} instead of {solid}", density.share());
        assert_eq!(gmm.values()[3 * 20_000..], before.values()[3 * 20_000..], "only the means move");
    }

    #[test]
    fn nothing_above_the_threshold_is_no_density() {
        assert!(Density::above(3.0, &ellipsoid()).is_none());
        assert!(Density::above(0.0, &Array3::from_elem((4, 4, 4), f32::NAN)).is_none());
        assert!(Density::above(0.0, &Array3::from_elem((4, 4, 4), f32::INFINITY)).is_none());
    }
}
