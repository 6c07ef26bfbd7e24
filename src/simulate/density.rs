//! The band-limited map of an atomic model.
//!
//! The spectrum is the sum over atoms of `w exp(-2 pi i k r)`, times `exp(-B k^2/4)`, times a soft edge below Nyquist. The sum is
//! computed by gridding: each atom is spread as a Gaussian on a grid twice as fine, and the transform of the Gaussian is divided
//! out.

use std::f64::consts::PI;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::atoms::Atom;
use crate::error::{Error, Result};
use crate::imaging::fourier;

/// Standard deviation of the gridding Gaussian in fine pixels. Aliases are below 1e-4 at the Nyquist frequency of the map.
const SPREAD: f64 = 1.0;
/// Half width of the Gaussian in fine pixels, where it has decayed to about 1e-5.
const REACH: usize = 5;
const TAPS: usize = 2 * REACH + 1;

/// Start of the soft edge in cycles per pixel.
const EDGE_START: f64 = 0.46;
/// End of the band (Nyquist) in cycles per pixel.
const EDGE_END: f64 = 0.5;

/// An atom on the fine grid: the nearest pixel, and the Gaussian along each axis.
struct GriddedAtom {
    nearest: [usize; 3],
    along: [[f32; TAPS]; 3],
}

/// The map `[z][y][x]` of centred `atoms` in a box of `box_size` pixels of `pixel_size` angstrom, with `b_factor` in square
/// angstrom. The spectrum at frequency 0 is the sum of the weights.
///
/// The result does not depend on the number of threads: each grid plane adds its atoms in file order.
pub fn map_of_atoms(atoms: &[Atom], box_size: usize, pixel_size: f64, b_factor: f64) -> Array3<f32> {
    let fine = 2 * box_size;
    let gridded: Vec<GriddedAtom> =
        atoms.par_iter().map(|atom| grid_atom(atom, fine, pixel_size / 2.0)).collect();
    let mut by_plane: Vec<Vec<u32>> = vec![Vec::new(); fine];
    for (index, atom) in gridded.iter().enumerate() {
        by_plane[atom.nearest[2]].push(index as u32);
    }
    let mut grid = Array3::from_elem((fine, fine, fine), Complex::new(0.0f32, 0.0));
    grid.as_slice_mut()
        .expect("a new array is in standard layout")
        .par_chunks_exact_mut(fine * fine)
        .enumerate()
        .for_each(|(z, plane)| {
            for tap in 0..TAPS {
                // Tap t of an atom at plane c is on plane c + t - REACH.
                let from = (z + fine + REACH - tap) % fine;
                for &index in &by_plane[from] {
                    add_to_plane(
                        &gridded[index as usize],
                        atoms[index as usize].weight as f32,
                        tap,
                        plane,
                        fine,
                    );
                }
            }
        });
    fourier::fft3(&mut grid, false);
    fourier::volume_of_spectrum(cropped(&grid, box_size, pixel_size, b_factor))
}

fn grid_atom(atom: &Atom, fine: usize, pixel: f64) -> GriddedAtom {
    let mut nearest = [0; 3];
    let mut along = [[0.0; TAPS]; 3];
    for axis in 0..3 {
        let at = atom.position[axis] / pixel;
        let pixel = at.round();
        nearest[axis] = (pixel as i64).rem_euclid(fine as i64) as usize;
        for (tap, value) in along[axis].iter_mut().enumerate() {
            let distance = tap as f64 - REACH as f64 - (at - pixel);
            let gaussian = (-0.5 * (distance / SPREAD).powi(2)).exp() / ((2.0 * PI).sqrt() * SPREAD);
            *value = gaussian as f32;
        }
    }
    GriddedAtom { nearest, along }
}

fn add_to_plane(atom: &GriddedAtom, weight: f32, tap: usize, plane: &mut [Complex<f32>], fine: usize) {
    let [along_x, along_y, along_z] = &atom.along;
    for (ty, wy) in along_y.iter().enumerate() {
        let y = (atom.nearest[1] + fine + ty - REACH) % fine;
        let row = &mut plane[y * fine..(y + 1) * fine];
        let factor = weight * along_z[tap] * wy;
        let start = atom.nearest[0] + fine - REACH;
        for (tx, wx) in along_x.iter().enumerate() {
            row[(start + tx) % fine].re += factor * wx;
        }
    }
}

/// Crops the fine spectrum, divides out the Gaussian, and applies B factor and soft edge.
fn cropped(
    fine: &Array3<Complex<f32>>,
    box_size: usize,
    pixel_size: f64,
    b_factor: f64,
) -> Array3<Complex<f64>> {
    let size = fine.dim().0;
    let index = |i: usize| fourier::frequency(i, box_size).rem_euclid(size as isize) as usize;
    let square = |i: usize| fourier::squared_frequency(i, box_size);
    Array3::from_shape_fn((box_size, box_size, box_size), |(z, y, x)| {
        let k2 = square(z) + square(y) + square(x);
        let edge = soft_edge(k2.sqrt());
        if edge == 0.0 {
            return Complex::new(0.0, 0.0);
        }
        // k cycles per pixel are k/2 cycles per fine pixel.
        let gaussian = (-2.0 * (PI * SPREAD).powi(2) * k2 / 4.0).exp();
        let envelope = (-0.25 * b_factor * k2 / (pixel_size * pixel_size)).exp();
        let value = fine[[index(z), index(y), index(x)]];
        Complex::new(f64::from(value.re), f64::from(value.im)) * (edge * envelope / gaussian)
    })
}

