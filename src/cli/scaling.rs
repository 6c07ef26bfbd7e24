//! `cryosplat-mpi scaling`.

use std::path::PathBuf;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
Runs of a study differ in ranks, machine and batch alone. For strong scaling train with the same --batch on more ranks, for \
weak scaling with the same --batch-per-rank; with `--half all`, all ranks are one group. Runs with `--truth` (of simulated \
particles) tell what a larger batch costs in quality.

Writes scaling.csv, scaling.svg and scaling.md, and prints the last. What is beyond the largest run is predicted by a model \
that is fitted to the runs, and marked so.

Examples:
  mpirun -n 1 cryosplat-mpi train particles.h5 -o study/1 --half all --batch 64
  mpirun -n 2 cryosplat-mpi train particles.h5 -o study/2 --half all --batch 64
  cryosplat-mpi scaling study/1 study/2 -o study";

/// Arguments of `scaling`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// Folders of finished runs, or files of `bench --json`.
    #[arg(required = true, value_name = "RUN_FOLDER")]
    runs: Vec<PathBuf>,
    /// The folder to write to.
    #[arg(short, long, value_name = "STUDY")]
    output: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let text = crate::scaling::write(&args.runs, &args.output)?;
    super::print(text.as_bytes())
}
