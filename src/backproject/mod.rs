//! The voxel baseline: half maps and map by direct Fourier inversion ([`voxels`](crate::voxels)), on the ranks of a job.

mod outputs;
mod run;

use std::path::PathBuf;

use crate::imaging::Symmetry;

pub use run::run;

/// Options of a backprojection.
#[derive(Clone, Debug)]
pub struct BackprojectOptions {
    /// The particle file.
    pub particles: PathBuf,
    /// The run folder.
    pub output: PathBuf,
    /// Symmetry of the specimen.
    pub symmetry: Symmetry,
    /// Whether images count by the inverse power of the noise of their optics group, by frequency.
    pub by_noise: bool,
    /// Whether to apply the Wiener filter.
    pub wiener: bool,
    /// Ground-truth map to compare with.
    pub truth: Option<PathBuf>,
    /// Whether to replace an older run in the run folder.
    pub overwrite: bool,
    /// Command line as typed, for run.json.
    pub command: Vec<String>,
}
