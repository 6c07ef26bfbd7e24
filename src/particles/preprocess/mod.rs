//! Preprocessing of raw particle images.
//!
//! Each image passes these steps:
//! 1. check that every pixel is finite;
//! 2. invert the contrast, if requested;
//! 3. apply the origin shift as a Fourier phase, which moves the image by PLUS the shift (docs/method.md, section 1);
//! 4. take back the odd aberration of the microscope, and phase flips (docs/method.md, section 4);
//! 5. crop the transform to the output box size: the field of view stays, and the pixel size grows by D/box. Or resample to any
//!    pixel size and box ([`resample`]). Pixel VALUES are preserved, and the origin moves from pixel floor(D/2) to pixel
//!    floor(box/2);
//! 6. normalise the background, outside a circle about pixel floor(box/2), to mean 0 and standard deviation 1, if requested.
//!
//! Steps 3 to 5 take one forward and one inverse transform, and are skipped if they have no effect.
//!
//! In an even box, +k and -k share one Nyquist sample. A shift or an odd aberration multiplies it by the mean of both phases,
//! which keeps the image real. A crop sets the new Nyquist lines to zero, because half of their content would be aliased.

mod resample;

use std::f64::consts::PI;

use rustfft::num_complex::Complex;

use resample::Resampling;

use crate::error::{Error, Result};
use crate::imaging::aberration::OddAberration;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, Fft2Scratch, frequency, shift_phase};

/// Default radius of the background circle as a fraction of the box size, as in RELION (75 % as a diameter).
pub const BACKGROUND_RADIUS: f64 = 0.375;
/// Minimal box size of a crop in pixels.
pub const MIN_BOX: usize = 16;
/// Relative standard deviation below which the background is constant up to rounding.
const FLAT: f64 = 1e-6;

/// Settings of the preprocessing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Box size of the raw images in pixels.
    pub input_box: usize,
    /// Box size of the stored images in pixels, at most `input_box`.
    pub output_box: usize,
    /// Invert the contrast.
    pub invert: bool,
    /// Normalise by the background outside a circle of this radius in output pixels; `None` for no normalisation.
    pub background_radius: Option<f64>,
}

/// Why an image is unusable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Defect {
    /// The raw pixel at this row and column, from 1, is NaN or infinite.
    NotFinite {
        /// Row, from 1.
        row: usize,
        /// Column, from 1.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// The transform overflows f32.
    Overflow,
    /// The background has zero variance; holds its mean.
    FlatBackground(f64),
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFinite { row, column, value } => {
                write!(f, "has the value {value} at row {row}, column {column}, expected a finite number")
            }
            Self::Overflow => write!(f, "has values too large for 32-bit floats"),
            Self::FlatBackground(mean) => {
                write!(
                    f,
                    "has a background of zero variance (all values are about {mean}), which cannot be normalised"
                )
            }
        }
    }
}

/// Preprocesses images by [`Settings`]. Shared by threads, each with its own [`Scratch`].
#[derive(Clone)]
pub struct Preprocessor {
    settings: Settings,
    forward: Fft2<f32>,
    inverse: Fft2<f32>,
    background: Vec<u32>,
    /// Pixel size of the output in angstrom, for phase flips and aberrations.
    pixel_size: f64,
    /// Conjugate of the phase factor of the odd aberration on the half plane of the output; empty if there is none.
    odd: Vec<Complex<f32>>,
    /// In place of the crop.
    resampling: Option<Resampling>,
}

/// Working memory of one thread for a [`Preprocessor`].
#[derive(Clone, Debug)]
pub struct Scratch {
    forward: Fft2Scratch<f32>,
    inverse: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    cropped: Vec<Complex<f32>>,
    phase_x: Vec<Complex<f32>>,
    phase_y: Vec<Complex<f32>>,
    ctf: Vec<f32>,
}

