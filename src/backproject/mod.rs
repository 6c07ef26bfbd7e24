//! The voxel baseline as a command: half maps and map by direct Fourier inversion ([`voxels`](crate::voxels)), over the same ranks as a training.

mod outputs;
pub mod run;

use std::path::PathBuf;

pub use run::run;

/// What the command line decided.
#[derive(Clone, Debug)]
pub struct BackprojectOptions {
    /// The particle file.
    pub particles: PathBuf,
    /// The run folder.
    pub output: PathBuf,
    /// Filter by signal and noise of each shell.
    pub wiener: bool,
    /// A map to compare with.
    pub truth: Option<PathBuf>,
    /// Replace an older run in the run folder.
    pub overwrite: bool,
    /// The command line as typed.
    pub command: Vec<String>,
}
