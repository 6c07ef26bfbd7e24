//! `cryosplat-mpi simulate`.

mod defects;

use std::path::PathBuf;

use clap::ArgGroup;

use super::models::ModelArgs;
use super::threads;
use crate::error::Error;
use crate::imaging::Symmetry;
use crate::imaging::ctf::Optics;
use crate::particles::store::Dtype;
use crate::simulate::assembly::Assembly;
use crate::simulate::atoms::ModelChoice;
use crate::simulate::geometry::Distributions;
use crate::simulate::set::{Simulation, Snr, default_truth_output};
use crate::simulate::truth::TruthSource;
use defects::DefectArgs;

const AFTER_HELP: &str = "\
Each particle is an exact central slice of the ground-truth map in a random orientation, shifted, filtered by its CTF, with \
white noise of standard deviation 1; the specimen is bright. The particle file holds centred images, as after an import. Halves \
alternate. The same options and seed give the same bytes on any number of threads, and the pose, CTF and shift of particle i do \
not depend on the size of the set. The signal is scaled by the first 1000 particles.

Examples:
  cryosplat-mpi simulate --model 4v5d.cif -o set.h5 --star relion/ --box 64 --pixel-size 6
  cryosplat-mpi simulate --model chain.pdb --symmetry D7 --unit-at 50,0,20 -o d7.h5 --box 64 --pixel-size 4
  cryosplat-mpi simulate --phantom -o small.h5 --box 32 --pixel-size 4 --particles 1000 --snr -5dB";

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("source").required(true).args(["model", "map", "phantom"])))]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// Atomic model (mmCIF or PDB); centred, and must fit the box in every orientation.
    #[arg(long, value_name = "FILE", help_heading = "Truth (one of)")]
    model: Option<PathBuf>,
    /// Cubic map (MRC); resampled to --pixel-size, cropped or padded to --box.
    #[arg(long, value_name = "FILE", help_heading = "Truth (one of)")]
    map: Option<PathBuf>,
    /// Built-in chiral phantom that fills any box.
    #[arg(long, help_heading = "Truth (one of)")]
    phantom: bool,

    /// Point group of the specimen, with RELION's axes. A model is one unit, which is copied; a map is averaged.
    #[arg(
        long,
        visible_alias = "sym",
        default_value_t,
        value_name = "GROUP",
        help_heading = "Truth (one of)"
    )]
    symmetry: Symmetry,
    /// Centre of the unit of a symmetric model in angstrom from the centre of the group [default: as in the file, relative to the
    /// origin of its coordinates].
    #[arg(
        long,
        value_name = "X,Y,Z",
        value_parser = point,
        requires_all = ["model", "symmetry"],
        allow_hyphen_values = true,
        help_heading = "Symmetry"
    )]
    unit_at: Option<[f64; 3]>,

    /// Output particle file (HDF5).
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: PathBuf,
    /// Also write the set for RELION to this folder: particles.star, particles.mrcs (not centred), truth.mrc.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    star: Option<PathBuf>,
    /// Replace particles.mrcs and particles.star in the folder of --star even if another program wrote them.
    #[arg(long, requires = "star", help_heading = "Output")]
    overwrite: bool,
    /// Output ground-truth map [default: <OUTPUT without .h5>_truth.mrc].
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    truth: Option<PathBuf>,
    /// Storage of the pixels in the particle file.
    #[arg(long, value_enum, default_value = "f32", help_heading = "Output")]
    dtype: Dtype,

    /// Box size in pixels.
    #[arg(long = "box", default_value_t = 64, value_name = "PX", help_heading = "Images")]
    box_size: usize,
    /// Pixel size in angstrom.
    #[arg(
        long,
        default_value_t = 6.0,
        value_name = "A",
        allow_negative_numbers = true,
        help_heading = "Images"
    )]
    pixel_size: f64,
    /// Number of particles.
    #[arg(short = 'n', long, default_value_t = 10_000, value_name = "N", help_heading = "Images")]
    particles: usize,
    /// Signal-to-noise ratio, as a ratio ("0.1") or in decibels ("-10dB"): signal variance over noise variance per pixel.
    #[arg(
        long,
        default_value = "0.1",
        value_name = "RATIO",
        allow_hyphen_values = true,
        help_heading = "Images"
    )]
    snr: Snr,
    /// Add no noise (the signal is scaled as with noise).
    #[arg(long, help_heading = "Images")]
    no_noise: bool,
    /// Preferred orientation: the density of views at angle t from z is proportional to exp(K cos t); 0 is uniform.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "K",
        allow_negative_numbers = true,
        help_heading = "Images"
    )]
    preference: f64,
    /// Largest shift along x and y, in pixels; shifts are uniform.
    #[arg(
        long,
        default_value_t = 3.0,
        value_name = "PX",
        allow_negative_numbers = true,
        help_heading = "Images"
    )]
    max_shift: f64,
    /// B factor of the atomic model in square angstrom.
    #[arg(
        long,
        default_value_t = 150.0,
        value_name = "A^2",
        allow_negative_numbers = true,
        value_parser = b_factor,
        help_heading = "Images"
    )]
    b_factor: f64,

    /// Median defocus in angstrom (underfocus positive) of a log-normal distribution from 3000 to 60000.
    #[arg(
        long,
        default_value_t = 1.8e4,
        value_name = "A",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    defocus_median: f64,
    /// Standard deviation of the natural logarithm of the defocus.
    #[arg(
        long,
        default_value_t = 0.3,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    defocus_spread: f64,
    /// Largest astigmatism in angstrom, defocus U minus V; uniform from 0.
    #[arg(
        long,
        default_value_t = 300.0,
        value_name = "A",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    astigmatism: f64,
    /// Acceleration voltage in kV.
    #[arg(
        long,
        default_value_t = 300.0,
        value_name = "KV",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    voltage: f64,
    /// Spherical aberration in mm.
    #[arg(
        long,
        default_value_t = 2.7,
        value_name = "MM",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    cs: f64,
    /// Amplitude contrast, as a fraction.
    #[arg(
        long,
        default_value_t = 0.1,
        value_name = "W",
        allow_negative_numbers = true,
        help_heading = "Microscope"
    )]
    amplitude_contrast: f64,
    /// Beam tilt in mrad, written to the STAR file; images of the particle file do not have it.
    #[arg(
        long,
        default_value = "0,0",
        value_parser = pair,
        value_name = "X,Y",
        allow_hyphen_values = true,
        help_heading = "Microscope"
    )]
    beam_tilt: [f64; 2],

    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    defects: DefectArgs,

    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Threads [default: one per core].
    #[arg(long, value_name = "T")]
    threads: Option<usize>,
}

