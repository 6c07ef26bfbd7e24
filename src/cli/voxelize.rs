//! `cryosplat-mpi voxelize`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::threads;
use super::values::{self, check_box};
use crate::error::Error;
use crate::evaluate::maps;
use crate::files::Claims;
use crate::gmm::files::GmmFile;
use crate::gmm::mixture;
use crate::gmm::voxelize::{Grid, MAX_GRID, label, map_of, sampling_bytes};
use crate::imaging::mrc::{Volume, write_labelled_volume};
use crate::memory;
use crate::run_folder::finished;
use crate::run_folder::overwriting::reads_run_of;

const AFTER_HELP: &str = "\
By default, the map is the one that `train` writes. Another pixel size samples the same density up to the Nyquist frequency of \
the new pixels; another box crops or pads the field of view. The centre of the particle stays on voxel floor(box/2). Every map \
begins at zero angstrom, as in RELION: in ChimeraX, maps of different boxes are offset by half the difference.

Examples:
  cryosplat-mpi voxelize run/gmm_half1.h5 -o half1.mrc
  cryosplat-mpi voxelize run -o fine.mrc --pixel-size 1.5
  cryosplat-mpi voxelize run/gmm_half1.h5 -o fine.mrc --pixel-size 1.5
  cryosplat-mpi voxelize run/gmm_half1.ply -o half1.mrc --box 256 --pixel-size 1.2";

/// Arguments of `voxelize`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Run folder, for the mean of both half maps; or a mixture: gmm_half1.h5 or .ply of a run folder (.ply needs --box and --pixel-size), or pseudo-atoms of `export gmm`.
    #[arg(value_name = "RUN|MIXTURE")]
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
    let files = finished::mixtures(&args.mixture)?;
    let read = |file: &PathBuf| mixture::read_with_grid(file, args.box_size, args.pixel_size);
    let mixtures = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mixture = &mixtures[0];
    let frame = |mixture: &GmmFile| (mixture.box_size, mixture.pixel_size);
    if let Some(other) = mixtures.iter().position(|other| frame(other) != frame(mixture)) {
        let problem = format!("has another box or pixel size than {}", files[0].display());
        return Err(Error::input(&files[other], "", problem, "name one of the mixtures").into());
    }
    let pixel_size = args.pixel_size.unwrap_or(mixture.pixel_size);
    let grid = Grid::of_map(mixture, args.box_size, args.pixel_size);
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
    let maps = pool.install(|| {
        let map_of = |mixture| Volume::new(map_of(mixture, &grid), pixel_size);
        mixtures.iter().map(map_of).collect::<Vec<_>>()
    });
    let (map, label, count) = match &maps[..] {
        [first, second] => {
            let label = format!("cryosplat-mpi: mean of {} and {}", mixtures[0].count(), mixtures[1].count());
            (maps::mean(first, second), label, "mean of both halves".to_owned())
        }
        _ => (maps[0].clone(), label(mixture), mixture.count()),
    };
    write_labelled_volume(&args.output, &map, &label)?;
    tracing::info!("{count} on {} voxels of {:.4} A: {}", grid.size, pixel_size, args.output.display());
    Ok(())
}
