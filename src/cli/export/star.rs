//! `cryosplat-mpi export star`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli::mixture::check_output;
use crate::error::{Error, Result};
use crate::particles::export::{original, star};
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::excluded;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
The STAR file is of RELION 3.1 and later: optics groups, angles, CTFs, and the halves as _rlnRandomSubset. The images are those \
of the set as they are: centred (their origins are zero), with a bright specimen, cropped and normalised if the import did so. \
They go into a stack beside the STAR file, which names it without a folder: start RELION in that folder. `import \
--no-normalize` makes the same set of it again.

With --original, no images are written, and the raw ones stay where they are: the STAR file that the set was imported from is \
copied, with the rows of the set alone, and the set's halves.

Examples:
  cryosplat-mpi export star particles.h5 -o subset.star
  cryosplat-mpi export star particles.h5 -o subset.star --original run_data.star --run run/";

/// Arguments of `export star`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The particle file.
    particles: PathBuf,
    /// The STAR file to write; the stack beside it has the same name and ends in .mrcs.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The STAR file that the set was imported from, of which rows are to be kept.
    #[arg(long, value_name = "STAR")]
    original: Option<PathBuf>,
    /// Without the particles that this run has left out (`train --skip-bad-particles`).
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args { particles, output, .. } = args;
    check_output(particles, output, "the particle file")?;
    if output.extension().is_none_or(|extension| extension != "star") {
        let problem = "does not end in .star, and its stack takes the same name with .mrcs";
        return Err(Error::input(output, "", problem, "name a file that ends in .star").into());
    }
    let store = Store::open(particles)?;
    let set = store.validate()?;
    let left_out = match &args.run {
        Some(run) => left_out_of(run, &store, set)?,
        None => BTreeSet::new(),
    };
    let left = if left_out.is_empty() { String::new() } else { format!(" ({} left out)", left_out.len()) };
    match &args.original {
        Some(file) => {
            check_output(file, output, "the original")?;
            let count = original::select(&store, &left_out, file, output)?;
            tracing::info!("{count} particles{left}: {}", output.display());
        }
        None => {
            let stack = star::stack_of(output);
            check_sources(&store, particles, &stack)?;
            let count = star::write(&store, &left_out, output)?;
            tracing::info!("{count} particles{left}: {} and {}", output.display(), stack.display());
        }
    }
    Ok(())
}

/// The rows that a run has left out, which must be one of this set.
fn left_out_of(run: &Path, store: &Store, set: DataSetId) -> Result<BTreeSet<usize>> {
    let file = run.join("run.json");
    let remedy = "give the folder of a run of this particle set";
    let text = std::fs::read_to_string(&file).map_err(Error::io(&file, "read the run", remedy))?;
    let document: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&file, "", format!("is no JSON ({error})"), remedy))?;
    let found = document["particles"]["identity"].as_str();
    if let Some(found) = found.filter(|found| *found != set.to_string()) {
        let problem = format!("is of the particle set {found}, and {} is {set}", store.path().display());
        return Err(Error::input(&file, "", problem, remedy));
    }
    excluded::rows_of_run(run, store.len())
}

/// A stack that the set came from is not written over.
fn check_sources(store: &Store, particles: &Path, stack: &Path) -> Result<()> {
    check_output(particles, stack, "the particle file")?;
    let sources = store.header().source_files.iter().map(Path::new);
    sources.into_iter().try_for_each(|source| check_output(source, stack, "a stack of the set"))
}
