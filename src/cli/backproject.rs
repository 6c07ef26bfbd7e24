//! `cryosplat-mpi backproject`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::LogOptions;
use super::ranks::ThreadOptions;
use crate::backproject::{BackprojectOptions, run as backproject};
use crate::train::Ending;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
A voxel map by direct Fourier inversion, to compare the mixtures of `train` with: CTF-weighted, with trilinear interpolation \
on a grid padded twofold, and a Wiener filter by the half maps' FSC. The first half of the ranks works on half 1, the rest \
on half 2, as in `train`, and the run folder is as there; map.mrc is the map of all particles together. With --no-wiener the maps are those of relion_reconstruct --ctf.

Examples:
  mpirun -n 4 cryosplat-mpi backproject particles.h5 -o voxels/
  cryosplat-mpi backproject particles.h5 -o voxels/ --truth truth.mrc
  cryosplat-mpi compare run/ voxels/ --truth truth.mrc";

/// Arguments of `backproject`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The particle file, from `import` or `simulate`.
    particles: PathBuf,
    /// The run folder: maps, FSC, report.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Only divide by the weights, without the Wiener filter that the half maps' FSC gives.
    #[arg(long)]
    no_wiener: bool,
    /// The true map, for the FSC against it (of simulated particles), in the particles' box.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    /// Replace the run that the folder holds. Without this it is not touched.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    threads: ThreadOptions,
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    let options = BackprojectOptions {
        particles: args.particles.clone(),
        output: args.output.clone(),
        wiener: !args.no_wiener,
        truth: args.truth.clone(),
        overwrite: args.overwrite,
        command: std::env::args().collect(),
    };
    args.threads.over_ranks(log, |world| backproject(world, &options).map(|()| Ending::Done))
}
