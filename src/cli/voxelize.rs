//! `cryosplat-mpi voxelize`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::threads;
use super::values::{self, check_box};
use crate::error::Error;
use crate::files::Claims;
use crate::gmm::mixture;
use crate::gmm::voxelize::{Grid, MAX_GRID, label, map_of, sampling_bytes};
use crate::imaging::mrc::{Volume, write_labelled_volume};
use crate::memory;
use crate::run_folder::overwriting::reads_run_of;

const AFTER_HELP: &str = "\
By default, the map is the one that `train` writes. Another pixel size samples the same density up to the Nyquist frequency of \
the new pixels; another box crops or pads the field of view. The centre of the particle stays on voxel floor(box/2). Every map \
begins at zero angstrom, as in RELION: in ChimeraX, maps of different boxes are offset by half the difference.

Examples:
  cryosplat-mpi voxelize run/gmm_half1.h5 -o half1.mrc
  cryosplat-mpi voxelize run/gmm_half1.h5 -o fine.mrc --pixel-size 1.5
  cryosplat-mpi voxelize run/gmm_half1.ply -o half1.mrc --box 256 --pixel-size 1.2";

/// Arguments of `voxelize`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Mixture: gmm_half1.h5 or .ply of a run folder (.ply needs --box and --pixel-size), or pseudo-atoms of `export gmm`.
    #[arg(value_name = "MIXTURE")]
    mixture: PathBuf,
    /// Output map (MRC).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Box size of the map in voxels [default: the particles' field of view].
    #[arg(long = "box", value_name = "VOXELS")]
    box_size: Option<usize>,
    /// Pixel size of the map in angstrom [default: that of the particles].
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = values::pixel_size)]
    pixel_size: Option<f64>,
    /// Threads [default: one per core].
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut claims = Claims::new();
    reads_run_of(claims.reads(&args.mixture, "the mixture").writes(&args.output), &args.mixture);
    claims.check()?;
    check_box(args.box_size)?;
    let mixture = mixture::read_with_grid(&args.mixture, args.box_size, args.pixel_size)?;
    let pixel_size = args.pixel_size.unwrap_or(mixture.pixel_size);
    let grid = Grid::of_map(&mixture, args.box_size, args.pixel_size);
    if grid.computed() > MAX_GRID {
        return Err(Error::request(
            format!("a map of {} voxels along an edge is too large for the memory", grid.computed()),
            format!(
                "choose a larger --pixel-size or a smaller --box: up to {MAX_GRID} voxels over the particles' box"
            ),
        )
        .into());
    }
    memory::require(
        sampling_bytes(&grid),
        || format!("a map of {} voxels along an edge", grid.computed()),
        "choose a larger --pixel-size or a smaller --box, or use a machine with more memory",
    )?;
    let pool = threads::pool(args.threads.map(NonZeroUsize::get))?;
    let data = pool.install(|| map_of(&mixture, &grid));
    write_labelled_volume(&args.output, &Volume::new(data, pixel_size), &label(&mixture))?;
    tracing::info!(
        "{} on {} voxels of {:.4} A: {}",
        mixture.count(),
        grid.size,
        pixel_size,
        args.output.display()
    );
    Ok(())
}
