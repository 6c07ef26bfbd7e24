//! Defects of real particle sets in a simulated one, with the truth of each particle kept: wrong metadata, contrast, particles
//! that are none or belong to another state, coloured noise, optics groups of unlike noise.

use std::io::Write;
use std::path::{Path, PathBuf};

use rand_distr::{Distribution, StandardNormal, StandardUniform};

use super::geometry::SimulatedParticle;
use super::noise::{Noise, NoiseSpectrum};
use crate::error::{Error, Result};
use crate::files;
use crate::particles::Subset;
use crate::random::{self, Purpose};

/// Lowest contrast of a particle that is one.
const LOWEST_CONTRAST: f64 = 0.1;

/// What is wrong in a simulated set. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defects {
    /// Spectrum of the noise: one for all optics groups, or one for each. Empty: white.
    pub noise_spectra: Vec<NoiseSpectrum>,
    /// Power of the noise of each optics group, relative to each other. Empty: one group.
    pub noise_powers: Vec<f64>,
    /// Standard deviation of the contrast, whose mean is 1.
    pub contrast_spread: f64,
    /// Standard deviation of the written poses about each axis, in degrees.
    pub pose_error: f64,
    /// Standard deviation of the written shifts along each axis, in pixels.
    pub shift_error: f64,
    /// Standard deviation of the written defoci, in angstrom.
    pub defocus_error: f64,
    /// Share of the images without a particle.
    pub junk: f64,
    /// Atomic model or map of another state, and the share of the images that show it.
    pub other: Option<(PathBuf, f64)>,
}

/// What an image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The specimen.
    Specimen,
    /// Its other state.
    Other,
    /// Noise only.
    Junk,
}

/// A particle as it is, and as its metadata say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DefectiveParticle {
    /// What its image is made with.
    pub truth: SimulatedParticle,
    /// What the files say.
    pub written: SimulatedParticle,
    /// What its image shows.
    pub content: Content,
    /// Factor of the clean image.
    pub contrast: f64,
}

impl Defects {
    /// Number of optics groups.
    pub fn groups(&self) -> usize {
        self.noise_powers.len().max(self.noise_spectra.len()).max(1)
    }

    /// Optics group, from 0, of particle `index`: pairs of particles (one of each half) take turns.
    pub fn group_of(&self, index: usize) -> usize {
        index / 2 % self.groups()
    }

