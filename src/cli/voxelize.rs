//! `cryosplat-mpi voxelize`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::mixture::{self, check_grid, check_output};
use crate::error::{Error, Result};
use crate::gmm::files::GmmFile;
use crate::gmm::voxelize::{Grid, label, voxelize};
use crate::imaging::mrc::{Volume, write_labelled_volume};

/// Edge of the largest grid that is computed, in voxels: it takes 120 GiB of memory.
const LARGEST: usize = 1024;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
As it is, the map is the one that `train` writes. Another pixel size samples the same density anew, up to the Nyquist \
frequency of the new pixels; another box then crops or pads the field of view. The particle's centre stays on voxel \
floor(box/2), and the density at a point keeps its value. Every map begins at zero angstrom, as RELION has it: maps of \
different boxes lie apart in ChimeraX by half the difference, and `export gmm --map` places pseudo-atoms in any of them.

Examples:
  cryosplat-mpi voxelize run/gmm_half1.h5 -o half1.mrc
  cryosplat-mpi voxelize run/gmm_half1.h5 -o fine.mrc --pixel-size 1.5
  cryosplat-mpi voxelize run/gmm_half1.ply -o half1.mrc --box 256 --pixel-size 1.2";

/// Arguments of `voxelize`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The mixture: gmm_half1.h5 or gmm_half1.ply of a run folder, or pseudo-atoms of `export gmm`.
    ///
    /// A PLY file says neither its box nor its pixel size: give those of the particles with --box and --pixel-size.
    #[arg(value_name = "MIXTURE")]
    mixture: PathBuf,
    /// The map to write (MRC).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Box size of the map in voxels. Default: the particles' field of view.
    #[arg(long = "box", value_name = "VOXELS")]
    box_size: Option<usize>,
    /// Pixel size of the map in angstrom. Default: that of the particles.
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pixel_size: Option<f64>,
    /// Worker threads. Default: one a core. The map is the same for any number.
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mixture = read(args)?;
    let pixel_size = args.pixel_size.unwrap_or(mixture.pixel_size);
    let grid = grid(args, &mixture)?;
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(args.threads.map_or(0, NonZeroUsize::get)).build()?;
    let data = pool.install(|| voxelize(&mixture.gmm, &grid));
    write_labelled_volume(&args.output, &Volume { data, pixel_size }, &label(&mixture))?;
    tracing::info!(
        "{} Gaussians on {} voxels of {:.4} A: {}",
        mixture.gmm.len(),
        grid.size,
        pixel_size,
        args.output.display()
    );
    Ok(())
}

/// The mixture and the box it was trained in.
fn read(args: &Args) -> Result<GmmFile> {
    check_output(&args.mixture, &args.output, "the mixture")?;
    check_grid(args.box_size, args.pixel_size)?;
    mixture::read(&args.mixture, args.box_size, args.pixel_size)
}

/// Where to sample. At the particles' pixel size no rounding may enter: the map is then the run's own, to the bit.
fn grid(args: &Args, mixture: &GmmFile) -> Result<Grid> {
    let ratio = args.pixel_size.map_or(1.0, |p| mixture.pixel_size / p);
    let per_box = mixture.box_size as f64 * ratio;
    let size = args.box_size.unwrap_or(per_box.round().max(4.0) as usize);
    let grid = Grid { size, per_box, box_size: mixture.box_size };
    if grid.computed() > LARGEST {
        return Err(Error::request(
            format!("a map of {} voxels along an edge is too large for the memory", grid.computed()),
            format!(
                "choose a larger --pixel-size or a smaller --box: up to {LARGEST} voxels over the particles' box"
            ),
        ));
    }
    Ok(grid)
}
