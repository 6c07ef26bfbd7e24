//! `cryosplat-mpi report`.

use std::path::PathBuf;

use crate::files::Claims;
use crate::run_folder::finished;
use crate::run_folder::overwriting::reads_run_of;

const AFTER_HELP: &str = "\
`train` and `backproject` write the report themselves. Write it again after an update, after files were moved, or to add the FSC \
of other runs.

Examples:
  cryosplat-mpi report run
  cryosplat-mpi report run --baseline voxels
  cryosplat-mpi report run --particles /new/place/particles.h5";

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Folder of a finished run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Particle file of the run [default: the path in run.json].
    #[arg(long, value_name = "FILE")]
    particles: Option<PathBuf>,
    /// Other runs whose FSC is shown, of `train` or `backproject`, with the same box and pixel size.
    #[arg(long, value_name = "RUN", num_args = 1..)]
    baseline: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut claims = Claims::new();
    claims.reads_some(args.particles.as_ref(), "the particle file");
    args.baseline.iter().for_each(|run| reads_run_of(&mut claims, run));
    finished::claim_report(&mut claims, &args.run).check()?;
    let page = finished::rewrite_report(&args.run, args.particles.as_deref(), &args.baseline)?;
    tracing::info!("{}", page.display());
    Ok(())
}