/// 1 inside the band, with a cosine edge to 0 at Nyquist; `k` in cycles per pixel.
fn soft_edge(k: f64) -> f64 {
    if k <= EDGE_START {
        1.0
    } else if k < EDGE_END {
        0.5 + 0.5 * (PI * (k - EDGE_START) / (EDGE_END - EDGE_START)).cos()
    } else {
        0.0
    }
}

/// Divides a map by its standard deviation, which is returned. The mean is not removed.
///
/// # Errors
/// When the map is constant or not finite; `what` names it in the error.
pub fn scale_to_unit_deviation(map: &mut Array3<f32>, what: &str) -> Result<f64> {
    let n = map.len() as f64;
    let mean = map.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = map.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let deviation = variance.sqrt();
    // Rounding gives a constant map a deviation of a few units in the last place.
    if !(deviation.is_finite() && deviation > 1e-6 * mean.abs()) {
        return Err(Error::request(
            format!("{what} has a standard deviation of {deviation:.3e}: there is nothing to project"),
            "give a model or map with density inside the box (a lower --b-factor, or a smaller --pixel-size)",
        ));
    }
    map.mapv_inplace(|v| (f64::from(v) / deviation) as f32);
    Ok(deviation)
}

/// Checks that a model of `radius` angstrom fits the box in every orientation.
///
/// # Errors
/// The message states the size of model and box, and a box size and pixel size that fit.
pub fn check_fit(radius: f64, box_size: usize, pixel_size: f64) -> Result<()> {
    let edge = box_size as f64 * pixel_size;
    if 2.0 * radius <= edge {
        return Ok(());
    }
    // A margin for the density around the outermost atoms.
    let needed = 2.0 * radius * 1.05;
    let fitting_box = (needed / pixel_size / 2.0).ceil() * 2.0;
    let fitting_pixel = (needed / box_size as f64 * 100.0).ceil() / 100.0;
    Err(Error::request(
        format!(
            "the model is {:.1} A across, but the box is only {edge:.1} A ({box_size} px of {pixel_size} A)",
            2.0 * radius
        ),
        format!("use --box {fitting_box:.0}, or --pixel-size {fitting_pixel:.2}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn atoms() -> Vec<Atom> {
        (0..40)
            .map(|i| {
                let t = f64::from(i);
                Atom {
                    position: [14.0 * (1.7 * t).sin(), 15.0 * (2.3 * t + 1.0).cos(), 13.0 * (0.9 * t).sin()],
                    weight: 1.0 + 0.1 * t,
                }
            })
            .collect()
    }

    #[test]
    fn the_spectrum_is_the_sum_over_atoms() {
        // Without a B factor, high frequencies weigh as much as low ones.
        for (n, pixel) in [(16usize, 2.5), (17, 2.5)] {
            let spectrum = fourier::spectrum_of_volume(&map_of_atoms(&atoms(), n, pixel, 0.0));
            let (mut error, mut norm, mut worst) = (0.0f64, 0.0f64, 0.0f64);
            for ((z, y, x), value) in spectrum.indexed_iter() {
                let k = [x, y, z].map(|i| fourier::frequency(i, n) as f64 / n as f64);
                let direct: Complex<f64> = atoms()
                    .iter()
                    .map(|a| {
                        let turns: f64 = k.iter().zip(a.position).map(|(k, r)| k * r / pixel).sum();
                        Complex::from_polar(a.weight, -TAU * turns)
                    })
                    .sum();
                let expected = direct * soft_edge(k.iter().map(|v| v * v).sum::<f64>().sqrt());
                error += (value - expected).norm_sqr();
                norm += expected.norm_sqr();
                worst = worst.max((value - expected).norm() / direct.norm().max(1.0));
            }
            let relative = (error / norm).sqrt();
            assert!(relative < 3e-4, "box {n}: {relative:.2e}");
            assert!(worst < 3e-3, "box {n}: {worst:.2e}");
        }
    }

    #[test]
    fn the_b_factor_multiplies_the_spectrum() {
        let n = 16;
        let sharp = fourier::spectrum_of_volume(&map_of_atoms(&atoms(), n, 3.0, 0.0));
        let soft = fourier::spectrum_of_volume(&map_of_atoms(&atoms(), n, 3.0, 100.0));
        let k = 4.0 / (16.0 * 3.0f64);
        let ratio = soft[[0, 4, 0]].norm() / sharp[[0, 4, 0]].norm();
        assert!((ratio - (-25.0 * k * k).exp()).abs() < 1e-4, "{ratio}");
    }

    #[test]
    fn a_model_that_does_not_fit_gives_sizes_that_do() {
        check_fit(31.9, 16, 4.0).unwrap();
        let message = check_fit(100.0, 16, 4.0).unwrap_err().to_string();
        for fragment in ["200.0 A", "64.0 A", "--box 54", "--pixel-size 13.13"] {
            assert!(message.contains(fragment), "{message}");
        }
    }

    #[test]
    fn a_constant_map_is_refused() {
        let mut map = Array3::from_elem((4, 4, 4), 7.3f32);
        assert!(scale_to_unit_deviation(&mut map, "it").is_err());
        map[[0, 0, 0]] = 9.0;
        scale_to_unit_deviation(&mut map, "it").unwrap();
        assert!((map.std(0.0) - 1.0).abs() < 1e-4);
    }
}
