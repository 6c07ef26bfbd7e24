//! What a run that is done says of itself in run.json, whether it trained or backprojected.

use std::path::Path;

use serde_json::{Value, json};

use crate::evaluate::Fsc;
use crate::parallel::World;
use crate::particles::parts::Part;
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::assessment;

/// What a run worked on, and where.
pub struct Done<'a> {
    /// The particles.
    pub store: &'a Store,
    /// Their identity.
    pub set: DataSetId,
    /// Models by name, and their numbers of particles.
    pub particles: Vec<(&'static str, usize)>,
    /// MPI ranks.
    pub ranks: usize,
    /// Machines.
    pub nodes: usize,
    /// Threads of a rank.
    pub threads: usize,
    /// The command line as typed.
    pub command: &'a [String],
    /// The map to compare with.
    pub truth: Option<&'a Path>,
}

impl<'a> Done<'a> {
    /// A run of this job on `parts` of `store`, whose identity is `set`.
    pub fn new(
        world: &World,
        store: &'a Store,
        set: DataSetId,
        parts: &[Part],
        command: &'a [String],
        truth: Option<&'a Path>,
    ) -> Self {
        Self {
            store,
            set,
            particles: parts.iter().map(|part| (part.name(), part.rows.len())).collect(),
            ranks: world.size(),
            nodes: world.nodes(),
            threads: rayon::current_num_threads(),
            command,
            truth,
        }
    }

    /// The document of a run on `device` that came to these FSC `curves`; what the run did is to be added.
    pub fn document(&self, device: &str, curves: &[(String, Fsc)]) -> Value {
        let header = self.store.header();
        json!({
            "state": "done",
            "program": "cryosplat-mpi",
            "version": env!("CARGO_PKG_VERSION"),
            "command": self.command,
            "working_directory": std::env::current_dir().ok().map(|d| d.display().to_string()),
            "particles": {
                "file": self.store.path().display().to_string(),
                "identity": self.set,
                "box_size": header.box_size,
                "pixel_size": header.pixel_size,
                "models": self.particles.iter().map(|(name, n)| json!({"name": name, "particles": n})).collect::<Vec<_>>(),
            },
            "truth": self.truth.map(|file| file.display().to_string()),
            "ranks": self.ranks,
            "nodes": self.nodes,
            "threads_per_rank": self.threads,
            "device": device,
            "host": World::host(),
            "cores": World::cores(),
            "fsc": assessment::as_json(curves),
        })
    }
}
