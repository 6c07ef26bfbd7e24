//! `run.json` of a finished run: the part shared by training runs and backprojections.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::parallel::World;
use crate::particles::Subset;
use crate::particles::selection::SubsetRows;
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::assessment::{self, Assessment};

/// The input of a run, and the job that ran it.
pub struct RunSummary<'a> {
    /// The particle file.
    pub store: &'a Store,
    /// Identity of the particle set.
    pub data_set: DataSetId,
    /// The subset of each model, and its number of particles.
    pub particles: Vec<(Subset, usize)>,
    /// MPI ranks.
    pub ranks: usize,
    /// Nodes.
    pub nodes: usize,
    /// Threads per rank.
    pub threads: usize,
    /// Command line as typed.
    pub command: &'a [String],
    /// Ground-truth map.
    pub truth: Option<&'a Path>,
}

impl<'a> RunSummary<'a> {
    /// A run of this job on `subsets` of `store`.
    pub fn new(
        world: &World,
        store: &'a Store,
        data_set: DataSetId,
        subsets: &[SubsetRows],
        command: &'a [String],
        truth: Option<&'a Path>,
    ) -> Self {
        Self {
            store,
            data_set,
            particles: subsets.iter().map(|subset| (subset.subset, subset.rows.len())).collect(),
            ranks: world.size(),
            nodes: world.nodes(),
            threads: rayon::current_num_threads(),
            command,
            truth,
        }
    }

    /// The common part of `run.json`, for a run on `device` with these results. The caller adds what is specific to it.
    pub fn document(&self, device: &str, assessed: &Assessment) -> Value {
        let header = self.store.header();
        json!({
            "state": "done",
            "program": "cryosplat-mpi",
            "version": env!("CARGO_PKG_VERSION"),
            // Set by `make build`.
            "commit": option_env!("CRYOSPLAT_COMMIT"),
            "finished_at_seconds": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            "command": self.command,
            "working_directory": std::env::current_dir().ok().map(|d| d.display().to_string()),
            "particles": {
                "file": self.store.path().display().to_string(),
                "identity": self.data_set,
                "box_size": header.box_size,
                "pixel_size": header.pixel_size,
                "models": self.particles.iter().map(|(subset, n)| json!({"name": subset.name(), "particles": n})).collect::<Vec<_>>(),
            },
            "truth": self.truth.map(|file| file.display().to_string()),
            "ranks": self.ranks,
            "nodes": self.nodes,
            "threads_per_rank": self.threads,
            "device": device,
            "host": World::host(),
            "cores": World::cores(),
            "fsc": assessment::as_json(&assessed.curves),
            "resolution": assessed.headline,
        })
    }
}
