//! `cryosplat-mpi export gmm`.

use std::path::{Path, PathBuf};

use crate::cli::mixture;
use crate::error::{Error, Result};
use crate::gmm::atoms::{Model, cif, pdb};
use crate::gmm::ply;
use crate::imaging::mrc::Stack;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
Pseudo-atoms (.pdb, .cif), one a Gaussian: the atom lies at the mean, in angstrom, where ChimeraX shows the map of the run \
(or --map). Its occupancy is the amplitude as a share of the largest, its anisotropic displacement U the covariance, its B \
factor 8 pi^2 / 3 trace(U): 8 pi^2 sigma^2 for a round Gaussian of sigma angstrom. The header says the largest amplitude, and \
where the centre of the box lies. A PDB file holds 99,999 atoms, with rounded numbers; mmCIF has no limit.

Every file that this writes can be read again: by `voxelize`, `export gmm` and `train --init`.

Examples:
  cryosplat-mpi export gmm run/gmm_half1.h5 -o half1.cif
  cryosplat-mpi export gmm run/gmm_half1.h5 -o half1.pdb --map half1_box256.mrc";

/// Arguments of `export gmm`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The mixture: gmm_half1.h5 or .ply of a run folder, or pseudo-atoms written by this program.
    #[arg(value_name = "MIXTURE")]
    mixture: PathBuf,
    /// The file to write; its name says what: .pdb, .cif, .ply or .h5.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The map that the atoms are to lie in, as its header places it, such as one of `voxelize` in another box. Default: the
    /// map of the run.
    #[arg(long, value_name = "MAP")]
    map: Option<PathBuf>,
    /// Box size of the particles in pixels, for a PLY file, which does not say it.
    #[arg(long = "box", value_name = "PIXELS", requires = "pixel_size")]
    box_size: Option<usize>,
    /// Pixel size of the particles in angstrom, for a PLY file.
    #[arg(long, value_name = "A", allow_negative_numbers = true, requires = "box_size")]
    pixel_size: Option<f64>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args { mixture: input, output, .. } = args;
    mixture::check_output(input, output, "the mixture")?;
    mixture::check_grid(args.box_size, args.pixel_size)?;
    let extension = output.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let atoms = matches!(&extension[..], "pdb" | "ent" | "cif" | "mmcif");
    if !atoms && args.map.is_some() {
        let problem = "--map places atoms, and this file holds none";
        return Err(Error::request(problem, "leave out --map, or write .pdb or .cif").into());
    }
    let count = match &extension[..] {
        "ply" => {
            let gmm = crate::gmm::mixture::read(input)?.gmm;
            ply::write(&gmm, output)?;
            gmm.len()
        }
        "h5" => {
            let file = mixture::read(input, args.box_size, args.pixel_size)?;
            file.write(output)?;
            file.gmm.len()
        }
        _ if atoms => {
            let file = mixture::read(input, args.box_size, args.pixel_size)?;
            let centre = args.map.as_deref().map(centre_of).transpose()?;
            let model = Model::of(&file, centre);
            if extension.ends_with("cif") { cif::write(&model, output) } else { pdb::write(&model, output) }?;
            file.gmm.len()
        }
        _ => {
            let problem =
                format!("ends in \".{extension}\", and mixtures are written as .pdb, .cif, .ply or .h5");
            return Err(
                Error::input(output, "", problem, "name the file so that it ends in one of these").into()
            );
        }
    };
    tracing::info!("{count} Gaussians: {}", output.display());
    Ok(())
}

/// Where voxel floor(n/2) of a map lies (x, y, z), in angstrom.
fn centre_of(map: &Path) -> Result<[f64; 3]> {
    let stack = Stack::open(map)?;
    let header = stack.header();
    if header.voxel_size.contains(&0.0) {
        return Err(Error::input(map, "", "does not say its pixel size", "write it into its header"));
    }
    let mut centre = header.corner();
    for (&size, &axis) in header.size.iter().zip(&header.axes) {
        centre[axis] += (size / 2) as f64 * header.voxel_size[axis];
    }
    Ok(centre)
}
