//! `cryosplat-mpi bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::logging::LogOptions;
use super::ranks::{MachineOptions, OnSignal};
use super::values::{cutoff, number, pixel_size};
use crate::error::Error;
use crate::imaging::Symmetry;
use crate::parallel::{Failure, World};
use crate::recipe::settings::Settings;
use crate::render::Sampling;
use crate::scaling::bench::{self, BenchOptions};
use crate::train::Ending;

const AFTER_HELP: &str = "\
All ranks form one group, as in `train --half all`. Steps are those of a training run, with a learning rate of zero and a mixture \
as wide as a trained one. On a GPU, stages are not timed separately: over several ranks, the all-reduce time is the difference \
between a step of all ranks and a step of each rank alone. Separate all-reduces run in GPU memory with NCCL, in host memory with MPI.

Examples:
  cryosplat-mpi bench --box 256 --gaussians 30000 --batch 8
  mpirun -n 4 cryosplat-mpi bench particles.h5 --batch 64 --json four.json";

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file [default: images of noise with random poses and CTFs, made in memory].
    particles: Option<PathBuf>,
    /// Box size of the generated images in pixels.
    #[arg(long = "box", value_name = "PX", value_parser = clap::value_parser!(u32).range(16..=512), default_value = "128", conflicts_with = "particles")]
    box_size: u32,
    /// Pixel size of the generated images in angstrom.
    #[arg(long, value_name = "A", value_parser = pixel_size, default_value = "3", conflicts_with = "particles")]
    pixel_size: f64,
    /// Point group: an image is the sum of the views of the Gaussians of the asymmetric unit.
    #[arg(long, visible_alias = "sym", default_value_t, value_name = "GROUP")]
    symmetry: Symmetry,
    /// Number of Gaussians, with --symmetry of the whole.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000), default_value = "30000")]
    gaussians: u32,
    /// Images per step, over all ranks.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value = "8")]
    batch: u32,
    /// Half width of a splat's support, in standard deviations.
    #[arg(long, value_name = "SIGMAS", allow_hyphen_values = true, value_parser = cutoff, default_value = "3")]
    cutoff: f64,
    /// Sampling of Gaussians on the pixels.
    #[arg(long, value_enum, default_value = "band-limited")]
    sampling: Sampling,
    /// Isotropic Gaussians: one scale and no orientation each.
    #[arg(long)]
    isotropic: bool,
    /// Seed of the Gaussians, the generated images and the particle order.
    #[arg(long, value_name = "SEED", allow_hyphen_values = true, default_value = "0")]
    seed: u64,
    /// Approximate duration of each measurement in seconds, after warm-up.
    #[arg(long, value_name = "S", allow_hyphen_values = true, value_parser = seconds, default_value = "5")]
    seconds: f64,
    /// Also write all numbers to this file, which `scaling` accepts in place of a run folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineOptions,
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.0, 3600.0)
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    args.machine.over_ranks(log, OnSignal::Die, |world| bench(args, world))
}

fn bench(args: &Args, world: &World) -> Result<Ending, Failure> {
    let options = BenchOptions {
        particles: args.particles.clone(),
        box_size: args.box_size as usize,
        pixel_size: args.pixel_size,
        symmetry: args.symmetry,
        gaussians: Settings::of_unit(args.gaussians as usize, args.symmetry),
        batch: args.batch as usize,
        isotropic: args.isotropic,
        cutoff: args.cutoff,
        sampling: args.sampling,
        seed: args.seed,
        device: args.machine.device,
        collective: args.machine.collective,
        cache: args.machine.cache(world)?,
        cache_half: args.machine.cache_half,
        time: Duration::from_secs_f64(args.seconds),
        json: args.json.clone(),
        command: super::output::command_line(),
    };
    if let Some(outcome) = bench::run(world, &options)? {
        super::output::print(outcome.table().as_bytes()).map_err(|error| {
            Error::request(format!("cannot print the table: {error}"), "check where standard output goes")
        })?;
    }
    Ok(Ending::Done)
}
