//! `cryosplat-mpi bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::LogOptions;
use super::ranks::MachineOptions;
use super::train::cutoff;
use crate::error::Error;
use crate::parallel::{Failure, World};
use crate::render::Sampling;
use crate::scaling::bench::{self, BenchOptions};
use crate::train::Ending;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
All ranks are one group, as in `train --half all`. Steps are those of a training, with a rate of zero and a mixture as wide \
as a trained one. A GPU does not tell its stages apart: over several ranks, the all-reduce is what a step takes more than \
that of every rank alone. Sums alone are in the memory of the GPUs by NCCL, and in that of the host by MPI.

Examples:
  cryosplat-mpi bench --box 256 --gaussians 30000 --batch 8
  mpirun -n 4 cryosplat-mpi bench particles.h5 --batch 64 --json four.json";

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The particle file [default: images of noise with random poses and CTFs, made in memory].
    particles: Option<PathBuf>,
    /// Box size in pixels of images that are made.
    #[arg(long = "box", value_name = "PX", value_parser = clap::value_parser!(u32).range(16..=512), default_value = "128", conflicts_with = "particles")]
    box_size: u32,
    /// Their pixel size in angstrom.
    #[arg(long, value_name = "A", value_parser = pixel_size, default_value = "3", conflicts_with = "particles")]
    pixel_size: f64,
    /// Number of Gaussians.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000), default_value = "30000")]
    gaussians: u32,
    /// Images per step over all ranks.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value = "8")]
    batch: u32,
    /// Half width of a splat's support, in standard deviations.
    #[arg(long, value_name = "SIGMAS", allow_hyphen_values = true, value_parser = cutoff, default_value = "3")]
    cutoff: f64,
    /// How Gaussians are sampled on the pixels.
    #[arg(long, value_enum, default_value = "band-limited")]
    sampling: Sampling,
    /// Round Gaussians: one scale and no orientation each.
    #[arg(long)]
    isotropic: bool,
    /// Seed of the Gaussians, and of images that are made or of the particles' order.
    #[arg(long, value_name = "SEED", allow_hyphen_values = true, default_value = "0")]
    seed: u64,
    /// Seconds of each measurement, about; warm-up comes before.
    #[arg(long, value_name = "S", allow_hyphen_values = true, value_parser = seconds, default_value = "5")]
    seconds: f64,
    /// Write all numbers into this file too, which `scaling` takes in place of a run folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineOptions,
}

fn pixel_size(text: &str) -> Result<f64, String> {
    super::train::number(text, 0.0, 1000.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    super::train::number(text, 0.0, 3600.0)
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    args.machine.over_ranks(log, |world| bench(args, world))
}

fn bench(args: &Args, world: &World) -> Result<Ending, Failure> {
    let options = BenchOptions {
        particles: args.particles.clone(),
        box_size: args.box_size as usize,
        pixel_size: args.pixel_size,
        gaussians: args.gaussians as usize,
        batch: args.batch as usize,
        isotropic: args.isotropic,
        cutoff: args.cutoff,
        sampling: args.sampling,
        seed: args.seed,
        device: args.machine.device,
        collective: args.machine.collective,
        patience: args.machine.patience(),
        cache: args.machine.cache(world)?,
        cache_half: args.machine.cache_half,
        time: Duration::from_secs_f64(args.seconds),
        json: args.json.clone(),
        command: std::env::args().collect(),
    };
    if let Some(outcome) = bench::run(world, &options)? {
        super::print(outcome.table().as_bytes()).map_err(|error| {
            Error::request(format!("cannot print the table: {error}"), "check where standard output goes")
        })?;
    }
    Ok(Ending::Done)
}
