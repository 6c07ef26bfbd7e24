//! What the commands that run over MPI share: the options of the machine, the start, and the end of a job.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{LogOptions, logging};
use crate::error::Error;
use crate::loader::cache::{CacheMode, CacheOptions};
use crate::parallel::{Failure, World};
use crate::render::cuda::libraries;
use crate::resources::devices::DeviceKind;
use crate::resources::reduction::CollectiveKind;
use crate::train::Ending;

/// The exit code of a run that was asked to stop, and has written its checkpoints: "try again" of sysexits.h.
const STOPPED: u8 = 75;

/// How many threads ranks compute in.
#[derive(Debug, clap::Args)]
pub struct ThreadOptions {
    /// Threads of each rank [default: the cores that the launcher leaves to it].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=4096), help_heading = "Machine")]
    threads: Option<u16>,
}

/// Where and how ranks compute.
#[derive(Debug, clap::Args)]
pub struct MachineOptions {
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub device: DeviceKind,
    /// How gradients are added up over ranks.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub collective: CollectiveKind,
    /// Seconds that a rank waits for the others' GPUs before it ends the job.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400), default_value = "600", help_heading = "Machine")]
    timeout: u64,
    #[command(flatten)]
    threads: ThreadOptions,
    /// Where to keep particles between epochs.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    cache: CacheMode,
    /// Folder on each machine's own disk for --cache scratch [default: $SLURM_TMPDIR, or $TMPDIR, or /tmp]; with --cache auto,
    /// what memory cannot keep is copied there.
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    scratch: Option<PathBuf>,
    /// Keep particles in 16 bits a pixel, where they are kept in the memory of a GPU: half the room, 0.05% of noise.
    #[arg(long, help_heading = "Machine")]
    pub cache_half: bool,
}

impl MachineOptions {
    /// How long a rank waits for the others' GPUs.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Where particles are kept.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub fn cache(&self, world: &World) -> Result<CacheOptions, Failure> {
        if self.scratch.is_some() && !matches!(self.cache, CacheMode::Auto | CacheMode::Scratch) {
            let error = Error::request(
                "--scratch names a folder for copies, and this --cache makes none",
                "leave one of them out, or use --cache scratch",
            );
            return Err(Failure::Shared((world.rank() == 0).then_some(error)));
        }
        Ok(CacheOptions { mode: self.cache, scratch: self.scratch.clone() })
    }

    /// [`ThreadOptions::over_ranks`], with what GPUs need.
    pub fn over_ranks(
        &self,
        log: &LogOptions,
        work: impl FnOnce(&World) -> Result<Ending, Failure>,
    ) -> ExitCode {
        if self.device != DeviceKind::Cpu {
            libraries::link_versioned();
        }
        self.threads.over_ranks(log, work)
    }
}

impl ThreadOptions {
    /// Starts MPI, the log and the threads of this rank, does `work` on every rank, and ends the job as its outcome asks.
    pub fn over_ranks(
        &self,
        log: &LogOptions,
        work: impl FnOnce(&World) -> Result<Ending, Failure>,
    ) -> ExitCode {
        let world = match World::start() {
            Ok(world) => world,
            Err(error) => {
                logging::start(log, 0);
                tracing::error!("{error}");
                return ExitCode::FAILURE;
            }
        };
        logging::start(log, world.rank());
        world.abort_on_panic();
        match self.start_threads(&world).and_then(|()| work(&world)) {
            Ok(Ending::Done) => ExitCode::SUCCESS,
            Ok(Ending::Stopped) => ExitCode::from(STOPPED),
            // All ranks end here, and rank 0 says why: nobody has to be ended.
            Err(Failure::Shared(error)) => {
                if let Some(error) = error {
                    tracing::error!("{error}");
                }
                ExitCode::FAILURE
            }
            Err(Failure::Own(error)) => {
                if world.size() == 1 {
                    tracing::error!("{error}");
                    return ExitCode::FAILURE;
                }
                tracing::error!("rank {} of {} on {}: {error}", world.rank(), world.size(), World::host());
                world.abort(1)
            }
        }
    }

    fn start_threads(&self, world: &World) -> Result<(), Failure> {
        let shared = world.sharing_cores();
        let threads = self.threads.map_or_else(
            || (std::thread::available_parallelism().map_or(1, |n| n.get()) / shared).max(1),
            usize::from,
        );
        let mut pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        if threads > 1 {
            // This thread works along, and is not put to sleep and woken around all that it shares out.
            pool = pool.use_current_thread();
        }
        pool.build_global().map_err(|error| {
            Error::request(format!("cannot start {threads} threads: {error}"), "ask for fewer with --threads")
        })?;
        Ok(())
    }
}
