//! The simulation: a true map, its particles, and their files.
//!
//! The noise level depends on the mean variance of the noise-free images, which is estimated from the first [`CALIBRATION`]
//! particles. Images are then computed and written in chunks, so memory does not grow with the number of particles. The same seed
//! gives the same bytes for any number of threads.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rayon::prelude::*;

use super::assembly::Assembly;
use super::defects::{self, Content, DefectiveParticle, Defects};
use super::geometry::{Distributions, SimulatedParticle};
use super::microscope::{Microscope, MicroscopeScratch};
use super::noise::{Noise, NoiseScratch};
use super::relion;
use super::truth::{TrueMaps, TruthSource};
use crate::error::{Error, Result};
use crate::files::{self, Claims};
use crate::imaging::aberration::OddAberration;
use crate::imaging::ctf::{Ctf, Optics, wavelength};
use crate::imaging::mrc;
use crate::imaging::stack_writer::StackWriter;
use crate::particles::Subset;
use crate::particles::store::{Dtype, Header, Particle, Source, Writer};
use crate::progress::Progress;
use crate::random::{self, Purpose};

/// Maximum number of particles used to estimate the noise level.
pub const CALIBRATION: usize = 1000;
/// Values in a chunk of images: 64 MiB.
const CHUNK_VALUES: usize = 1 << 24;

/// Ratio of the mean variance of the CTF-filtered clean images to the variance of the noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snr(pub f64);

impl FromStr for Snr {
    type Err = String;

    /// A ratio ("0.1") or decibels ("-10dB").
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let ratio = match lower.strip_suffix("db") {
            Some(decibels) => decibels.trim().parse().map(|d: f64| 10f64.powf(d / 10.0)),
            None => lower.parse(),
        };
        match ratio {
            Ok(ratio) if (1e-9..=1e9).contains(&ratio) => Ok(Self(ratio)),
            _ => {
                Err("expected a ratio above 0 (\"0.1\") or decibels (\"-10dB\"), 1e-9 to 1e9 as a ratio"
                    .into())
            }
        }
    }
}

/// Settings of a simulation.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Source of the true map.
    pub truth: TruthSource,
    /// Symmetry of the specimen, and where its unit is.
    pub assembly: Assembly,
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Number of particles.
    pub particles: usize,
    /// Signal-to-noise ratio.
    pub snr: Snr,
    /// If false, no noise is added; the signal has the same scale as with noise.
    pub noise: bool,
    /// Seed of the random streams.
    pub seed: u64,
    /// Distributions of poses, shifts and defoci.
    pub distributions: Distributions,
    /// The microscope.
    pub optics: Optics,
    /// Beam tilt (x, y) in mrad. Images of the particle file do not have it, as after an import.
    pub beam_tilt: [f64; 2],
    /// What is wrong in the set.
    pub defects: Defects,
    /// Pixel type in the particle file.
    pub dtype: Dtype,
    /// The particle file.
    pub output: PathBuf,
    /// File of the true map.
    pub truth_output: PathBuf,
    /// Folder for the same set in RELION's format, where images keep their shifts.
    pub star_folder: Option<PathBuf>,
    /// Replace particles of another program in that folder.
    pub overwrite: bool,
}

impl Simulation {
    /// Checks the settings that need no file.
    ///
    /// # Errors
    /// Names the first invalid option, its value, and the valid range.
    pub fn validate(&self) -> Result<()> {
        let d = &self.distributions;
        let real = |name: &str, value: f64, from: f64, to: f64, unit: &str| {
            check((from..=to).contains(&value), name, value, &format!("{from} to {to}{unit}"))
        };
        check((16..=512).contains(&self.box_size), "--box", self.box_size, "16 to 512 px")?;
        real("--pixel-size", self.pixel_size, 0.01, 1e3, " A")?;
        check((2..=10_000_000).contains(&self.particles), "--particles", self.particles, "2 to 10000000")?;
        real("--snr", self.snr.0, 1e-9, 1e9, "")?;
        real("--preference", d.preference, 0.0, 100.0, "")?;
        real("--max-shift", d.max_shift, 0.0, self.box_size as f64 / 4.0, " px (a quarter of the box)")?;
        real("--defocus-median", d.defocus_median, 1e3, 1e5, " A")?;
        real("--defocus-spread", d.defocus_spread, 0.0, 3.0, "")?;
        real("--astigmatism", d.astigmatism, 0.0, 6e3, " A")?;
        real("--voltage", self.optics.voltage, 10.0, 3e3, " kV")?;
        real("--cs", self.optics.spherical_aberration, 0.0, 20.0, " mm")?;
        real("--amplitude-contrast", self.optics.amplitude_contrast, 0.0, 1.0, "")?;
        if let TruthSource::Model(_, _, b_factor) = self.truth {
            real("--b-factor", b_factor, 0.0, 1e5, " A^2")?;
        }
        self.beam_tilt.iter().try_for_each(|&tilt| real("--beam-tilt", tilt, -100.0, 100.0, " mrad"))?;
        self.defects.validate(self.box_size)?;
        Ok(())
    }

