//! `cryosplat-mpi train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::dry_run::{self, DryRunArgs};
use super::logging::LogOptions;
use super::ranks::{MachineOptions, OnSignal};
use super::values::{cutoff, number};
use crate::imaging::Symmetry;
use crate::parallel::{Failure, World};
use crate::particles::selection::Models;
use crate::recipe::likelihood::{Contrast, NoiseModel, Weighing};
use crate::recipe::rules::GAUSSIANS_ALLOWED;
use crate::recipe::{Choices, Recipe, Refine, Schedule, Start};
use crate::render::{RateFactors, Sampling, Weighting};
use crate::run_folder::lifecycle::ExistingRun;
use crate::train::init::from_file::InitOptions;
use crate::train::{Ending, Maps, RunOptions};

const AFTER_HELP: &str = "\
Start one rank per GPU, or per share of a node's cores. The first half of the ranks trains half 1, the rest half 2; a single \
rank trains both. On SIGUSR1, SIGTERM or Ctrl-C all ranks write checkpoints and stop with exit code 75. An existing run is not changed \
without --resume or --overwrite, and one that a living job holds not at all.

Examples:
  cryosplat-mpi train particles.h5 --dry-run
  cryosplat-mpi train run_data.star --box 128 --dry-run --ranks 4
  mpirun -n 4 cryosplat-mpi train particles.h5 -o run/
  srun --mpi=pmix cryosplat-mpi train particles.h5 -o run/ --resume auto
  mpirun -n 4 cryosplat-mpi train particles.h5 -o run/ --symmetry D7
  cryosplat-mpi train particles.h5 -o quick/ --gaussians 5000 --epochs 2 --truth truth.mrc";

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file, from `import` or `simulate`; with --dry-run also what `import` takes.
    particles: PathBuf,
    /// Run folder: maps, FSC, report, mixtures, checkpoints.
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Point group of the specimen, with RELION's axes through the centre of the box: C1 to C99, D1 to D99, T, O, I (I2), I1 to I4.
    #[arg(long, visible_alias = "sym", default_value_t, value_name = "GROUP")]
    symmetry: Symmetry,
    /// Number of Gaussians per mixture, with --symmetry of the whole [default: scaled: chosen from the data, paper: 30000; see
    /// docs/guide.md, Recipes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(GAUSSIANS_ALLOWED))]
    gaussians: Option<u64>,
    /// Start from this mixture (.h5, .ply, pseudo-atoms) or map (MRC), not from random Gaussians; see docs/guide.md, Training.
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Low-pass filter of the map of --init, in angstrom [default: 30].
    #[arg(long, value_name = "A", requires = "init", allow_hyphen_values = true, value_parser = low_pass)]
    init_lowpass: Option<f64>,
    /// Number of mixtures per half; their mean is the half map [default: scaled: chosen from the data, paper and --init: 1].
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1000))]
    mixtures: Option<u32>,
    /// Epochs per half, shared by its mixtures [default: scaled: 5 or more, chosen from the data, paper: 5].
    #[arg(long, value_name = "E", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    epochs: Option<u32>,
    /// After these epochs of each mixture (2, or 2,4), split each Gaussian into two; --gaussians is then the number at the end.
    #[arg(long, value_name = "EPOCHS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    densify: Vec<u32>,
    /// Images per step and half, over all its ranks [default: scaled: 8, paper: 1].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: Option<u32>,
    /// Images per step and rank, in place of --batch.
    #[arg(long, value_name = "B", conflicts_with = "batch", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_per_rank: Option<u32>,
    /// Defaults and rules for learning rate and schedule; see docs/guide.md, Recipes.
    #[arg(long, value_enum, default_value = "scaled", help_heading = "Recipe")]
    recipe: Recipe,
    /// Base learning rate, at batch 1 [default: scaled: chosen from the data, paper: 1e-3].
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = learning_rate, help_heading = "Recipe")]
    learning_rate: Option<f64>,
    /// Factors of the learning rate of means, scales, quaternions, amplitudes [default: scaled: 1,0.3,1,10, paper: 1,1,1,1].
    #[arg(long, value_name = "M,S,Q,A", value_parser = rate_factors, help_heading = "Recipe")]
    rate_factors: Option<RateFactors>,
    /// Learning rate schedule [default: scaled: cosine, paper: step].
    #[arg(long, value_enum, help_heading = "Recipe")]
    schedule: Option<Schedule>,
    /// Half width of a splat's support, in standard deviations.
    #[arg(long, value_name = "SIGMAS", allow_hyphen_values = true, value_parser = cutoff, default_value = "3", help_heading = "Recipe")]
    cutoff: f64,
    /// Sampling of Gaussians on the pixels [default: scaled: band-limited, paper: points].
    #[arg(long, value_enum, help_heading = "Recipe")]
    sampling: Option<Sampling>,
    /// Weighting of spatial frequencies in the loss [default: scaled: ctf, paper: uniform].
    #[arg(long, value_enum, help_heading = "Recipe")]
    weighting: Option<Weighting>,
    /// Noise in the loss: the same for all frequencies and optics groups, or by its spectrum in each group [default: scaled: spectrum
    /// with several optics groups, else white; paper: white].
    #[arg(long, value_enum, help_heading = "Recipe")]
    noise: Option<NoiseModel>,
    /// Contrast of the particles in the loss: 1, or estimated by comparison with the model.
    #[arg(long, value_enum, help_heading = "Recipe")]
    contrast: Option<Contrast>,
    /// Weigh particles by the probability that their image shows the specimen; scores and weights go to particles.csv. With auto, if
    /// images without it are found after the first epoch [default: scaled: auto, paper: no].
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "yes", require_equals = true, value_name = "WHEN", help_heading = "Recipe")]
    weigh_particles: Option<Weighing>,
    /// Refine these of each particle, separated by commas: poses, shifts, defocus, contrast; all or none.
    #[arg(long, value_name = "WHAT", value_parser = refine, default_value = "none")]
    refine: RefineChoice,
    /// Distribution of the initial random Gaussians [default: scaled: fitted, paper: published].
    #[arg(long, value_enum, conflicts_with = "init", help_heading = "Recipe")]
    start: Option<Start>,
    /// Isotropic Gaussians: one scale and no orientation each.
    #[arg(long, help_heading = "Recipe")]
    isotropic: bool,
    /// Seed of the initial Gaussians and of the particle order.
    #[arg(
        long,
        value_name = "SEED",
        allow_hyphen_values = true,
        default_value = "0",
        help_heading = "Recipe"
    )]
    seed: u64,
    /// Which models to train.
    #[arg(long, value_enum, default_value = "both")]
    half: Models,
    #[command(flatten)]
    machine: MachineOptions,
    /// When to write maps.
    #[arg(long, value_enum, default_value = "end")]
    maps: Maps,
    /// Write every N-th step to metrics_half1.jsonl and metrics_half2.jsonl [default: about 200 lines per epoch].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    metrics_every: Option<u64>,
    /// Particles per half for the voxel maps of the final cross-validation; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    voxel_particles: u32,
    /// Do not diagnose the run at its end (`cryosplat-mpi diagnose` does it later).
    #[arg(long)]
    no_diagnosis: bool,
    /// Exclude up to N unusable particles per half (damaged image, overflowing pixels or CTF); 0: stop at the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32), default_value = "0")]
    skip_bad_particles: u32,
    /// Folder for metrics in Prometheus format, for the node exporter's textfile collector.
    #[arg(long, value_name = "FOLDER")]
    prometheus: Option<PathBuf>,
    /// Ground-truth map of simulated particles, for the FSC against it.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    /// Resume from the last checkpoint in the run folder; see docs/guide.md, Resuming.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_missing_value = "must")]
    resume: Option<Resume>,
    /// With --resume: continue the finished run for N epochs beyond its --epochs; see docs/guide.md, Extending a run.
    #[arg(long, value_name = "N", requires = "resume", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    extend_epochs: Option<u32>,
    /// Minutes between checkpoints within an epoch; 0: only at the end of each epoch.
    #[arg(long, value_name = "MINUTES", allow_hyphen_values = true, value_parser = minutes, default_value = "10")]
    checkpoint_minutes: f64,
    /// Replace the run in the folder.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// What `--resume` does if there is nothing to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Resume {
    /// Fail unless there is a checkpoint or a finished run.
    Must,
    /// Start the run if there is neither.
    Auto,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("expected a number of minutes, 0 or more".into()),
    }
}

