//! What the command line asks of a training run.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::init::from_file::InitOptions;
use crate::loader::cache::CacheOptions;
use crate::particles::selection::Models;
use crate::recipe::{Choices, Recipe};
use crate::resources::all_reduce::CollectiveKind;
use crate::resources::devices::DeviceKind;
use crate::run_folder::lifecycle::ExistingRun;

/// When maps are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maps {
    /// At the end of the run.
    End,
    /// After every epoch, with the FSC in the log.
    Epoch,
}

/// The options of a training run, as given on the command line.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Particle file.
    pub particles: PathBuf,
    /// Run folder.
    pub output: PathBuf,
    /// Recipe that open choices follow.
    pub recipe: Recipe,
    /// Settings that the user has chosen.
    pub choices: Choices,
    /// Images per step and rank, in place of the batch of the whole group.
    pub batch_per_rank: Option<usize>,
    /// File of the initial Gaussians; `None` where they are random.
    pub init: Option<InitOptions>,
    /// One scale per Gaussian.
    pub isotropic: bool,
    /// Half width of a splat's support, in standard deviations.
    pub cutoff: f64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Which models are trained.
    pub models: Models,
    /// Kind of device.
    pub device: DeviceKind,
    /// Library for the all-reduce.
    pub collective: CollectiveKind,
    /// Where particles are kept between epochs.
    pub cache: CacheOptions,
    /// Store particles in 16 bits per pixel where they are kept on the device.
    pub cache_half: bool,
    /// When maps are written.
    pub maps: Maps,
    /// Steps between two lines of metrics_*.jsonl; `None`: about 200 lines per epoch.
    pub metrics_every: Option<u64>,
    /// Ground-truth map to compare with.
    pub truth: Option<PathBuf>,
    /// Particles of each half in the voxel maps for cross-validation; 0: no cross-validation.
    pub voxel_particles: usize,
    /// Whether the run is diagnosed at its end.
    pub diagnose: bool,
    /// Number of unusable particles per model that may be excluded.
    pub skip_bad_particles: usize,
    /// Time between two checkpoints; `None`: at the end of each epoch only.
    pub checkpoint_every: Option<Duration>,
    /// Folder for a file of Prometheus' textfile collector.
    pub prometheus: Option<PathBuf>,
    /// What to do about an older run in the run folder.
    pub existing_run: ExistingRun,
    /// Epochs beyond those of the recipe by which the finished run is extended, in all.
    pub extend_epochs: Option<usize>,
    /// Command line as typed.
    pub command: Vec<String>,
}
