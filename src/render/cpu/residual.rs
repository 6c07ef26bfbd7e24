//! Loss of a projection and its gradient, in Fourier space: the H^2 form of the CTF (docs/method.md, section 4).

use rustfft::num_complex::Complex;

use super::raster::Canvas;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch, squared_frequency};
use crate::render::Geometry;
use crate::simd::{Isa, vectorize};

/// A function of the squared frequency (cycles per pixel) on the half plane, `[kx][ky]` as [`Ctf::half_plane`].
fn half_plane(box_size: usize, of: impl Fn(f64) -> f64) -> Vec<f32> {
    let square = |i: usize| squared_frequency(i % box_size, box_size);
    (0..(box_size / 2 + 1) * box_size).map(|i| of(square(i / box_size) + square(i)) as f32).collect()
}

/// Filters images, with the buffers of one thread.
///
/// Targets are spectra: of an observed image Y the Hartley transform (real part less imaginary part of the Fourier transform) of
/// F^-1(H F Y), `[kx][ky]` in FFT order, divided by the box size, which preserves sums of squares. It has as many
/// values as the image, and needs no inverse transform.
#[derive(Clone)]
pub struct Filter {
    /// Transform of images.
    fft: Fft2<f32>,
    scratch: Fft2Scratch<f32>,
    /// Transform of projections on their grid, to the frequencies of images.
    grid_fft: Fft2<f32>,
    grid_scratch: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    /// The effective CTF (CTF times [`Geometry::transfer`]) on a line of constant kx.
    ctf: Vec<f32>,
    /// Largest |ky| with a transfer above zero, for each kx, rounded up to [`UNROLL`].
    reach: Vec<usize>,
    /// [`Geometry::transfer`] on the half plane.
    transfer: Vec<f32>,
    /// [`Weights`](crate::render::Weights) on the half plane.
    weights: Vec<f32>,
    pixel_size: f64,
    box_size: usize,
    /// Points along an edge of the grid of projections.
    grid: usize,
}

vectorize! {
    /// Replaces a line of constant kx of the spectrum of a projection Q by that of the gradient. Returns the contribution of the line
    /// to <Q, H^2 Q - 2 Z>. `ctf` is the effective CTF, `target` the lines of Z at kx and -kx; frequencies beyond `reach` along ky
    /// are zero.
    fn compare(
        line: &mut [Complex<f32>],
        ctf: &[f32],
        weights: &[f32],
        target: [&[f32]; 2],
        reach: usize,
        unitary: f32,
        scale: f32,
    ) -> f32 = compare_lanes
}

/// Independent sums per loop iteration.
const UNROLL: usize = 16;

#[inline(always)]
fn compare_lanes<I: Isa>(
    line: &mut [Complex<f32>],
    ctf: &[f32],
    weights: &[f32],
    [here, there]: [&[f32]; 2],
    reach: usize,
    unitary: f32,
    scale: f32,
) -> f32 {
    let (n, grid) = (ctf.len(), line.len());
    let one = |value: &mut Complex<f32>, h: f32, w: f32, here: f32, there: f32| {
        let z = Complex::new(0.5 * (there + here), 0.5 * (there - here));
        let q = *value * unitary;
        let filtered = q * (h * h);
        let twice = filtered - z - z;
        *value = (filtered - z) * (w * scale);
        q.re * twice.re + q.im * twice.im
    };
    let mut sums = [0.0; UNROLL];
    sums[0] += one(&mut line[0], ctf[0], weights[0], here[0], there[0]);
    // Positive, then negative frequencies; the Nyquist frequency of an even grid is only among the positive ones.
    let below = reach.min((grid - 1) / 2);
    line[1 + reach..grid - below].fill(Complex::default());
    for (count, at, from) in [(reach, 1, 1), (below, grid - below, n - below)] {
        let line = &mut line[at..at + count];
        let (ctf, weights, here) =
            (&ctf[from..from + count], &weights[from..from + count], &here[from..from + count]);
        // In reverse order: the opposite of the first is the last.
        let there = &there[n + 1 - from - count..n + 1 - from];
        let mut k = 0;
        while k + UNROLL <= count {
            let next = k..k + UNROLL;
            let (values, ctf, weights) =
                (&mut line[next.clone()], &ctf[next.clone()], &weights[next.clone()]);
            let (here, there) = (&here[next], &there[count - k - UNROLL..count - k]);
            for i in 0..UNROLL {
                sums[i] += one(&mut values[i], ctf[i], weights[i], here[i], there[UNROLL - 1 - i]);
            }
            k += UNROLL;
        }
        for k in k..count {
            sums[0] += one(&mut line[k], ctf[k], weights[k], here[k], there[count - 1 - k]);
        }
    }
    sums.iter().sum()
}

impl Filter {
    /// The filter for the images of a device.
    pub fn new(geometry: &Geometry) -> Self {
        let &Geometry { box_size, pixel_size, weights, .. } = geometry;
        let grid = geometry.grid();
        let fft = Fft2::new(box_size);
        // On a finer grid the Nyquist frequency of the pixels is zero: it would be two distinct frequencies there.
        let columns = if grid > box_size { box_size.div_ceil(2) } else { box_size / 2 + 1 };
        let grid_fft = Fft2::band(grid, columns);
        let transfer = half_plane(box_size, |k2| geometry.transfer(k2));
        let reach = transfer.chunks_exact(box_size).map(|line| {
            let counts = line[..=box_size / 2].iter().rposition(|&t| t != 0.0).unwrap_or(0);
            counts.next_multiple_of(UNROLL).min(box_size / 2)
        });
        Self {
            scratch: fft.scratch(),
            grid_scratch: grid_fft.scratch(),
            spectrum: vec![Complex::default(); fft.spectrum_len().max(grid_fft.spectrum_len())],
            ctf: vec![0.0; box_size],
            reach: reach.collect(),
            transfer,
            weights: half_plane(box_size, |k2| weights.at(k2)),
            fft,
            grid_fft,
            pixel_size,
            box_size,
            grid,
        }
    }

