//! `check`: what this node and this job can do, on one page.
//!
//! Everything that may block or crash (a driver, a file system, a scheduler) is asked in a process of its own with a time limit
//! ([`probe`]), before MPI starts. Each rank makes a [`RankRecord`]; rank 0 gathers them and draws conclusions ([`page`]).

mod finding;
mod folder;
mod gpus;
mod job;
mod page;
mod particles;
mod probe;
mod rank;

use std::path::PathBuf;

pub use finding::{Finding, Level};
pub use page::Page;
pub use probe::Probe;
pub use rank::RankRecord;

/// What to check besides the node.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Particle file.
    pub particles: Option<PathBuf>,
    /// Folder for run folders.
    pub output: PathBuf,
    /// Folder for copies of particles; `None`: the default one.
    pub scratch: Option<PathBuf>,
}