    /// Checks that no output is an input or another output, and that the folder of `--star` holds no other program's particles.
    fn check_outputs(&self) -> Result<()> {
        let mut claims = Claims::new();
        match &self.truth {
            TruthSource::Model(path, ..) => claims.reads(path, "the atomic model"),
            TruthSource::Map(path) => claims.reads(path, "the input map"),
            TruthSource::Phantom => &mut claims,
        };
        claims.reads_some(self.defects.other.as_ref().map(|(path, _)| path), "the model of the other state");
        for spectrum in &self.defects.noise_spectra {
            claims.reads_some(spectrum.file(), "a spectrum of the noise");
        }
        claims
            .writes(&self.output)
            .writes(&self.truth_output)
            .writes(self.truth_output.with_extension("csv"));
        if let Some(folder) = &self.star_folder {
            let names = [relion::STACK, relion::STAR, relion::TRUTH, relion::TRUTH_TABLE];
            let paths = names.map(|name| folder.join(name));
            if !self.overwrite {
                // A folder of particles is ours if its stack is.
                let stack = if paths[0].exists() || !paths[1].exists() { &paths[0] } else { &paths[1] };
                mrc::check_own_stack(stack, "choose another folder for --star, or replace it (--overwrite)")?;
            }
            claims.creates(folder).writes_all(paths);
        }
        claims.check()
    }

    /// Runs the simulation in the current rayon pool.
    ///
    /// # Errors
    /// When an option is invalid, the model or map cannot be used, or a file cannot be written. Each output file is written
    /// atomically.
    pub fn run(&self) -> Result<()> {
        self.validate()?;
        self.check_outputs()?;
        Writer::check_space(&self.output, &self.header(), self.dtype)?;
        Microscope::check_memory(self.box_size, if self.defects.other.is_some() { 2 } else { 1 })?;
        let other = self.defects.other.as_ref().map(|(path, _)| path.as_path());
        let TrueMaps { specimen, other } =
            self.truth.maps(other, &self.assembly, self.box_size, self.pixel_size)?;
        let noise = self.defects.noise(self.box_size)?;
        // Output files are created first, so that a folder that cannot be written is found before the computation.
        if let Some(folder) = &self.star_folder {
            files::create_folder(folder)?;
        }
        let mut writer = Writer::create(&self.output, &self.header(), self.dtype)?;
        let mut stack = match &self.star_folder {
            Some(folder) => {
                Some(StackWriter::create(&folder.join(relion::STACK), self.box_size, self.pixel_size)?)
            }
            None => None,
        };
        let volume = mrc::Volume::new(specimen, self.pixel_size);
        files::Pending::new(&self.truth_output)?;

        let odd = self.odd_aberration();
        let microscope = Microscope::new(&volume.data, self.pixel_size).with_odd_aberration(&odd);
        let other = other.map(|map| Microscope::new(&map, self.pixel_size).with_odd_aberration(&odd));
        let sigma = self.noise_sigma(&microscope)?;
        tracing::info!(
            "noise of standard deviation {:.4} in the units of the truth (SNR {})",
            sigma,
            self.snr.0
        );
        let camera = Camera { microscope, other, scale: (1.0 / sigma) as f32, noise };
        self.make_images(&camera, &mut writer, stack.as_mut())?;

        mrc::write_volume(&self.truth_output, &volume)?;
        self.write_truth(&self.truth_output.with_extension("csv"))?;
        if let (Some(folder), Some(stack)) = (&self.star_folder, stack) {
            mrc::write_volume(&folder.join(relion::TRUTH), &volume)?;
            stack.finish()?;
            let star = folder.join(relion::STAR);
            self.write_truth(&folder.join(relion::TRUTH_TABLE))?;
            let rows = (0..self.particles).map(|index| relion::Row {
                particle: self.particle(index).written,
                half: half_of(index),
                optics_group: self.defects.group_of(index),
            });
            relion::write_star(&star, rows, &self.optics(), self.beam_tilt, self.box_size, self.pixel_size)?;
            tracing::info!("wrote {}", star.display());
        }
        writer.finish()?;
        tracing::info!("wrote {} and {}", self.output.display(), self.truth_output.display());
        Ok(())
    }

