//! Voxelisation: the map of a mixture on a grid.
//!
//! A Gaussian narrower than a voxel would alias if it were sampled at the voxel centres. Each Gaussian is therefore blurred by one
//! voxel and sampled on a finer grid of the same extent. In Fourier space the blur is divided out, and frequencies beyond the
//! Nyquist frequency of the voxels are removed. The result is the band-limited density. (Blurring on the voxel grid itself would
//! not help: at Nyquist, aliases are as strong as the signal.)
//!
//! The fine grid is periodic. A Gaussian that reaches further than the edge of the grid does not wrap: it costs at most one pass over
//! the grid, however wide it is. If it is also wider than the blur along all its axes, it is sampled at the voxels directly.
//!
//! Values are V(r)/D, with D the box size of the particles, so that summing a map on the particles' grid along a line of sight gives
//! the projection Q. On other grids the density at a point is the same.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use ndarray::{Array3, s};
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::files::GmmFile;
use super::symmetric::whole;
use super::{Gmm, S_MIN, Shape, softplus};
use crate::imaging::Symmetry;
use crate::imaging::fourier::{fft3, frequency, volume_of_spectrum};
use crate::imaging::pose::rotation_from_quaternion;

/// Standard deviation of the blur in voxels.
const BLUR: f64 = 1.0;
/// Half width of a sampled Gaussian in standard deviations: values outside are below 1e-6 of the peak.
const REACH: f64 = 5.3;
/// Minimum number of fine grid points per voxel along an edge: aliases at Nyquist are then 4e-7 of the signal.
const OVERSAMPLING: f64 = 1.5;
/// Least standard deviation, in voxels, of a Gaussian that is sampled at the voxels directly: its spectrum at Nyquist is below 1e-19.
const DIRECT: f64 = 3.0;
/// Number of z planes per task.
const SLAB: usize = 4;

/// Edge of the largest grid to sample, in voxels: it takes 120 GiB of memory.
pub(crate) const MAX_GRID: usize = 1024;

/// Memory that [`voxelize`] takes for each voxel of [`Grid::computed`], in bytes.
const BYTES_PER_VOXEL: u128 = 110;

/// Memory that [`voxelize`] takes, in bytes.
pub(crate) fn sampling_bytes(grid: &Grid) -> u128 {
    BYTES_PER_VOXEL * (grid.computed() as u128).pow(3)
}

/// A cubic grid whose voxel floor(size/2) is the origin of the mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Voxels along an edge of the grid.
    pub size: usize,
    /// Voxels along an edge of the particles' box, not necessarily an integer; this sets the voxel size.
    pub per_box: f64,
    /// D: box size of the particles in pixels, by which values are divided.
    pub box_size: usize,
}

impl Grid {
    /// The particles' own grid.
    pub fn of_box(box_size: usize) -> Self {
        Self { size: box_size, per_box: box_size as f64, box_size }
    }

    /// The grid of a map of `size` voxels of `pixel_size` angstrom. Defaults: the field of view and the pixel size of the particles.
    /// At the particles' pixel size nothing is rounded: the map is then that of the run, bit for bit.
    pub(crate) fn of_map(mixture: &GmmFile, size: Option<usize>, pixel_size: Option<f64>) -> Self {
        let ratio = pixel_size.map_or(1.0, |p| mixture.pixel_size / p);
        let per_box = mixture.box_size as f64 * ratio;
        let size = size.unwrap_or(per_box.round().max(4.0) as usize);
        Self { size, per_box, box_size: mixture.box_size }
    }

    /// Voxels along an edge of the computed grid: at least the whole box, also if only its centre is returned.
    pub fn computed(&self) -> usize {
        self.size.max(self.per_box.ceil() as usize)
    }

    /// Points along an edge of the fine grid.
    fn points(&self) -> usize {
        ((self.computed() as f64 * OVERSAMPLING).ceil() as usize).next_multiple_of(4)
    }
}

/// A Gaussian on a grid of n points along an edge that covers [`Grid::computed`], in units of its points.
struct Blob {
    centre: [f64; 3],
    /// Inverse covariance xx, xy, xz, yy, yz, zz.
    precision: [f64; 6],
    half_width: [f64; 3],
    /// Standard deviation along the shortest axis, without the blur.
    narrowest: f64,
    peak: f64,
}