fn low_pass(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e4)
}

fn learning_rate(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0)
}

/// The value of `--refine`.
#[derive(Clone, Debug, Default)]
struct RefineChoice {
    refine: Refine,
    contrast: bool,
}

fn refine(text: &str) -> Result<RefineChoice, String> {
    let mut choice = RefineChoice::default();
    let Refine { poses, shifts, defocus, .. } = &mut choice.refine;
    for word in text.split(',') {
        match word.trim() {
            "none" if text == "none" => {}
            "all" if text == "all" => (*poses, *shifts, *defocus, choice.contrast) = (true, true, true, true),
            "poses" => *poses = true,
            "shifts" => *shifts = true,
            "defocus" => *defocus = true,
            "contrast" => choice.contrast = true,
            _ => {
                return Err(
                    "expected none, all, or some of poses, shifts, defocus, contrast, separated by commas"
                        .into(),
                );
            }
        }
    }
    Ok(choice)
}

fn rate_factors(text: &str) -> Result<RateFactors, String> {
    let factors: Vec<f64> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match factors[..] {
        [mean, scale, quaternion, amplitude]
            if text.split(',').count() == 4 && factors.iter().all(|f| (0.0..=1000.0).contains(f)) =>
        {
            Ok(RateFactors { mean, scale, quaternion, amplitude })
        }
        _ => Err("expected four numbers from 0 to 1000, separated by commas".into()),
    }
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    args.machine.over_ranks(log, OnSignal::Stop, |world| train(args, world))
}