    fn header(&self) -> Header {
        let stack = self.star_folder.as_ref().map(|folder| folder.join(relion::STACK).display().to_string());
        Header {
            box_size: self.box_size,
            pixel_size: self.pixel_size,
            normalized: self.noise && self.defects.is_noise_equal(),
            inverted: false,
            optics: self.optics(),
            halves: [self.particles.div_ceil(2), self.particles / 2],
            source_files: stack.into_iter().collect(),
            imported_from: None,
        }
    }

    /// The optics groups.
    fn optics(&self) -> Vec<Optics> {
        let name = |group| if group == 1 { "simulated".into() } else { format!("simulated{group}") };
        (1..=self.defects.groups()).map(|group| Optics { name: name(group), ..self.optics.clone() }).collect()
    }

    fn odd_aberration(&self) -> OddAberration {
        let mut odd = OddAberration::default();
        let cs = 1e7 * self.optics.spherical_aberration;
        odd.add_tilt(self.beam_tilt.map(|mrad| cs * 1e-3 * mrad), wavelength(self.optics.voltage));
        odd
    }

    /// Particle `index`; independent of the size of the set.
    fn particle(&self, index: usize) -> DefectiveParticle {
        let truth = SimulatedParticle::draw(&self.distributions, self.pixel_size, self.seed, index);
        self.defects.draw(truth, self.pixel_size, self.seed, index)
    }

    /// Writes what each particle is, where the metadata do not say it all.
    fn write_truth(&self, path: &Path) -> Result<()> {
        if self.defects == Defects::default() {
            return Ok(());
        }
        let particles = (0..self.particles).map(|i| (self.particle(i), self.defects.group_of(i), half_of(i)));
        defects::write_truth(path, particles, self.header().halves)
    }

    /// The record of particle `index` in the particle file, where its image is centred.
    fn stored(&self, index: usize, particle: &SimulatedParticle) -> Particle {
        Particle {
            rotation: particle.rotation,
            shift: [0.0; 2],
            ctf: particle.ctf,
            optics_group: self.defects.group_of(index) as u32,
            source: self.star_folder.is_some().then_some(Source { file: 0, index: index as u64 }),
        }
    }

    fn clean_image(
        &self,
        microscope: &Microscope,
        particle: &SimulatedParticle,
        image: &mut [f32],
        scratch: &mut MicroscopeScratch,
    ) {
        let ctf = Ctf::new(&self.optics, &particle.ctf);
        microscope.image(&particle.rotation, self.shift(particle), &ctf, image, scratch);
    }

    /// Shift in pixels.
    fn shift(&self, particle: &SimulatedParticle) -> [f64; 2] {
        particle.origin.map(|origin| origin / self.pixel_size)
    }

    fn noise_sigma(&self, microscope: &Microscope) -> Result<f64> {
        let pixels = self.box_size * self.box_size;
        let variances: Vec<f64> = (0..self.particles.min(CALIBRATION))
            .into_par_iter()
            .map_init(
                || (microscope.scratch(), vec![0.0; pixels]),
                |(scratch, image), index| {
                    self.clean_image(microscope, &self.particle(index).truth, image, scratch);
                    variance(image)
                },
            )
            .collect();
        let signal = variances.iter().sum::<f64>() / variances.len() as f64;
        if !(signal.is_finite() && signal > 0.0) {
            return Err(Error::Numeric {
                problem: format!("the projections have a variance of {signal}"),
                remedy: "give a model or map with density inside the box".into(),
            });
        }
        Ok((signal / self.snr.0).sqrt())
    }

