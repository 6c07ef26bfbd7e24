//! What a backprojection leaves in its folder: maps, FSC, pictures, report, run.json, as a training does.

use std::time::Instant;

use serde_json::{Value, json};

use super::PADDING;
use super::run::{BackprojectOptions, Maps};
use crate::error::Result;
use crate::evaluate::fsc::Fsc;
use crate::imaging::mrc;
use crate::parallel::World;
use crate::particles::store::Store;
use crate::progress::duration;
use crate::train::{folder, judge, report};

/// All that the outputs tell of.
pub struct Finished<'a> {
    /// What was asked.
    pub options: &'a BackprojectOptions,
    /// The particles.
    pub store: &'a Store,
    /// Their identity.
    pub set: u32,
    /// What they gave.
    pub maps: &'a Maps,
    /// Halves by name, and their numbers of particles.
    pub particles: Vec<(&'static str, usize)>,
    /// MPI ranks.
    pub ranks: usize,
    /// Machines.
    pub nodes: usize,
    /// Threads of a rank.
    pub threads: usize,
    /// Seconds until all sums were there.
    pub backprojecting_seconds: f64,
    /// When the run began.
    pub started: Instant,
}

/// Writes everything.
pub fn write(run: &Finished) -> Result<()> {
    let place = &run.options.output;
    let Maps { halves: [half1, half2], whole } = run.maps;
    for (name, map) in [("half1", half1), ("half2", half2), ("map", whole)] {
        mrc::write_volume(&place.join(format!("{name}.mrc")), map)?;
    }
    let curves = judge::judge(place, &[half1, half2], whole, run.options.truth.as_deref())?;
    let document = document(run, &curves);
    report::write(place, &document, run.store, &[])?;
    folder::write_document(place, &document)?;
    judge::say(&curves);
    tracing::info!(
        "done in {} ({:.0} images/s before the inversion): {}",
        duration(run.started.elapsed().as_secs_f64()),
        images_per_second(run),
        place.join("report.html").display()
    );
    Ok(())
}

fn images_per_second(run: &Finished) -> f64 {
    let images: usize = run.particles.iter().map(|(_, n)| n).sum();
    images as f64 / run.backprojecting_seconds.max(1e-9)
}

/// What run.json says.
fn document(run: &Finished, curves: &[(String, Fsc)]) -> Value {
    let header = run.store.header();
    json!({
        "state": "done",
        "program": "cryosplat-mpi",
        "version": env!("CARGO_PKG_VERSION"),
        "command": run.options.command,
        "working_directory": std::env::current_dir().ok().map(|d| d.display().to_string()),
        "method": "backproject",
        "settings": {"wiener": run.options.wiener, "padding": PADDING},
        "particles": {
            "file": run.store.path().display().to_string(),
            "identity": format!("{:08x}", run.set),
            "box_size": header.box_size,
            "pixel_size": header.pixel_size,
            "models": run.particles.iter().map(|(name, n)| json!({"name": name, "particles": n})).collect::<Vec<_>>(),
        },
        "truth": run.options.truth.as_ref().map(|file| file.display().to_string()),
        "ranks": run.ranks,
        "nodes": run.nodes,
        "threads_per_rank": run.threads,
        "device": format!("processor, {} threads", run.threads),
        "host": World::host(),
        "cores": World::cores(),
        "seconds": {"backprojecting": run.backprojecting_seconds, "total": run.started.elapsed().as_secs_f64()},
        "images_per_second": images_per_second(run),
        "fsc": judge::as_json(curves),
    })
}
