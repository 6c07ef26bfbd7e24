//! `cryosplat-mpi scaling`.

use std::path::PathBuf;

const AFTER_HELP: &str = "\
Runs of a study differ only in ranks, machine and batch. For strong scaling, train with the same --batch on more ranks; for weak \
scaling, with the same --batch-per-rank. With `--half all`, all ranks form one group. Runs with `--truth` (simulated particles) \
show the effect of a larger batch on quality.

Output: scaling.csv, scaling.svg and scaling.md, which is also printed. Beyond the largest run, values are predicted by a model \
fitted to the runs, and marked as predictions.

Examples:
  mpirun -n 1 cryosplat-mpi train particles.h5 -o study/1 --half all --batch 64
  mpirun -n 2 cryosplat-mpi train particles.h5 -o study/2 --half all --batch 64
  cryosplat-mpi scaling study/1 study/2 -o study";

/// Arguments of `scaling`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Folders of finished runs, or files of `bench --json`.
    #[arg(required = true, value_name = "RUN_FOLDER")]
    runs: Vec<PathBuf>,
    /// Output folder.
    #[arg(short, long, value_name = "STUDY")]
    output: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let text = crate::scaling::write(&args.runs, &args.output)?;
    super::output::print(text.as_bytes())
}
