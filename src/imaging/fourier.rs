//! Fourier transforms of real images and volumes, based on `rustfft`.
//!
//! Spectra of images are stored transposed, `spectrum[kx * box + ky]`: kx in 0..=box/2, ky in FFT order (0, 1, ..., -1),
//! so that the second pass of the transform, along ky, is contiguous.
//! Forward transforms are unnormalised; inverse transforms divide by the number of pixels.
//! The origin of an image is pixel floor(box/2) (docs/method.md, section 1). A real and even filter needs no re-centring, and
//! [`shift_phase`] is the factor that moves an image.

use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftNum, FftPlanner};

/// 2-D transforms of real square images of one box size, with all or only low frequencies along x. Cheap to clone; shared
/// between threads.
///
/// Along x, two real rows are transformed as the real and imaginary part of one complex row.
#[derive(Clone)]
pub struct Fft2<T: FftNum> {
    box_size: usize,
    columns: usize,
    forward: Arc<dyn Fft<T>>,
    inverse: Arc<dyn Fft<T>>,
}

/// Working memory of one thread for an [`Fft2`].
#[derive(Clone, Debug)]
pub struct Fft2Scratch<T> {
    /// Pairs of rows.
    pairs: Vec<Complex<T>>,
    work: Vec<Complex<T>>,
}

impl<T> Fft2Scratch<T> {
    /// Size of the buffers in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.pairs[..]) + size_of_val(&self.work[..])
    }
}

impl<T: FftNum> Fft2<T> {
    /// Plans transforms of images of `box_size` x `box_size` pixels.
    ///
    /// # Panics
    /// If `box_size` is 0.
    pub fn new(box_size: usize) -> Self {
        Self::band(box_size, box_size / 2 + 1)
    }

    /// Plans transforms with the frequencies 0 to `columns` - 1 along x only. Inverse transforms take all others as 0.
    ///
    /// # Panics
    /// If `box_size` is 0, or `columns` is more than the number of frequencies.
    pub fn band(box_size: usize, columns: usize) -> Self {
        assert!(box_size > 0, "an image has at least one pixel");
        assert!((1..=box_size / 2 + 1).contains(&columns), "an image has frequencies up to half its box");
        let mut planner = FftPlanner::new();
        Self {
            box_size,
            columns,
            forward: planner.plan_fft_forward(box_size),
            inverse: planner.plan_fft_inverse(box_size),
        }
    }

