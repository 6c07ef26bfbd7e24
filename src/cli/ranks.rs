//! Commands that run over MPI: options of device and memory, start and end of the job.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::logging::{self, LogOptions};
use super::threads;
use crate::error::Error;
use crate::files;
use crate::loader::cache::{CacheMode, CacheOptions};
use crate::parallel::{EndSignal, Failure, World};
use crate::render::cuda::libraries;
use crate::resources::all_reduce::CollectiveKind;
use crate::resources::devices::DeviceKind;
use crate::run_folder::log;
use crate::train::Ending;

/// Exit code after a stop by a signal, to be resumed: EX_TEMPFAIL of sysexits.h.
const STOPPED: u8 = 75;

/// Threads of a rank, and how long it waits for the others.
#[derive(Debug, clap::Args)]
pub(super) struct RankOptions {
    /// Threads per rank [default: the cores available to the rank].
    #[arg(long, value_name = "T", help_heading = "Machine")]
    threads: Option<NonZeroUsize>,
    /// Seconds without a sign of life of a rank, after which the others end the job.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400), default_value = "600", help_heading = "Machine")]
    timeout: u64,
}

/// What a signal (SIGUSR1, SIGTERM or SIGINT) does to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSignal {
    /// It ends the process, whose unfinished files are removed.
    Die,
    /// A flag is set, and the command stops in order.
    Stop,
}

/// Device, threads and memory of a rank.
#[derive(Debug, clap::Args)]
pub(super) struct MachineOptions {
    /// Device to compute on.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub device: DeviceKind,
    /// Library of the gradient all-reduce.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub collective: CollectiveKind,
    #[command(flatten)]
    ranks: RankOptions,
    /// Where to keep particles between epochs; see docs/guide.md, Where particles are kept.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    cache: CacheMode,
    /// Folder on each node's local disk for particle copies [default: $SLURM_TMPDIR, $TMPDIR or /tmp].
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    scratch: Option<PathBuf>,
    /// Keep particles in GPU memory as 16-bit floats: half the memory, relative rounding error 5e-4.
    #[arg(long, help_heading = "Machine")]
    pub cache_half: bool,
}

impl MachineOptions {
    /// Where particles are kept. Fails if the options contradict each other.
    pub(super) fn cache(&self, world: &World) -> Result<CacheOptions, Failure> {
        if self.scratch.is_some() && !matches!(self.cache, CacheMode::Auto | CacheMode::Scratch) {
            let error = Error::request(
                "--scratch is a folder for particle copies, but this --cache mode makes none",
                "leave out one of them, or use --cache scratch",
            );
            return Err(Failure::Collective((world.rank() == 0).then_some(error)));
        }
        Ok(CacheOptions { mode: self.cache, scratch: self.scratch.clone() })
    }

    /// [`RankOptions::over_ranks`], after making versioned CUDA libraries loadable.
    pub(super) fn over_ranks(
        &self,
        log: &LogOptions,
        on_signal: OnSignal,
        work: impl FnOnce(&World) -> Result<Ending, Failure>,
    ) -> ExitCode {
        if self.device != DeviceKind::Cpu {
            libraries::link_versioned();
        }
        self.ranks.over_ranks(log, on_signal, work)
    }
}

impl RankOptions {
    /// Starts MPI, the log and the threads of this rank, runs `work` on every rank and turns its outcome into an exit code.
    pub(super) fn over_ranks(
        &self,
        log: &LogOptions,
        on_signal: OnSignal,
        work: impl FnOnce(&World) -> Result<Ending, Failure>,
    ) -> ExitCode {
        let signal = match on_signal {
            OnSignal::Die => files::remove_on_signals().map(|()| EndSignal::default()),
            OnSignal::Stop => EndSignal::watch(),
        };
        let started = signal.and_then(|signal| World::start(Duration::from_secs(self.timeout), signal));
        let world = match started {
            Ok(world) => world,
            Err(error) => {
                logging::start(log, 0);
                tracing::error!("{error}");
                return ExitCode::FAILURE;
            }
        };
        logging::start_with_run_log(log, world.rank());
        world.abort_on_panic();
        let outcome = self.start_threads(&world).and_then(|()| work(&world));
        let code = match outcome {
            Ok(Ending::Done) => ExitCode::SUCCESS,
            Ok(Ending::Stopped) => ExitCode::from(STOPPED),
            // All ranks fail together: rank 0 logs the error, and no abort is needed.
            Err(Failure::Collective(error)) => {
                if let Some(error) = error {
                    tracing::error!("{error}");
                }
                ExitCode::FAILURE
            }
            Err(Failure::Local(error)) => {
                if world.size() == 1 {
                    tracing::error!("{error}");
                    log::flush();
                    return ExitCode::FAILURE;
                }
                // What fails while another rank ends the job is no cause.
                if !world.watch().another_rank_ends() {
                    tracing::error!(
                        "rank {} of {} on {}: {error}",
                        world.rank(),
                        world.size(),
                        World::host()
                    );
                }
                world.abort(1)
            }
        };
        log::flush();
        code
    }

    fn start_threads(&self, world: &World) -> Result<(), Failure> {
        let shared = world.ranks_sharing_cores();
        let threads = match self.threads {
            Some(threads) => threads::check(threads.get())?,
            None => (std::thread::available_parallelism().map_or(1, |n| n.get()) / shared).max(1),
        };
        let mut pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        if threads > 1 {
            // The main thread is a worker too: it does not sleep while the pool works.
            pool = pool.use_current_thread();
        }
        pool.build_global().map_err(|error| threads::cannot_start(threads, &error))?;
        Ok(())
    }
}
