//! A mixture on a grid: the map.
//!
//! Sampling a Gaussian narrower than a voxel at the voxels' centres would alias it. So each Gaussian is widened by
//! [`BLUR`] voxels before it is sampled, and the blur is divided out in Fourier space afterwards; what is left is the
//! band-limited density. Values are V(r)/D, so that the sum of the map along a line of sight is the projection Q.

use std::f64::consts::PI;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::{Gmm, S_MIN, Shape};
use crate::imaging::fourier::{fft3, frequency};
use crate::imaging::pose::rotation_from_quaternion;

/// Standard deviation of the blur in voxels.
const BLUR: f64 = 1.0;
/// Half width of a sampled Gaussian in standard deviations: what lies outside is below 1e-6 of the peak.
const REACH: f64 = 5.3;
/// z planes that one task fills.
const SLAB: usize = 4;

struct Blob {
    centre: [f64; 3],
    /// Inverse covariance xx, xy, xz, yy, yz, zz in 1/voxel^2.
    precision: [f64; 6],
    half: [f64; 3],
    height: f64,
}

fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

fn blob(gmm: &Gmm, i: usize, n: usize) -> Blob {
    let at = |plane: usize| f64::from(gmm.plane(plane)[i]);
    let size = n as f64;
    let (scales, r) = match gmm.shape() {
        Shape::Isotropic => ([at(3); 3], rotation_from_quaternion([1.0, 0.0, 0.0, 0.0])),
        Shape::Anisotropic => ([at(3), at(4), at(5)], rotation_from_quaternion([at(6), at(7), at(8), at(9)])),
    };
    // Along the Gaussian's own axes the blur adds to each variance.
    let variance = scales.map(|s| (softplus(s).max(S_MIN) * size).powi(2) + BLUR * BLUR);
    let entry = |i: usize, j: usize, weight: &dyn Fn(f64) -> f64| -> f64 {
        (0..3).map(|k| r[i][k] * r[j][k] * weight(variance[k])).sum()
    };
    let inverse = |v: f64| 1.0 / v;
    let precision = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)].map(|(i, j)| entry(i, j, &inverse));
    let half = [0, 1, 2].map(|i| REACH * entry(i, i, &|v| v).sqrt());
    let amplitude = softplus(at(gmm.shape().planes() - 1));
    let determinant: f64 = variance.iter().product();
    Blob {
        centre: [0, 1, 2].map(|k| at(k) * size + (n / 2) as f64),
        precision,
        half,
        // A G in box units is n^3 times that in voxels; V/D leaves n^2.
        height: amplitude * size * size / ((2.0 * PI).powf(1.5) * determinant.sqrt()),
    }
}

/// The first and last voxel within `half` of `centre` in 0..n, or `None`.
fn reach(centre: f64, half: f64, n: usize) -> Option<(usize, usize)> {
    let (low, high) = ((centre - half).ceil().max(0.0), (centre + half).floor().min(n as f64 - 1.0));
    (low <= high).then_some((low as usize, high as usize))
}

/// The density on a grid of `n`^3 voxels that span the box, `[z][y][x]`, origin at voxel floor(n/2).
///
/// Deterministic for any number of threads.
pub fn voxelize(gmm: &Gmm, n: usize) -> Array3<f32> {
    let blobs: Vec<Blob> = (0..gmm.len()).into_par_iter().map(|i| blob(gmm, i, n)).collect();
    let mut grid = vec![0.0f64; n * n * n];
    grid.par_chunks_mut(SLAB * n * n).enumerate().for_each(|(slab, planes)| {
        let first = slab * SLAB;
        let last = first + planes.len() / (n * n) - 1;
        for blob in &blobs {
            let Some((z0, z1)) = reach(blob.centre[2], blob.half[2], n) else { continue };
            if z1 < first || z0 > last {
                continue;
            }
            let Some((x0, x1)) = reach(blob.centre[0], blob.half[0], n) else { continue };
            let Some((y0, y1)) = reach(blob.centre[1], blob.half[1], n) else { continue };
            let [xx, xy, xz, yy, yz, zz] = blob.precision;
            for z in z0.max(first)..=z1.min(last) {
                let dz = z as f64 - blob.centre[2];
                for y in y0..=y1 {
                    let dy = y as f64 - blob.centre[1];
                    // Along x the exponent is a parabola; stepping its exponential costs two products a voxel.
                    let constant = yy * dy * dy + 2.0 * yz * dy * dz + zz * dz * dz;
                    let slope = 2.0 * (xy * dy + xz * dz);
                    let exponent = |dx: f64| -0.5 * (xx * dx * dx + slope * dx + constant);
                    let row = &mut planes[((z - first) * n + y) * n..][..n];
                    let dx = x0 as f64 - blob.centre[0];
                    for (k, value) in row[x0..=x1].iter_mut().enumerate() {
                        *value += blob.height * exponent(dx + k as f64).exp();
                    }
                }
            }
        }
    });
    sharpen(grid, n)
}

/// Divides the blur out, up to the Nyquist sphere; beyond it, where no image has information, there is nothing.
fn sharpen(grid: Vec<f64>, n: usize) -> Array3<f32> {
    let values = grid.into_iter().map(|v| Complex::new(v, 0.0)).collect();
    let mut spectrum = Array3::from_shape_vec((n, n, n), values).expect("n^3 values");
    fft3(&mut spectrum, false);
    let factor = 2.0 * PI * PI * BLUR * BLUR / (n * n) as f64;
    for ((z, y, x), value) in spectrum.indexed_iter_mut() {
        let k2: f64 = [x, y, z].iter().map(|&i| (frequency(i, n) as f64).powi(2)).sum();
        *value *= if k2 <= (n * n) as f64 / 4.0 { (factor * k2).exp() } else { 0.0 };
    }
    fft3(&mut spectrum, true);
    spectrum.mapv(|v| v.re as f32)
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
    fn a_wide_gaussian_is_sampled_as_it_is() {
        for n in [32usize, 33] {
            let (mu, sigma) = ([0.05f32, -0.1, 0.08], 2.0 / n as f64);
            let map = voxelize(&one(mu, sigma, 0.7), n);
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
    fn a_narrow_gaussian_keeps_its_mass_wherever_it_lies() {
        for mu in [[0.0f32, 0.0, 0.0], [0.013, -0.007, 0.011]] {
            let map = voxelize(&one(mu, 0.002, 1.3), 24);
            // The projection Q sums to A D^2.
            let sum: f64 = map.iter().map(|&v| f64::from(v)).sum();
            assert!((sum / (24.0 * 24.0) - 1.3).abs() < 1e-4, "{sum}");
        }
    }
}