    fn make_images(
        &self,
        camera: &Camera,
        writer: &mut Writer,
        mut stack: Option<&mut StackWriter>,
    ) -> Result<()> {
        let pixels = self.box_size * self.box_size;
        let chunk = (CHUNK_VALUES / pixels).clamp(1, 2048);
        let mut images = vec![0.0f32; chunk.min(self.particles) * pixels];
        let mut progress = Progress::new("simulate", self.particles as u64, "images");
        for first in (0..self.particles).step_by(chunk) {
            // The chunk's particles, those of half 1 first, as the particle file takes them.
            let mut members: Vec<usize> = (first..self.particles.min(first + chunk)).collect();
            members.sort_by_key(|&index| half_of(index));
            let particles: Vec<DefectiveParticle> =
                members.par_iter().map(|&index| self.particle(index)).collect();
            let images = &mut images[..members.len() * pixels];
            images.par_chunks_exact_mut(pixels).zip(&members).zip(&particles).for_each_init(
                || (camera.microscope.scratch(), camera.noise[0].scratch()),
                |scratch, ((image, &index), particle)| {
                    self.noisy_image(camera, index, particle, image, scratch)
                },
            );
            if let Some(stack) = &mut stack {
                // The stack is in the order of the particle indices.
                let mut places: Vec<usize> = (0..members.len()).collect();
                places.sort_by_key(|&place| members[place]);
                for place in places {
                    stack.append(&images[place * pixels..(place + 1) * pixels])?;
                }
            }
            images.par_chunks_exact_mut(pixels).zip(&particles).for_each_init(
                || camera.microscope.scratch(),
                |scratch, (image, particle)| {
                    let shift = self.shift(&particle.written);
                    if shift != [0.0; 2] || camera.microscope.has_odd_aberration() {
                        camera.microscope.centre(shift, image, scratch);
                    }
                },
            );
            let stored: Vec<Particle> = members
                .iter()
                .zip(&particles)
                .map(|(&index, particle)| self.stored(index, &particle.written))
                .collect();
            let second = members.partition_point(|&index| half_of(index) == Subset::Half1);
            writer.append(Subset::Half1, &stored[..second], &images[..second * pixels])?;
            writer.append(Subset::Half2, &stored[second..], &images[second * pixels..])?;
            progress.advance(members.len() as u64);
        }
        progress.finish();
        Ok(())
    }

    /// The image of particle `index`, scaled so that the noise has a mean variance of 1 over the optics groups.
    fn noisy_image(
        &self,
        camera: &Camera,
        index: usize,
        particle: &DefectiveParticle,
        image: &mut [f32],
        (of_image, of_noise): &mut (MicroscopeScratch, NoiseScratch),
    ) {
        let microscope = match (particle.content, &camera.other) {
            (Content::Junk, _) => None,
            (Content::Other, Some(other)) => Some(other),
            _ => Some(&camera.microscope),
        };
        match microscope {
            Some(microscope) => self.clean_image(microscope, &particle.truth, image, of_image),
            None => image.fill(0.0),
        }
        let scale = camera.scale * particle.contrast as f32;
        image.iter_mut().for_each(|value| *value *= scale);
        if self.noise {
            let mut random = random::stream(self.seed, Purpose::Noise, 0, index as u64);
            camera.noise[self.defects.group_of(index)].add(image, self.box_size, &mut random, of_noise);
        }
    }
}

/// What makes the images.
struct Camera {
    /// Projects the specimen.
    microscope: Microscope,
    /// Projects its other state.
    other: Option<Microscope>,
    /// Factor of the clean images.
    scale: f32,
    /// Noise of each optics group.
    noise: Vec<Noise>,
}

/// Half of particle `index`.
fn half_of(index: usize) -> Subset {
    Subset::HALVES[index % 2]
}

/// Returns an error for option `name` unless its value is `valid`.
fn check(valid: bool, name: &str, value: impl std::fmt::Display, expected: &str) -> Result<()> {
    if valid {
        return Ok(());
    }
    Err(Error::request(format!("{name} {value} is out of range"), format!("choose {expected}")))
}

/// Variance over the pixels of an image.
fn variance(image: &[f32]) -> f64 {
    let n = image.len() as f64;
    let mean = image.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    image.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n
}

/// Default name of the true map: `<stem>_truth.mrc` next to the particle file.
pub fn default_truth_output(output: &Path) -> PathBuf {
    output.with_file_name(files::extended(output.file_stem().unwrap_or_default(), "_truth.mrc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snr_may_be_given_in_decibels() {
        for (text, ratio) in
            [("0.1", 0.1), ("-10dB", 0.1), ("-10 db", 0.1), ("3.0103dB", 2.0), ("0dB", 1.0), ("2", 2.0)]
        {
            let Snr(got) = text.parse().unwrap();
            assert!((got / ratio - 1.0).abs() < 1e-5, "{text}: {got}");
        }
        for text in ["", "dB", "x", "nan", "-1", "0", "inf", "nandB", "1e300dB", "10 %"] {
            assert!(text.parse::<Snr>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_true_map_is_next_to_the_particle_file() {
        assert_eq!(default_truth_output(Path::new("a/b.h5")), Path::new("a/b_truth.mrc"));
    }
}
