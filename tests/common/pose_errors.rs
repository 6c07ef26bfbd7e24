//! Errors of refined poses against the truth of a simulated set, and the least error that its noise permits.

// Each test file uses only some of these.
#![allow(dead_code)]

use std::path::Path;

use cryosplat_mpi::imaging::ctf::Ctf;
use cryosplat_mpi::imaging::fourier::fft3;
use cryosplat_mpi::imaging::mrc::read_volume;
use cryosplat_mpi::imaging::pose::{
    Rotation, product, rotation_from_relion, rotation_from_vector, transposed, vector_from_rotation,
};
use cryosplat_mpi::particles::store::Store;
use cryosplat_mpi::random::{Purpose, stream};
use ndarray::Array3;
use rand_distr::{Distribution, StandardNormal};
use rustfft::num_complex::Complex;

use crate::common::{alone, path, succeed, whole};

/// Numbers of a particle in the bound: rotation vector, offset, defocus.
const NUMBERS: usize = 6;
/// Draws of the error of a particle for the median.
const DRAWS: usize = 40;

/// The table of a CSV file with these columns, as numbers.
pub fn table<const N: usize>(file: &str, columns: [&str; N]) -> Vec<[f64; N]> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let places = columns.map(|column| names.iter().position(|name| *name == column).unwrap());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            places.map(|place| cells[place].parse().unwrap())
        })
        .collect()
}

/// The true poses of a set that simulate wrote to p.h5 in `folder`, by row.
pub fn true_poses(folder: &Path) -> Vec<Rotation> {
    let mut rows = table(&path(folder, "p_truth.csv"), ["row", "rot", "tilt", "psi"]);
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    rows.iter().map(|[_, rot, tilt, psi]| rotation_from_relion(*rot, *tilt, *psi)).collect()
}

/// The poses in a particle file.
pub fn poses(set: &str) -> Vec<Rotation> {
    let _alone = alone();
    let store = Store::open(Path::new(set)).unwrap();
    whole(&store).particles.iter().map(|particle| particle.rotation).collect()
}

/// The poses of the particles `set`, as refined by `run`.
pub fn refined_poses(set: &str, run: &str) -> Vec<Rotation> {
    let refined = format!("{run}/refined.h5");
    succeed(&["export", "particles", set, "-o", &refined, "--run", run]);
    poses(&refined)
}

