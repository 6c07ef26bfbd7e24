//! From a rendered projection to the loss and its gradient, in Fourier space: the CTF in its H^2 form (docs/method.md, section 4).

use rustfft::num_complex::Complex;

use super::raster::Canvas;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch, squared_frequency};
use crate::render::Geometry;
use crate::simd::{Isa, vectorize};

/// A function of the squared frequency (cycles a pixel) over the half plane, `[kx][ky]` as [`Ctf::half_plane`].
fn half_plane(box_size: usize, of: impl Fn(f64) -> f64) -> Vec<f32> {
    let square = |i: usize| squared_frequency(i % box_size, box_size);
    (0..(box_size / 2 + 1) * box_size).map(|i| of(square(i / box_size) + square(i)) as f32).collect()
}

/// What one thread needs to filter images.
///
/// Targets are spectra: of an observed image Y the Hartley transform (real part less imaginary part of the Fourier transform) of
/// F^-1(H F Y), `[kx][ky]` in FFT order, divided by the box size, so that sums of squares are those of images. It has as many
/// numbers as the image, and no transform back is needed, ahead or in a step.
#[derive(Clone)]
pub struct Filter {
    /// Of images.
    fft: Fft2<f32>,
    scratch: Fft2Scratch<f32>,
    /// Of projections on their grid, as far as images have frequencies.
    grid_fft: Fft2<f32>,
    grid_scratch: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    /// A line of constant kx of what takes the spectrum of a sampled projection to that of its image.
    ctf: Vec<f32>,
    /// How far along ky anything counts, for each kx: whole vectors.
    reach: Vec<usize>,
    /// What takes the spectrum of a sampled projection to that of the projection ([`Geometry::transfer`]).
    transfer: Vec<f32>,
    /// How much each frequency counts ([`Weights`](crate::render::Weights)).
    weights: Vec<f32>,
    pixel_size: f64,
    box_size: usize,
    /// Points along an edge of the grid of projections.
    grid: usize,
}

vectorize! {
    /// In a line of constant kx of the spectrum of projections Q, with `ctf` what takes it to that of their images: makes it that of
    /// the gradient, and returns the line's part of <Q, H^2 Q - 2 Z>. The targets Z are given at kx and at -kx; nothing counts
    /// beyond `reach` along ky.
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

/// Values that are compared side by side.
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
    // Frequencies above zero, then those below it; the Nyquist frequency of an even number of points is one of them only.
    let below = reach.min((grid - 1) / 2);
    line[1 + reach..grid - below].fill(Complex::default());
    for (count, at, from) in [(reach, 1, 1), (below, grid - below, n - below)] {
        let line = &mut line[at..at + count];
        let (ctf, weights, here) =
            (&ctf[from..from + count], &weights[from..from + count], &here[from..from + count]);
        // Backwards, because the opposite of the first is the last.
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
    /// For the images of a device.
    pub fn new(geometry: &Geometry) -> Self {
        let &Geometry { box_size, pixel_size, weights, .. } = geometry;
        let grid = geometry.grid();
        let fft = Fft2::new(box_size);
        // On a finer grid the images' Nyquist frequency does not count: what is one frequency among pixels is two there.
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

    /// Bytes of its buffers, without the plans of its transforms.
    pub fn bytes(&self) -> usize {
        let numbers = [&self.ctf, &self.transfer, &self.weights];
        self.scratch.bytes()
            + self.grid_scratch.bytes()
            + size_of_val(&self.spectrum[..])
            + numbers.map(|numbers| size_of_val(&numbers[..])).iter().sum::<usize>()
    }

    /// Makes `self.ctf` the line of `kx` of what takes the spectrum of a sampled projection to that of its image: H, with what
    /// the sampling wants.
    fn effective_ctf(&mut self, ctf: &Ctf, kx: usize) {
        let (n, reach) = (self.box_size, self.reach[kx]);
        ctf.half_plane_line(kx, self.pixel_size, reach, &mut self.ctf);
        for (h, &t) in self.ctf.iter_mut().zip(&self.transfer[kx * n..]) {
            *h *= t;
        }
        self.ctf[1 + reach..(n - reach).max(1 + reach)].fill(0.0);
    }

    /// Transforms a sampled projection (rows `stride` values apart), and returns what takes its spectrum to that of the
    /// same projection on the pixels.
    fn transform(&mut self, projection: &[f32], stride: usize) -> f64 {
        let length = self.grid_fft.spectrum_len();
        self.grid_fft.forward(projection, stride, &mut self.spectrum[..length], &mut self.grid_scratch);
        (self.box_size as f64 / self.grid as f64).powi(2)
    }

    /// What is seen with this CTF of a sampled projection (rows `stride` values apart): `image`, `[y][x]`.
    pub fn image(&mut self, ctf: &Ctf, projection: &[f32], stride: usize, image: &mut [f32]) {
        let (n, grid) = (self.box_size, self.grid);
        let scale = self.transform(projection, stride) as f32;
        let mut of_image = vec![Complex::default(); self.fft.spectrum_len()];
        let columns = self.grid_fft.spectrum_len() / grid;
        for (kx, out) in of_image.chunks_exact_mut(n).enumerate().take(columns) {
            self.effective_ctf(ctf, kx);
            let line = &self.spectrum[kx * grid..(kx + 1) * grid];
            // The same frequencies, in the order of the image's.
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
            // Of a real image the value at -k is the conjugate of that at k.
            let opposite = (n - kx) % n * n;
            for (ky, value) in line.iter().enumerate() {
                image[opposite + (n - ky) % n] = value.re + value.im;
            }
            for (to, value) in image[kx * n..(kx + 1) * n].iter_mut().zip(line) {
                *to = value.re - value.im;
            }
        }
    }

    /// Given the rendered projection Q, the `target` of an observed image Y and the `energy` sum of Y^2: fills `gradient` with
    /// dL/dQ, where L is the mean over the pixels of (X - Y)^2 with each frequency counted by its weight: 2/D^2 F^-1(w (H^2 F Q
    /// - H F Y)). Returns the loss of the image, which is that mean without weights.
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
        // The spectrum is that of a transform without a factor, the target's has 1/D, and the inverse divides by the grid's points.
        let (unitary, scale) = ((to_pixels / n as f64) as f32, 2.0 / n as f32);
        let length = self.grid_fft.spectrum_len();
        let mut loss = energy;
        for kx in 0..length / grid {
            self.effective_ctf(ctf, kx);
            let opposite = (n - kx) % n;
            // Half of the plane stands for all of it.
            let count = if opposite == kx { 1.0 } else { 2.0 };
            let target = [kx, opposite].map(|kx| &target[kx * n..(kx + 1) * n]);
            let line = &mut self.spectrum[kx * grid..(kx + 1) * grid];
            let weights = &self.weights[kx * n..(kx + 1) * n];
            // Single precision within a line, double from line to line: the error stays below 1e-7 of the sum.
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
