//! What a run leaves in its folder: mixtures, maps, FSC, pictures, report, run.json.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::half::EpochSummary;
use super::recipe::Settings;
use super::run::{Models, RunOptions};
use crate::error::{Error, Result};
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD, HALF};
use crate::evaluate::maps::read_cube;
use crate::evaluate::plots::write_fsc_files;
use crate::evaluate::report::{ReportData, write_report};
use crate::evaluate::slices;
use crate::files;
use crate::gmm::files::GmmFile;
use crate::gmm::ply;
use crate::gmm::voxelize::{Grid, voxelize};
use crate::imaging::mrc::{self, Volume};
use crate::particles::store::Store;
use crate::progress::duration;

/// All that the outputs tell of.
pub struct Finished<'a> {
    /// What was asked.
    pub options: &'a RunOptions,
    /// What it came to.
    pub settings: &'a Settings,
    /// The particles.
    pub store: &'a Store,
    /// What a resumed run must share.
    pub identity: &'a str,
    /// Models by name, and their numbers of particles.
    pub particles: Vec<(&'static str, usize)>,
    /// MPI ranks.
    pub ranks: usize,
    /// Threads of a rank.
    pub threads: usize,
    /// The device's name.
    pub device: String,
    /// Epochs trained here (fewer than all in a resumed run).
    pub epochs_here: usize,
    /// Seconds of training.
    pub training_seconds: f64,
    /// Seconds since the start.
    pub total_seconds: f64,
    /// Epochs by model, as rank 0 saw them.
    pub history: &'a [Vec<EpochSummary>],
}

/// The map of a mixture on the particles' grid.
pub fn map_of(file: &GmmFile) -> Volume {
    Volume { data: voxelize(&file.gmm, &Grid::of_box(file.box_size)), pixel_size: file.pixel_size }
}

/// Writes gmm_NAME.h5, gmm_NAME.ply and NAME.mrc.
pub fn write_model(folder: &Path, name: &str, file: &GmmFile) -> Result<()> {
    file.write(&folder.join(format!("gmm_{name}.h5")))?;
    ply::write(&file.gmm, &folder.join(format!("gmm_{name}.ply")))?;
    mrc::write_volume(&folder.join(format!("{name}.mrc")), &map_of(file))
}

/// Adds lines to metrics.jsonl.
pub fn append_metrics(folder: &Path, lines: &str) -> Result<()> {
    let path = folder.join("metrics.jsonl");
    let mut open = std::fs::OpenOptions::new();
    open.create(true).append(true);
    open.open(&path).and_then(|mut file| file.write_all(lines.as_bytes())).map_err(Error::io(
        &path,
        "write the metrics",
        "check that the folder may be written and the disk is not full",
    ))
}

/// The FSC of the half maps as they stand, for the log.
pub fn preview(folder: &Path, epoch: usize) -> Result<()> {
    let (half1, half2) = (read_cube(&folder.join("half1.mrc"))?, read_cube(&folder.join("half2.mrc"))?);
    let fsc = Fsc::between(&half1, &half2)?;
    tracing::info!("epoch {epoch}: half maps agree to {} (FSC 0.143)", fsc.crossing(GOLD_STANDARD));
    Ok(())
}

/// Reads the models' maps back and writes everything made from them.
pub fn finish(run: &Finished) -> Result<()> {
    let folder = &run.options.output;
    let mut maps = Vec::new();
    for (name, _) in &run.particles {
        maps.push((*name, read_cube(&folder.join(format!("{name}.mrc")))?));
    }
    let mut curves: Vec<(String, Fsc)> = Vec::new();
    let both = run.options.models == Models::Both;
    let map = if both {
        let mean = (&maps[0].1.data + &maps[1].1.data) * 0.5;
        let map = Volume { data: mean, pixel_size: maps[0].1.pixel_size };
        mrc::write_volume(&folder.join("map.mrc"), &map)?;
        curves.push(("half maps".into(), Fsc::between(&maps[0].1, &maps[1].1)?));
        map
    } else {
        maps[0].1.clone()
    };
    let mut truth_map = None;
    if let Some(path) = &run.options.truth {
        let mut truth = read_cube(path)?;
        // The header of a map holds its pixel size in single precision.
        truth.pixel_size = map.pixel_size;
        curves.push(("map against truth".into(), Fsc::between(&map, &truth)?));
        if both {
            for (name, volume) in &maps {
                curves.push((format!("{name} against truth"), Fsc::between(volume, &truth)?));
            }
        }
        truth_map = Some(truth);
    }
    if !curves.is_empty() {
        write_fsc_files(folder, "fsc", &curves)?;
    }
    let picture = slices::draw(&maps[0].1, maps.get(1).map(|(_, map)| map), &map, truth_map.as_ref())?;
    files::write_atomically(&folder.join("slices.png"), |w| w.write_all(&picture))?;
    write_run_json(run, &curves)?;
    report(run, &curves, picture)?;
    say(run, &curves);
    Ok(())
}

fn images_per_second(run: &Finished) -> f64 {
    let images: usize = run.particles.iter().map(|(_, n)| n * run.epochs_here).sum();
    images as f64 / run.training_seconds.max(1e-9)
}

