//! The command line: one file per subcommand, with its arguments and the calls into the library.

mod backproject;
mod bench;
mod check;
mod compare;
mod diagnose;
mod dry_run;
mod export;
mod fsc;
mod import;
mod info;
mod logging;
mod mask;
mod models;
mod output;
mod phases;
mod postprocess;
mod ranks;
mod report;
mod sample;
mod scaling;
mod shell;
mod simulate;
mod threads;
mod train;
mod values;
mod voxelize;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::parallel::Launcher;
use logging::LogOptions;

/// Exit code after wrong usage, as clap's.
const WRONG_USAGE: u8 = 2;

/// What the other tasks of a launcher leave the first to print its error.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);

/// Cryo-EM reconstruction by Gaussian splatting, data-parallel over MPI.
///
/// Reconstructs two half maps, a map and its gold-standard FSC from particle images with known poses and CTFs.
#[derive(Debug, Parser)]
#[command(name = "cryosplat-mpi", version, max_term_width = 110, propagate_version = true)]
#[command(after_help = "Examples:\n  \
                        cryosplat-mpi import particles.star -o particles.h5\n  \
                        mpirun -n 4 cryosplat-mpi train particles.h5 -o run/\n\n\
                        Exit codes: 0 done, 1 failed (see the last line of the log), 2 wrong usage, \
                        75 stopped by a signal, to be resumed.")]
struct Cli {
    #[command(flatten)]
    log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a particle file from RELION, cryoSPARC or cryoDRGN particles.
    Import(Box<import::Args>),
    /// Make a particle set with a known ground truth from an atomic model or a map.
    Simulate(Box<simulate::Args>),
    /// Train the Gaussian mixtures of both halves; write maps, FSC and report.
    Train(Box<train::Args>),
    /// Reconstruct voxel maps by direct Fourier inversion, as a baseline.
    Backproject(backproject::Args),
    /// Sample a Gaussian mixture on a voxel grid (MRC).
    Voxelize(voxelize::Args),
    /// Write a mixture or particles for other programs.
    Export(export::Args),
    /// Compute the Fourier shell correlation of two maps, or of a map and a model.
    Fsc(fsc::Args),
    /// Post-process two half maps: corrected FSC, resolution, sharpening, low-pass filter.
    Postprocess(postprocess::Args),
    /// Compare the FSC of several runs on one chart.
    Compare(compare::Args),
    /// Find what is wrong with the particles or the settings of a run: cause, cost, next command.
    Diagnose(diagnose::Args),
    /// Write the report of a run again.
    Report(report::Args),
    /// Describe particle files, mixtures, checkpoints and maps.
    Info(info::Args),
    /// Show what this node and this job can do: MPI, GPUs, libraries, memory, folders.
    Check(check::Args),
    /// Measure the speed of training steps on this machine or a set of ranks.
    Bench(bench::Args),
    /// Analyse runs on different numbers of ranks: speed, efficiency, quality, prediction.
    Scaling(scaling::Args),
    /// Print a completion script for a shell.
    Completions(shell::CompletionsArgs),
    /// Print the manual page.
    Man,
}

/// Parses the arguments, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    // SAFETY: this is the start of the program: there is no other thread, and HDF5 is first used below.
    unsafe { crate::hdf5::disable_file_locks() };
    let cli = Cli::parse();
    hdf5::silence_errors(true);
    if let Err(error) = crate::simd::check_level() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    crate::files::survive_size_limit();
    let outcome = match &cli.command {
        // Commands that run over MPI start their log when the rank is known.
        Command::Train(args) => return train::run(args, &cli.log),
        Command::Backproject(args) => return backproject::run(args, &cli.log),
        Command::Bench(args) => return bench::run(args, &cli.log),
        Command::Check(args) => return check::run(args, &cli.log),
        command => {
            if let Some(task) = Launcher::copy() {
                if task == 0 {
                    eprintln!(
                        "error: this command runs in one process, and a launcher has started several; leave out mpirun or srun"
                    );
                } else {
                    // A launcher ends all tasks when the first fails: the one that says why has to be that.
                    std::thread::sleep(LAST_WORDS);
                }
                return ExitCode::from(WRONG_USAGE);
            }
            logging::start(&cli.log, 0);
            if let Err(error) = crate::files::remove_on_signals() {
                tracing::warn!("{error}");
            }
            match command {
                Command::Import(args) => import::run(args),
                Command::Simulate(args) => simulate::run(args),
                Command::Voxelize(args) => voxelize::run(args),
                Command::Export(args) => export::run(args),
                Command::Fsc(args) => fsc::run(args),
                Command::Postprocess(args) => postprocess::run(args),
                Command::Compare(args) => compare::run(args),
                Command::Diagnose(args) => diagnose::run(args),
                Command::Report(args) => report::run(args),
                Command::Info(args) => info::run(args),
                Command::Scaling(args) => scaling::run(args),
                Command::Completions(args) => shell::completions(args, Cli::command()),
                Command::Man => shell::manual(&Cli::command()),
                Command::Train(_) | Command::Backproject(_) | Command::Bench(_) | Command::Check(_) => {
                    unreachable!("handled above")
                }
            }
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
