//! `cryosplat-mpi export`: results for other programs.

mod cs;
mod gmm;
mod particles;
mod star;

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::Claims;
use crate::particles::export::results::RunResults;
use crate::particles::sources;
use crate::particles::store::Store;
use crate::run_folder::{finished, overwriting::reads_run_of};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Export a mixture as pseudo-atoms for ChimeraX and others (.pdb, .cif), .ply or .h5.
    Gmm(gmm::Args),
    /// Export particles for cryoSPARC: the records of the imported .cs file.
    Cs(cs::Args),
    /// Export particles as a particle file with the results of a run.
    Particles(particles::Args),
    /// Export particles for RELION: a STAR file with a stack, or the rows of the imported STAR file.
    Star(star::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Cs(args) => cs::run(args),
        What::Gmm(args) => gmm::run(args),
        What::Particles(args) => particles::run(args),
        What::Star(args) => star::run(args),
    }
}

/// What an export writes, and the file whose rows it copies.
struct Outputs<'a> {
    original: Option<&'a Path>,
    files: Vec<PathBuf>,
}

/// Opens a particle file, and checks that the outputs overwrite nothing that the export reads. Also returns what `run` has found out
/// about its particles; nothing without a run.
fn open_with_results(particles: &Path, run: Option<&Path>, outputs: &Outputs) -> Result<(Store, RunResults)> {
    let store = Store::open(particles)?;
    let mut claims = Claims::new();
    sources::reads(claims.writes_all(&outputs.files), &store);
    claims.reads_some(outputs.original, "the original");
    if let Some(run) = run {
        reads_run_of(&mut claims, run);
    }
    claims.check()?;
    let set = store.validate()?;
    let results = run.map(|run| finished::results(run, &store, set)).transpose()?.unwrap_or_default();
    Ok((store, results))
}

/// A note for the log: the number of excluded particles, and whether refined values were written.
fn note(results: &RunResults) -> String {
    let refined = if results.refined.is_empty() { "" } else { ", with the refinement of the run" };
    match results.excluded.len() {
        0 => refined.to_owned(),
        count => format!(" ({count} excluded){refined}"),
    }
}
