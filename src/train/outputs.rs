//! The outputs of a run: mixtures, maps, FSC, figures, report and run.json.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::estimate::Seconds;
use super::options::RunOptions;
use crate::diagnose;
use crate::error::Result;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};
use crate::evaluate::maps::{mean, read_cube};
use crate::gmm::files::GmmFile;
use crate::gmm::ply;
use crate::gmm::voxelize::{self, Grid, label};
use crate::imaging::mrc::{self, Volume};
use crate::parallel::{end_is_asked, training_is_over};
use crate::particles::Subset;
use crate::particles::selection::Models;
use crate::progress::duration;
use crate::run_folder::assessment::{Assessment, Check};
use crate::run_folder::diagnosis::{Diagnosis, Severity};
use crate::run_folder::document::RunSummary;
use crate::run_folder::identity::RunIdentity;
use crate::run_folder::metrics::{self, EpochSummary, Spread};
use crate::run_folder::{assessment, excluded, lifecycle, names, report, view};

/// A finished training.
pub(super) struct Finished<'a> {
    pub options: &'a RunOptions,
    /// Settings and particle set.
    pub identity: &'a RunIdentity,
    /// Voxel maps of both halves, for cross-validation.
    pub voxels: Option<[Volume; 2]>,
    pub summary: RunSummary<'a>,
    /// Name of the device.
    pub device: String,
    /// The time of the parts that are done, since the last resume.
    pub spent: Seconds,
    /// The estimate of all parts; `None` if the run was too short for one.
    pub estimate: Option<Seconds>,
    /// When the run started, or was resumed.
    pub started: Instant,
}

/// The map of a mixture, on the grid of the particles.
fn map_of(file: &GmmFile) -> Volume {
    Volume::new(voxelize::map_of(file, &Grid::of_box(file.box_size)), file.pixel_size)
}

/// Writes the mixture and the map of a model: gmm_half1.h5, gmm_half1.ply, half1.mrc and the like.
pub(super) fn write_model(folder: &Path, subset: Subset, file: &GmmFile) -> Result<()> {
    file.write(&folder.join(names::mixture(subset)))?;
    ply::write(&file.gmm, file.symmetry, &folder.join(names::mixture_ply(subset)))?;
    mrc::write_labelled_volume(&folder.join(names::map(subset)), &map_of(file), &label(file))
}

/// Logs the FSC of the current half maps.
pub(super) fn log_fsc(folder: &Path, epoch: usize) -> Result<()> {
    let (half1, half2) = (
        read_cube(&folder.join(names::map(Subset::Half1)))?,
        read_cube(&folder.join(names::map(Subset::Half2)))?,
    );
    let fsc = Fsc::between(&half1, &half2)?;
    tracing::info!("epoch {epoch}: half maps agree to {} (FSC 0.143)", fsc.crossing(GOLD_STANDARD));
    Ok(())
}

/// Reads the maps of the models; writes their mean, FSC, figures, report and run.json.
pub(super) fn finish(run: &Finished) -> Result<()> {
    training_is_over();
    let folder = &run.options.output;
    let mut maps = Vec::new();
    for (subset, _) in &run.summary.particles {
        maps.push(read_cube(&folder.join(names::map(subset)))?);
    }
    let both = run.options.models == Models::Both;
    let map = if both {
        let map = mean(&maps[0], &maps[1]);
        mrc::write_volume(&folder.join(names::MAP), &map)?;
        map
    } else {
        maps[0].clone()
    };
    let halves: Vec<&Volume> = maps.iter().collect();
    for (name, voxels) in names::VOXELS.iter().zip(run.voxels.iter().flatten()) {
        mrc::write_volume(&folder.join(name), voxels)?;
    }
    let check = Check::Voxels(run.voxels.as_ref());
    let assessed = assessment::assess(folder, &halves, &map, check, run.options.truth.as_deref())?;
    let epochs = epochs(run);
    let mut document = document(run, &assessed, &epochs);
    let diagnosing = Instant::now();
    let diagnosis = (both && run.options.diagnose)
        .then(|| diagnose::of_new_run(folder, &document, run.summary.store, end_is_asked))
        .flatten();
    let diagnosed = if diagnosis.is_some() { diagnosing.elapsed().as_secs_f64() } else { 0.0 };
    view::write(folder, &map, run.identity.settings.symmetry)?;
    // Those of the report are not counted: it shows them.
    let seconds = seconds(run, diagnosed);
    document["seconds"] = json!(seconds);
    report::write(folder, &document, run.summary.store, &[])?;
    lifecycle::write_document(folder, &document)?;
    log(run, &seconds, &assessed, &epochs, diagnosis.as_ref());
    Ok(())
}