/// Gaussian `i`, blurred by `blur` voxels, on a grid of `n` points.
fn blob(gmm: &Gmm, i: usize, grid: &Grid, n: usize, blur: f64) -> Blob {
    let at = |plane: usize| f64::from(gmm.plane(plane)[i]);
    // Points per voxel, and points along the box.
    let ratio = n as f64 / grid.computed() as f64;
    let size = grid.per_box * ratio;
    let (scales, r) = match gmm.shape() {
        Shape::Isotropic => ([at(3); 3], rotation_from_quaternion([1.0, 0.0, 0.0, 0.0])),
        Shape::Anisotropic => ([at(3), at(4), at(5)], rotation_from_quaternion([at(6), at(7), at(8), at(9)])),
    };
    // The blur adds to the variance along each principal axis.
    let unblurred = scales.map(|s| (softplus(s).max(S_MIN) * size).powi(2));
    let variance = unblurred.map(|v| v + (blur * ratio).powi(2));
    let entry = |i: usize, j: usize, weight: &dyn Fn(usize) -> f64| -> f64 {
        (0..3).map(|k| r[i][k] * r[j][k] * weight(k)).sum()
    };
    let centre = [0, 1, 2].map(|k| at(k) * size + (n / 2) as f64);
    let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
    let amplitude = softplus(at(gmm.shape().planes() - 1));
    let determinant: f64 = variance.iter().product();
    Blob {
        centre,
        precision: pairs.map(|(i, j)| entry(i, j, &|k| 1.0 / variance[k])),
        half_width: [0, 1, 2].map(|i| REACH * entry(i, i, &|k| variance[k]).sqrt()),
        narrowest: unblurred.into_iter().fold(f64::INFINITY, f64::min).sqrt(),
        // A density in box units is size^3 times that per point; V/D leaves size^2 if points and pixels coincide.
        peak: amplitude * size * size / ((2.0 * PI).powf(1.5) * determinant.sqrt())
            * (size / grid.box_size as f64),
    }
}

impl Blob {
    /// Whether the Gaussian reaches further than the edge of a grid of `n` points.
    fn is_wide(&self, n: usize) -> bool {
        !self.half_width.iter().all(|&width| width <= n as f64)
    }

    /// Support along `axis`. It may extend beyond 0..n: the grid is periodic, because dividing out the blur would make a Gaussian
    /// truncated at a face ring. A Gaussian centred outside the grid is truncated, so that it does not appear on the other side, and
    /// a wide one, which would wrap many times.
    fn support(&self, axis: usize, n: usize) -> RangeInclusive<isize> {
        let (low, high) =
            (self.centre[axis] - self.half_width[axis], self.centre[axis] + self.half_width[axis]);
        let last = n as f64 - 1.0;
        if !self.is_wide(n) && self.centre.iter().all(|c| (-0.5..last + 0.5).contains(c)) {
            low.ceil() as isize..=high.floor() as isize
        } else {
            low.ceil().max(0.0) as isize..=high.floor().min(last) as isize
        }
    }

    /// Adds the values at `z` to a plane `[y][x]` of n^2 points.
    fn add(&self, z: isize, plane: &mut [f64], n: usize) {
        let [xx, xy, xz, yy, yz, zz] = self.precision;
        let dz = z as f64 - self.centre[2];
        for y in self.support(1, n) {
            let dy = y as f64 - self.centre[1];
            let constant = yy * dy * dy + 2.0 * yz * dy * dz + zz * dz * dz;
            let slope = 2.0 * (xy * dy + xz * dz);
            let row = &mut plane[y.rem_euclid(n as isize) as usize * n..][..n];
            for x in self.support(0, n) {
                let dx = x as f64 - self.centre[0];
                let exponent = -0.5 * (xx * dx * dx + slope * dx + constant);
                row[x.rem_euclid(n as isize) as usize] += self.peak * exponent.exp();
            }
        }
    }
}