/// A point "X,Y,Z" in angstrom.
fn point(text: &str) -> Result<[f64; 3], String> {
    let values: Option<Vec<f64>> =
        text.split(',').map(|v| v.trim().parse().ok().filter(|v: &f64| v.abs() <= 1e5)).collect();
    let values = values.and_then(|values| values.try_into().ok());
    values.ok_or_else(|| "expected three numbers of angstrom (\"40,0,-12.5\")".into())
}

impl Args {
    fn simulation(&self) -> Simulation {
        let truth = match (&self.model, &self.map) {
            (Some(model), _) => TruthSource::Model(model.clone(), self.models.choice(), self.b_factor),
            (None, Some(map)) => TruthSource::Map(map.clone()),
            (None, None) => TruthSource::Phantom,
        };
        Simulation {
            truth,
            assembly: Assembly { symmetry: self.symmetry, unit_at: self.unit_at },
            box_size: self.box_size,
            pixel_size: self.pixel_size,
            particles: self.particles,
            snr: self.snr,
            noise: !self.no_noise,
            seed: self.seed,
            distributions: Distributions {
                preference: self.preference,
                max_shift: self.max_shift,
                defocus_median: self.defocus_median,
                defocus_spread: self.defocus_spread,
                astigmatism: self.astigmatism,
            },
            optics: Optics::new(self.voltage, self.cs, self.amplitude_contrast),
            beam_tilt: self.beam_tilt,
            defects: self.defects.defects(),
            dtype: self.dtype,
            output: self.output.clone(),
            truth_output: self.truth.clone().unwrap_or_else(|| default_truth_output(&self.output)),
            star_folder: self.star.clone(),
            overwrite: self.overwrite,
        }
    }
}

/// Two numbers with a comma between them.
fn pair(text: &str) -> Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "expected two numbers such as 8,-5".into())
}

/// A B factor that takes away high frequencies, or none.
fn b_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e5).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 100000 A^2".into()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.model.is_none() && args.models.choice() != ModelChoice::First {
        let problem = "--model-number and --all-models choose among the models of an atomic model file";
        return Err(Error::request(problem, "use them with --model").into());
    }
    let pool = threads::pool(args.threads)?;
    pool.install(|| args.simulation().run())?;
    Ok(())
}
