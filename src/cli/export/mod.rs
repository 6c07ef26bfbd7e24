//! `cryosplat-mpi export`: results for other programs.

mod cs;
mod gmm;
mod star;

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Result;
use crate::particles::store::Store;
use crate::run_folder::finished;

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
    /// Export particles for RELION: a STAR file with a stack, or the rows of the imported STAR file.
    Star(star::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Cs(args) => cs::run(args),
        What::Gmm(args) => gmm::run(args),
        What::Star(args) => star::run(args),
    }
}

/// Opens a particle file. Also returns its rows that `run` excluded; none without a run.
fn open_without_excluded(particles: &Path, run: Option<&Path>) -> Result<(Store, BTreeSet<usize>)> {
    let store = Store::open(particles)?;
    let set = store.validate()?;
    let excluded = run.map(|run| finished::excluded_rows(run, &store, set)).transpose()?;
    Ok((store, excluded.unwrap_or_default()))
}
