//! `cryosplat-mpi export particles`.

use std::path::PathBuf;

use crate::particles::export::particle_file;

const AFTER_HELP: &str = "\
The output is a particle file with the refined poses and defoci of the run (`train --refine`); the images are moved, so that they are \
centred by the refined shifts. If the run has compared the particles with its model, their contrast becomes a factor of the scale of \
their CTF. The particles that the run excluded are left out. Any command takes the file; the halves are kept.

Examples:
  cryosplat-mpi export particles particles.h5 -o refined.h5 --run run/";

/// Arguments of `export particles`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file.
    particles: PathBuf,
    /// Output particle file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder of a run on these particles.
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { particles, output, run } = args;
    let outputs = super::Outputs { original: None, files: vec![output.clone()] };
    let (store, results) = super::open_with_results(particles, Some(run), &outputs)?;
    let count = particle_file::write(&store, &results, output)?;
    tracing::info!("{count} particles{}: {}", super::note(&results), output.display());
    Ok(())
}
