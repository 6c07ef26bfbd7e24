//! `cryosplat-mpi export cs`.

use std::path::PathBuf;

use crate::error::Error;
use crate::particles::export::cs;

const AFTER_HELP: &str = "\
The output has the records of the original that are in the particle file, with all their fields; alignments3D/split becomes the \
half of the particle file, and with a --run that refined, its poses, shifts and defoci replace those of the records. Particles are matched by image, copies of an image by pose. Import it in cryoSPARC with Import \
Result Group (with the .csg file of the job, naming this file), or read it with cryosparc-tools. Passthrough files need no \
change: cryoSPARC matches them by uid.

Examples:
  cryosplat-mpi export cs particles.h5 --original P1/J24/particles.cs -o selected.cs
  cryosplat-mpi export cs particles.h5 --original P1/J24/particles.cs -o selected.cs --run run/";

/// Arguments of `export cs`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file.
    particles: PathBuf,
    /// Output .cs file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// .cs file that was imported, with the paths of the images.
    #[arg(long, value_name = "CS")]
    original: PathBuf,
    /// Write the poses, shifts and defoci that this run has refined (`train --refine`), and leave out the particles that it excluded
    /// (`--skip-bad-particles`).
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { particles, output, original, .. } = args;
    if output.extension().is_none_or(|extension| extension != "cs") {
        return Err(Error::input(output, "", "does not end in .cs", "name a file that ends in .cs").into());
    }
    let outputs = super::Outputs { original: Some(original), files: vec![output.clone()] };
    let (store, results) = super::open_with_results(particles, args.run.as_deref(), &outputs)?;
    let count = cs::select(&store, &results, original, output)?;
    tracing::info!("{count} particles{}: {}", super::note(&results), output.display());
    Ok(())
}
