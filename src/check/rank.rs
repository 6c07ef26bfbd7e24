//! What one rank finds.

use serde::{Deserialize, Serialize};

use super::folder::FolderRecord;
use super::gpus::GpuLibraries;
use super::particles::ParticlesRecord;
use super::probe::{Probe, absolute};
use super::{CheckOptions, job};
use crate::loader::scratch;
use crate::memory;
use crate::parallel::{Launcher, World, mpi_library};
use crate::render::cpu::instructions;

/// A rank, its node as it sees it, and its job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RankRecord {
    /// Version of the program.
    pub version: String,
    /// The MPI library.
    pub library: String,
    /// The launcher that started the rank, if any.
    pub launcher: Option<String>,
    /// Rank in the job.
    pub rank: usize,
    /// Name of its machine.
    pub host: String,
    /// Rank on its node.
    pub local_rank: usize,
    /// Ranks of the node that may use the same cores, with this one.
    pub sharing: usize,
    /// Cores that it may use, as a list ("0-3,8").
    pub core_list: String,
    /// Number of these cores, and of all of the machine.
    pub cores: (usize, usize),
    /// Vector instructions of the CPU device.
    pub instructions: String,
    /// Free memory in bytes.
    pub memory: u64,
    /// Value of HDF5_USE_FILE_LOCKING.
    pub hdf5_locking: Option<String>,
    /// GPUs and their libraries, or why they do not answer.
    pub gpus: Result<GpuLibraries, String>,
    /// The folder of outputs and that of scratch copies, or why they do not answer.
    pub folders: Vec<(String, String, Result<FolderRecord, String>)>,
    /// The particle file, or why it does not answer.
    pub particles: Option<(String, Result<ParticlesRecord, String>)>,
    /// Seconds until the job's limit ([`job::seconds_left`]).
    pub job: Option<Result<i64, String>>,
}

impl RankRecord {
    /// What can be found without the other ranks. To be called before MPI starts, which must not be blocked or ended by what is asked.
    pub fn find(options: &CheckOptions) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let core_list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let scratch = options.scratch.clone().unwrap_or_else(scratch::default_folder);
        let folders = [("outputs", absolute(&options.output)), ("scratch", absolute(&scratch))];
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            library: mpi_library(),
            launcher: Launcher::detect().map(|launcher| launcher.name().to_owned()),
            rank: 0,
            host: World::host(),
            local_rank: 0,
            sharing: 1,
            core_list: core_list.unwrap_or("unknown").trim().to_owned(),
            cores: (cores, World::cores().unwrap_or(cores)),
            instructions: instructions().to_string(),
            memory: memory::available(),
            hdf5_locking: std::env::var("HDF5_USE_FILE_LOCKING").ok(),
            gpus: Probe::Gpus.ask(),
            folders: folders
                .into_iter()
                .map(|(name, path)| (name.to_owned(), path.display().to_string(), Probe::Folder(path).ask()))
                .collect(),
            particles: options
                .particles
                .clone()
                .map(|path| (path.display().to_string(), Probe::Particles(absolute(&path)).ask())),
            job: job::seconds_left(),
        }
    }

    /// The same, at its place among the ranks of `world`. Every rank calls it.
    pub fn placed(self, world: &World) -> Self {
        Self {
            rank: world.rank(),
            local_rank: world.local_rank(),
            sharing: world.ranks_sharing_cores(),
            ..self
        }
    }

    /// The device that it would use, for the table of ranks.
    pub fn device(&self) -> String {
        match self.gpus.as_ref().map(|gpus| gpus.device_of(self.local_rank)) {
            Ok(Some((ordinal, gpu))) => format!("GPU {ordinal}: {} {}", gpu.name, gpu.bus),
            Ok(None) => "CPU".into(),
            Err(_) => "unknown".into(),
        }
    }
}
