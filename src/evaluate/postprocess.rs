//! Post-processing of two half maps: resolution, FSC weighting, sharpening, low-pass filter.
//!
//! Definitions and order follow RELION's post-processing, after Rosenthal and Henderson (J. Mol. Biol. 333 (2003) 721): the mean of
//! the half maps is weighted by sqrt(2 FSC / (1 + FSC)), a B factor is fitted and divided out, and the map is filtered at its
//! resolution. FSC is the masked FSC corrected for the mask ([`super::correction`]).

use ndarray::Zip;

use crate::error::{Error, Result};
use crate::evaluate::correction::{Correction, PhaseRandomization};
use crate::evaluate::filter::{low_pass_factor, multiply_radially};
use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD};
use crate::evaluate::guinier::{self, Line, Point};
use crate::evaluate::maps;
use crate::evaluate::mask::Mask;

use crate::imaging::fourier::{spectrum_of_volume, volume_of_spectrum};
use crate::imaging::mrc::Volume;

/// Low-resolution limit of the B-factor fit in angstrom: at lower resolution, the shape of the particle dominates the amplitudes.
pub const FIT_FROM: f64 = 10.0;
/// The map has weight 0 from the first shell whose FSC is below this.
const MIN_FSC: f64 = 1e-10;

/// Sharpening of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sharpening {
    /// By a B factor fitted to the Guinier plot between two resolutions in angstrom; the second defaults to the map's resolution. No
    /// sharpening if fewer than three shells lie between.
    Fitted(f64, Option<f64>),
    /// By this B factor in square angstrom; negative values sharpen.
    Given(f64),
}

/// Low-pass filter of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LowPass {
    /// At the map's resolution.
    Resolution,
    /// At this resolution in angstrom.
    At(f64),
    /// No filter.
    Off,
}

/// Options of post-processing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Parameters of the correction for the mask.
    pub randomization: PhaseRandomization,
    /// Sharpening.
    pub sharpening: Sharpening,
    /// Low-pass filter.
    pub low_pass: LowPass,
    /// Weight the map by its FSC.
    pub weighting: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            randomization: PhaseRandomization::default(),
            sharpening: Sharpening::Fitted(FIT_FROM, None),
            low_pass: LowPass::Resolution,
            weighting: true,
        }
    }
}

/// Results of post-processing.
#[derive(Clone, Debug)]
pub struct PostProcessed {
    /// The FSC without the mask.
    pub unmasked: Fsc,
    /// The FSC under the mask.
    pub masked: Fsc,
    /// The correction for the mask; `None` if the unmasked FSC never falls low enough to randomise phases.
    pub correction: Option<Correction>,
    /// The resolution at 0.143 of the corrected FSC, or of the masked FSC if there is no correction.
    pub resolution: Crossing,
    /// The last shell before that curve falls below 0.143: RELION's final resolution. 0 if it starts below.
    pub resolution_shell: usize,
    /// Guinier plot of the mean map.
    pub guinier: Vec<Point>,
    /// Guinier plot after FSC weighting.
    pub guinier_weighted: Vec<Point>,
    /// Guinier plot of the final map.
    pub guinier_sharpened: Vec<Point>,
    /// The line fitted to the weighted plot, if any.
    pub line: Option<Line>,
    /// The B factor divided out, in square angstrom; negative if the map was sharpened.
    pub b_factor: f64,
    /// Low-pass filter in angstrom.
    pub low_pass: Option<f64>,
    /// The final map, in the frame of the first half map.
    pub map: Volume,
}