fn say(run: &Finished, curves: &[(String, Fsc)]) {
    for (label, fsc) in curves {
        tracing::info!(
            "FSC of {label}: {} at 0.143, {} at 0.5, mean {:.4}",
            fsc.crossing(GOLD_STANDARD),
            fsc.crossing(HALF),
            fsc.mean()
        );
    }
    tracing::info!(
        "done in {} ({:.0} images/s): {}",
        duration(run.total_seconds),
        images_per_second(run),
        run.options.output.join("report.html").display()
    );
}

fn write_run_json(run: &Finished, curves: &[(String, Fsc)]) -> Result<()> {
    let metadata = run.store.metadata();
    let fsc: serde_json::Map<String, serde_json::Value> = curves
        .iter()
        .map(|(label, fsc)| {
            let value = json!({
                "resolution_0.143": fsc.crossing(GOLD_STANDARD).resolution(),
                "resolution_0.5": fsc.crossing(HALF).resolution(),
                "mean": fsc.mean(),
            });
            (label.clone(), value)
        })
        .collect();
    let document = json!({
        "state": "done",
        "program": "cryosplat-mpi",
        "version": env!("CARGO_PKG_VERSION"),
        "command": run.options.command,
        "working_directory": std::env::current_dir().ok().map(|d| d.display().to_string()),
        "settings": run.settings,
        "half": run.options.models,
        "cache": run.options.cache,
        "particles": {
            "file": run.store.path().display().to_string(),
            "identity": format!("{:08x}", run.store.identity()),
            "box_size": metadata.box_size,
            "pixel_size": metadata.pixel_size,
            "models": run.particles.iter().map(|(name, n)| json!({"name": name, "particles": n})).collect::<Vec<_>>(),
        },
        "ranks": run.ranks,
        "threads_per_rank": run.threads,
        "device": run.device,
        "host": host(),
        "cores": cores(),
        "seconds": {"training": run.training_seconds, "total": run.total_seconds},
        "images_per_second": images_per_second(run),
        "epochs": run.particles.iter().zip(run.history).map(|((name, _), epochs)| json!({"model": name, "epochs": epochs})).collect::<Vec<_>>(),
        "fsc": fsc,
        "identity": run.identity,
    });
    files::write_atomically(&run.options.output.join("run.json"), |w| {
        serde_json::to_writer_pretty(&mut *w, &document).map_err(std::io::Error::other)?;
        writeln!(w)
    })
}

/// The name of this machine.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |h| h.trim().into())
}

/// The processor cores of this machine, hyperthreads included, whichever of them this process may use; `None` where the
/// system does not say.
pub fn cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    (count > 0).then_some(count)
}

/// Loss curves of metrics.jsonl by model: (epoch, loss), thinned to what a chart can show.
fn losses(folder: &Path) -> Vec<(String, Vec<(f64, f64)>)> {
    const POINTS: usize = 300;
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for line in text.lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let (Some(model), Some(epoch), Some(loss)) =
            (value["model"].as_str(), value["epoch"].as_f64(), value["loss"].as_f64())
        else {
            continue;
        };
        match curves.iter_mut().find(|(name, _)| name == model) {
            Some((_, points)) => points.push((epoch, loss)),
            None => curves.push((model.to_owned(), vec![(epoch, loss)])),
        }
    }
    curves.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, points) in &mut curves {
        // The mean of neighbours: single batches scatter far more than the curve falls.
        let size = points.len().div_ceil(POINTS);
        *points = points
            .chunks(size.max(1))
            .map(|chunk| {
                let n = chunk.len() as f64;
                (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
            })
            .collect();
    }
    curves
}

fn report(run: &Finished, curves: &[(String, Fsc)], picture: Vec<u8>) -> Result<()> {
    let metadata = run.store.metadata();
    let mut headline: Vec<(String, String)> = Vec::new();
    if let Some((label, fsc)) = curves.first() {
        headline.push((format!("Resolution, FSC 0.143, {label}"), fsc.crossing(GOLD_STANDARD).to_string()));
        headline.push((format!("Resolution, FSC 0.5, {label}"), fsc.crossing(HALF).to_string()));
    }
    for (name, n) in &run.particles {
        headline.push((format!("Particles in {name}"), n.to_string()));
    }
    headline.push(("Gaussians".into(), run.settings.gaussians.to_string()));
    headline.push(("Box".into(), format!("{} px of {:.3} Å", metadata.box_size, metadata.pixel_size)));
    headline.push(("Speed".into(), format!("{:.0} images/s", images_per_second(run))));
    headline.push(("Time".into(), duration(run.total_seconds)));
    let settings = match serde_json::to_value(run.settings) {
        Ok(serde_json::Value::Object(map)) => map
            .into_iter()
            .map(|(key, value)| (key.replace('_', " "), value.to_string().replace('"', "")))
            .collect(),
        _ => Vec::new(),
    };
    let mut notes = vec![format!(
        "{} MPI ranks; each: {}. The identity of the particle set is {:08x}.",
        run.ranks,
        run.device,
        run.store.identity()
    )];
    if run.options.models == Models::Both {
        notes.push(
            "Half maps of the same model can agree with each other better than either agrees with the truth: \
             both share the model's bias. Compare with a plain reconstruction where it matters."
                .into(),
        );
    }
    let data = ReportData {
        title: format!("cryosplat-mpi: {}", run.options.output.display()),
        headline,
        settings,
        command: run.options.command.join(" "),
        fsc: curves.to_vec(),
        loss: losses(&run.options.output),
        slices_png: picture,
        notes,
    };
    write_report(&run.options.output.join("report.html"), &data)
}
