//! Projections of a map as exact central slices of its spectrum.
//!
//! By the projection-slice theorem, the transform of the projection along view z is the transform of the map on the plane
//! `W^T (kx, ky, 0)`. The transform between grid points is evaluated by gridding: the map is divided by the transform of a
//! Kaiser-Bessel kernel, padded twofold and transformed, and the kernel interpolates the result (Beatty et al., IEEE Trans. Med.
//! Imaging 24 (2005) 799).

use std::f64::consts::PI;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::imaging::pose::Rotation;
use crate::imaging::{Symmetry, fourier};

/// Width of the kernel in points of the padded grid.
const WIDTH: usize = 6;
/// Grid points that the kernel needs beyond each end of the band.
const MARGIN: usize = WIDTH / 2;
/// Tabulated kernel positions between two grid points (linear interpolation: error below 1e-7).
const STEPS: usize = 2048;

/// Beatty's shape parameter for twofold padding.
fn shape() -> f64 {
    PI * ((WIDTH as f64 / 2.0 * 1.5).powi(2) - 0.8).sqrt()
}

/// The modified Bessel function of order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = 0.25 * x * x;
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-17 * sum {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// The kernel at a distance of `u` grid points, scaled to 1 at 0.
fn kernel(u: f64) -> f64 {
    let inside = 1.0 - (2.0 * u / WIDTH as f64).powi(2);
    if inside < 0.0 { 0.0 } else { bessel_i0(shape() * inside.sqrt()) / bessel_i0(shape()) }
}

/// The kernel's transform at `cycles` per grid point, |cycles| <= 1/4.
fn kernel_transform(cycles: f64) -> f64 {
    let root = (shape().powi(2) - (PI * WIDTH as f64 * cycles).powi(2)).sqrt();
    WIDTH as f64 * root.sinh() / root / bessel_i0(shape())
}

/// Evaluates the spectrum of a map at any frequency below Nyquist. Can be shared between threads.
pub struct Projector {
    box_size: usize,
    /// Padded spectrum for x >= 0, with margins, `[z][y][x][re, im]`; y and z from below -box to above box.
    grid: Vec<f32>,
    /// Points along x, and along y and z.
    size: [usize; 2],
    /// Kernel weights of the taps for each tabulated position.
    taps: Vec<[f32; WIDTH]>,
}

impl Projector {
    /// Transforms a cubic map `[z][y][x]` whose origin is voxel floor(box/2).
    ///
    /// # Panics
    /// If the map is not a cube.
    pub fn new(map: &Array3<f32>) -> Self {
        let n = map.dim().0;
        assert!(map.dim() == (n, n, n), "a cube is projected");
        let padded = 2 * n;
        let undo: Vec<f64> =
            (0..n).map(|i| 1.0 / kernel_transform((i as f64 - (n / 2) as f64) / padded as f64)).collect();
        let mut spectrum = Array3::from_elem((padded, padded, padded), Complex::new(0.0f32, 0.0));
        // The origin moves to index 0, so that slices have no phase.
        let place = |i: usize| (i + padded - n / 2) % padded;
        for ((z, y, x), &value) in map.indexed_iter() {
            let weighted = f64::from(value) * undo[z] * undo[y] * undo[x];
            spectrum[[place(z), place(y), place(x)]].re = weighted as f32;
        }
        fourier::fft3(&mut spectrum, false);

        // Index i along y or z is frequency i - n - MARGIN; along x, of which half is stored, i - MARGIN.
        let size = [n + 2 * MARGIN + 1, padded + 2 * MARGIN + 1];
        let wrapped = |i: usize, lowest: usize| (i + 2 * padded - lowest) % padded;
        let mut grid = vec![0.0; 2 * size[0] * size[1] * size[1]];
        grid.par_chunks_exact_mut(2 * size[0] * size[1]).enumerate().for_each(|(z, plane)| {
            for (y, line) in plane.chunks_exact_mut(2 * size[0]).enumerate() {
                for (x, value) in line.chunks_exact_mut(2).enumerate() {
                    let (z, y) = (wrapped(z, n + MARGIN), wrapped(y, n + MARGIN));
                    let point = spectrum[[z, y, wrapped(x, MARGIN)]];
                    value.copy_from_slice(&[point.re, point.im]);
                }
            }
        });
        let taps = (0..=STEPS)
            .map(|step| {
                let fraction = step as f64 / STEPS as f64;
                std::array::from_fn(|tap| kernel(fraction + (MARGIN - 1) as f64 - tap as f64) as f32)
            })
            .collect();
        Self { box_size: n, grid, size, taps }
    }

    /// Box size in pixels.
    pub fn box_size(&self) -> usize {
        self.box_size
    }

    /// Spectrum at `frequency` (x, y, z) in cycles per box, each below box/2 in magnitude; zero phase at the origin of the map.
    #[inline]
    pub fn at(&self, frequency: [f64; 3]) -> Complex<f32> {
        // The map is real: the half space x < 0 follows from Friedel symmetry.
        let mirrored = frequency[0] < 0.0;
        let sign = if mirrored { -2.0 } else { 2.0 };
        let (x, wx) = self.weights(sign * frequency[0], MARGIN);
        let (y, wy) = self.weights(sign * frequency[1], MARGIN + self.box_size);
        let (z, wz) = self.weights(sign * frequency[2], MARGIN + self.box_size);
        let mut sums = [0.0f32; 2 * WIDTH];
        for (k, wz) in wz.iter().enumerate() {
            for (j, wy) in wy.iter().enumerate() {
                let start = 2 * (((z + k) * self.size[1] + y + j) * self.size[0] + x);
                let weight = wz * wy;
                // A fixed number of floats, so that the compiler vectorises the loop.
                let line: &[f32; 2 * WIDTH] =
                    self.grid[start..start + 2 * WIDTH].try_into().expect("the range has this length");
                for (sum, value) in sums.iter_mut().zip(line) {
                    *sum += weight * value;
                }
            }
        }
        let value: Complex<f32> =
            sums.chunks_exact(2).zip(wx).map(|(sum, w)| Complex::new(sum[0] * w, sum[1] * w)).sum();
        if mirrored { value.conj() } else { value }
    }

    /// Index of the first tap, and the weights of all taps, for padded frequency `u` on a line where index `zero` is frequency 0.
    #[inline]
    fn weights(&self, u: f64, zero: usize) -> (usize, [f32; WIDTH]) {
        let below = u.floor();
        let position = (u - below) * STEPS as f64;
        let step = (position as usize).min(STEPS - 1);
        let fraction = (position - step as f64) as f32;
        let (low, high) = (&self.taps[step], &self.taps[step + 1]);
        let first = (below as isize + zero as isize) as usize - (MARGIN - 1);
        (first, std::array::from_fn(|tap| low[tap] + fraction * (high[tap] - low[tap])))
    }

    /// Writes the spectrum of the projection in orientation `rotation` to `spectrum` (`[kx][ky]`, the layout of
    /// [`fourier::Fft2`]), with the origin of the map at `origin` (x, y) in pixels from the first pixel. Frequencies at and beyond
    /// Nyquist (|k| >= box/2) are zero.
    ///
    /// # Panics
    /// If `spectrum` does not have (box/2 + 1) * box values.
    pub fn slice(&self, rotation: &Rotation, origin: [f64; 2], spectrum: &mut [Complex<f32>]) {
        let n = self.box_size;
        assert_eq!(spectrum.len(), (n / 2 + 1) * n);
        let phases: Vec<Complex<f64>> =
            (0..n).map(|i| fourier::shift_phase(0, fourier::frequency(i, n), 0.0, origin[1], n)).collect();
        for (kx, line) in spectrum.chunks_exact_mut(n).enumerate() {
            let phase_x = fourier::shift_phase(kx as isize, 0, origin[0], 0.0, n);
            for (iy, (value, phase_y)) in line.iter_mut().zip(&phases).enumerate() {
                let ky = fourier::frequency(iy, n);
                if 4 * (kx * kx + ky.unsigned_abs().pow(2)) >= n * n {
                    *value = Complex::new(0.0, 0.0);
                    continue;
                }
                let (fx, fy) = (kx as f64, ky as f64);
                // W^T (kx, ky, 0)
                let frequency = std::array::from_fn(|axis| rotation[0][axis] * fx + rotation[1][axis] * fy);
                let phase = phase_x * phase_y;
                *value = self.at(frequency) * Complex::new(phase.re as f32, phase.im as f32);
            }
        }
    }
}

/// The mean of `map` over the operators of `symmetry`, band-limited to the Nyquist sphere. Voxels outside the sphere that the box
/// holds count as 0. C1 returns the map unchanged.
pub fn symmetrized(mut map: Array3<f32>, symmetry: Symmetry) -> Array3<f32> {
    if symmetry == Symmetry::C1 {
        return map;
    }
    let n = map.dim().0;
    let square = |at: usize| at.abs_diff(n / 2).pow(2);
    for ((z, y, x), value) in map.indexed_iter_mut() {
        if 4 * (square(x) + square(y) + square(z)) >= n * n {
            *value = 0.0;
        }
    }
    let (projector, operators) = (Projector::new(&map), symmetry.operators());
    let share = 1.0 / operators.len() as f64;
    let mut spectrum = Array3::from_elem(map.dim(), Complex::new(0.0f64, 0.0));
    let planes = spectrum.as_slice_mut().expect("made in standard layout").par_chunks_exact_mut(n * n);
    planes.enumerate().for_each(|(z, plane)| {
        for (i, value) in plane.iter_mut().enumerate() {
            let k = [i % n, i / n, z].map(|i| fourier::frequency(i, n) as f64);
            if 4.0 * k.iter().map(|v| v * v).sum::<f64>() >= (n * n) as f64 {
                continue;
            }
            for g in &operators {
                // V(g r) has the spectrum F(g k).
                let of_copy = projector.at(g.map(|row| row.iter().zip(k).map(|(g, k)| g * k).sum()));
                *value += Complex::new(f64::from(of_copy.re), f64::from(of_copy.im)) * share;
            }
        }
    });
    fourier::volume_of_spectrum(spectrum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;
    use std::f64::consts::TAU;

    /// A map without symmetry, with as much power at the edge of the box as at the centre.
    fn rough_map(n: usize) -> Array3<f32> {
        Array3::from_shape_fn((n, n, n), |(z, y, x)| ((x * 7 + y * 31 + z * 101) as f32 * 0.737).sin())
    }

    #[test]
    fn slices_agree_with_the_direct_transform() {
        for n in [12, 13] {
            let map = rough_map(n);
            let projector = Projector::new(&map);
            let w = rotation_from_relion(33.0, 71.0, -124.0);
            let mut spectrum = vec![Complex::new(0.0, 0.0); (n / 2 + 1) * n];
            projector.slice(&w, [0.0, 0.0], &mut spectrum);
            let (mut error, mut norm) = (0.0f64, 0.0f64);
            for kx in 0..=n / 2 {
                for iy in 0..n {
                    let ky = fourier::frequency(iy, n) as f64;
                    let got = spectrum[kx * n + iy];
                    if (kx as f64).hypot(ky) >= n as f64 / 2.0 {
                        assert_eq!(got, Complex::new(0.0, 0.0));
                        continue;
                    }
                    let k: [f64; 3] = std::array::from_fn(|axis| w[0][axis] * kx as f64 + w[1][axis] * ky);
                    let direct: Complex<f64> = map
                        .indexed_iter()
                        .map(|((z, y, x), &v)| {
                            let r = [x, y, z].map(|i| i as f64 - (n / 2) as f64);
                            let turns = (k[0] * r[0] + k[1] * r[1] + k[2] * r[2]) / n as f64;
                            Complex::from_polar(f64::from(v), -TAU * turns)
                        })
                        .sum();
                    error += (Complex::new(f64::from(got.re), f64::from(got.im)) - direct).norm_sqr();
                    norm += direct.norm_sqr();
                }
            }
            let relative = (error / norm).sqrt();
            // A kernel of width 6 has an error of about 2e-5 when edge and centre have equal power.
            assert!(relative < 4e-5, "box {n}: {relative:.2e}");
        }
    }
    /// The grid of an odd box is invariant under the operators of O.
    #[test]
    fn a_symmetrized_map_is_the_mean_over_the_operators() {
        let n = 13;
        // Smooth, and within the box.
        let blob = |z: f64, y: f64, x: f64| (-0.2 * (z * z + y * y + x * x)).exp();
        let map = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            let [z, y, x] = [z, y, x].map(|i| i as f64 - (n / 2) as f64);
            (blob(z - 1.0, y + 1.0, x - 2.0) + 0.5 * blob(z + 2.0, y, x)) as f32
        });
        let found = symmetrized(map.clone(), Symmetry::O);
        for ((z, y, x), &value) in found.indexed_iter() {
            let at = [x, y, z].map(|i| i as f64 - (n / 2) as f64);
            let expected: f32 = Symmetry::O
                .operators()
                .iter()
                .map(|g| {
                    let [x, y, z] = g.map(|row| {
                        (row.iter().zip(at).map(|(g, r)| g * r).sum::<f64>() + (n / 2) as f64) as usize
                    });
                    map[[z, y, x]] / 24.0
                })
                .sum();
            // Band-limiting moves a little power.
            assert!((value - expected).abs() < 5e-3, "{x} {y} {z}: {value} {expected}");
        }
        assert_eq!(symmetrized(map.clone(), Symmetry::C1), map);
    }
}
