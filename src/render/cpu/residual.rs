//! Loss of a projection and its gradient, in Fourier space: the H^2 form of the CTF (docs/method.md, section 4).

use rustfft::num_complex::Complex;

use super::raster::Canvas;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch, squared_frequency};
use crate::render::{Geometry, ImageSums, Observation};
use crate::simd::{Isa, vectorize};

/// A function of the squared frequency (cycles per pixel) on the half plane, `[kx][ky]` as [`Ctf::half_plane`].
fn half_plane(box_size: usize, of: impl Fn(f64) -> f64) -> Vec<f32> {
    let square = |i: usize| squared_frequency(i % box_size, box_size);
    (0..(box_size / 2 + 1) * box_size).map(|i| of(square(i / box_size) + square(i)) as f32).collect()
}

/// Weights of frequencies on the half plane, `[kx][ky]` as [`Ctf::half_plane`], for the images of one noise group.
pub struct GroupWeights {
    /// The noise weights.
    noise: Vec<f32>,
    /// Times the [`Weights`](crate::render::Weights) of the geometry: those of a step.
    step: Vec<f32>,
}

impl GroupWeights {
    /// The weights of a group from its noise weights by shell, of which there is at least one.
    pub fn new(geometry: &Geometry, noise: &[f32]) -> Self {
        let n = geometry.box_size;
        let shell = |k2: f64| (k2.sqrt() * n as f64).round() as usize;
        let noise = half_plane(n, |k2| f64::from(noise[shell(k2).min(noise.len() - 1)]));
        let weights = half_plane(n, |k2| geometry.weights.at(k2));
        Self { step: noise.iter().zip(weights).map(|(noise, weight)| noise * weight).collect(), noise }
    }

    /// The noise weights on the half plane.
    pub fn noise(&self) -> &[f32] {
        &self.noise
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.noise[..]) + size_of_val(&self.step[..])
    }
}

/// Filters images, with the buffers of one thread.
///
/// Targets are spectra: the Hartley transform (real part less imaginary part of the Fourier transform) of an observed image,
/// `[kx][ky]` in FFT order, divided by the box size, which preserves sums of squares. It has as many values as the image, and needs
/// no inverse transform.
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
    /// Factor of a target on that line, where the observed image is multiplied by its CTF already.
    multiplied: Vec<f32>,
    /// Largest |ky| with a transfer above zero, for each kx, rounded up to [`UNROLL`].
    reach: Vec<usize>,
    /// [`Geometry::transfer`] on the half plane.
    transfer: Vec<f32>,
    pixel_size: f64,
    box_size: usize,
    /// Points along an edge of the grid of projections.
    grid: usize,
}

/// Factors of all lines of an image.
struct LineFactors {
    /// From the spectrum of the projection to the unitary one.
    unitary: f32,
    /// From the difference of the spectra to the gradient.
    scale: f32,
}

vectorize! {
    /// Replaces a line of constant kx of the spectrum of a projection Q by that of the gradient. Returns the contribution of the line
    /// to <Q, H^2 Q - 2 m Y>. `ctf` is the effective CTF H times the contrast, `of_target` the factor m of the spectrum of the image
    /// (H, or less the CTF itself), `target` the lines of Y at kx and -kx; frequencies beyond `reach` along ky are zero.
    fn compare(
        line: &mut [Complex<f32>],
        ctf: &[f32],
        of_target: &[f32],
        weights: &[f32],
        target: [&[f32]; 2],
        reach: usize,
        factors: &LineFactors,
    ) -> f32 = compare_lanes
}

/// Independent sums per loop iteration.
const UNROLL: usize = 16;

#[inline(always)]
fn compare_lanes<I: Isa>(
    line: &mut [Complex<f32>],
    ctf: &[f32],
    of_target: &[f32],
    weights: &[f32],
    [here, there]: [&[f32]; 2],
    reach: usize,
    factors: &LineFactors,
) -> f32 {
    let (n, grid) = (ctf.len(), line.len());
    let &LineFactors { unitary, scale } = factors;
    let one = |value: &mut Complex<f32>, [h, m, w]: [f32; 3], here: f32, there: f32| {
        let half = 0.5 * m;
        let z = Complex::new(half * (there + here), half * (there - here));
        let q = *value * unitary;
        let filtered = q * (h * h);
        let twice = filtered - z - z;
        *value = (filtered - z) * (w * scale);
        q.re * twice.re + q.im * twice.im
    };
    let mut sums = [0.0; UNROLL];
    sums[0] += one(&mut line[0], [ctf[0], of_target[0], weights[0]], here[0], there[0]);
    // Positive, then negative frequencies; the Nyquist frequency of an even grid is only among the positive ones.
    let below = reach.min((grid - 1) / 2);
    line[1 + reach..grid - below].fill(Complex::default());
    for (count, at, from) in [(reach, 1, 1), (below, grid - below, n - below)] {
        let line = &mut line[at..at + count];
        let [ctf, of_target, weights, here] =
            [ctf, of_target, weights, here].map(|values| &values[from..from + count]);
        // In reverse order: the opposite of the first is the last.
        let there = &there[n + 1 - from - count..n + 1 - from];
        let mut k = 0;
        while k + UNROLL <= count {
            let next = k..k + UNROLL;
            let values = &mut line[next.clone()];
            let [ctf, of_target, weights] = [ctf, of_target, weights].map(|values| &values[next.clone()]);
            let (here, there) = (&here[next], &there[count - k - UNROLL..count - k]);
            for i in 0..UNROLL {
                let factors = [ctf[i], of_target[i], weights[i]];
                sums[i] += one(&mut values[i], factors, here[i], there[UNROLL - 1 - i]);
            }
            k += UNROLL;
        }
        for k in k..count {
            let factors = [ctf[k], of_target[k], weights[k]];
            sums[0] += one(&mut line[k], factors, here[k], there[count - 1 - k]);
        }
    }
    sums.iter().sum()
}

