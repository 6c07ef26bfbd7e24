//! What a backprojection leaves in its folder: maps, FSC, pictures, report, run.json, as a training does.

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use super::PADDING;
use super::run::{BackprojectOptions, Maps};
use crate::error::Result;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD, HALF};
use crate::evaluate::report::{ReportData, write_report};
use crate::files;
use crate::imaging::mrc;
use crate::parallel::World;
use crate::particles::store::Store;
use crate::progress::duration;
use crate::train::outputs::{curves_json, judge, say_curves};

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
    let folder = &run.options.output;
    let Maps { halves: [half1, half2], whole } = run.maps;
    for (name, map) in [("half1", half1), ("half2", half2), ("map", whole)] {
        mrc::write_volume(&folder.join(format!("{name}.mrc")), map)?;
    }
    let (curves, picture) = judge(folder, &[half1, half2], whole, run.options.truth.as_deref())?;
    // Last what says that the run is done.
    report(run, &curves, picture)?;
    write_run_json(run, &curves)?;
    say_curves(&curves);
    tracing::info!(
        "done in {} ({:.0} images/s before the inversion): {}",
        duration(run.started.elapsed().as_secs_f64()),
        images_per_second(run),
        folder.join("report.html").display()
    );
    Ok(())
}

fn images_per_second(run: &Finished) -> f64 {
    let images: usize = run.particles.iter().map(|(_, n)| n).sum();
    images as f64 / run.backprojecting_seconds.max(1e-9)
}

fn write_run_json(run: &Finished, curves: &[(String, Fsc)]) -> Result<()> {
    let header = run.store.header();
    let document = json!({
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
        "ranks": run.ranks,
        "nodes": run.nodes,
        "threads_per_rank": run.threads,
        "host": World::host(),
        "cores": World::cores(),
        "seconds": {"backprojecting": run.backprojecting_seconds, "total": run.started.elapsed().as_secs_f64()},
        "images_per_second": images_per_second(run),
        "fsc": curves_json(curves),
    });
    files::write_atomically(&run.options.output.join("run.json"), |w| {
        serde_json::to_writer_pretty(&mut *w, &document).map_err(std::io::Error::other)?;
        writeln!(w)
    })
}

fn report(run: &Finished, curves: &[(String, Fsc)], picture: Vec<u8>) -> Result<()> {
    let header = run.store.header();
    let mut headline: Vec<(String, String)> = Vec::new();
    if let Some((label, fsc)) = curves.first() {
        headline.push((format!("Resolution, FSC 0.143, {label}"), fsc.crossing(GOLD_STANDARD).to_string()));
        headline.push((format!("Resolution, FSC 0.5, {label}"), fsc.crossing(HALF).to_string()));
    }
    for (name, n) in &run.particles {
        headline.push((format!("Particles in {name}"), n.to_string()));
    }
    headline.push(("Box".into(), format!("{} px of {:.3} Å", header.box_size, header.pixel_size)));
    headline.push(("Speed".into(), format!("{:.0} images/s", images_per_second(run))));
    headline.push(("Time".into(), duration(run.started.elapsed().as_secs_f64())));
    let filter = if run.options.wiener { "by the half maps' FSC" } else { "none" };
    let data = ReportData {
        title: format!("cryosplat-mpi: {}", run.options.output.display()),
        headline,
        settings: vec![
            ("method".into(), "backprojection of voxels".into()),
            ("Wiener filter".into(), filter.into()),
            ("padding".into(), PADDING.to_string()),
        ],
        command: run.options.command.join(" "),
        fsc: curves.to_vec(),
        slices_png: picture,
        notes: vec![format!(
            "{} MPI ranks of {} threads. The identity of the particle set is {:08x}.",
            run.ranks, run.threads, run.set
        )],
        ..ReportData::default()
    };
    write_report(&run.options.output.join("report.html"), &data)
}
