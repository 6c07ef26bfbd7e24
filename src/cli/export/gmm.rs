//! `cryosplat-mpi export gmm`.

use std::path::PathBuf;

use crate::cli::values::{check_box, pixel_size};
use crate::error::Error;
use crate::files::Claims;
use crate::gmm::convert::{MixtureFormat, convert};
use crate::run_folder::overwriting::reads_run_of;

const AFTER_HELP: &str = "\
Pseudo-atoms (.pdb, .cif) are one per Gaussian, of the asymmetric unit unless --whole is given. Position: the mean in angstrom, in the frame of the run's map (or of --map). \
Occupancy: the amplitude relative to the largest. Anisotropic displacement U: the covariance. B factor: 8 pi^2 / 3 trace(U). The \
header stores the largest amplitude and the centre of the box. A PDB file holds at most 99,999 atoms.

All output files can be read again by `voxelize`, `export gmm` and `train --init`.

Examples:
  cryosplat-mpi export gmm run/gmm_half1.h5 -o half1.cif
  cryosplat-mpi export gmm run/gmm_half1.h5 -o half1.pdb --map half1_box256.mrc
  cryosplat-mpi export gmm run/gmm_half1.h5 -o all.cif --whole";

/// Arguments of `export gmm`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Mixture: gmm_half1.h5 or .ply of a run folder, or pseudo-atoms written by this program.
    #[arg(value_name = "MIXTURE")]
    mixture: PathBuf,
    /// Output file; the extension selects the format: .pdb, .cif, .ply or .h5.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write the whole of a symmetric particle, not its asymmetric unit and the name of its point group.
    #[arg(long)]
    whole: bool,
    /// Map in whose frame the atoms are placed, such as a map of `voxelize` [default: the map of the run].
    #[arg(long, value_name = "MAP")]
    map: Option<PathBuf>,
    /// PLY input: box size of the particles in pixels.
    #[arg(long = "box", value_name = "PIXELS", requires = "pixel_size")]
    box_size: Option<usize>,
    /// PLY input: pixel size of the particles in angstrom.
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = pixel_size, requires = "box_size")]
    pixel_size: Option<f64>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { mixture: input, output, box_size, pixel_size, .. } = args;
    let mut claims = Claims::new();
    claims.reads(input, "the mixture").reads_some(args.map.as_ref(), "the map of the frame").writes(output);
    reads_run_of(&mut claims, input);
    claims.check()?;
    check_box(*box_size)?;
    let format = MixtureFormat::from_extension(output);
    if args.map.is_some() && !format.as_ref().is_ok_and(|format| format.is_atoms()) {
        let problem = "--map places atoms, but the output file holds none";
        return Err(Error::request(problem, "leave out --map, or write .pdb or .cif").into());
    }
    let grid = (*box_size, *pixel_size);
    let written = convert(input, output, format?, grid, args.map.as_deref(), args.whole)?;
    tracing::info!("{written}: {}", output.display());
    Ok(())
}
