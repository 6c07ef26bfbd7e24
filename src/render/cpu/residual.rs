//! From a rendered projection to the loss and its gradient: the CTF in its H^2 form (METHOD.md section 4).

use rustfft::num_complex::Complex;

use super::raster::Canvas;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch, frequency};
use crate::render::{Geometry, Sampling};

/// [`Sampling::transfer`] over the half plane of frequencies, `[kx][ky]` as [`Ctf::half_plane`]; empty where it is 1.
fn transfer(sampling: Sampling, box_size: usize) -> Vec<f32> {
    if sampling == Sampling::Points {
        return Vec::new();
    }
    let cycles = |i: usize| frequency(i, box_size) as f64 / box_size as f64;
    let line = |ix: usize| {
        (0..box_size).map(move |iy| sampling.transfer(cycles(ix).powi(2) + cycles(iy).powi(2)) as f32)
    };
    (0..=box_size / 2).flat_map(line).collect()
}

/// What one thread needs to filter images.
#[derive(Clone)]
pub struct Filter {
    fft: Fft2<f32>,
    scratch: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    ctf: Vec<f32>,
    /// What the spectrum of a sampled projection is multiplied by beside the CTF ([`Sampling::transfer`]); empty for 1.
    transfer: Vec<f32>,
    pixel_size: f64,
    box_size: usize,
}

impl Filter {
    /// For the images of a device.
    pub fn new(geometry: &Geometry) -> Self {
        let &Geometry { box_size, pixel_size, sampling, .. } = geometry;
        let fft = Fft2::new(box_size);
        Self {
            scratch: fft.scratch(),
            spectrum: vec![Complex::default(); fft.spectrum_len()],
            ctf: vec![0.0; fft.spectrum_len()],
            transfer: transfer(sampling, box_size),
            fft,
            pixel_size,
            box_size,
        }
    }

    /// Bytes of its buffers, without the plans of its transforms.
    pub fn bytes(&self) -> usize {
        self.scratch.bytes()
            + size_of_val(&self.spectrum[..])
            + size_of_val(&self.ctf[..])
            + size_of_val(&self.transfer[..])
    }

    /// Makes `self.ctf` what takes the spectrum of a sampled projection to that of its image: H, with what the sampling wants.
    fn effective_ctf(&mut self, ctf: &Ctf) {
        ctf.half_plane(self.box_size, self.pixel_size, &mut self.ctf);
        for (h, &t) in self.ctf.iter_mut().zip(&self.transfer) {
            *h *= t;
        }
    }

    /// Turns an observed image Y (`[y][x]`, box^2 values) into F^-1(H F Y), in place.
    pub fn prepare(&mut self, ctf: &Ctf, image: &mut [f32]) {
        self.effective_ctf(ctf);
        self.fft.forward(image, self.box_size, &mut self.spectrum, &mut self.scratch);
        for (value, &h) in self.spectrum.iter_mut().zip(&self.ctf) {
            *value *= h;
        }
        self.fft.inverse(&mut self.spectrum, image, self.box_size, &mut self.scratch);
    }

    /// Turns a sampled projection (box^2 values) into the projection itself, in place.
    pub fn sharpen(&mut self, image: &mut [f32]) {
        if !self.transfer.is_empty() {
            self.prepare(&Ctf::identity(), image);
        }
    }

    /// Given the rendered projection Q, the prepared `target` F^-1(H F Y) and the `energy` sum of Y^2: fills `gradient`
    /// with dL/dQ = 2/D^2 (F^-1(H^2 F Q) - target) and returns the loss of the image, the mean over its pixels of (X - Y)^2.
    pub fn residual(
        &mut self,
        ctf: &Ctf,
        projection: &Canvas,
        target: &[f32],
        energy: f64,
        gradient: &mut Canvas,
    ) -> f64 {
        let n = self.box_size;
        self.effective_ctf(ctf);
        self.fft.forward(&projection.pixels, projection.stride, &mut self.spectrum, &mut self.scratch);
        for (value, &h) in self.spectrum.iter_mut().zip(&self.ctf) {
            *value *= h * h;
        }
        let stride = gradient.stride;
        self.fft.inverse(&mut self.spectrum, &mut gradient.pixels, stride, &mut self.scratch);
        let pixels = (n * n) as f64;
        let scale = (2.0 / pixels) as f32;
        let mut loss = energy;
        for ((row, q), z) in
            gradient.pixels.chunks_exact_mut(stride).zip(projection.rows()).zip(target.chunks_exact(n))
        {
            // Single precision within a row, double from row to row: the error stays below 1e-7 of the sum.
            let mut sums = [0.0f32; 16];
            for ((g, &q), (k, &z)) in row[..n].iter_mut().zip(q).zip(z.iter().enumerate()) {
                let filtered = *g;
                sums[k % 16] += q * (filtered - 2.0 * z);
                *g = scale * (filtered - z);
            }
            loss += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
        }
        loss / pixels
    }
}