fn train(args: &Args, world: &World) -> Result<Ending, Failure> {
    let options = run_options(args, world)?;
    if args.dry_run.dry_run {
        return dry_run::run(&args.dry_run, world, options);
    }
    crate::train::run(world, &options)
}

fn run_options(args: &Args, world: &World) -> Result<RunOptions, Failure> {
    Ok(RunOptions {
        particles: args.particles.clone(),
        // A dry run has none.
        output: args.output.clone().unwrap_or_default(),
        recipe: args.recipe,
        choices: Choices {
            gaussians: args.gaussians.map(|n| n as usize),
            symmetry: args.symmetry,
            densify: args.densify.iter().map(|&epoch| epoch as usize).collect(),
            mixtures: args.mixtures.map(|m| m as usize),
            epochs: args.epochs.map(|e| e as usize),
            extensions: Vec::new(),
            batch: args.batch.map(|b| b as usize),
            learning_rate: args.learning_rate,
            schedule: args.schedule,
            sampling: args.sampling,
            weighting: args.weighting,
            rate_factors: args.rate_factors,
            noise: args.noise,
            contrast: args.contrast.or(args.refine.contrast.then_some(Contrast::Estimated)),
            refine: args.refine.refine.clone(),
            weigh_particles: args.weigh_particles,
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
        cache: args.machine.cache(world)?,
        cache_half: args.machine.cache_half,
        maps: args.maps,
        metrics_every: args.metrics_every,
        truth: args.truth.clone(),
        checkpoint_every: (args.checkpoint_minutes > 0.0)
            .then(|| Duration::from_secs_f64(60.0 * args.checkpoint_minutes)),
        voxel_particles: args.voxel_particles as usize,
        diagnose: !args.no_diagnosis,
        skip_bad_particles: args.skip_bad_particles as usize,
        prometheus: args.prometheus.clone(),
        existing_run: match (args.resume, args.overwrite) {
            (Some(Resume::Must), _) => ExistingRun::Resume,
            (Some(Resume::Auto), _) => ExistingRun::ResumeOrStart,
            (None, true) => ExistingRun::Replace,
            (None, false) => ExistingRun::Refuse,
        },
        extend_epochs: args.extend_epochs.map(|epochs| epochs as usize),
        command: super::output::command_line(),
    })
}