    /// Number of values in a spectrum: `columns * box`, or `(box/2 + 1) * box` with all frequencies.
    pub fn spectrum_len(&self) -> usize {
        self.columns * self.box_size
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> Fft2Scratch<T> {
        let zero = Complex::new(T::zero(), T::zero());
        let work = self.forward.get_inplace_scratch_len().max(self.inverse.get_inplace_scratch_len());
        Fft2Scratch { pairs: vec![zero; self.box_size.div_ceil(2) * self.box_size], work: vec![zero; work] }
    }

    /// Transforms `image` (box rows at a distance of `stride` values) to `spectrum`.
    ///
    /// # Panics
    /// If a slice is too short for the box size.
    pub fn forward(
        &self,
        image: &[T],
        stride: usize,
        spectrum: &mut [Complex<T>],
        scratch: &mut Fft2Scratch<T>,
    ) {
        let n = self.box_size;
        assert_eq!(spectrum.len(), self.spectrum_len());
        let image = &image[..(n - 1) * stride + n];
        let Fft2Scratch { pairs, work } = scratch;
        // Halving is exact. The sums and differences that separate two rows give twice their spectra.
        let half = T::from_f64(0.5).expect("a half is a number");
        for (pair, rows) in pairs.chunks_exact_mut(n).zip(image.chunks(2 * stride)) {
            match rows.get(stride..stride + n) {
                Some(odd) => {
                    for ((value, &even), &odd) in pair.iter_mut().zip(rows).zip(odd) {
                        *value = Complex::new(even * half, odd * half);
                    }
                }
                None => {
                    for (value, &even) in pair.iter_mut().zip(rows) {
                        *value = Complex::new(even * half, T::zero());
                    }
                }
            }
        }
        self.forward.process_with_scratch(pairs, work);
        self.separate(pairs, spectrum);
        self.forward.process_with_scratch(spectrum, work);
    }

    /// Transforms `spectrum`, which is overwritten, to `image` (box rows at a distance of `stride` values), divided by box^2.
    ///
    /// Parts that are zero in a Hermitian spectrum (imaginary parts at kx = 0 and at Nyquist) are ignored.
    ///
    /// # Panics
    /// If a slice is too short for the box size.
    pub fn inverse(
        &self,
        spectrum: &mut [Complex<T>],
        image: &mut [T],
        stride: usize,
        scratch: &mut Fft2Scratch<T>,
    ) {
        let n = self.box_size;
        assert_eq!(spectrum.len(), self.spectrum_len());
        let image = &mut image[..(n - 1) * stride + n];
        let Fft2Scratch { pairs, work } = scratch;
        self.inverse.process_with_scratch(spectrum, work);
        self.combine(spectrum, pairs);
        self.inverse.process_with_scratch(pairs, work);
        let scale = T::one() / T::from_usize(n * n).expect("a box size is a small number");
        for (pair, rows) in pairs.chunks_exact(n).zip(image.chunks_mut(2 * stride)) {
            let (even, odd) = rows.split_at_mut(stride.min(rows.len()));
            for (to, value) in even.iter_mut().zip(pair) {
                *to = value.re * scale;
            }
            for (to, value) in odd.iter_mut().zip(pair) {
                *to = value.im * scale;
            }
        }
    }

    /// Separates the spectra of pairs of rows into those of the rows, `[kx][y]`.
    fn separate(&self, pairs: &[Complex<T>], spectrum: &mut [Complex<T>]) {
        let n = self.box_size;
        for (columns, rows) in blocks(self.columns, n.div_ceil(2)) {
            for kx in columns {
                let opposite = (n - kx) % n;
                let line = &mut spectrum[kx * n..(kx + 1) * n];
                for j in rows.clone() {
                    let (z, w) = (pairs[j * n + kx], pairs[j * n + opposite]);
                    line[2 * j] = Complex::new(z.re + w.re, z.im - w.im);
                    if let Some(odd) = line.get_mut(2 * j + 1) {
                        *odd = Complex::new(z.im + w.im, w.re - z.re);
                    }
                }
            }
        }
    }

    /// The inverse of [`Fft2::separate`].
    fn combine(&self, spectrum: &[Complex<T>], pairs: &mut [Complex<T>]) {
        let (n, columns) = (self.box_size, self.columns);
        let zero = Complex::new(T::zero(), T::zero());
        for pair in pairs.chunks_exact_mut(n) {
            pair[columns..(n + 1 - columns).max(columns)].fill(zero);
        }
        for (columns, rows) in blocks(columns, n.div_ceil(2)) {
            for kx in columns {
                let opposite = (n - kx) % n;
                let line = &spectrum[kx * n..(kx + 1) * n];
                for j in rows.clone() {
                    let (a, b) = (line[2 * j], line.get(2 * j + 1).copied().unwrap_or(zero));
                    if opposite == kx {
                        pairs[j * n + kx] = Complex::new(a.re, b.re);
                    } else {
                        pairs[j * n + kx] = Complex::new(a.re - b.im, a.im + b.re);
                        pairs[j * n + opposite] = Complex::new(a.re + b.im, b.re - a.im);
                    }
                }
            }
        }
    }
}

/// Blocks of columns and rows that fit in the cache.
fn blocks(columns: usize, rows: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    const BLOCK: usize = 16;
    let parts = |count: usize| (0..count).step_by(BLOCK).map(move |at| at..(at + BLOCK).min(count));
    parts(rows).flat_map(move |rows| parts(columns).map(move |columns| (columns, rows.clone())))
}

/// `output[column * rows + row] = input[row * columns + column]`, block by block.
fn transpose<T: Copy>(input: &[T], output: &mut [T], rows: usize, columns: usize) {
    for (columns_here, rows_here) in blocks(columns, rows) {
        for c in columns_here {
            for r in rows_here.clone() {
                output[c * rows + r] = input[r * columns + c];
            }
        }
    }
}

/// The signed frequency of FFT index `i` of `n`: 0, 1, ..., -1 (n/2 of an even n is -n/2).
pub fn frequency(i: usize, n: usize) -> isize {
    if 2 * i < n { i as isize } else { i as isize - n as isize }
}

/// The squared frequency of FFT index `i` of `n`, in (cycles per pixel)^2. The sum over the axes is that of an image frequency.
pub fn squared_frequency(i: usize, n: usize) -> f64 {
    (frequency(i, n) as f64 / n as f64).powi(2)
}

/// The square `image` of `box_size` pixels along each edge after a Gaussian low-pass filter that is one half at a resolution of `half_at`
/// pixels.
pub fn low_passed(image: &[f32], box_size: usize, half_at: f64) -> Vec<f32> {
    let fft = Fft2::<f32>::new(box_size);
    let mut scratch = fft.scratch();
    let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
    fft.forward(image, box_size, &mut spectrum, &mut scratch);
    let exponent = std::f64::consts::LN_2 * (half_at / box_size as f64).powi(2);
    for (i, value) in spectrum.iter_mut().enumerate() {
        let (kx, ky) = ((i / box_size) as f64, frequency(i % box_size, box_size) as f64);
        *value *= (-exponent * (kx * kx + ky * ky)).exp() as f32;
    }
    let mut smooth = vec![0.0; image.len()];
    fft.inverse(&mut spectrum, &mut smooth, box_size, &mut scratch);
    smooth
}

/// The factor that moves an image by (+dx, +dy) pixels, at frequency (kx, ky) in cycles per box of `box_size` pixels.
pub fn shift_phase(kx: isize, ky: isize, dx: f64, dy: f64, box_size: usize) -> Complex<f64> {
    let turns = (kx as f64 * dx + ky as f64 * dy) / box_size as f64;
    Complex::from_polar(1.0, -TAU * turns)
}

/// Transforms a cubic complex volume `[z][y][x]` in place along all three axes; `inverse` divides by the number of voxels.
///
/// # Panics
/// If the volume is not cubic.
pub fn fft3<T: FftNum>(volume: &mut Array3<Complex<T>>, inverse: bool) {
    let (n, ny, nx) = volume.dim();
    assert!(n == ny && n == nx, "fft3 takes a cube");
    let mut planner = FftPlanner::new();
    let plan = if inverse { planner.plan_fft_inverse(n) } else { planner.plan_fft_forward(n) };
    let zero = Complex::new(T::zero(), T::zero());
    let scratch_len = plan.get_inplace_scratch_len();
    let data = volume.as_slice_mut().expect("a volume in standard layout");

    // x, then y within each z plane.
    data.par_chunks_exact_mut(n * n).for_each_init(
        || (vec![zero; n * n], vec![zero; scratch_len]),
        |(plane, scratch), slab| {
            plan.process_with_scratch(slab, scratch);
            transpose(slab, plane, n, n);
            plan.process_with_scratch(plane, scratch);
            transpose(plane, slab, n, n);
        },
    );
    // z: for each y, gather the columns, transform, scatter.
    let mut turned = vec![zero; data.len()];
    turned.par_chunks_exact_mut(n * n).enumerate().for_each_init(
        || vec![zero; scratch_len],
        |scratch, (y, columns)| {
            for z in 0..n {
                for x in 0..n {
                    columns[x * n + z] = data[(z * n + y) * n + x];
                }
            }
            plan.process_with_scratch(columns, scratch);
        },
    );
    let scale = if inverse {
        T::one() / T::from_usize(n * n * n).expect("a box size is a small number")
    } else {
        T::one()
    };
    data.par_chunks_exact_mut(n * n).enumerate().for_each(|(z, slab)| {
        for (y, line) in slab.chunks_exact_mut(n).enumerate() {
            for (x, value) in line.iter_mut().enumerate() {
                *value = turned[(y * n + x) * n + z] * scale;
            }
        }
    });
}

/// The complex spectrum of a real cubic volume `[z][y][x]`, in FFT order on all axes, origin at voxel floor(box/2).
pub fn spectrum_of_volume(volume: &Array3<f32>) -> Array3<Complex<f64>> {
    let n = volume.dim().0;
    let half = n / 2;
    let mut spectrum = Array3::from_shape_fn(volume.dim(), |(z, y, x)| {
        Complex::new(f64::from(volume[[(z + half) % n, (y + half) % n, (x + half) % n]]), 0.0)
    });
    fft3(&mut spectrum, false);
    spectrum
}

/// The inverse of [`spectrum_of_volume`]. Discards imaginary parts.
pub fn volume_of_spectrum(mut spectrum: Array3<Complex<f64>>) -> Array3<f32> {
    fft3(&mut spectrum, true);
    let n = spectrum.dim().0;
    let half = n / 2;
    Array3::from_shape_fn((n, n, n), |(z, y, x)| {
        spectrum[[(z + n - half) % n, (y + n - half) % n, (x + n - half) % n]].re as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: usize, stride: usize) -> Vec<f64> {
        (0..n * stride).map(|i| ((i * 37 % 101) as f64 * 0.13).sin()).collect()
    }

    #[test]
    fn forward_is_the_discrete_transform_and_inverse_undoes_it() {
        for n in [6, 7] {
            let stride = n + 2;
            let original = image(n, stride);
            let fft = Fft2::<f64>::new(n);
            let mut scratch = fft.scratch();
            let mut spectrum = vec![Complex::new(0.0, 0.0); fft.spectrum_len()];
            fft.forward(&original, stride, &mut spectrum, &mut scratch);
            for kx in 0..=n / 2 {
                for ky in 0..n {
                    let mut sum = Complex::new(0.0, 0.0);
                    for y in 0..n {
                        for x in 0..n {
                            let angle = -TAU * (kx * x + ky * y) as f64 / n as f64;
                            sum += Complex::from_polar(original[y * stride + x], angle);
                        }
                    }
                    assert!((spectrum[kx * n + ky] - sum).norm() < 1e-10);
                }
            }
            let mut back = vec![0.0; original.len()];
            fft.inverse(&mut spectrum, &mut back, stride, &mut scratch);
            for y in 0..n {
                for x in 0..n {
                    assert!((back[y * stride + x] - original[y * stride + x]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_band_equals_the_low_frequencies_of_the_full_transform() {
        let (n, columns) = (10, 4);
        let original = image(n, n);
        let whole = Fft2::<f64>::new(n);
        let band = Fft2::<f64>::band(n, columns);
        let spectrum_of = |fft: &Fft2<f64>| {
            let mut spectrum = vec![Complex::new(0.0, 0.0); fft.spectrum_len()];
            fft.forward(&original, n, &mut spectrum, &mut fft.scratch());
            spectrum
        };
        let (mut all, mut low) = (spectrum_of(&whole), spectrum_of(&band));
        assert_eq!(low, all[..columns * n]);
        all[columns * n..].fill(Complex::new(0.0, 0.0));
        let (mut want, mut got) = (vec![0.0; n * n], vec![0.0; n * n]);
        let mut scratch = band.scratch();
        // Values left by an earlier transform have no effect.
        band.forward(&original, n, &mut vec![Complex::new(0.0, 0.0); columns * n], &mut scratch);
        whole.inverse(&mut all, &mut want, n, &mut whole.scratch());
        band.inverse(&mut low, &mut got, n, &mut scratch);
        assert_eq!(got, want);
    }

    #[test]
    fn a_phase_moves_an_image_by_plus_its_shift() {
        let n = 8;
        let fft = Fft2::<f64>::new(n);
        let mut scratch = fft.scratch();
        let mut spike = vec![0.0; n * n];
        spike[3 * n + 2] = 1.0;
        let mut spectrum = vec![Complex::new(0.0, 0.0); fft.spectrum_len()];
        fft.forward(&spike, n, &mut spectrum, &mut scratch);
        for kx in 0..=n / 2 {
            for ky in 0..n {
                spectrum[kx * n + ky] *= shift_phase(kx as isize, frequency(ky, n), 2.0, 1.0, n);
            }
        }
        fft.inverse(&mut spectrum, &mut spike, n, &mut scratch);
        assert!((spike[4 * n + 4] - 1.0).abs() < 1e-12, "y 3 + 1, x 2 + 2");
    }

    #[test]
    fn a_volume_survives_the_round_trip_and_its_centre_has_no_phase() {
        for n in [4, 5] {
            let mut volume = Array3::<f32>::zeros((n, n, n));
            volume[[n / 2, n / 2, n / 2]] = 1.0;
            let spectrum = spectrum_of_volume(&volume);
            assert!(spectrum.iter().all(|v| (v - Complex::new(1.0, 0.0)).norm() < 1e-12));
            volume[[1, 2, 3]] = 2.5;
            let back = volume_of_spectrum(spectrum_of_volume(&volume));
            assert!(volume.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn fft3_distinguishes_the_axes() {
        let n = 6;
        let (kz, ky, kx) = (1usize, 2usize, 4usize);
        let mut wave = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            Complex::from_polar(1.0, TAU * (kz * z + ky * y + kx * x) as f64 / n as f64)
        });
        fft3(&mut wave, false);
        assert!((wave[[kz, ky, kx]].re - (n * n * n) as f64).abs() < 1e-9);
    }
}