/// The time of all parts of a run until now, whose diagnosis took `diagnosis` seconds.
fn seconds(run: &Finished, diagnosis: f64) -> Seconds {
    let mut seconds = Seconds { diagnosis, ..run.spent };
    seconds.outputs = run.started.elapsed().as_secs_f64() - seconds.total();
    seconds
}

/// The epochs of each model, in the order of [`RunSummary::particles`].
fn epochs(run: &Finished) -> Vec<Vec<EpochSummary>> {
    run.summary.particles.iter().map(|(subset, _)| metrics::epochs(&run.options.output, *subset)).collect()
}

/// Images per second of the time spent in epochs. Models train at the same time, or one after the other on a single rank.
fn images_per_second(run: &Finished, epochs: &[Vec<EpochSummary>]) -> f64 {
    let images: u64 = epochs.iter().flatten().map(|epoch| epoch.images).sum();
    let each = epochs.iter().map(|of_model| of_model.iter().map(|epoch| epoch.seconds).sum::<f64>());
    let seconds = if run.summary.ranks > 1 { each.fold(0.0, f64::max) } else { each.sum() };
    images as f64 / seconds.max(1e-9)
}

/// Logs where the time went, one line per model.
fn log_times(epochs: &[Vec<EpochSummary>], run: &Finished) {
    tracing::info!("           images/s   compute  all-reduce  update  input  imbalance   read");
    for ((subset, _), epochs) in run.summary.particles.iter().zip(epochs) {
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
            "{:10} {:8.0} {:>9} {:>11} {:>7} {:>6} {:>10} {:>6}",
            subset.name(),
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

fn log(
    run: &Finished,
    seconds: &Seconds,
    assessed: &Assessment,
    epochs: &[Vec<EpochSummary>],
    diagnosis: Option<&Diagnosis>,
) {
    log_times(epochs, run);
    assessment::log(assessed);
    diagnosis.iter().for_each(|diagnosis| diagnose::log(diagnosis));
    let estimated =
        run.estimate.map_or(String::new(), |of| format!("; the estimate was {}", duration(of.total())));
    tracing::info!("took {}: {}{estimated}", duration(seconds.total()), seconds.split());
    tracing::info!(
        "done in {} ({:.0} images/s): {}",
        duration(run.started.elapsed().as_secs_f64()),
        images_per_second(run, epochs),
        run.options.output.join(names::REPORT).display()
    );
    // The next step after a fault is to correct it.
    if diagnosis.is_none_or(|diagnosis| diagnosis.verdict.severity < Severity::Fault) {
        view::log_next(&run.options.output);
    }
}

/// The content of run.json.
fn document(run: &Finished, assessed: &Assessment, epochs: &[Vec<EpochSummary>]) -> Value {
    let Finished { options, summary, .. } = run;
    let mut document = summary.document(&run.device, assessed);
    let models = document["particles"]["models"].as_array_mut().into_iter().flatten();
    for (model, (subset, _)) in models.zip(&summary.particles) {
        model["left_out"] = json!(excluded::count(&options.output, *subset));
    }
    let of_models = summary.particles.iter().zip(epochs);
    for (key, value) in [
        ("settings", json!(run.identity.settings)),
        ("init", json!(options.init.as_ref().map(|init| init.file.display().to_string()))),
        ("cross_validation", assessed.verdict_as_json()),
        ("half", json!(options.models)),
        ("cache", json!(options.cache.mode)),
        ("seconds", json!(seconds(run, 0.0))),
        ("estimate", json!(run.estimate)),
        ("images_per_second", json!(images_per_second(run, epochs))),
        (
            "epochs",
            of_models
                .map(|((subset, _), epochs)| json!({"model": subset.name(), "epochs": epochs}))
                .collect(),
        ),
        ("identity", json!(run.identity.to_json())),
    ] {
        document[key] = value;
    }
    document
}
