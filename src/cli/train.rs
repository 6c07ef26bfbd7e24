//! `cryosplat-mpi train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::LogOptions;
use super::ranks::MachineOptions;
use crate::parallel::{Failure, World};
use crate::particles::parts::Models;
use crate::recipe::{Choices, GAUSSIANS_ALLOWED};
use crate::recipe::{Recipe, Schedule, Start};
use crate::render::{RateFactors, Sampling, Weighting};
use crate::run_folder::lifecycle::Older;
use crate::train::init::from_file::InitOptions;
use crate::train::run::Maps;
use crate::train::{Ending, RunOptions};

/// What `--help` says below the options.
const EXPLANATION: &str = "\
Start one rank per device or per node's share of cores. The first half of the ranks trains half 1, the rest half 2; a \
single rank trains both. On SIGUSR1 or SIGTERM all ranks write checkpoints and stop with exit code 75. A folder that holds a \
run already is not touched without --resume or --overwrite.

Examples:
  mpirun -n 4 cryosplat-mpi train particles.h5 -o run/
  srun --mpi=pmix cryosplat-mpi train particles.h5 -o run/ --resume auto
  cryosplat-mpi train particles.h5 -o quick/ --gaussians 5000 --epochs 2 --truth truth.mrc";

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The particle file, from `import` or `simulate`.
    particles: PathBuf,
    /// The run folder: maps, FSC, report, mixtures, checkpoints.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Number of Gaussians in a mixture of each half [default: scaled: one for each voxel that the specimen fills, but at most one
    /// for 16 voxels of the box, one for 22 pixels of the half's images without their solvent, and 30000 (above 128 px as many
    /// more as images have more pixels), or, up to twice that, one for 1300 pixels of the half's images; paper: 30000; with a
    /// mixture as --init: as many as that has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(GAUSSIANS_ALLOWED))]
    gaussians: Option<u64>,
    /// Start from this mixture (gmm_half1.h5 or .ply of a run, pseudo-atoms of `export gmm`) or this map (MRC), in place of
    /// random Gaussians.
    ///
    /// A mixture is brought to the particles' box; a PLY file is taken to be of that box. In a map, Gaussians are drawn where
    /// its density is positive, in proportion to it, by each half on its own. Both halves share the start: their FSC proves
    /// nothing that the start has.
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Filter the map of --init at this resolution, so that the halves share no more than that [default: 30].
    #[arg(long, value_name = "A", requires = "init", allow_hyphen_values = true, value_parser = low_pass)]
    init_lowpass: Option<f64>,
    /// Mixtures of each half, trained one after the other from random starts of their own; the half's map is their mean
    /// [default: scaled: 1 to 4, the more the less the particles tell; paper, and with --init: 1].
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1000))]
    mixtures: Option<u32>,
    /// Passes over each half, shared by its mixtures [default: scaled: 5, or more until 100,000 images are seen, up to 100;
    /// paper: 5].
    #[arg(long, value_name = "E", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    epochs: Option<u32>,
    /// Images per step of a half, over all its ranks [default: scaled: 8, paper: 1].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: Option<u32>,
    /// Images per step of a rank, in place of --batch.
    #[arg(long, value_name = "B", conflicts_with = "batch", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_per_rank: Option<u32>,
    /// Rules for rate and schedule: `scaled` gives the same map at any batch, `paper` is as published.
    #[arg(long, value_enum, default_value = "scaled", help_heading = "Recipe")]
    recipe: Recipe,
    /// Base learning rate, at batch 1 [default: scaled: 4e-4 for 100,000 images of a half in the run, or half of it where these
    /// tell much, paper: 1e-3].
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = positive, help_heading = "Recipe")]
    learning_rate: Option<f64>,
    /// What the rate is multiplied by for means, scales, quaternions and amplitudes [default: scaled: 1,0.3,1,10, paper: 1,1,1,1].
    #[arg(long, value_name = "M,S,Q,A", value_parser = rate_factors, help_heading = "Recipe")]
    rate_factors: Option<RateFactors>,
    /// How the rate falls [default: scaled: cosine, paper: step].
    #[arg(long, value_enum, help_heading = "Recipe")]
    schedule: Option<Schedule>,
    /// Half width of a splat's support, in standard deviations.
    #[arg(long, value_name = "SIGMAS", allow_hyphen_values = true, value_parser = cutoff, default_value = "3", help_heading = "Recipe")]
    cutoff: f64,
    /// How Gaussians are sampled on the pixels [default: scaled: band-limited, paper: points].
    #[arg(long, value_enum, help_heading = "Recipe")]
    sampling: Option<Sampling>,
    /// How much frequencies count: all alike, or by one over the mean of the particles' squared CTFs up to its first maximum, so
    /// that the lowest settle like all others [default: scaled: ctf, paper: uniform].
    #[arg(long, value_enum, help_heading = "Recipe")]
    weighting: Option<Weighting>,
    /// Where random Gaussians lie at the start [default: scaled: fitted, paper: published].
    #[arg(long, value_enum, conflicts_with = "init", help_heading = "Recipe")]
    start: Option<Start>,
    /// Round Gaussians: one scale and no orientation each.
    #[arg(long, help_heading = "Recipe")]
    isotropic: bool,
    /// Seed of the random starts and of the particles' order.
    #[arg(
        long,
        value_name = "SEED",
        allow_hyphen_values = true,
        default_value = "0",
        help_heading = "Recipe"
    )]
    seed: u64,
    /// Train both halves, one of them, or one model of all particles (without an FSC).
    #[arg(long, value_enum, default_value = "both")]
    half: Models,
    #[command(flatten)]
    machine: MachineOptions,
    /// Write maps at the end, or after every epoch (with the FSC in the log).
    #[arg(long, value_enum, default_value = "end")]
    maps: Maps,
    /// Write every N-th step to metrics.jsonl [default: about 200 lines an epoch].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    metrics_every: Option<u64>,
    /// Particles of each half for the voxel maps that its map is cross-validated with at the end; 0: no cross-validation.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    voxel_particles: u32,
    /// Train without particles that cannot be used (damaged images, steps that are not finite), up to N of each half, and list
    /// them in skipped_half1.csv and its like. Without this the first one ends the run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32), default_value = "0")]
    skip_bad_particles: u32,
    /// A folder for a file with the metrics for Prometheus, written every few seconds: where the node exporter's textfile
    /// collector looks.
    #[arg(long, value_name = "FOLDER")]
    prometheus: Option<PathBuf>,
    /// The true map, for the FSC against it (of simulated particles), in the particles' box.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder, on as many ranks to the same bits; `auto` starts where there is none.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_missing_value = "must")]
    resume: Option<Resume>,
    /// Minutes between two checkpoints, beside the one at the end of each epoch; 0 for those only.
    #[arg(long, value_name = "MINUTES", allow_hyphen_values = true, value_parser = minutes, default_value = "10")]
    checkpoint_minutes: f64,
    /// Replace the run that the folder holds. Without this or --resume it is not touched.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