impl Blob {
    /// Adds the values of all points of row `y`, `z`. Starts at the largest value, from which a product of ratios gives the others.
    fn add_row(&self, z: usize, y: usize, row: &mut [f64]) {
        let [xx, xy, xz, yy, yz, zz] = self.precision;
        let (dz, dy) = (z as f64 - self.centre[2], y as f64 - self.centre[1]);
        let constant = yy * dy * dy + 2.0 * yz * dy * dz + zz * dz * dz;
        let slope = 2.0 * (xy * dy + xz * dz);
        let vertex = self.centre[0] - 0.5 * slope / xx;
        // A saturating conversion; 0 for what is not a number.
        let top = (vertex.round().max(0.0) as usize).min(row.len() - 1);
        let dx = top as f64 - self.centre[0];
        let value = self.peak * (-0.5 * (xx * dx * dx + slope * dx + constant)).exp();
        let (left, right) = row.split_at_mut(top);
        right[0] += value;
        let ratio = |sign: f64| (-0.5 * (xx + sign * (2.0 * xx * dx + slope))).exp();
        let change = (-xx).exp();
        add_products(right[1..].iter_mut(), value, ratio(1.0), change);
        add_products(left.iter_mut().rev(), value, ratio(-1.0), change);
    }
}

/// Adds `value`, multiplied by `ratio` from point to point, where `ratio` itself is multiplied by `change`.
fn add_products<'a>(points: impl Iterator<Item = &'a mut f64>, mut value: f64, mut ratio: f64, change: f64) {
    for point in points {
        value *= ratio;
        ratio *= change;
        *point += value;
    }
}

/// The density on `grid`, `[z][y][x]`, band-limited to the Nyquist frequency of its voxels.
///
/// The result does not depend on the number of threads. Takes [`sampling_bytes`] of memory.
pub fn voxelize(gmm: &Gmm, grid: &Grid) -> Array3<f32> {
    let (n, points) = (grid.computed(), grid.points());
    let all = (0..gmm.len()).into_par_iter();
    let (direct, sampled): (Vec<(usize, Blob)>, Vec<_>) =
        all.map(|i| (i, blob(gmm, i, grid, points, BLUR))).collect::<Vec<_>>().into_iter().partition(
            |(_, blob)| blob.is_wide(points) && blob.narrowest >= DIRECT * points as f64 / n as f64,
        );
    let sampled: Vec<Blob> = sampled.into_iter().map(|(_, blob)| blob).collect();
    let mut map = sharpen(sample(&sampled, points), points, n);
    let direct: Vec<Blob> = direct.into_iter().map(|(i, _)| blob(gmm, i, grid, n, 0.0)).collect();
    add_direct(&direct, &mut map);
    let start = n / 2 - grid.size / 2;
    let centre = start..start + grid.size;
    map.slice(s![centre.clone(), centre.clone(), centre]).to_owned()
}

/// The map of the whole of a mixture on `grid` ([`voxelize`]).
pub fn map_of(mixture: &GmmFile, grid: &Grid) -> Array3<f32> {
    match mixture.symmetry {
        Symmetry::C1 => voxelize(&mixture.gmm, grid),
        symmetry => voxelize(&whole(&mixture.gmm, symmetry), grid),
    }
}

/// Label that describes the mixture in the header of its map.
pub fn label(mixture: &GmmFile) -> String {
    let GmmFile { gmm, symmetry, box_size, pixel_size } = mixture;
    let count = symmetry.order() * gmm.len();
    let group = if *symmetry == Symmetry::C1 { String::new() } else { format!(" of symmetry {symmetry}") };
    format!("{count} Gaussians{group}, trained in a box of {box_size} pixels of {pixel_size:.4} A")
}

/// Adds Gaussians that need no band limit to a map, in their order.
fn add_direct(blobs: &[Blob], map: &mut Array3<f32>) {
    if blobs.is_empty() {
        return;
    }
    let n = map.dim().0;
    let planes = map.as_slice_mut().expect("a new array is in standard layout").par_chunks_mut(n * n);
    planes.enumerate().for_each_init(
        || vec![0.0; n],
        |row, (z, plane)| {
            for (y, values) in plane.chunks_mut(n).enumerate() {
                row.fill(0.0);
                blobs.iter().for_each(|blob| blob.add_row(z, y, row));
                values.iter_mut().zip(&*row).for_each(|(value, add)| *value += *add as f32);
            }
        },
    );
}

/// Samples the blurred Gaussians on a fine grid of `n` points along an edge.
fn sample(blobs: &[Blob], n: usize) -> Vec<f64> {
    let mut grid = vec![0.0f64; n * n * n];
    grid.par_chunks_mut(SLAB * n * n).enumerate().for_each(|(slab, planes)| {
        let slab_planes = slab * SLAB..slab * SLAB + planes.len() / (n * n);
        for blob in blobs {
            for z in blob.support(2, n) {
                let place = z.rem_euclid(n as isize) as usize;
                if slab_planes.contains(&place) {
                    blob.add(z, &mut planes[(place - slab_planes.start) * n * n..][..n * n], n);
                }
            }
        }
    });
    grid
}

