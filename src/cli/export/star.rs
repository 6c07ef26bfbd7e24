//! `cryosplat-mpi export star`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::check_output;
use crate::particles::export::{original, star};
use crate::particles::store::Store;

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
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { particles, output, .. } = args;
    check_output(particles, output, "the particle file")?;
    if output.extension().is_none_or(|extension| extension != "star") {
        let problem = "does not end in .star, and its stack takes the same name with .mrcs";
        return Err(Error::input(output, "", problem, "name a file that ends in .star").into());
    }
    let (store, results) = super::open_with_results(particles, args.run.as_deref())?;
    let note = super::note(&results);
    match &args.original {
        Some(file) => {
            check_output(file, output, "the original")?;
            let count = original::select(&store, &results, file, output)?;
            tracing::info!("{count} particles{note}: {}", output.display());
        }
        None => {
            let stack = star::stack_of(output);
            check_sources(&store, particles, &stack)?;
            let count = star::write(&store, &results, output)?;
            tracing::info!("{count} particles{note}: {} and {}", output.display(), stack.display());
        }
    }
    Ok(())
}

/// Refuses to overwrite a stack that the particles came from.
fn check_sources(store: &Store, particles: &Path, stack: &Path) -> Result<()> {
    check_output(particles, stack, "the particle file")?;
    let sources = store.header().source_files.iter().map(Path::new);
    sources.into_iter().try_for_each(|source| check_output(source, stack, "a stack of the set"))
}
