//! The noise of simulated images: its power per spatial frequency and optics group.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand_distr::{Distribution, StandardNormal};
use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
use crate::files;
use crate::imaging::fourier::{Fft2, Fft2Scratch, squared_frequency};
use crate::random::Random;

/// Height of [`NoiseSpectrum::Measured`] at frequency 0 above its level at high frequency, and its width in units of Nyquist: the
/// mean of the first third is about four times that of the last half, as in EMPIAR-10076.
const MEASURED: [f64; 2] = [4.2, 0.35];
/// Longest file of a spectrum in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// How the power of the noise depends on the spatial frequency.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NoiseSpectrum {
    /// The same power at all frequencies.
    #[default]
    White,
    /// Falls about fourfold, as in real images.
    Measured,
    /// A text file of powers above 0, one a line, evenly spaced from frequency 0 to Nyquist; linear in between.
    File(PathBuf),
}

/// Relative power by the frequency in units of Nyquist.
type PowerLaw = Box<dyn Fn(f64) -> f64>;

impl FromStr for NoiseSpectrum {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text {
            "white" => Self::White,
            "measured" => Self::Measured,
            path => Self::File(path.into()),
        })
    }
}

impl NoiseSpectrum {
    /// The file that it is read from, if it is.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::White | Self::Measured => None,
        }
    }

    /// The relative power as a function of the frequency in units of Nyquist; constant from Nyquist on. `None` for white noise.
    ///
    /// # Errors
    /// When the file cannot be read, or has a line that is no number above 0.
    fn power(&self) -> Result<Option<PowerLaw>> {
        Ok(match self {
            Self::White => None,
            Self::Measured => {
                let [height, width] = MEASURED;
                Some(Box::new(move |f: f64| 1.0 + height * (-(f.min(1.0) / width).powi(2)).exp()))
            }
            Self::File(path) => {
                let powers = read_powers(path)?;
                Some(Box::new(move |f: f64| {
                    let place = f.min(1.0) * (powers.len() - 1) as f64;
                    let below = (place as usize).min(powers.len().saturating_sub(2));
                    let above = (below + 1).min(powers.len() - 1);
                    powers[below] + (place - below as f64) * (powers[above] - powers[below])
                }))
            }
        })
    }
}