/// Converts `points`^3 samples of the blurred density to `n`^3 voxels of the same extent. Divides out the blur inside the Nyquist
/// sphere of the voxels, and sets frequencies outside, where images carry no information, to zero.
fn sharpen(samples: Vec<f64>, points: usize, n: usize) -> Array3<f32> {
    // Both origins are at index floor(size/2), so the spectra need no phase shift.
    let centre = points / 2;
    let mut fine = Array3::from_elem((points, points, points), Complex::new(0.0, 0.0));
    for ((z, y, x), value) in fine.indexed_iter_mut() {
        let [z, y, x] = [z, y, x].map(|i| (i + centre) % points);
        value.re = samples[(z * points + y) * points + x];
    }
    drop(samples);
    fft3(&mut fine, false);
    let factor = 2.0 * PI * PI * BLUR * BLUR / (n * n) as f64;
    // One voxel covers (points/n)^3 samples.
    let scale = (n as f64 / points as f64).powi(3);
    let spectrum = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
        let k = [z, y, x].map(|i| frequency(i, n));
        let k2: f64 = k.iter().map(|&k| (k as f64).powi(2)).sum();
        if k2 > (n * n) as f64 / 4.0 {
            return Complex::new(0.0, 0.0);
        }
        fine[k.map(|k| k.rem_euclid(points as isize) as usize)] * ((factor * k2).exp() * scale)
    });
    volume_of_spectrum(spectrum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::softplus_inverse;

    fn one(mu: [f32; 3], sigma: f64, amplitude: f64) -> Gmm {
        let s = softplus_inverse(sigma) as f32;
        let values = vec![mu[0], mu[1], mu[2], s, softplus_inverse(amplitude) as f32];
        Gmm::from_values(Shape::Isotropic, 1, values)
    }

    #[test]
    fn a_wide_gaussian_has_its_analytic_values() {
        for n in [32usize, 33] {
            let (mu, sigma) = ([0.05f32, -0.1, 0.08], 2.0 / n as f64);
            let map = voxelize(&one(mu, sigma, 0.7), &Grid::of_box(n));
            let peak = 0.7 / ((2.0 * PI).powf(1.5) * sigma.powi(3)) / n as f64;
            for ((z, y, x), &value) in map.indexed_iter() {
                let at = |i: usize| (i as f64 - (n / 2) as f64) / n as f64;
                let r2 = (at(x) - f64::from(mu[0])).powi(2)
                    + (at(y) - f64::from(mu[1])).powi(2)
                    + (at(z) - f64::from(mu[2])).powi(2);
                let want = peak * (-0.5 * r2 / sigma.powi(2)).exp();
                // Beyond the Nyquist sphere a Gaussian of 2 voxels has 3e-9 of its power.
                assert!((f64::from(value) - want).abs() < 1e-4 * peak, "{x} {y} {z}: {value} {want}");
            }
        }
    }

    #[test]
    fn a_narrow_gaussian_keeps_its_mass_at_any_position() {
        for mu in [[0.0f32, 0.0, 0.0], [0.013, -0.007, 0.011]] {
            let map = voxelize(&one(mu, 0.002, 1.3), &Grid::of_box(24));
            // The projection Q sums to A D^2.
            let sum: f64 = map.iter().map(|&v| f64::from(v)).sum();
            assert!((sum / (24.0 * 24.0) - 1.3).abs() < 1e-4, "{sum}");
        }
    }

    /// Analytic value of an isotropic Gaussian of 2 voxels in a box of 24, at (x, y, z) voxels from the origin.
    fn density(mu: [f32; 3], at: [f64; 3]) -> f64 {
        let sigma = 2.0 / 24.0;
        let r2: f64 = (0..3).map(|k| (at[k] / 24.0 - f64::from(mu[k])).powi(2)).sum();
        0.7 / ((2.0 * PI).powf(1.5) * sigma * sigma * sigma) / 24.0 * (-0.5 * r2 / (sigma * sigma)).exp()
    }

    /// A mixture of one anisotropic Gaussian with these standard deviations in box units, turned about the z axis by 45 degrees.
    fn turned(mu: [f32; 3], sigmas: [f64; 3], amplitude: f64) -> Gmm {
        let [s1, s2, s3] = sigmas.map(|sigma| softplus_inverse(sigma) as f32);
        let half = std::f32::consts::PI / 8.0;
        let quaternion = [half.cos(), 0.0, 0.0, half.sin()];
        let values = [&mu[..], &[s1, s2, s3], &quaternion, &[softplus_inverse(amplitude) as f32]].concat();
        Gmm::from_values(Shape::Anisotropic, 1, values)
    }

    #[test]
    fn a_gaussian_wider_than_the_box_has_its_analytic_values() {
        for n in [24usize, 25] {
            // Inside the box, in a corner, and far outside.
            for mu in [[0.1f32, -0.2, 0.3], [0.5, 0.5, -0.5], [30.0, 2.0, 0.0]] {
                for sigmas in [[20.0, 20.0, 20.0], [9.0, 0.4, 0.15]] {
                    let map = voxelize(&turned(mu, sigmas, 5.0), &Grid::of_box(n));
                    let peak = 5.0 / ((2.0 * PI).powf(1.5) * sigmas.iter().product::<f64>()) / n as f64;
                    for ((z, y, x), &value) in map.indexed_iter() {
                        let at =
                            |i: usize, k: usize| (i as f64 - (n / 2) as f64) / n as f64 - f64::from(mu[k]);
                        let (dx, dy) = (at(x, 0), at(y, 1));
                        let along = [(dx + dy) / 2f64.sqrt(), (dy - dx) / 2f64.sqrt(), at(z, 2)];
                        let power: f64 = along.iter().zip(&sigmas).map(|(d, s)| (d / s).powi(2)).sum();
                        let want = peak * (-0.5 * power).exp();
                        assert!((f64::from(value) - want).abs() < 1e-5 * peak, "{x} {y} {z}: {value} {want}");
                    }
                }
            }
        }
    }

    /// Without a bound on the support these would take longer than the age of the universe.
    #[test]
    fn runaway_gaussians_cost_one_pass_over_the_grid() {
        let huge = 3e38f32;
        for scale in [50.0, 1e9, f64::from(huge)] {
            for mu in [[0.0f32; 3], [huge, 0.0, 0.0], [-huge; 3]] {
                // A ball, a disc and a needle.
                for sigmas in [[scale; 3], [scale, scale, 1e-3], [scale, 1e-3, 1e-3]] {
                    let map = voxelize(&turned(mu, sigmas, 1.0), &Grid::of_box(16));
                    assert!(map.iter().all(|value| value.is_finite()), "{mu:?} {sigmas:?}");
                }
            }
        }
        // One such Gaussian leaves the others as they are.
        let good = one([0.02, -0.03, 0.01], 2.0 / 24.0, 0.7);
        let mut values: Vec<f32> = Vec::new();
        for (plane, runaway) in [0.0, 0.0, 0.0, huge, 1.0].into_iter().enumerate() {
            values.extend([good.plane(plane)[0], runaway]);
        }
        let both = voxelize(&Gmm::from_values(Shape::Isotropic, 2, values), &Grid::of_box(24));
        assert!(both == voxelize(&good, &Grid::of_box(24)));
    }

    #[test]
    fn other_grids_have_the_same_density_about_the_same_origin() {
        let mu = [0.02f32, -0.03, 0.01];
        let gmm = one(mu, 2.0 / 24.0, 0.7);
        let peak = density([0.0; 3], [0.0; 3]);
        // Cropped, padded, finer and coarser; even and odd; with a box that is not an integer number of voxels.
        for (size, per_box) in
            [(13, 24.0), (16, 24.0), (33, 24.0), (40, 24.0), (48, 48.0), (21, 19.5), (61, 36.4), (18, 36.4)]
        {
            let map = voxelize(&gmm, &Grid { size, per_box, box_size: 24 });
            assert_eq!(map.dim(), (size, size, size));
            for ((z, y, x), &value) in map.indexed_iter() {
                let at = |i: usize| (i as f64 - (size / 2) as f64) * 24.0 / per_box;
                let at = [at(x), at(y), at(z)];
                let want = density(mu, at);
                assert!(
                    (f64::from(value) - want).abs() < 1e-3 * peak,
                    "{size} {per_box} {at:?}: {value} {want}"
                );
            }
        }
    }
}