    /// Size of the buffers in bytes, without the plans of the transforms.
    pub fn bytes(&self) -> usize {
        let numbers = [&self.ctf, &self.transfer, &self.weights];
        self.scratch.bytes()
            + self.grid_scratch.bytes()
            + size_of_val(&self.spectrum[..])
            + numbers.map(|numbers| size_of_val(&numbers[..])).iter().sum::<usize>()
    }

    /// Fills `self.ctf` with the effective CTF at `kx`.
    fn effective_ctf(&mut self, ctf: &Ctf, kx: usize) {
        let (n, reach) = (self.box_size, self.reach[kx]);
        ctf.half_plane_line(kx, self.pixel_size, reach, &mut self.ctf);
        for (h, &t) in self.ctf.iter_mut().zip(&self.transfer[kx * n..]) {
            *h *= t;
        }
        self.ctf[1 + reach..(n - reach).max(1 + reach)].fill(0.0);
    }

    /// Transforms a sampled projection (rows `stride` values apart). Returns the factor from its spectrum to that of the projection
    /// on the pixels.
    fn transform(&mut self, projection: &[f32], stride: usize) -> f64 {
        let length = self.grid_fft.spectrum_len();
        self.grid_fft.forward(projection, stride, &mut self.spectrum[..length], &mut self.grid_scratch);
        (self.box_size as f64 / self.grid as f64).powi(2)
    }

    /// Applies the CTF to a sampled projection (rows `stride` values apart): fills `image`, `[y][x]`.
    pub fn image(&mut self, ctf: &Ctf, projection: &[f32], stride: usize, image: &mut [f32]) {
        let (n, grid) = (self.box_size, self.grid);
        let scale = self.transform(projection, stride) as f32;
        let mut of_image = vec![Complex::default(); self.fft.spectrum_len()];
        let columns = self.grid_fft.spectrum_len() / grid;
        for (kx, out) in of_image.chunks_exact_mut(n).enumerate().take(columns) {
            self.effective_ctf(ctf, kx);
            let line = &self.spectrum[kx * grid..(kx + 1) * grid];
            // The frequencies of the image, in FFT order.
            let (above, below) = (&line[..n - n / 2], &line[grid - n / 2..]);
            for ((value, &q), &h) in out.iter_mut().zip(above.iter().chain(below)).zip(&self.ctf) {
                *value = q * (h * scale);
            }
        }
        self.fft.inverse(&mut of_image, image, n, &mut self.scratch);
    }

    /// Turns an observed image (`[y][x]`, box^2 values) into its target, in place.
    pub fn prepare(&mut self, ctf: &Ctf, image: &mut [f32]) {
        let n = self.box_size;
        let length = self.fft.spectrum_len();
        self.fft.forward(image, n, &mut self.spectrum[..length], &mut self.scratch);
        let scale = 1.0 / n as f32;
        for kx in 0..=n / 2 {
            self.effective_ctf(ctf, kx);
            let line = &mut self.spectrum[kx * n..(kx + 1) * n];
            for (value, &h) in line.iter_mut().zip(&self.ctf) {
                *value *= h * scale;
            }
            // The spectrum of a real image is Hermitian.
            let opposite = (n - kx) % n * n;
            for (ky, value) in line.iter().enumerate() {
                image[opposite + (n - ky) % n] = value.re + value.im;
            }
            for (to, value) in image[kx * n..(kx + 1) * n].iter_mut().zip(line) {
                *to = value.re - value.im;
            }
        }
    }

    /// Fills `gradient` with dL/dQ = 2/D^2 F^-1(w (H^2 F Q - H F Y)), from the projection Q, the `target` of an observed image Y, and
    /// `energy`, the sum of Y^2. L is the mean of (X - Y)^2 over the pixels with weighted frequencies. Returns that mean without
    /// weights.
    pub fn residual(
        &mut self,
        ctf: &Ctf,
        projection: &Canvas,
        target: &[f32],
        energy: f64,
        gradient: &mut Canvas,
    ) -> f64 {
        let (n, grid) = (self.box_size, self.grid);
        let to_pixels = self.transform(&projection.pixels, projection.stride);
        // The forward transform has no factor, the target has 1/D, and the inverse divides by the number of grid points.
        let (unitary, scale) = ((to_pixels / n as f64) as f32, 2.0 / n as f32);
        let length = self.grid_fft.spectrum_len();
        let mut loss = energy;
        for kx in 0..length / grid {
            self.effective_ctf(ctf, kx);
            let opposite = (n - kx) % n;
            // The half plane counts twice, except for kx = 0 and Nyquist.
            let count = if opposite == kx { 1.0 } else { 2.0 };
            let target = [kx, opposite].map(|kx| &target[kx * n..(kx + 1) * n]);
            let line = &mut self.spectrum[kx * grid..(kx + 1) * grid];
            let weights = &self.weights[kx * n..(kx + 1) * n];
            // f32 within a line, f64 across lines: the error is below 1e-7 of the sum.
            loss +=
                count * f64::from(compare(line, &self.ctf, weights, target, self.reach[kx], unitary, scale));
        }
        let stride = gradient.stride;
        self.grid_fft.inverse(
            &mut self.spectrum[..length],
            &mut gradient.pixels,
            stride,
            &mut self.grid_scratch,
        );
        loss / (n * n) as f64
    }
}