/// The angle between two poses in degrees.
pub fn angle(a: &Rotation, b: &Rotation) -> f64 {
    let vector = vector_from_rotation(&product(a, &transposed(b)));
    vector.iter().map(|v| v * v).sum::<f64>().sqrt().to_degrees()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Median angle between poses in degrees.
pub fn median_angle(a: &[Rotation], b: &[Rotation]) -> f64 {
    assert_eq!(a.len(), b.len());
    median(a.iter().zip(b).map(|(a, b)| angle(a, b)).collect())
}

/// The spectrum of a map on a fine grid: between its points, linear.
struct Spectrum(Array3<Complex<f32>>);

impl Spectrum {
    /// Grid points per cycle per box.
    const PADDING: usize = 4;

    /// Of a map `[z][y][x]` about voxel floor(n/2).
    fn of(map: &Array3<f32>) -> Self {
        let n = map.dim().0;
        let padded = Self::PADDING * n;
        let place = |i: usize| (i + padded - n / 2) % padded;
        let mut grid = Array3::from_elem((padded, padded, padded), Complex::new(0.0f32, 0.0));
        for ((z, y, x), &value) in map.indexed_iter() {
            grid[[place(z), place(y), place(x)]].re = value;
        }
        fft3(&mut grid, false);
        Self(grid)
    }

    /// At a frequency (x, y, z) in cycles per box.
    fn at(&self, frequency: [f64; 3]) -> Complex<f64> {
        let side = self.0.dim().0 as i32;
        let place = frequency.map(|k| k * Self::PADDING as f64);
        let first = place.map(|v| v.floor() as i32);
        let mut sum = Complex::new(0.0, 0.0);
        for corner in 0..8 {
            let steps = [corner & 1, corner >> 1 & 1, corner >> 2];
            let weight: f64 = (0..3)
                .map(|axis| {
                    let part = place[axis] - f64::from(first[axis]);
                    if steps[axis] == 1 { part } else { 1.0 - part }
                })
                .product();
            let [x, y, z] = [0, 1, 2].map(|axis| (first[axis] + steps[axis]).rem_euclid(side) as usize);
            let value = self.0[[z, y, x]];
            sum += Complex::new(f64::from(value.re), f64::from(value.im)) * weight;
        }
        sum
    }
}

/// The least median error in degrees that an unbiased estimate of pose, offset and defocus can have, by the bound of Cramer and
/// Rao: errors are normal with the inverse of the Fisher information, from derivatives of the noise-free images of the true map, with
/// white noise at the signal-to-noise ratio `snr`. For a set that simulate wrote to p.h5 in `folder` with its truth in p_truth.mrc; of
/// every `step`-th particle.
pub fn least_median_angle(folder: &Path, snr: f64, step: usize) -> f64 {
    let map = read_volume(Path::new(&path(folder, "p_truth.mrc"))).unwrap();
    let spectrum = Spectrum::of(&map.data);
    let truth = true_poses(folder);
    let (store, block) = {
        let _alone = alone();
        let store = Store::open(Path::new(&path(folder, "p.h5"))).unwrap();
        let block = whole(&store);
        (store, block)
    };
    let (n, edge) = (map.data.dim().0, map.data.dim().0 as f64 * map.pixel_size);
    let reach = (n / 2) as i32;
    let plane = || (-reach..=reach).flat_map(move |ky| (-reach..=reach).map(move |kx| (kx, ky)));
    let within = |&(kx, ky): &(i32, i32)| 4 * (kx * kx + ky * ky) < (n * n) as i32;
    let frequencies: Vec<[f64; 2]> =
        plane().filter(within).map(|(x, y)| [f64::from(x), f64::from(y)]).collect();
    let image = |pose: &Rotation, ctf: &Ctf| -> Vec<Complex<f64>> {
        let value = |&[kx, ky]: &[f64; 2]| {
            let place = [0, 1, 2].map(|axis| kx * pose[0][axis] + ky * pose[1][axis]);
            spectrum.at(place) * ctf.at(kx / edge, ky / edge)
        };
        frequencies.iter().map(value).collect()
    };
    let difference = |a: Vec<Complex<f64>>, b: Vec<Complex<f64>>, by: f64| -> Vec<Complex<f64>> {
        a.iter().zip(&b).map(|(a, b)| (a - b) / by).collect()
    };
    let mut random = stream(1, Purpose::Noise, 0, 0);
    let (mut angles, mut variances) = (Vec::new(), Vec::new());
    for (row, pose) in truth.iter().enumerate().step_by(step) {
        let particle = &block.particles[row];
        let ctf = store.reader().view(particle).ctf;
        let mut derivatives: Vec<Vec<Complex<f64>>> = (0..3)
            .map(|axis| {
                let turned = |by: f64| {
                    let mut vector = [0.0; 3];
                    vector[axis] = by;
                    image(&product(&rotation_from_vector(vector), pose), &ctf)
                };
                difference(turned(0.01), turned(-0.01), 0.02)
            })
            .collect();
        let plain = image(pose, &ctf);
        let moving = plain.iter().zip(&frequencies).filter(|(_, k)| **k != [0.0; 2]);
        variances.push(moving.map(|(v, _)| v.norm_sqr()).sum::<f64>() / (n as f64).powi(4));
        for axis in 0..2 {
            let factor = -std::f64::consts::TAU / n as f64;
            let moved = plain.iter().zip(&frequencies).map(|(v, k)| v * Complex::new(0.0, factor * k[axis]));
            derivatives.push(moved.collect());
        }
        let defocused = |by: f64| {
            let mut other = *particle;
            other.ctf.defocus_u += by;
            other.ctf.defocus_v += by;
            image(pose, &store.reader().view(&other).ctf)
        };
        derivatives.push(difference(defocused(50.0), defocused(-50.0), 0.1));
        let information: [[f64; NUMBERS]; NUMBERS] = std::array::from_fn(|p| {
            std::array::from_fn(|q| {
                let products = derivatives[p].iter().zip(&derivatives[q]).map(|(a, b)| (a * b.conj()).re);
                products.sum::<f64>() / (n * n) as f64
            })
        });
        let root = cholesky(&information);
        for _ in 0..DRAWS {
            // With I = L L^T, the solution x of L^T x = z has the covariance I^-1.
            let mut x = [0.0; NUMBERS];
            for p in (0..NUMBERS).rev() {
                let z: f64 = StandardNormal.sample(&mut random);
                x[p] = (z - (p + 1..NUMBERS).map(|q| root[q][p] * x[q]).sum::<f64>()) / root[p][p];
            }
            angles.push(x[..3].iter().map(|v| v * v).sum::<f64>().sqrt().to_degrees());
        }
    }
    // The map has a scale of its own. With noise of variance 1, the mean variance of the images is the ratio.
    let variance = variances.iter().sum::<f64>() / variances.len() as f64;
    median(angles) * (variance / snr).sqrt()
}

/// The lower triangle L of a positive definite matrix L L^T.
fn cholesky(matrix: &[[f64; NUMBERS]; NUMBERS]) -> [[f64; NUMBERS]; NUMBERS] {
    let mut lower = [[0.0; NUMBERS]; NUMBERS];
    for i in 0..NUMBERS {
        for j in 0..=i {
            let rest = matrix[i][j] - (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
            lower[i][j] = if i == j { rest.sqrt() } else { rest / lower[j][j] };
        }
    }
    lower
}
