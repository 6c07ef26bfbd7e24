//! What a run leaves in its folder: mixtures, maps, FSC, pictures, report, run.json.

use std::path::Path;

use serde_json::{Value, json};

use super::run::RunOptions;
use crate::error::Result;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};
use crate::evaluate::maps::{mean, read_cube};
use crate::gmm::files::GmmFile;
use crate::gmm::ply;
use crate::gmm::voxelize::{Grid, label, voxelize};
use crate::imaging::mrc::{self, Volume};
use crate::particles::parts::Models;
use crate::progress::duration;
use crate::recipe::Settings;
use crate::run_folder::assessment::Judged;
use crate::run_folder::document::Done;
use crate::run_folder::metrics::{self, EpochSummary, Spread};
use crate::run_folder::{assessment, excluded, lifecycle, report};

/// All that the outputs tell of.
pub struct Finished<'a> {
    /// What was asked.
    pub options: &'a RunOptions,
    /// What it came to.
    pub settings: &'a Settings,
    /// What a resumed run must share.
    pub identity: &'a str,
    /// Voxel maps of the same halves, to judge the half maps by.
    pub voxels: Option<[Volume; 2]>,
    /// The particles, the models and the ranks.
    pub done: Done<'a>,
    /// The device's name.
    pub device: String,
    /// Seconds of training, since the last resume.
    pub training_seconds: f64,
    /// Seconds since the start, likewise.
    pub total_seconds: f64,
}

/// The map of a mixture on the particles' grid.
pub fn map_of(file: &GmmFile) -> Volume {
    Volume { data: voxelize(&file.gmm, &Grid::of_box(file.box_size)), pixel_size: file.pixel_size }
}

/// Writes gmm_NAME.h5, gmm_NAME.ply and NAME.mrc.
pub fn write_model(folder: &Path, name: &str, file: &GmmFile) -> Result<()> {
    file.write(&folder.join(format!("gmm_{name}.h5")))?;
    ply::write(&file.gmm, &folder.join(format!("gmm_{name}.ply")))?;
    mrc::write_labelled_volume(&folder.join(format!("{name}.mrc")), &map_of(file), &label(file))
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
    let place = &run.options.output;
    let mut maps = Vec::new();
    for (name, _) in &run.done.particles {
        maps.push((*name, read_cube(&place.join(format!("{name}.mrc")))?));
    }
    let both = run.options.models == Models::Both;
    let map = if both {
        let map = mean(&maps[0].1, &maps[1].1);
        mrc::write_volume(&place.join("map.mrc"), &map)?;
        map
    } else {
        maps[0].1.clone()
    };
    let halves: Vec<&Volume> = maps.iter().map(|(_, map)| map).collect();
    let judged = assessment::judge(place, &halves, &map, run.voxels.as_ref(), run.options.truth.as_deref())?;
    let epochs = epochs(run);
    let document = document(run, &judged, &epochs);
    report::write(place, &document, run.done.store, &[])?;
    lifecycle::write_document(place, &document)?;
    say(run, &judged, &epochs);
    Ok(())
}

/// The epochs of each model, in the order of [`Done::particles`].
fn epochs(run: &Finished) -> Vec<Vec<EpochSummary>> {
    run.done.particles.iter().map(|(name, _)| metrics::epochs(&run.options.output, name)).collect()
}

/// Of the time spent in epochs: models train side by side, or on a single rank one after the other.
fn images_per_second(run: &Finished, epochs: &[Vec<EpochSummary>]) -> f64 {
    let images: u64 = epochs.iter().flatten().map(|epoch| epoch.images).sum();
    let each = epochs.iter().map(|of_model| of_model.iter().map(|epoch| epoch.seconds).sum::<f64>());
    let seconds = if run.done.ranks > 1 { each.fold(0.0, f64::max) } else { each.sum() };
    images as f64 / seconds.max(1e-9)
}

/// Where the time went, a line a model.
fn say_times(epochs: &[Vec<EpochSummary>], run: &Finished) {
    tracing::info!("           images/s   compute  all-reduce  update  input  imbalance   read");
    for ((name, _), epochs) in run.done.particles.iter().zip(epochs) {
        let sum = |part: fn(&EpochSummary) -> f64| epochs.iter().map(part).sum::<f64>();
        let seconds = sum(|epoch| epoch.seconds).max(1e-9);
        let share = |part: fn(&EpochSummary) -> Option<Spread>| {
            let all: Option<Vec<f64>> =
                epochs.iter().map(|epoch| part(epoch).map(|spread| spread.mean)).collect();
            all.map_or("-".to_owned(), |all| format!("{:.1}%", 100.0 * all.iter().sum::<f64>() / seconds))
        };
        let slowest: f64 = sum(|epoch| epoch.compute.map_or(0.0, |compute| compute.max));
        let mean: f64 = sum(|epoch| epoch.compute.map_or(0.0, |compute| compute.mean));
        let imbalance = if mean > 0.0 { format!("{:.2}", slowest / mean) } else { "-".to_owned() };
        tracing::info!(
            "{name:10} {:8.0} {:>9} {:>11} {:>7} {:>6} {:>10} {:>6}",
            sum(|epoch| epoch.images as f64) / seconds,
            share(|epoch| epoch.compute),
            share(|epoch| epoch.reduce),
            share(|epoch| epoch.update),
            share(|epoch| Some(epoch.wait)),
            imbalance,
            format!("{:.1} GB", sum(|epoch| epoch.bytes_read as f64) / 1e9),
        );
    }
}

fn say(run: &Finished, judged: &Judged, epochs: &[Vec<EpochSummary>]) {
    say_times(epochs, run);
    assessment::say(judged);
    tracing::info!(
        "done in {} ({:.0} images/s): {}",
        duration(run.total_seconds),
        images_per_second(run, epochs),
        run.options.output.join("report.html").display()
    );
}

/// What run.json says.
fn document(run: &Finished, judged: &Judged, epochs: &[Vec<EpochSummary>]) -> Value {
    let Finished { options, done, .. } = run;
    let mut document = done.document(&run.device, &judged.curves);
    let models = document["particles"]["models"].as_array_mut().into_iter().flatten();
    for (model, (name, _)) in models.zip(&done.particles) {
        model["left_out"] = json!(excluded::count(&options.output, name));
    }
    let of_models = done.particles.iter().zip(epochs);
    for (key, value) in [
        ("settings", json!(run.settings)),
        ("init", json!(options.init.as_ref().map(|init| init.file.display().to_string()))),
        ("cross_validation", judged.verdict_as_json()),
        ("half", json!(options.models)),
        ("cache", json!(options.cache.mode)),
        ("seconds", json!({"training": run.training_seconds, "total": run.total_seconds})),
        ("images_per_second", json!(images_per_second(run, epochs))),
        ("epochs", of_models.map(|((name, _), epochs)| json!({"model": name, "epochs": epochs})).collect()),
        ("identity", json!(run.identity)),
    ] {
        document[key] = value;
    }
    document
}
