//! `cryosplat-mpi diagnose`.

use std::path::PathBuf;

use super::output::print;
use super::threads;
use crate::diagnose::{Subject, diagnose};
use crate::files::Claims;
use crate::run_folder::{finished, names, report};

const AFTER_HELP: &str = "\
Tests metadata, images and maps of a finished run of `train` or `backproject` against each other, and reports what is wrong: the \
evidence, the likely cause, what it costs, and the next command. `train` runs it at its end. Writes diagnosis.json and the report of \
the run again.

Examples:
  cryosplat-mpi diagnose run
  cryosplat-mpi diagnose run --json
  cryosplat-mpi diagnose run --particles /new/place/particles.h5";

/// Arguments of `diagnose`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Folder of a finished run with both halves.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Particle file of the run [default: the path in run.json].
    #[arg(long, value_name = "FILE")]
    particles: Option<PathBuf>,
    /// Print the diagnosis as JSON.
    #[arg(long)]
    json: bool,
    /// Number of threads [default: one per core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut claims = Claims::new();
    claims.reads_some(args.particles.as_ref(), "the particle file");
    claims.writes(args.run.join(names::DIAGNOSIS));
    finished::claim_report(&mut claims, &args.run).check()?;
    let (document, store) = finished::open(&args.run, args.particles.as_deref())?;
    let pool = threads::pool(args.threads)?;
    let subject = Subject::open(&args.run, document, store)?;
    let diagnosis = pool.install(|| diagnose(&subject))?;
    diagnosis.write(&args.run)?;
    report::write(&args.run, &subject.document, &subject.store, &[])?;
    let text =
        if args.json { format!("{:#}\n", serde_json::to_value(&diagnosis)?) } else { diagnosis.to_string() };
    print(text.as_bytes())
}
