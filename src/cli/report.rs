//! `cryosplat-mpi report`.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::Error;
use crate::particles::store::Store;
use crate::run_folder::report;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`train` and `backproject` write the page themselves; this makes it again: after an update, where files were moved, or with \
                  the curves of other runs.\n\n\
                        Examples:\n  \
                        cryosplat-mpi report run\n  \
                        cryosplat-mpi report run --baseline voxels\n  \
                        cryosplat-mpi report run --particles /new/place/particles.h5"
)]
pub struct Args {
    /// The folder of a run that is done.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The particle file of the run. Default: where run.json says that it was.
    #[arg(long, value_name = "FILE")]
    particles: Option<PathBuf>,
    /// Show the FSC of these runs beside this one's: of `backproject` or of other trainings, in one box and pixel size.
    #[arg(long, value_name = "RUN", num_args = 1..)]
    baseline: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let path = args.run.join("run.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(
        &path,
        "read what the run has done",
        "name the folder of a run that is done",
    ))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&path, "", error.to_string(), "run `train` again"))?;
    if document["state"] != "done" {
        return Err(Error::input(
            &path,
            "state",
            format!("is {}, not \"done\"", document["state"]),
            "wait for the run's end, or go on with it (train --resume auto)",
        )
        .into());
    }
    let named = || {
        report::particles_of(&document).ok_or_else(|| {
            Error::input(&path, "particles.file", "is not there", "name the particle file with --particles")
        })
    };
    let particles = args.particles.clone().map_or_else(named, Ok)?;
    let store = Store::open(&particles)?;
    let identity = store.validate()?.to_string();
    if document["particles"]["identity"] != identity.as_str() {
        return Err(Error::input(
            &particles,
            "",
            format!("is set {identity}, and the run was of set {}", document["particles"]["identity"]),
            "name the particle file of the run with --particles",
        )
        .into());
    }
    report::write(&args.run, &document, &store, &args.baseline)?;
    tracing::info!("{}", args.run.join("report.html").display());
    Ok(())
}
