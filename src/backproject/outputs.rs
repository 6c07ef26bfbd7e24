//! The outputs of a backprojection: maps, FSC, figures, report and run.json, as for a training run.

use std::time::Instant;

use serde_json::{Value, json};

use super::BackprojectOptions;
use crate::error::Result;
use crate::imaging::mrc;
use crate::progress::duration;
use crate::run_folder::assessment::{Assessment, Check};
use crate::run_folder::document::RunSummary;
use crate::run_folder::{assessment, lifecycle, names, report, view};
use crate::voxels::PADDING;
use crate::voxels::reconstruction::Maps;

/// A finished backprojection.
pub(super) struct Finished<'a> {
    pub options: &'a BackprojectOptions,
    pub summary: RunSummary<'a>,
    pub maps: &'a Maps,
    /// Seconds until the sums were complete.
    pub backprojecting_seconds: f64,
    /// When the run started.
    pub started: Instant,
}

/// Writes all outputs; run.json, which marks the run as done, comes last.
pub(super) fn write(run: &Finished) -> Result<()> {
    let folder = &run.options.output;
    let Maps { halves: [half1, half2], whole } = run.maps;
    for (name, map) in [("half1", half1), ("half2", half2), ("map", whole)] {
        mrc::write_volume(&folder.join(names::map(name)), map)?;
    }
    let truth = run.options.truth.as_deref();
    let assessed = assessment::assess(folder, &[half1, half2], whole, Check::Independent, truth)?;
    let document = document(run, &assessed);
    view::write(folder, whole, run.options.symmetry)?;
    report::write(folder, &document, run.summary.store, &[])?;
    lifecycle::write_document(folder, &document)?;
    assessment::log(&assessed);
    tracing::info!(
        "done in {} ({:.0} images/s before the inversion): {}",
        duration(run.started.elapsed().as_secs_f64()),
        images_per_second(run),
        folder.join(names::REPORT).display()
    );
    view::log_next(folder);
    Ok(())
}

fn images_per_second(run: &Finished) -> f64 {
    let images: usize = run.summary.particles.iter().map(|(_, n)| n).sum();
    images as f64 / run.backprojecting_seconds.max(1e-9)
}

/// The content of run.json.
fn document(run: &Finished, assessed: &Assessment) -> Value {
    let mut document = run.summary.document(&format!("processor, {} threads", run.summary.threads), assessed);
    let total = run.started.elapsed().as_secs_f64();
    for (key, value) in [
        ("method", json!("backproject")),
        (
            "settings",
            json!({"symmetry": run.options.symmetry, "wiener": run.options.wiener, "padding": PADDING}),
        ),
        ("seconds", json!({"backprojecting": run.backprojecting_seconds, "total": total})),
        ("images_per_second", json!(images_per_second(run))),
    ] {
        document[key] = value;
    }
    if run.options.by_noise {
        document["settings"]["noise"] = json!("spectrum");
    }
    document
}