/// What `--resume` expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Resume {
    /// A checkpoint, or a run that is done.
    Must,
    /// The same, or nothing: then the run starts.
    Auto,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("a number of minutes from 0 is wanted".into()),
    }
}

/// A number above `low`, up to `high`.
pub fn number(text: &str, low: f64, high: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > low && value <= high => Ok(value),
        _ => Err(format!("a number above {low} and up to {high} is wanted")),
    }
}

/// A resolution in angstrom.
fn low_pass(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e4)
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0)
}

/// Four factors, of means, scales, quaternions and amplitudes.
fn rate_factors(text: &str) -> Result<RateFactors, String> {
    let factors: Vec<f64> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match factors[..] {
        [mean, scale, quaternion, amplitude]
            if text.split(',').count() == 4 && factors.iter().all(|f| (0.0..=1000.0).contains(f)) =>
        {
            Ok(RateFactors { mean, scale, quaternion, amplitude })
        }
        _ => Err("four numbers from 0 to 1000 are wanted, with commas between".into()),
    }
}

/// A splat's half width in standard deviations.
pub fn cutoff(text: &str) -> Result<f64, String> {
    number(text, 0.5, 20.0)
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    args.machine.over_ranks(log, |world| train(args, world))
}

fn train(args: &Args, world: &World) -> Result<Ending, Failure> {
    let options = RunOptions {
        particles: args.particles.clone(),
        output: args.output.clone(),
        recipe: args.recipe,
        choices: Choices {
            gaussians: args.gaussians.map(|n| n as usize),
            mixtures: args.mixtures.map(|m| m as usize),
            epochs: args.epochs.map(|e| e as usize),
            batch: args.batch.map(|b| b as usize),
            learning_rate: args.learning_rate,
            schedule: args.schedule,
            sampling: args.sampling,
            weighting: args.weighting,
            rate_factors: args.rate_factors,
            start: args.start,
            init: None,
        },
        init: args.init.clone().map(|file| InitOptions { file, low_pass: args.init_lowpass }),
        batch_per_rank: args.batch_per_rank.map(|b| b as usize),
        isotropic: args.isotropic,
        cutoff: args.cutoff,
        seed: args.seed,
        models: args.half,
        device: args.machine.device,
        collective: args.machine.collective,
        patience: args.machine.patience(),
        cache: args.machine.cache(world)?,
        cache_half: args.machine.cache_half,
        maps: args.maps,
        metrics_every: args.metrics_every,
        truth: args.truth.clone(),
        checkpoint_every: (args.checkpoint_minutes > 0.0)
            .then(|| Duration::from_secs_f64(60.0 * args.checkpoint_minutes)),
        voxel_particles: args.voxel_particles as usize,
        skip_bad_particles: args.skip_bad_particles as usize,
        prometheus: args.prometheus.clone(),
        older: match (args.resume, args.overwrite) {
            (Some(Resume::Must), _) => Older::Resume,
            (Some(Resume::Auto), _) => Older::ResumeOrStart,
            (None, true) => Older::Replace,
            (None, false) => Older::Refuse,
        },
        command: std::env::args().collect(),
    };
    crate::train::run(world, &options)
}
