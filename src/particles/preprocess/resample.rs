//! The spectrum of an image at the frequencies of another grid: another pixel size, another box, or both.
//!
//! The Fourier sum over the raw pixels is evaluated at the frequencies of the output grid, so the ratio of the pixel sizes may be
//! any number. Raw pixels outside the output's field of view do not count; outside the raw image the background is zero. The sum
//! separates into one along rows and one along columns.

use std::f64::consts::TAU;

use rustfft::num_complex::Complex;

use crate::imaging::fourier::frequency;

/// Tables of a resampling from one grid to another.
#[derive(Clone)]
pub struct Resampling {
    input_box: usize,
    output_box: usize,
    /// Size of an output pixel in raw pixels.
    ratio: f64,
    /// `exp(-2 pi i kx x)`, `[raw column][kx]`, kx from 0 to half of the output box; zero for columns that do not count.
    columns: Vec<Complex<f32>>,
    /// `exp(-2 pi i ky y)`, `[raw row][ky]`, ky in FFT order.
    rows: Vec<Complex<f32>>,
    /// Raw rows that count.
    used: std::ops::Range<usize>,
}

impl Resampling {
    /// From raw images of `input_box` pixels to `output_box` pixels of `ratio` raw pixels each.
    pub fn new(input_box: usize, output_box: usize, ratio: f64) -> Self {
        let centre = (input_box / 2) as f64;
        // The output covers half of its pixels on either side of its origin, plus half a pixel.
        let [before, after] =
            [output_box / 2, output_box - output_box / 2 - 1].map(|n| (n as f64 + 0.5) * ratio);
        let counts = |i: usize| (-before..after).contains(&(i as f64 - centre));
        let used = (0..input_box).filter(|&i| counts(i));
        let used = used.clone().next().unwrap_or(0)..used.clone().next_back().map_or(0, |last| last + 1);
        let factor = |k: isize, i: usize| {
            // Frequencies from the raw Nyquist frequency on are not in the image; the output's own one would be aliased.
            let (absolute, n) = (k.unsigned_abs(), output_box);
            if !counts(i) || 2 * absolute == n || 2.0 * absolute as f64 >= n as f64 * ratio {
                return Complex::new(0.0, 0.0);
            }
            let turns = -(k as f64) * (i as f64 - centre) / (n as f64 * ratio);
            let factor = Complex::from_polar(1.0, TAU * turns);
            Complex::new(factor.re as f32, factor.im as f32)
        };
        let columns = (0..input_box).flat_map(|x| (0..=output_box / 2).map(move |k| (k as isize, x)));
        let rows = (0..input_box).flat_map(|y| (0..output_box).map(move |k| (frequency(k, output_box), y)));
        Self {
            input_box,
            output_box,
            ratio,
            columns: columns.map(|(k, x)| factor(k, x)).collect(),
            rows: rows.map(|(k, y)| factor(k, y)).collect(),
            used,
        }
    }

    /// Fills `spectrum` (`[kx][ky]`, the output's half plane) from the raw `image`, moved by PLUS `shift` (x, y) in raw pixels.
    /// The origin moves to pixel floor(box/2) of the output, and pixel values are preserved.
    pub fn spectrum(&self, image: &[f32], shift: [f64; 2], spectrum: &mut [Complex<f32>]) {
        let (n, half, zero) = (self.output_box, self.output_box / 2 + 1, Complex::new(0.0, 0.0));
        spectrum.fill(zero);
        let mut line = vec![zero; half];
        for y in self.used.clone() {
            line.fill(zero);
            for x in self.used.clone() {
                let value = image[y * self.input_box + x];
                for (sum, factor) in line.iter_mut().zip(&self.columns[x * half..(x + 1) * half]) {
                    *sum += factor * value;
                }
            }
            let row = &self.rows[y * n..(y + 1) * n];
            for (value, sums) in line.iter().zip(spectrum.chunks_exact_mut(n)) {
                for (sum, factor) in sums.iter_mut().zip(row) {
                    *sum += factor * value;
                }
            }
        }
        // The output's origin is at pixel floor(box/2), and the shift is in raw pixels.
        let origin = (n / 2) as f64;
        let [dx, dy] = shift.map(|s| origin + s / self.ratio);
        let phase = |k: isize, d: f64| Complex::from_polar(1.0, -TAU * (k as f64) * d / n as f64);
        let narrow = |p: Complex<f64>| Complex::new(p.re as f32, p.im as f32);
        let along_y: Vec<_> = (0..n).map(|iy| narrow(phase(frequency(iy, n), dy))).collect();
        for (kx, sums) in spectrum.chunks_exact_mut(n).enumerate() {
            let along_x = narrow(phase(kx as isize, dx) * self.ratio.powi(-2));
            sums.iter_mut().zip(&along_y).for_each(|(sum, along_y)| *sum *= along_x * along_y);
        }
    }
}
