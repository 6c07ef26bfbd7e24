//! `cryosplat-mpi backproject`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::logging::LogOptions;
use super::ranks::{OnSignal, RankOptions};
use crate::backproject::{BackprojectOptions, run as backproject};
use crate::imaging::Symmetry;
use crate::recipe::likelihood::NoiseModel;
use crate::train::Ending;

const AFTER_HELP: &str = "\
Voxel maps by direct Fourier inversion, to compare with `train`: CTF-weighted, with trilinear interpolation on a grid padded \
twofold, and a Wiener filter from the half maps' FSC. Ranks are divided between the halves and the run folder is laid out as by \
`train`; map.mrc is the map of all particles. With --no-wiener the maps are those of relion_reconstruct --ctf.

Examples:
  mpirun -n 4 cryosplat-mpi backproject particles.h5 -o voxels/
  cryosplat-mpi backproject particles.h5 -o voxels/ --truth truth.mrc
  cryosplat-mpi backproject particles.h5 -o voxels/ --symmetry D7
  cryosplat-mpi compare run/ voxels/ --truth truth.mrc";

/// Arguments of `backproject`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file, from `import` or `simulate`.
    particles: PathBuf,
    /// Run folder: maps, FSC, report.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Point group of the specimen, with RELION's axes through the centre of the box: C1 to C99, D1 to D99, T, O, I (I2), I1 to I4.
    #[arg(long, visible_alias = "sym", default_value_t, value_name = "GROUP")]
    symmetry: Symmetry,
    /// How images count: all alike, or by the inverse power of the noise of their optics group, by frequency.
    #[arg(long, value_enum, default_value = "white")]
    noise: NoiseModel,
    /// Divide by the weights only, without the Wiener filter from the half maps' FSC.
    #[arg(long)]
    no_wiener: bool,
    /// Ground-truth map of simulated particles, for the FSC against it.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    /// Replace the run in the folder.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    ranks: RankOptions,
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    let options = BackprojectOptions {
        particles: args.particles.clone(),
        output: args.output.clone(),
        symmetry: args.symmetry,
        by_noise: args.noise == NoiseModel::Spectrum,
        wiener: !args.no_wiener,
        truth: args.truth.clone(),
        overwrite: args.overwrite,
        command: super::output::command_line(),
    };
    args.ranks.over_ranks(log, OnSignal::Die, |world| backproject(world, &options).map(|()| Ending::Done))
}