impl PostProcessed {
    /// Post-processes two half maps.
    ///
    /// # Errors
    /// As [`Correction::compute`], when an option is out of range, or when the FSC of the half maps starts below 0.143.
    pub fn compute(first: &Volume, second: &Volume, mask: &Mask, options: &Options) -> Result<Self> {
        options.check()?;
        let unmasked = Fsc::between(first, second)?;
        let masked = Fsc::between_masked(first, second, mask)?;
        let correction =
            Correction::compute(first, second, mask, [&unmasked, &masked], &options.randomization)?;
        let fsc = correction.as_ref().map_or(&masked, |c| &c.corrected);
        let resolution = fsc.crossing(GOLD_STANDARD);
        let (Crossing::At(resolved) | Crossing::NeverBelow(resolved)) = resolution else {
            return Err(Error::request(
                format!("the FSC of the half maps starts below {GOLD_STANDARD}: they share no signal"),
                "check that both are half maps of the same particle, and that the mask covers it",
            ));
        };
        let shells = fsc.shells.len();
        let resolution_shell = (1..shells).find(|&s| fsc.shells[s] < GOLD_STANDARD).unwrap_or(shells) - 1;

        let n = first.data.dim().0;
        let edge = n as f64 * first.pixel_size;
        let mut spectrum = spectrum_of_volume(&maps::mean(first, second).data);
        let guinier = guinier::plot(&spectrum, edge);
        if options.weighting {
            let weights = weights(fsc);
            multiply_radially(&mut spectrum, |r| weights.get(r.round() as usize).copied().unwrap_or(0.0));
        }
        let guinier_weighted = guinier::plot(&spectrum, edge);
        let line = match options.sharpening {
            Sharpening::Fitted(coarse, fine) => {
                guinier::fit(&guinier_weighted, coarse, fine.unwrap_or(resolved))
            }
            Sharpening::Given(_) => None,
        };
        let b_factor = match options.sharpening {
            Sharpening::Given(b) => b,
            Sharpening::Fitted(..) => line.map_or(0.0, |line| line.b_factor()),
        };
        let low_pass = match options.low_pass {
            LowPass::Resolution => Some(resolved),
            LowPass::At(resolution) => Some(resolution),
            LowPass::Off => None,
        };
        let filter = low_pass.map(|resolution| low_pass_factor(resolution, edge));
        multiply_radially(&mut spectrum, |r| {
            let sharpened = (-0.25 * b_factor * (r / edge).powi(2)).exp();
            filter.as_ref().map_or(1.0, |filter| filter(r)) * sharpened
        });
        let guinier_sharpened = guinier::plot(&spectrum, edge);
        let map = Volume::new(volume_of_spectrum(spectrum), first.pixel_size).in_frame(first.frame);
        if let Some(value) = map.data.iter().find(|v| !v.is_finite()) {
            return Err(Error::Numeric {
                problem: format!("sharpening by a B factor of {b_factor:.1} A^2 gives values of {value}"),
                remedy: "choose a --b-factor nearer to 0, or a --low-pass".into(),
            });
        }
        Ok(Self {
            unmasked,
            masked,
            correction,
            resolution,
            resolution_shell,
            guinier,
            guinier_weighted,
            guinier_sharpened,
            line,
            b_factor,
            low_pass,
            map,
        })
    }

    /// The FSC that determines the resolution: corrected if possible, else masked.
    #[cfg(test)]
    fn fsc(&self) -> &Fsc {
        self.correction.as_ref().map_or(&self.masked, |c| &c.corrected)
    }

    /// The final map, multiplied by the mask.
    pub fn masked_map(&self, mask: &Mask) -> Volume {
        let data =
            Zip::from(&self.map.data).and(mask.weights()).map_collect(|&v, &w| (f64::from(v) * w) as f32);
        Volume { data, ..self.map }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let refuse = |problem: String, remedy: &str| Err(Error::request(problem, remedy));
        let length = |a: f64| a.is_finite() && a > 0.0;
        match self.sharpening {
            Sharpening::Given(b) if !b.is_finite() => {
                return refuse(
                    format!("a B factor of {b} is impossible"),
                    "give --b-factor in square angstrom",
                );
            }
            Sharpening::Fitted(coarse, fine)
                if !length(coarse) || fine.is_some_and(|fine| !length(fine) || fine >= coarse) =>
            {
                let fine = fine.map_or("the map's resolution".to_owned(), |fine| format!("{fine} A"));
                return refuse(
                    format!("a B factor cannot be fitted from {coarse} A to {fine}"),
                    "give a --fit-from that is coarser than --fit-to, both above 0",
                );
            }
            _ => {}
        }
        match self.low_pass {
            LowPass::At(a) if !length(a) => {
                refuse(format!("a low-pass filter at {a} A is impossible"), "give --low-pass above 0")
            }
            _ => Ok(()),
        }
    }
}