/// The powers in a file of [`NoiseSpectrum::File`].
fn read_powers(path: &Path) -> Result<Vec<f64>> {
    let bytes = files::first_bytes(path, LONGEST_FILE)?;
    let remedy = "give one power above 0 a line, evenly spaced from frequency 0 to Nyquist";
    let number = |(at, line): (usize, &str)| match line.trim().parse::<f64>() {
        Ok(power) if power > 0.0 && power.is_finite() => Ok(power),
        _ => {
            let shown: String = line.chars().take(40).collect();
            let problem = format!("is {shown:?}, expected a number above 0");
            Err(Error::input(path, format!("line {}", at + 1), problem, remedy))
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let powers: Vec<f64> = text.trim_end().lines().enumerate().map(number).collect::<Result<_>>()?;
    if powers.is_empty() {
        return Err(Error::input(path, "", "has no power of the noise", remedy));
    }
    Ok(powers)
}

/// Noise of one optics group.
pub struct Noise {
    /// Amplitude at each frequency of the half plane, with a mean square of 1 over all frequencies; `None` for white noise.
    amplitudes: Option<Vec<f32>>,
    /// Standard deviation per pixel.
    deviation: f32,
    fft: Fft2<f32>,
}

/// Working memory of one thread for [`Noise`].
pub struct NoiseScratch {
    noise: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    fft: Fft2Scratch<f32>,
}

impl Noise {
    /// Noise with this `spectrum` and this variance per pixel.
    ///
    /// # Errors
    /// As [`NoiseSpectrum::power`].
    pub fn new(spectrum: &NoiseSpectrum, variance: f64, box_size: usize) -> Result<Self> {
        let n = box_size;
        let amplitudes = spectrum.power()?.map(|power| {
            let at = |i: usize| {
                let k2 = squared_frequency(i / n, n) + squared_frequency(i % n, n);
                power(2.0 * k2.sqrt())
            };
            let powers: Vec<f64> = (0..(n / 2 + 1) * n).map(at).collect();
            // The half plane stands for all frequencies: kx = 0 and Nyquist once, the others twice.
            let count = |kx: usize| if (n - kx) % n == kx { 1.0 } else { 2.0 };
            let sum: f64 = powers.iter().enumerate().map(|(i, power)| count(i / n) * power).sum();
            let mean = sum / (n * n) as f64;
            powers.iter().map(|power| (power / mean).sqrt() as f32).collect()
        });
        Ok(Self { amplitudes, deviation: variance.sqrt() as f32, fft: Fft2::new(n) })
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> NoiseScratch {
        let n = self.fft.spectrum_len();
        NoiseScratch { noise: Vec::new(), spectrum: vec![Complex::default(); n], fft: self.fft.scratch() }
    }

    /// Adds noise to an image of `box_size` pixels an edge.
    pub fn add(&self, image: &mut [f32], box_size: usize, random: &mut Random, scratch: &mut NoiseScratch) {
        let NoiseScratch { noise, spectrum, fft } = scratch;
        noise.clear();
        noise.extend(image.iter().map(|_| -> f32 { StandardNormal.sample(random) }));
        if let Some(amplitudes) = &self.amplitudes {
            self.fft.forward(noise, box_size, spectrum, fft);
            spectrum.iter_mut().zip(amplitudes).for_each(|(value, amplitude)| *value *= amplitude);
            self.fft.inverse(spectrum, noise, box_size, fft);
        }
        image.iter_mut().zip(noise).for_each(|(value, noise)| *value += self.deviation * *noise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    /// Mean power of 400 noise images in ten rings up to Nyquist.
    fn rings(spectrum: &NoiseSpectrum, variance: f64) -> Vec<f64> {
        let n = 40;
        let noise = Noise::new(spectrum, variance, n).unwrap();
        let (mut scratch, fft) = (noise.scratch(), Fft2::<f32>::new(n));
        let (mut values, mut work) = (vec![Complex::default(); fft.spectrum_len()], fft.scratch());
        let mut sums = [[0.0; 2]; 10];
        for index in 0..400 {
            let mut image = vec![0.0; n * n];
            noise.add(&mut image, n, &mut stream(5, Purpose::Noise, 0, index), &mut scratch);
            fft.forward(&image, n, &mut values, &mut work);
            for (i, value) in values.iter().enumerate() {
                let k = (squared_frequency(i / n, n) + squared_frequency(i % n, n)).sqrt();
                if let Some([power, count]) = sums.get_mut((20.0 * k) as usize) {
                    *power += f64::from(value.norm_sqr()) / (n * n) as f64;
                    *count += 1.0;
                }
            }
        }
        sums.iter().map(|[power, count]| power / count).collect()
    }

    #[test]
    fn noise_has_the_spectrum_and_the_variance_asked_for() {
        let white = rings(&NoiseSpectrum::White, 2.0);
        assert!(white.iter().all(|power| (power / 2.0 - 1.0).abs() < 0.05), "{white:?}");
        let measured = rings(&NoiseSpectrum::Measured, 1.0);
        let (low, high) = (measured[..3].iter().sum::<f64>() / 3.0, measured[5..].iter().sum::<f64>() / 5.0);
        assert!((3.6..4.4).contains(&(low / high)), "{measured:?}");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("powers.txt");
        std::fs::write(&file, "1\n3\n").unwrap();
        let rising = rings(&NoiseSpectrum::File(file), 1.0);
        assert!((rising[9] / rising[0] / (2.9 / 1.13) - 1.0).abs() < 0.08, "{rising:?}");
    }

    #[test]
    fn the_variance_per_pixel_does_not_depend_on_the_spectrum() {
        for n in [24usize, 25] {
            let noise = Noise::new(&NoiseSpectrum::Measured, 3.0, n).unwrap();
            let mut scratch = noise.scratch();
            let mut square = 0.0;
            for index in 0..400 {
                let mut image = vec![0.0; n * n];
                noise.add(&mut image, n, &mut stream(1, Purpose::Noise, 0, index), &mut scratch);
                square += image.iter().map(|&v| f64::from(v * v)).sum::<f64>();
            }
            let variance = square / (400 * n * n) as f64;
            assert!((variance / 3.0 - 1.0).abs() < 0.03, "{variance}");
        }
    }

    #[test]
    fn a_file_that_is_no_spectrum_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("powers.txt");
        for (text, fragment) in [
            ("", "no power"),
            ("1\nx\n", "line 2"),
            ("1\n0\n", "line 2"),
            ("nan", "line 1"),
            ("1\n\n2", "line 2"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Noise::new(&NoiseSpectrum::File(file.clone()), 1.0, 24).err().expect(text);
            assert!(error.to_string().contains(fragment), "{text:?}: {error}");
        }
    }
}
