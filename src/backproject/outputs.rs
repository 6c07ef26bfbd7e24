//! What a backprojection leaves in its folder: maps, FSC, pictures, report, run.json, as a training does.

use std::time::Instant;

use serde_json::{Value, json};

use super::run::BackprojectOptions;
use crate::error::Result;
use crate::evaluate::fsc::Fsc;
use crate::imaging::mrc;
use crate::progress::duration;
use crate::run_folder::document::Done;
use crate::run_folder::{assessment, lifecycle, report};
use crate::voxels::PADDING;
use crate::voxels::reconstruction::Maps;

/// All that the outputs tell of.
pub struct Finished<'a> {
    /// What was asked.
    pub options: &'a BackprojectOptions,
    /// The particles, the halves and the ranks.
    pub done: Done<'a>,
    /// What they gave.
    pub maps: &'a Maps,
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
    let judged = assessment::judge(place, &[half1, half2], whole, None, run.options.truth.as_deref())?;
    let document = document(run, &judged.curves);
    report::write(place, &document, run.done.store, &[])?;
    lifecycle::write_document(place, &document)?;
    assessment::say(&judged);
    tracing::info!(
        "done in {} ({:.0} images/s before the inversion): {}",
        duration(run.started.elapsed().as_secs_f64()),
        images_per_second(run),
        place.join("report.html").display()
    );
    Ok(())
}

fn images_per_second(run: &Finished) -> f64 {
    let images: usize = run.done.particles.iter().map(|(_, n)| n).sum();
    images as f64 / run.backprojecting_seconds.max(1e-9)
}

/// What run.json says.
fn document(run: &Finished, curves: &[(String, Fsc)]) -> Value {
    let mut document = run.done.document(&format!("processor, {} threads", run.done.threads), curves);
    let total = run.started.elapsed().as_secs_f64();
    for (key, value) in [
        ("method", json!("backproject")),
        ("settings", json!({"wiener": run.options.wiener, "padding": PADDING})),
        ("seconds", json!({"backprojecting": run.backprojecting_seconds, "total": total})),
        ("images_per_second", json!(images_per_second(run))),
    ] {
        document[key] = value;
    }
    document
}