/// sqrt(2 FSC / (1 + FSC)) of each shell up to the first that does not correlate. Shell 0 has weight 1.
fn weights(fsc: &Fsc) -> Vec<f64> {
    let some = fsc.shells[1..].iter().take_while(|&&value| value >= MIN_FSC);
    std::iter::once(1.0).chain(some.map(|value| (2.0 * value / (1.0 + value)).sqrt())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{self, Purpose};
    use ndarray::Array3;
    use rand_distr::{Distribution, StandardNormal};

    const N: usize = 48;

    fn white(stream: u64) -> Array3<f32> {
        let mut random = random::stream(21, Purpose::Noise, 0, stream);
        Array3::from_shape_simple_fn((N, N, N), || StandardNormal.sample(&mut random))
    }

    /// White noise within a ball, blurred by a B factor of `b`, with independent noise; pixel size 1 A.
    fn half(b: f64, noise: f32, stream: u64) -> Volume {
        let ball = Mask::sphere(N, 12.0, 2.0).unwrap();
        let body = Zip::from(&white(0)).and(ball.weights()).map_collect(|&v, &w| v * w as f32);
        let mut spectrum = spectrum_of_volume(&body);
        multiply_radially(&mut spectrum, |r| (-0.25 * b * (r / N as f64).powi(2)).exp());
        Volume::new(volume_of_spectrum(spectrum) + white(stream) * noise, 1.0)
    }

    #[test]
    fn known_blur_is_found_and_removed() {
        let (a, b) = (half(60.0, 1e-4, 1), half(60.0, 1e-4, 2));
        let mask = Mask::sphere(N, 18.0, 4.0).unwrap();
        let found = PostProcessed::compute(&a, &b, &mask, &Options::default()).unwrap();
        assert_eq!(found.correction, None, "these half maps agree to Nyquist");
        assert!((found.b_factor + 60.0).abs() < 6.0, "{:?}", found.line);
        let original = half(0.0, 0.0, 1);
        let fsc = Fsc::between(&found.map, &original).unwrap();
        assert!(fsc.shells[1..22].iter().all(|&v| v > 0.99), "{:?}", fsc.shells);
        // The Guinier plot is flat.
        let flat = guinier::fit(&found.guinier_sharpened, 10.0, 2.4).unwrap();
        assert!(flat.b_factor().abs() < 2.0, "{flat:?}");
        let masked = found.masked_map(&mask);
        assert_eq!((masked.data[[0, 0, 0]], masked.data[[24, 24, 24]]), (0.0, found.map.data[[24, 24, 24]]));
    }

    #[test]
    fn noise_is_downweighted_and_filtered() {
        let (a, b) = (half(60.0, 0.1, 1), half(60.0, 0.1, 2));
        let mask = Mask::sphere(N, 18.0, 4.0).unwrap();
        let found = PostProcessed::compute(&a, &b, &mask, &Options::default()).unwrap();
        let correction = found.correction.as_ref().unwrap();
        assert!(correction.from < found.resolution_shell && found.resolution_shell < N / 2 - 1);
        let Crossing::At(resolution) = found.resolution else { panic!("{:?}", found.resolution) };
        assert!((N as f64 / resolution - found.resolution_shell as f64 - 0.5).abs() <= 0.5);
        assert_eq!(found.low_pass, Some(resolution));
        // No power is left two shells beyond.
        let last = &found.guinier_sharpened[found.resolution_shell + 2];
        assert!(last.log_amplitude.is_none_or(|v| v < -25.0), "{last:?}");
        let given =
            Options { sharpening: Sharpening::Given(-30.0), low_pass: LowPass::Off, ..Options::default() };
        let given = PostProcessed::compute(&a, &b, &mask, &given).unwrap();
        assert_eq!((given.b_factor, given.low_pass, given.line), (-30.0, None, None));
        let weights = weights(given.fsc());
        let shell = given.resolution_shell;
        let value = given.fsc().shells[shell];
        assert!((weights[shell] - (2.0 * value / (1.0 + value)).sqrt()).abs() < 1e-15);
        let lost = given.guinier[shell - 1].log_amplitude.unwrap() + weights[shell].ln();
        assert!((given.guinier_weighted[shell - 1].log_amplitude.unwrap() - lost).abs() < 1e-12);
    }

    #[test]
    fn unusable_input_is_refused() {
        let (a, mask) = (half(60.0, 0.02, 1), Mask::sphere(N, 18.0, 4.0).unwrap());
        let refused = |second: &Volume, options: Options, part: &str| {
            let message = PostProcessed::compute(&a, second, &mask, &options).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        let usual = Options::default();
        let mirror = Volume::new(a.data.mapv(|v| -v), 1.0);
        refused(&mirror, usual, "share no signal");
        refused(&a, Options { sharpening: Sharpening::Given(f64::NAN), ..usual }, "B factor of NaN");
        refused(&a, Options { sharpening: Sharpening::Given(-1e6), ..usual }, "B factor of -1000000.0");
        refused(&a, Options { sharpening: Sharpening::Fitted(5.0, Some(8.0)), ..usual }, "from 5 A to 8 A");
        refused(&a, Options { low_pass: LowPass::At(0.0), ..usual }, "at 0 A");
    }
}
