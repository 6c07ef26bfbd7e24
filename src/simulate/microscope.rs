//! Noise-free images: a central slice, shifted and multiplied by the CTF.

use ndarray::Array3;
use rustfft::num_complex::Complex;

use crate::error::Result;
use crate::imaging::aberration::OddAberration;
use crate::imaging::ctf::{Ctf, Optics};
use crate::imaging::fourier::{self, Fft2, Fft2Scratch};
use crate::imaging::pose::Rotation;
use crate::imaging::projection::Projector;
use crate::memory;

/// Memory for each voxel of a map that is projected, in bytes: mostly its padded transform.
const BYTES_PER_VOXEL: u128 = 140;

/// Computes noise-free images of one map. Can be shared between threads.
pub struct Microscope {
    projector: Projector,
    fft: Fft2<f32>,
    pixel_size: f64,
    /// Phase factors of the odd aberration on the half plane; empty without one.
    odd: Vec<Complex<f32>>,
}

/// Working memory of one thread for a [`Microscope`].
pub struct MicroscopeScratch {
    spectrum: Vec<Complex<f32>>,
    ctf: Vec<f32>,
    fft: Fft2Scratch<f32>,
}

impl Microscope {
    /// Checks that `count` maps of `box_size` voxels along each edge can be projected in the free memory.
    ///
    /// # Errors
    /// When they cannot.
    pub(super) fn check_memory(box_size: usize, count: u128) -> Result<()> {
        memory::require(
            count * BYTES_PER_VOXEL * (box_size as u128).pow(3),
            || format!("projecting a map of {box_size} voxels along each edge"),
            "choose a smaller --box, or use a machine with more memory",
        )
    }

    /// A microscope for `map` with pixels of `pixel_size` angstrom.
    pub fn new(map: &Array3<f32>, pixel_size: f64) -> Self {
        let projector = Projector::new(map);
        let fft = Fft2::new(projector.box_size());
        Self { projector, fft, pixel_size, odd: Vec::new() }
    }

    /// Gives its images an odd aberration.
    pub fn with_odd_aberration(mut self, odd: &OddAberration) -> Self {
        self.odd = odd.factors(self.projector.box_size(), self.pixel_size, &Optics::ISOTROPIC);
        self
    }

    /// True if its images have an odd aberration.
    pub fn has_odd_aberration(&self) -> bool {
        !self.odd.is_empty()
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> MicroscopeScratch {
        let length = self.fft.spectrum_len();
        MicroscopeScratch {
            spectrum: vec![Complex::new(0.0, 0.0); length],
            ctf: vec![0.0; length],
            fft: self.fft.scratch(),
        }
    }

    /// The noise-free image `[y][x]` of a particle, multiplied by `ctf` in Fourier space. The centre of the particle is at MINUS
    /// `shift` pixels (x, y) from the origin, so that shifting the image by plus `shift` centres it (docs/method.md, section 1).
    ///
    /// # Panics
    /// If `image` does not have box^2 values.
    pub fn image(
        &self,
        rotation: &Rotation,
        shift: [f64; 2],
        ctf: &Ctf,
        image: &mut [f32],
        scratch: &mut MicroscopeScratch,
    ) {
        let n = self.projector.box_size();
        let middle = (n / 2) as f64;
        self.projector.slice(rotation, [middle - shift[0], middle - shift[1]], &mut scratch.spectrum);
        ctf.half_plane(n, self.pixel_size, &mut scratch.ctf);
        scratch.spectrum.iter_mut().zip(&scratch.ctf).for_each(|(value, h)| *value *= h);
        scratch.spectrum.iter_mut().zip(&self.odd).for_each(|(value, factor)| *value *= factor);
        self.fft.inverse(&mut scratch.spectrum, image, n, &mut scratch.fft);
    }

    /// Shifts an image by plus `shift` pixels (x, y) and takes its odd aberration back, as an import does.
    ///
    /// On the Nyquist lines of an even box only the real part of the phase factor is used: the sine at Nyquist is zero on the grid.
    ///
    /// # Panics
    /// If `image` does not have box^2 values.
    pub fn centre(&self, shift: [f64; 2], image: &mut [f32], scratch: &mut MicroscopeScratch) {
        let n = self.projector.box_size();
        self.fft.forward(image, n, &mut scratch.spectrum, &mut scratch.fft);
        let factors = |offset: f64| -> Vec<Complex<f64>> {
            let one = |i| match fourier::shift_phase(0, fourier::frequency(i, n), 0.0, offset, n) {
                phase if 2 * i == n => Complex::new(phase.re, 0.0),
                phase => phase,
            };
            (0..n).map(one).collect()
        };
        let (along_x, along_y) = (factors(shift[0]), factors(shift[1]));
        for (line, x) in scratch.spectrum.chunks_exact_mut(n).zip(&along_x) {
            for (value, y) in line.iter_mut().zip(&along_y) {
                let factor = x * y;
                *value *= Complex::new(factor.re as f32, factor.im as f32);
            }
        }
        scratch.spectrum.iter_mut().zip(&self.odd).for_each(|(value, factor)| *value *= factor.conj());
        self.fft.inverse(&mut scratch.spectrum, image, n, &mut scratch.fft);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::ctf::{CtfParameters, Optics};
    use crate::imaging::pose::rotation_from_relion;
    use std::f64::consts::{PI, TAU};

    #[test]
    fn a_point_is_projected_to_the_position_given_by_pose_and_shift() {
        // A single blob: its position in the image checks handedness, axes and the sign of the shift.
        for n in [32usize, 33] {
            let at = [5.0, -3.0, 8.0];
            let blob = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
                let r = [x, y, z].map(|i| i as f64 - (n / 2) as f64);
                (-r.iter().zip(at).map(|(r, c)| (r - c) * (r - c)).sum::<f64>() / (2.0 * 1.5 * 1.5)).exp()
                    as f32
            });
            let microscope = Microscope::new(&blob, 2.0);
            let mut scratch = microscope.scratch();
            let mut image = vec![0.0; n * n];
            for (angles, shift) in [
                ([20.0, 50.0, -70.0], [0.0, 0.0]),
                ([-130.0, 95.0, 10.0], [2.0, -3.5]),
                ([0.0; 3], [0.0, 1.25]),
            ] {
                let w = rotation_from_relion(angles[0], angles[1], angles[2]);
                let view: [f64; 3] =
                    std::array::from_fn(|row| (0..3).map(|axis| w[row][axis] * at[axis]).sum());
                let centre_of_mass = |image: &[f32]| {
                    let total: f64 = image.iter().map(|&v| f64::from(v)).sum();
                    let sum = |f: fn(usize, usize) -> usize| -> f64 {
                        (0..n * n).map(|i| f64::from(image[i]) * f(i % n, i / n) as f64).sum()
                    };
                    [sum(|x, _| x) / total, sum(|_, y| y) / total]
                };
                microscope.image(&w, shift, &Ctf::identity(), &mut image, &mut scratch);
                let found = centre_of_mass(&image);
                for axis in 0..2 {
                    let expected = (n / 2) as f64 + view[axis] - shift[axis];
                    assert!(
                        (found[axis] - expected).abs() < 0.02,
                        "{angles:?} {shift:?}: {found:?} {expected}"
                    );
                }
                microscope.centre(shift, &mut image, &mut scratch);
                let found = centre_of_mass(&image);
                for axis in 0..2 {
                    assert!((found[axis] - (n / 2) as f64 - view[axis]).abs() < 0.02, "{found:?} {view:?}");
                }
            }
        }
    }