impl Preprocessor {
    /// Plans the transforms.
    ///
    /// # Errors
    /// If the output box is larger than the input box, or cropped to less than [`MIN_BOX`]; if the background radius is not a
    /// number above 0, or the background has fewer than two pixels.
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings { input_box, output_box, .. } = settings;
        if output_box > input_box {
            return Err(Error::request(
                format!("a box of {output_box} pixels is requested, but the images have {input_box}"),
                "set a smaller --box, or leave it out: images can only be made smaller",
            ));
        }
        if output_box < MIN_BOX && output_box < input_box {
            return Err(Error::request(
                format!("a box of {output_box} pixels is too small, expected {MIN_BOX} to {input_box}"),
                "set a larger --box, or leave it out",
            ));
        }
        Self::unchecked(settings)
    }

    /// Like [`Preprocessor::new`], for raw images of another pixel size than the set's: resamples to pixels of `pixel_ratio` raw
    /// pixels. The output box may be larger than the input box, and is then padded with zeros.
    ///
    /// # Errors
    /// As [`Preprocessor::new`], but for the sizes.
    pub fn resampling(settings: Settings, pixel_ratio: f64) -> Result<Self> {
        let mut preprocessor = Self::unchecked(settings)?;
        preprocessor.resampling = Some(Resampling::new(settings.input_box, settings.output_box, pixel_ratio));
        Ok(preprocessor)
    }

    fn unchecked(settings: Settings) -> Result<Self> {
        let Settings { input_box, output_box, background_radius, .. } = settings;
        let background = match background_radius {
            Some(radius) => background_pixels(output_box, radius)?,
            None => Vec::new(),
        };
        let (forward, inverse) = (Fft2::new(input_box), Fft2::new(output_box));
        let (odd, resampling) = (Vec::new(), None);
        Ok(Self { settings, forward, inverse, background, pixel_size: 1.0, odd, resampling })
    }

    /// Also takes back an odd aberration, and allows phase flips. `magnification`: M of [`crate::imaging::ctf::Optics`];
    /// `pixel_size` of the output, in angstrom.
    #[must_use]
    pub fn with_optics(
        mut self,
        odd: &OddAberration,
        magnification: &[[f64; 2]; 2],
        pixel_size: f64,
    ) -> Self {
        self.pixel_size = pixel_size;
        self.odd = odd.factors(self.settings.output_box, pixel_size, magnification);
        self.odd.iter_mut().for_each(|factor| *factor = factor.conj());
        self
    }

    /// Box size of the raw images in pixels.
    pub fn input_box(&self) -> usize {
        self.settings.input_box
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> Scratch {
        let zero = Complex::new(0.0, 0.0);
        Scratch {
            forward: self.forward.scratch(),
            inverse: self.inverse.scratch(),
            spectrum: vec![zero; self.forward.spectrum_len()],
            cropped: vec![zero; self.inverse.spectrum_len()],
            phase_x: vec![zero; self.settings.output_box / 2 + 1],
            phase_y: vec![zero; self.settings.output_box],
            ctf: vec![0.0; self.inverse.spectrum_len()],
        }
    }

    /// Preprocesses one raw `image` (`[y][x]`, input box squared; overwritten) to `output` (output box squared), moved by PLUS
    /// `shift` (x, y) in raw pixels. `flipped`: the CTF by whose sign the image was multiplied.
    ///
    /// # Errors
    /// If the image is unusable; `output` is then unspecified.
    ///
    /// # Panics
    /// If a slice does not match its box size.
    pub fn run(
        &self,
        image: &mut [f32],
        shift: [f64; 2],
        flipped: Option<&Ctf>,
        output: &mut [f32],
        scratch: &mut Scratch,
    ) -> std::result::Result<(), Defect> {
        let Settings { input_box, output_box, invert, .. } = self.settings;
        assert_eq!((image.len(), output.len()), (input_box * input_box, output_box * output_box));
        if let Some(at) = image.iter().position(|v| !v.is_finite()) {
            return Err(Defect::NotFinite {
                row: at / input_box + 1,
                column: at % input_box + 1,
                value: image[at],
            });
        }
        if invert {
            image.iter_mut().for_each(|v| *v = -*v);
        }
        let filters = flipped.is_some() || !self.odd.is_empty() || self.resampling.is_some();
        if shift == [0.0; 2] && output_box == input_box && !filters {
            output.copy_from_slice(image);
        } else {
            match &self.resampling {
                Some(resampling) => resampling.spectrum(image, shift, &mut scratch.cropped),
                None => self.shift_and_crop(image, shift, scratch),
            }
            if let Some(ctf) = flipped {
                ctf.half_plane(output_box, self.pixel_size, &mut scratch.ctf);
                for (value, _) in scratch.cropped.iter_mut().zip(&scratch.ctf).filter(|(_, h)| **h < 0.0) {
                    *value = -*value;
                }
            }
            scratch.cropped.iter_mut().zip(&self.odd).for_each(|(value, factor)| *value *= factor);
            self.inverse.inverse(&mut scratch.cropped, output, output_box, &mut scratch.inverse);
        }
        if !self.background.is_empty() {
            self.normalize(output)?;
        }
        // Catches an overflow in the transform or the normalisation.
        if output.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(Defect::Overflow) }
    }

    /// Fills `scratch.cropped` with the spectrum of the output.
    fn shift_and_crop(&self, image: &[f32], shift: [f64; 2], scratch: &mut Scratch) {
        let Settings { input_box, output_box, .. } = self.settings;
        self.forward.forward(image, input_box, &mut scratch.spectrum, &mut scratch.forward);

        // Output pixel j is at raw pixel j D/box; this move makes the origins of both grids coincide.
        let ratio = input_box as f64 / output_box as f64;
        let recentre = (output_box / 2) as f64 * ratio - (input_box / 2) as f64;
        let [dx, dy] = shift.map(|s| s + recentre);
        let scale = ratio.powi(-2);
        let narrow = |p: Complex<f64>| Complex::new(p.re as f32, p.im as f32);
        for (kx, phase) in scratch.phase_x.iter_mut().enumerate() {
            *phase = narrow(shift_phase(kx as isize, 0, dx, 0.0, input_box) * scale);
        }
        for (iy, phase) in scratch.phase_y.iter_mut().enumerate() {
            *phase = narrow(shift_phase(0, frequency(iy, output_box), 0.0, dy, input_box));
        }
        if output_box.is_multiple_of(2) {
            let nyquist = output_box / 2;
            let kept = if output_box == input_box { 1.0 } else { 0.0 };
            scratch.phase_x[nyquist] = Complex::new(((PI * dx).cos() * scale * kept) as f32, 0.0);
            scratch.phase_y[nyquist] = Complex::new(((PI * dy).cos() * kept) as f32, 0.0);
        }

        // The raw spectrum is in FFT order: non-negative frequencies from the start, negative ones from the end.
        let skipped = input_box - output_box;
        let first_negative = output_box.div_ceil(2);
        for ((raw, line), &phase_x) in scratch
            .spectrum
            .chunks_exact(input_box)
            .zip(scratch.cropped.chunks_exact_mut(output_box))
            .zip(&scratch.phase_x)
        {
            for (iy, (value, &phase_y)) in line.iter_mut().zip(&scratch.phase_y).enumerate() {
                let from = if iy < first_negative { iy } else { iy + skipped };
                *value = raw[from] * phase_x * phase_y;
            }
        }
    }

    fn normalize(&self, image: &mut [f32]) -> std::result::Result<(), Defect> {
        let count = self.background.len() as f64;
        let values = || self.background.iter().map(|&i| f64::from(image[i as usize]));
        let mean = values().sum::<f64>() / count;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let deviation = variance.sqrt();
        if !deviation.is_finite() {
            return Err(Defect::Overflow);
        }
        if deviation <= FLAT * mean.abs() || deviation < f64::from(f32::MIN_POSITIVE) {
            return Err(Defect::FlatBackground(mean));
        }
        for value in image {
            *value = ((f64::from(*value) - mean) / deviation) as f32;
        }
        Ok(())
    }
}

/// Indices of the pixels farther than `radius` from pixel floor(box/2).
fn background_pixels(box_size: usize, radius: f64) -> Result<Vec<u32>> {
    if !(radius.is_finite() && radius > 0.0) {
        return Err(Error::request(
            format!("the background radius is {radius} pixels, expected a number above 0"),
            "set --background-radius to a number above 0",
        ));
    }
    let centre = (box_size / 2) as f64;
    let outside = |&i: &usize| {
        let (y, x) = ((i / box_size) as f64 - centre, (i % box_size) as f64 - centre);
        x * x + y * y > radius * radius
    };
    let pixels: Vec<u32> = (0..box_size * box_size).filter(outside).map(|i| i as u32).collect();
    if pixels.len() < 2 {
        return Err(Error::request(
            format!(
                "a background radius of {radius} pixels leaves no background in a box of {box_size} pixels"
            ),
            format!("set --background-radius to less than {centre}, or omit it"),
        ));
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests;
