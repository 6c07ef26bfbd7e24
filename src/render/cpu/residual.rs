//! From a rendered projection to the loss and its gradient: the CTF in its H^2 form (METHOD.md section 4).

use rustfft::num_complex::Complex;

use super::raster::Canvas;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch};

/// What one thread needs to filter images.
#[derive(Clone)]
pub struct Filter {
    fft: Fft2<f32>,
    scratch: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    ctf: Vec<f32>,
    pixel_size: f64,
    box_size: usize,
}

impl Filter {
    /// For images of `box_size` pixels of `pixel_size` angstrom.
    pub fn new(box_size: usize, pixel_size: f64) -> Self {
        let fft = Fft2::new(box_size);
        Self {
            scratch: fft.scratch(),
            spectrum: vec![Complex::default(); fft.spectrum_len()],
            ctf: vec![0.0; fft.spectrum_len()],
            fft,
            pixel_size,
            box_size,
        }
    }

    /// Bytes of its buffers, without the plans of its transforms.
    pub fn bytes(&self) -> usize {
        self.scratch.bytes() + size_of_val(&self.spectrum[..]) + size_of_val(&self.ctf[..])
    }

    /// Turns an observed image Y (`[y][x]`, box^2 values) into F^-1(H F Y), in place.
    pub fn prepare(&mut self, ctf: &Ctf, image: &mut [f32]) {
        ctf.half_plane(self.box_size, self.pixel_size, &mut self.ctf);
        self.fft.forward(image, self.box_size, &mut self.spectrum, &mut self.scratch);
        for (value, &h) in self.spectrum.iter_mut().zip(&self.ctf) {
            *value *= h;
        }
        self.fft.inverse(&mut self.spectrum, image, self.box_size, &mut self.scratch);
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
        ctf.half_plane(n, self.pixel_size, &mut self.ctf);
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