    #[test]
    fn an_image_is_the_analytic_projection_times_the_ctf() {
        // The projection of a Gaussian is a Gaussian, so its spectrum times the CTF is known in closed form.
        let (n, pixel, sigma) = (32usize, 3.0, 2.0f64);
        let at = [4.0, -2.0, 1.0];
        let blob = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            let r = [x, y, z].map(|i| i as f64 - (n / 2) as f64);
            (-r.iter().zip(at).map(|(r, c)| (r - c) * (r - c)).sum::<f64>() / (2.0 * sigma * sigma)).exp()
                as f32
        });
        let optics = Optics::new(300.0, 2.7, 0.1);
        let parameters = CtfParameters {
            defocus_u: 15_200.0,
            defocus_v: 14_900.0,
            astigmatism_angle: 35.0,
            ..CtfParameters::default()
        };
        let ctf = Ctf::new(&optics, &parameters);
        let w = rotation_from_relion(10.0, 60.0, 200.0);
        let shift = [1.5, -0.75];
        let microscope = Microscope::new(&blob, pixel);
        let mut scratch = microscope.scratch();
        let mut image = vec![0.0; n * n];
        microscope.image(&w, shift, &ctf, &mut image, &mut scratch);

        let place: [f64; 2] = std::array::from_fn(|row| {
            (n / 2) as f64 + (0..3).map(|a| w[row][a] * at[a]).sum::<f64>() - shift[row]
        });
        let mut spectrum = vec![Complex::new(0.0f64, 0.0); (n / 2 + 1) * n];
        for kx in 0..n / 2 {
            for iy in 0..n {
                let ky = fourier::frequency(iy, n);
                let k2 = ((kx * kx) as f64 + (ky * ky) as f64) / (n * n) as f64;
                let height = (TAU * sigma * sigma).powf(1.5) * (-2.0 * (PI * sigma).powi(2) * k2).exp();
                let step = 1.0 / (n as f64 * pixel);
                spectrum[kx * n + iy] = fourier::shift_phase(kx as isize, ky, place[0], place[1], n)
                    * height
                    * ctf.at(kx as f64 * step, ky as f64 * step);
            }
        }
        let fft = Fft2::<f64>::new(n);
        let mut expected = vec![0.0; n * n];
        fft.inverse(&mut spectrum, &mut expected, n, &mut fft.scratch());
        let norm: f64 = expected.iter().map(|v| v * v).sum();
        let error: f64 = image.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        assert!((error / norm).sqrt() < 2e-5, "{:.2e}", (error / norm).sqrt());
    }
}
