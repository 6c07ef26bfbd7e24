//! `cryosplat-mpi export star`.

use std::path::PathBuf;

use crate::error::Error;
use crate::imaging::mrc;
use crate::particles::export::{original, star};

const AFTER_HELP: &str = "\
The STAR file follows RELION 3.1: optics groups, angles, CTFs, and the halves as _rlnRandomSubset. The images are those of the \
particle file: centred (origins are zero, or what a --run has refined), with a bright specimen, and cropped and normalised if the import did so. They are \
written to a stack beside the STAR file, which names it without a folder: start RELION in that folder.

With --original, no images are written: the STAR file that was imported is copied, with the rows and halves of the particle file. \
With a --run that refined, its angles, origins and defoci replace those of the rows; all other columns are copied.

Examples:
  cryosplat-mpi export star particles.h5 -o subset.star
  cryosplat-mpi export star particles.h5 -o subset.star --original run_data.star --run run/";

/// Arguments of `export star`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file.
    particles: PathBuf,
    /// Output STAR file; its stack has the same name with .mrcs.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// STAR file that was imported: copy its rows, write no images.
    #[arg(long, value_name = "STAR")]
    original: Option<PathBuf>,
    /// Write the angles, origins and defoci that this run has refined (`train --refine`), and leave out the particles that it excluded
    /// (`--skip-bad-particles`). If it has compared the particles with its model, add their gain in log-likelihood and weight, and
    /// multiply the scale of their CTF by the contrast (not with --original).
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Replace a stack of the same name even if another program wrote it.
    #[arg(long, conflicts_with = "original")]
    overwrite: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { particles, output, original, .. } = args;
    if output.extension().is_none_or(|extension| extension != "star") {
        let problem = "does not end in .star, and its stack takes the same name with .mrcs";
        return Err(Error::input(output, "", problem, "name a file that ends in .star").into());
    }
    let stack = star::stack_of(output);
    let mut files = vec![output.clone()];
    if original.is_none() {
        if !args.overwrite {
            mrc::check_own_stack(
                &stack,
                "choose another name for the STAR file, or replace it (--overwrite)",
            )?;
        }
        files.push(stack.clone());
    }
    let outputs = super::Outputs { original: original.as_deref(), files };
    let (store, results) = super::open_with_results(particles, args.run.as_deref(), &outputs)?;
    let note = super::note(&results);
    match original {
        Some(file) => {
            let count = original::select(&store, &results, file, output)?;
            tracing::info!("{count} particles{note}: {}", output.display());
        }
        None => {
            let count = star::write(&store, &results, output)?;
            tracing::info!("{count} particles{note}: {} and {}", output.display(), stack.display());
        }
    }
    Ok(())
}
