//! Arguments of `simulate` for what is wrong in the set.

use std::path::PathBuf;

use crate::simulate::defects::Defects;
use crate::simulate::noise::NoiseSpectrum;

/// Defects of real particle sets. With any of them, the truth of each particle is written beside the true map (.csv).
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Defects")]
pub(super) struct DefectArgs {
    /// Spectrum of the noise: "white", "measured" (falls fourfold from low to high frequencies, as in real images), or a file of
    /// powers, one a line from frequency 0 to Nyquist; one for all optics groups, or one for each.
    #[arg(long, value_name = "SPECTRUM,...", value_delimiter = ',')]
    noise_spectrum: Vec<NoiseSpectrum>,
    /// Optics groups whose noise has these relative powers ("1,3").
    #[arg(long, value_name = "POWER,...", value_delimiter = ',')]
    noise_groups: Vec<f64>,
    /// Standard deviation of the particles' contrast, whose mean is 1.
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    contrast_spread: f64,
    /// Standard deviation of the errors of the written poses about each axis, in degrees.
    #[arg(long, default_value_t = 0.0, value_name = "DEG", allow_negative_numbers = true)]
    pose_error: f64,
    /// Standard deviation of the errors of the written shifts along x and y, in pixels.
    #[arg(long, default_value_t = 0.0, value_name = "PX", allow_negative_numbers = true)]
    shift_error: f64,
    /// Standard deviation of the errors of the written defoci, in angstrom.
    #[arg(long, default_value_t = 0.0, value_name = "A", allow_negative_numbers = true)]
    defocus_error: f64,
    /// Share of the images that are noise only.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", allow_negative_numbers = true)]
    junk: f64,
    /// Another state: an atomic model in the coordinates of --model, or a map beside --map.
    #[arg(long, value_name = "FILE", requires = "other_share")]
    other: Option<PathBuf>,
    /// Share of the images that show the other state.
    #[arg(long, value_name = "SHARE", requires = "other", allow_negative_numbers = true)]
    other_share: Option<f64>,
}

impl DefectArgs {
    /// The defects that are asked for.
    pub(super) fn defects(&self) -> Defects {
        Defects {
            noise_spectra: self.noise_spectrum.clone(),
            noise_powers: self.noise_groups.clone(),
            contrast_spread: self.contrast_spread,
            pose_error: self.pose_error,
            shift_error: self.shift_error,
            defocus_error: self.defocus_error,
            junk: self.junk,
            other: self.other.clone().zip(self.other_share),
        }
    }
}
