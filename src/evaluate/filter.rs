//! Low-pass filters with a raised-cosine edge, as RELION's programs apply them.

use ndarray::Array3;
use rustfft::num_complex::Complex;

use crate::evaluate::shells::radius;
use crate::imaging::fourier::{spectrum_of_volume, volume_of_spectrum};
use crate::imaging::mrc::Volume;

/// Width of the filter's edge in shells; the filter is one half in its middle.
pub const EDGE_WIDTH: f64 = 2.0;

/// A low-pass filter at `resolution` angstrom for a box of `edge` angstrom, as a function of the radius in cycles per box. The
/// middle of the filter's edge lies on the nearest whole shell.
pub fn low_pass_factor(resolution: f64, edge: f64) -> impl Fn(f64) -> f64 {
    let start = (edge / resolution).round() - EDGE_WIDTH / 2.0;
    move |radius| {
        let step = ((radius - start) / EDGE_WIDTH).clamp(0.0, 1.0);
        0.5 + 0.5 * (std::f64::consts::PI * step).cos()
    }
}

/// A cubic map, low-pass filtered at `resolution` angstrom.
pub fn low_pass(map: &Volume, resolution: f64) -> Array3<f32> {
    let n = map.data.dim().0;
    radial(&map.data, low_pass_factor(resolution, n as f64 * map.pixel_size))
}

/// A cubic map filtered by `factor`, a function of the radius in cycles per box.
pub fn radial(map: &Array3<f32>, factor: impl Fn(f64) -> f64) -> Array3<f32> {
    let mut spectrum = spectrum_of_volume(map);
    multiply_radially(&mut spectrum, factor);
    volume_of_spectrum(spectrum)
}

/// Multiplies a cubic spectrum by `factor`, a function of the radius in cycles per box.
pub(super) fn multiply_radially(spectrum: &mut Array3<Complex<f64>>, factor: impl Fn(f64) -> f64) {
    let n = spectrum.dim().0;
    for ((z, y, x), value) in spectrum.indexed_iter_mut() {
        *value *= factor(radius([z, y, x], n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_edge_is_a_cosine_about_a_whole_shell() {
        // Shell 10.3 of a box of 103 A: the edge extends from 9 to 11.
        let factor = low_pass_factor(10.0, 103.0);
        let at = [0.0, 9.0, 9.5, 10.0, 11.0, 40.0].map(|r| (factor(r) * 1e6).round() / 1e6);
        assert_eq!(at, [1.0, 1.0, 0.853553, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn a_slow_wave_stays_and_a_fast_one_goes() {
        let wave = |k: f64| {
            Array3::from_shape_fn((16, 16, 16), |(_, _, x)| {
                (std::f64::consts::TAU * k * x as f64 / 16.0).cos() as f32
            })
        };
        let map = Volume::new(wave(2.0) + wave(6.0), 1.0);
        let left = low_pass(&map, 4.0) - wave(2.0);
        assert!(left.iter().all(|v| v.abs() < 1e-6));
    }
}
