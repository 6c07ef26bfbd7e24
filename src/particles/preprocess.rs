//! Preprocessing of raw particle images.
//!
//! Each image passes these steps:
//! 1. check that every pixel is finite;
//! 2. invert the contrast, if requested;
//! 3. apply the origin shift as a Fourier phase, which moves the image by PLUS the shift (docs/method.md, section 1);
//! 4. crop the transform to the output box size: the field of view stays, and the pixel size grows by D/box. Pixel VALUES are
//!    preserved, and the origin moves from pixel floor(D/2) to pixel floor(box/2);
//! 5. normalise the background, outside a circle about pixel floor(box/2), to mean 0 and standard deviation 1, if requested.
//!
//! Steps 3 and 4 take one forward and one inverse transform, and are skipped if they have no effect.
//!
//! In an even box, +k and -k share one Nyquist sample. A shift multiplies it by the mean of both phases, a cosine, which
//! keeps the image real. A crop sets the new Nyquist lines to zero, because half of their content would be aliased.

use std::f64::consts::PI;

use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
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
}

impl Preprocessor {
    /// Plans the transforms.
    ///
    /// # Errors
    /// If the output box is larger than the input box, or cropped to less than [`MIN_BOX`]; if the background radius is not a
    /// number above 0, or the background has fewer than two pixels.
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings { input_box, output_box, background_radius, .. } = settings;
        if output_box > input_box {
            return Err(Error::request(
                format!("a box of {output_box} pixels is requested, but the images have {input_box}"),
                "set a smaller --box: images can only be made smaller",
            ));
        }
        if output_box < MIN_BOX && output_box < input_box {
            return Err(Error::request(
                format!("a box of {output_box} pixels is too small, expected {MIN_BOX} to {input_box}"),
                "set a larger --box",
            ));
        }
        let background = match background_radius {
            Some(radius) => background_pixels(output_box, radius)?,
            None => Vec::new(),
        };
        Ok(Self { settings, forward: Fft2::new(input_box), inverse: Fft2::new(output_box), background })
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
        }
    }

    /// Preprocesses one raw `image` (`[y][x]`, input box squared; overwritten) to `output` (output box squared), moved by PLUS
    /// `shift` (x, y) in raw pixels.
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
        if shift == [0.0; 2] && output_box == input_box {
            output.copy_from_slice(image);
        } else {
            self.shift_and_crop(image, shift, output, scratch);
        }
        if !self.background.is_empty() {
            self.normalize(output)?;
        }
        // Catches an overflow in the transform or the normalisation.
        if output.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(Defect::Overflow) }
    }

    fn shift_and_crop(&self, image: &[f32], shift: [f64; 2], output: &mut [f32], scratch: &mut Scratch) {
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
        self.inverse.inverse(&mut scratch.cropped, output, output_box, &mut scratch.inverse);
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
mod tests {
    use super::*;

    fn settings(input_box: usize, output_box: usize) -> Settings {
        Settings { input_box, output_box, invert: false, background_radius: None }
    }

    fn run(
        settings: Settings,
        mut image: Vec<f32>,
        shift: [f64; 2],
    ) -> std::result::Result<Vec<f32>, Defect> {
        let preprocessor = Preprocessor::new(settings).unwrap();
        let mut output = vec![0.0; settings.output_box.pow(2)];
        preprocessor.run(&mut image, shift, &mut output, &mut preprocessor.scratch())?;
        Ok(output)
    }

    /// A Gaussian of standard deviation `width` pixels at (`x`, `y`) pixels from the origin.
    fn blob(box_size: usize, x: f64, y: f64, width: f64) -> Vec<f32> {
        let centre = (box_size / 2) as f64;
        (0..box_size * box_size)
            .map(|i| {
                let (dy, dx) = ((i / box_size) as f64 - centre - y, (i % box_size) as f64 - centre - x);
                (-(dx * dx + dy * dy) / (2.0 * width * width)).exp() as f32
            })
            .collect()
    }

    /// Centre of mass (x, y) relative to the origin.
    fn centre_of_mass(image: &[f32]) -> [f64; 2] {
        let n = image.len().isqrt();
        let (mut mass, mut x, mut y) = (0.0, 0.0, 0.0);
        for (i, &v) in image.iter().enumerate() {
            mass += f64::from(v);
            x += f64::from(v) * ((i % n) as f64 - (n / 2) as f64);
            y += f64::from(v) * ((i / n) as f64 - (n / 2) as f64);
        }
        [x / mass, y / mass]
    }

    fn noise(box_size: usize) -> Vec<f32> {
        (0..box_size * box_size).map(|i| ((i * 7919) % 1009) as f32 / 100.0 + 20.0).collect()
    }

    #[test]
    fn an_off_centre_blob_is_moved_to_the_centre() {
        let t = [2.3, -1.7];
        for (input, output) in [(48, 48), (49, 49), (48, 32), (48, 33), (49, 32), (49, 33), (48, 24)] {
            let raw = blob(input, -t[0], -t[1], 3.0);
            let centred = run(settings(input, output), raw, t).unwrap();
            for c in centre_of_mass(&centred) {
                assert!(c.abs() < 1e-3, "{input} to {output}: {c}");
            }
        }
    }

    #[test]
    fn a_crop_keeps_the_values_of_a_smooth_image() {
        for (input, output) in [(48, 32), (48, 33), (49, 32), (49, 33), (64, 16)] {
            let width = 5.0;
            let ratio = input as f64 / output as f64;
            let small = run(settings(input, output), blob(input, 1.5, -2.0, width), [0.0; 2]).unwrap();
            let expected = blob(output, 1.5 / ratio, -2.0 / ratio, width / ratio);
            // The crop removes less than 1e-3 of the height of this Gaussian at 64 to 16, and far less elsewhere.
            let worst = small.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{input} to {output}: {worst}");
        }
    }

    #[test]
    fn a_shift_and_its_inverse_change_only_nyquist() {
        for n in [32, 33] {
            let image = blob(n, 3.0, 1.0, 2.0);
            let there = run(settings(n, n), image.clone(), [1.25, -0.5]).unwrap();
            let back = run(settings(n, n), there, [-1.25, 0.5]).unwrap();
            assert!(image.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        // Shifts by whole pixels also keep the Nyquist lines.
        let image = noise(16);
        let moved = run(settings(16, 16), image.clone(), [3.0, -2.0]).unwrap();
        for (i, &v) in moved.iter().enumerate() {
            let (y, x) = ((i / 16 + 2) % 16, (i % 16 + 13) % 16);
            assert!((v - image[y * 16 + x]).abs() < 1e-4);
        }
    }

    #[test]
    fn the_background_is_normalised_to_mean_0_and_deviation_1() {
        for n in [32, 33] {
            let radius = BACKGROUND_RADIUS * n as f64;
            let normal =
                run(Settings { background_radius: Some(radius), ..settings(n, n) }, noise(n), [0.4, 0.0])
                    .unwrap();
            let outside: Vec<f64> = background_pixels(n, radius)
                .unwrap()
                .iter()
                .map(|&i| f64::from(normal[i as usize]))
                .collect();
            let mean = outside.iter().sum::<f64>() / outside.len() as f64;
            let variance = outside.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / outside.len() as f64;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
            let centre = n / 2;
            assert!(!background_pixels(n, radius).unwrap().contains(&((centre * n + centre) as u32)));
            assert!(background_pixels(n, radius).unwrap().contains(&0));
        }
    }

    #[test]
    fn inversion_negates_the_image_first() {
        let plain =
            run(Settings { background_radius: Some(8.0), ..settings(32, 32) }, noise(32), [0.0; 2]).unwrap();
        let inverted = run(
            Settings { background_radius: Some(8.0), invert: true, ..settings(32, 32) },
            noise(32),
            [0.0; 2],
        )
        .unwrap();
        assert!(plain.iter().zip(&inverted).all(|(a, b)| (a + b).abs() < 1e-5));
    }

    #[test]
    fn unusable_images_report_the_defect() {
        let normal = Settings { background_radius: Some(12.0), ..settings(32, 32) };
        for value in [f32::NAN, f32::INFINITY] {
            let mut image = noise(32);
            image[2 * 32 + 5] = value;
            let message = run(normal, image, [0.0; 2]).unwrap_err().to_string();
            assert!(message.contains("row 3, column 6"), "{message}");
        }
        for shift in [[0.0; 2], [0.3, 0.7]] {
            for level in [0.0, 1234.5] {
                let flat = run(normal, vec![level; 32 * 32], shift).unwrap_err();
                assert!(matches!(flat, Defect::FlatBackground(_)), "{flat}");
            }
        }
        let huge = noise(32).iter().map(|v| v * 1e37).collect();
        assert_eq!(run(settings(32, 32), huge, [0.5, 0.0]).unwrap_err(), Defect::Overflow);
    }

    #[test]
    fn invalid_settings_are_refused() {
        let refused = |settings, fragment: &str| {
            let message = Preprocessor::new(settings).err().unwrap().to_string();
            assert!(message.contains(fragment), "{message}");
        };
        refused(settings(32, 33), "box of 33");
        refused(settings(32, 15), "box of 15");
        for radius in [0.0, -1.0, f64::NAN, 40.0] {
            refused(Settings { background_radius: Some(radius), ..settings(32, 32) }, "background radius");
        }
    }
}
