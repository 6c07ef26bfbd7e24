//! `cryosplat-mpi train`.

use std::process::ExitCode;

use super::LogOptions;

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args, _log: &LogOptions) -> ExitCode {
    ExitCode::FAILURE
}