impl Filter {
    /// The filter for the images of a device.
    pub fn new(geometry: &Geometry) -> Self {
        let &Geometry { box_size, pixel_size, .. } = geometry;
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
            multiplied: vec![0.0; box_size],
            reach: reach.collect(),
            transfer,
            fft,
            grid_fft,
            pixel_size,
            box_size,
            grid,
        }
    }

    /// Size of the buffers in bytes, without the plans of the transforms.
    pub fn bytes(&self) -> usize {
        let numbers = [&self.ctf, &self.multiplied, &self.transfer];
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
    pub fn prepare(&mut self, image: &mut [f32]) {
        let n = self.box_size;
        let length = self.fft.spectrum_len();
        self.fft.forward(image, n, &mut self.spectrum[..length], &mut self.scratch);
        let scale = 1.0 / n as f32;
        for kx in 0..=n / 2 {
            let line = &mut self.spectrum[kx * n..(kx + 1) * n];
            line.iter_mut().for_each(|value| *value *= scale);
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

    /// Fills `gradient` with dL/dQ = 2 c/D^2 F^-1(w (a^2 H^2 F Q - a H F Y)), from the projection Q and the `target` of an observed
    /// image Y of contrast a and weight c. L is c times the mean of w (X - Y)^2, X = a H F Q, over the pixels with frequencies weighted
    /// by `weights`. Returns that mean without any weights.
    pub fn residual(
        &mut self,
        observation: &Observation,
        weights: &GroupWeights,
        projection: &Canvas,
        target: &[f32],
        gradient: &mut Canvas,
    ) -> f64 {
        let (n, grid) = (self.box_size, self.grid);
        let to_pixels = self.transform(&projection.pixels, projection.stride);
        let contrast = observation.contrast as f32;
        // The forward transform has no factor, the target has 1/D, and the inverse divides by the number of grid points.
        let unitary = (to_pixels / n as f64) as f32;
        let scale = observation.weight as f32 * (2.0 / n as f32);
        let factors = LineFactors { unitary, scale };
        let premultiplied = observation.view.ctf.coefficients().premultiplied;
        let length = self.grid_fft.spectrum_len();
        let mut loss = observation.energy;
        for kx in 0..length / grid {
            self.effective_ctf(&observation.view.ctf, kx);
            if contrast != 1.0 {
                self.ctf.iter_mut().for_each(|h| *h *= contrast);
            }
            if premultiplied {
                let transfer = &self.transfer[kx * n..(kx + 1) * n];
                self.multiplied.iter_mut().zip(transfer).for_each(|(m, t)| *m = t * contrast);
            }
            let of_target = if premultiplied { &self.multiplied } else { &self.ctf };
            let (lines, count) = self.lines_of(target, kx);
            let line = &mut self.spectrum[kx * grid..(kx + 1) * grid];
            let weights = &weights.step[kx * n..(kx + 1) * n];
            // f32 within a line, f64 across lines: the error is below 1e-7 of the sum.
            let reach = self.reach[kx];
            loss += count * f64::from(compare(line, &self.ctf, of_target, weights, lines, reach, &factors));
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

    /// The lines of a target at kx and -kx, and how often the line counts: twice, but for kx = 0 and Nyquist.
    fn lines_of<'a>(&self, target: &'a [f32], kx: usize) -> ([&'a [f32]; 2], f64) {
        let n = self.box_size;
        let opposite = (n - kx) % n;
        ([kx, opposite].map(|kx| &target[kx * n..(kx + 1) * n]), if opposite == kx { 1.0 } else { 2.0 })
    }

    /// <X, X>_w and <X, Y>_w of X = H F Q, from the projection Q and the `target` of an observed image Y, with the noise weights w.
    pub fn sums(
        &mut self,
        ctf: &Ctf,
        weights: &GroupWeights,
        projection: &Canvas,
        target: &[f32],
    ) -> ImageSums {
        let (n, grid) = (self.box_size, self.grid);
        let unitary = self.transform(&projection.pixels, projection.stride) / n as f64;
        let premultiplied = ctf.coefficients().premultiplied;
        let (mut power, mut overlap) = (0.0, 0.0);
        for kx in 0..self.grid_fft.spectrum_len() / grid {
            self.effective_ctf(ctf, kx);
            let ([here, there], count) = self.lines_of(target, kx);
            let line = &self.spectrum[kx * grid..(kx + 1) * grid];
            // The frequencies of the image, in FFT order.
            let values = line[..n - n / 2].iter().chain(&line[grid - n / 2..]);
            for (ky, q) in values.enumerate() {
                let [re, im] = [q.re, q.im].map(|part| f64::from(part) * unitary);
                let [h, t, w] =
                    [self.ctf[ky], self.transfer[kx * n + ky], weights.noise[kx * n + ky]].map(f64::from);
                let m = if premultiplied { t } else { h };
                let [here, there] = [here[ky], there[(n - ky) % n]].map(f64::from);
                power += count * w * h * h * (re * re + im * im);
                overlap += count * w * m * 0.5 * (re * (there + here) + im * (there - here));
            }
        }
        ImageSums { power, overlap }
    }
}