    /// Whether the noise has the same power in all optics groups.
    pub fn is_noise_equal(&self) -> bool {
        self.noise_powers.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Checks all values.
    ///
    /// # Errors
    /// Names the first invalid option, its value, and the valid range.
    pub fn validate(&self, box_size: usize) -> Result<()> {
        let check = |name: &str, value: f64, to: f64, unit: &str| {
            if (0.0..=to).contains(&value) {
                return Ok(());
            }
            Err(Error::request(format!("{name} {value} is out of range"), format!("choose 0 to {to}{unit}")))
        };
        check("--contrast-spread", self.contrast_spread, 1.0, "")?;
        check("--pose-error", self.pose_error, 180.0, " degrees")?;
        check("--shift-error", self.shift_error, box_size as f64 / 4.0, " px (a quarter of the box)")?;
        check("--defocus-error", self.defocus_error, 1e4, " A")?;
        let other = self.other.as_ref().map_or(0.0, |(_, share)| *share);
        check("--junk", self.junk, 0.95, "")?;
        check("--other-share", other, 0.95, "")?;
        if self.junk + other > 0.95 {
            return Err(Error::request(
                format!("--junk {} and --other-share {other} leave too few particles", self.junk),
                "choose shares with a sum of at most 0.95",
            ));
        }
        if let Some(power) = self.noise_powers.iter().find(|power| !(1e-3..=1e3).contains(*power)) {
            return Err(Error::request(
                format!("--noise-groups has the power {power}"),
                "choose powers of 0.001 to 1000",
            ));
        }
        let lengths = [self.noise_powers.len(), self.noise_spectra.len()];
        if lengths[0] > 1 && lengths[1] > 1 && lengths[0] != lengths[1] {
            return Err(Error::request(
                format!(
                    "--noise-groups names {} optics groups, but --noise-spectrum {}",
                    lengths[0], lengths[1]
                ),
                "give one power and one spectrum for each optics group",
            ));
        }
        Ok(())
    }

    /// The noise of each optics group. The variance per pixel has the mean 1 over the groups.
    ///
    /// # Errors
    /// When the file of a spectrum cannot be used.
    pub fn noise(&self, box_size: usize) -> Result<Vec<Noise>> {
        let mean = match self.noise_powers.len() {
            0 => 1.0,
            n => self.noise_powers.iter().sum::<f64>() / n as f64,
        };
        (0..self.groups())
            .map(|group| {
                let power = self.noise_powers.get(group).map_or(1.0, |power| power / mean);
                let spectrum = self.noise_spectra.get(group).or(self.noise_spectra.last());
                Noise::new(spectrum.unwrap_or(&NoiseSpectrum::White), power, box_size)
            })
            .collect()
    }

    /// Draws what is wrong with the particle `truth` of this `index`. Without defects nothing is.
    pub fn draw(
        &self,
        truth: SimulatedParticle,
        pixel_size: f64,
        seed: u64,
        index: usize,
    ) -> DefectiveParticle {
        let random = &mut random::stream(seed, Purpose::Defects, 0, index as u64);
        let place: f64 = StandardUniform.sample(random);
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        let contrast = (1.0 + self.contrast_spread * normal()).max(LOWEST_CONTRAST);
        let turn = [normal(), normal(), normal()].map(|x| x * self.pose_error.to_radians());
        let shift = [normal(), normal()].map(|x| x * self.shift_error * pixel_size);
        let defocus = self.defocus_error * normal();
        let other = self.other.as_ref().map_or(0.0, |(_, share)| *share);
        let content = match place {
            place if place < self.junk => Content::Junk,
            place if place < self.junk + other => Content::Other,
            _ => Content::Specimen,
        };
        let contrast = if content == Content::Junk { 0.0 } else { contrast };
        DefectiveParticle { truth, written: truth.moved(turn, shift, defocus), content, contrast }
    }
}

/// Writes the truth of each particle: one line each, in the order of the STAR file. `halves` are the numbers of particles of the
/// halves; `row` is the row in the particle file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_truth(
    path: &Path,
    particles: impl Iterator<Item = (DefectiveParticle, usize, Subset)>,
    halves: [usize; 2],
) -> Result<()> {
    files::write_atomically(path, |file| {
        writeln!(
            file,
            "particle,row,half,optics_group,content,contrast,rot,tilt,psi,origin_x_angst,origin_y_angst,defocus_u,defocus_v"
        )?;
        let mut rows = [0, halves[0]];
        for (index, (particle, group, half)) in particles.enumerate() {
            let content = match particle.content {
                Content::Specimen => "specimen",
                Content::Other => "other",
                Content::Junk => "junk",
            };
            let row = &mut rows[usize::from(half.code().expect("a half, not all particles"))];
            *row += 1;
            let [rot, tilt, psi] = particle.truth.angles;
            let [x, y] = particle.truth.origin;
            let (number, half, group) = (index + 1, half.seed_index(), group + 1);
            let (contrast, ctf) = (particle.contrast, particle.truth.ctf);
            write!(file, "{number},{row},{half},{group},{content},{contrast:.6},")?;
            writeln!(file, "{rot},{tilt},{psi},{x},{y},{},{}", ctf.defocus_u, ctf.defocus_v)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::transposed;
    use crate::simulate::geometry::Distributions;

    fn particle(index: usize) -> SimulatedParticle {
        let distributions = Distributions {
            preference: 0.0,
            max_shift: 3.0,
            defocus_median: 1.8e4,
            defocus_spread: 0.3,
            astigmatism: 300.0,
        };
        SimulatedParticle::draw(&distributions, 2.0, 1, index)
    }

    #[test]
    fn without_defects_the_files_tell_the_truth() {
        for index in 0..20 {
            let drawn = Defects::default().draw(particle(index), 2.0, 1, index);
            assert_eq!((drawn.written, drawn.content), (drawn.truth, Content::Specimen));
            assert_eq!(drawn.contrast.to_bits(), 1.0f64.to_bits());
        }
    }

    #[test]
    fn errors_have_the_size_asked_for() {
        let defects = Defects {
            contrast_spread: 0.2,
            pose_error: 2.0,
            shift_error: 0.7,
            defocus_error: 300.0,
            junk: 0.15,
            other: Some(("other.cif".into(), 0.3)),
            ..Defects::default()
        };
        let n = 4000;
        let all: Vec<_> = (0..n).map(|i| defects.draw(particle(i), 2.0, 1, i)).collect();
        let rms = |of: &dyn Fn(&DefectiveParticle) -> f64| {
            (all.iter().map(|p| of(p).powi(2)).sum::<f64>() / n as f64).sqrt()
        };
        // The angle between both poses, by the trace of one times the inverse of the other.
        let angle = |p: &DefectiveParticle| {
            let (written, back) = (p.written.rotation, transposed(&p.truth.rotation));
            let trace: f64 = (0..3).map(|i| (0..3).map(|j| written[i][j] * back[j][i]).sum::<f64>()).sum();
            ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos().to_degrees()
        };
        assert!((rms(&angle) / (2.0 * 3f64.sqrt()) - 1.0).abs() < 0.03);
        let along_x = rms(&|p| (p.written.origin[0] - p.truth.origin[0]) / 2.0);
        assert!((along_x / 0.7 - 1.0).abs() < 0.05, "{along_x}");
        let defocus = rms(&|p| p.written.ctf.defocus_u - p.truth.ctf.defocus_u);
        assert!((defocus / 300.0 - 1.0).abs() < 0.05, "{defocus}");
        let share = |content| all.iter().filter(|p| p.content == content).count() as f64 / n as f64;
        assert!((share(Content::Junk) - 0.15).abs() < 0.02 && (share(Content::Other) - 0.3).abs() < 0.03);
        let real: Vec<f64> = all.iter().filter(|p| p.content != Content::Junk).map(|p| p.contrast).collect();
        let mean = real.iter().sum::<f64>() / real.len() as f64;
        let spread = (real.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / real.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.02 && (spread - 0.2).abs() < 0.01, "{mean} {spread}");
    }

    #[test]
    fn groups_take_turns_in_both_halves() {
        let two = Defects { noise_powers: vec![1.0, 3.0], ..Defects::default() };
        assert_eq!([0, 1, 2, 3, 4].map(|index| two.group_of(index)), [0, 0, 1, 1, 0]);
        assert!(!two.is_noise_equal() && Defects::default().is_noise_equal());
        let mismatch = Defects { noise_spectra: vec![NoiseSpectrum::White; 3], ..two };
        assert!(mismatch.validate(64).unwrap_err().to_string().contains("2 optics groups"));
    }
}
