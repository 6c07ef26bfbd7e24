//! The record of a run, as a study needs it: run.json of a run folder, or the file of `bench --json`.
//!
//! Files of earlier versions lack some members. Absent values are unknown (`None`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;
use crate::run_folder::metrics::Spread;
use crate::run_folder::names;

/// An epoch of one model. Stages are in seconds, over the ranks of the group.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct EpochRecord {
    /// Images of the group.
    pub images: Option<u64>,
    /// Number of steps.
    pub steps: Option<u64>,
    /// Total seconds.
    pub seconds: Option<f64>,
    /// Ranks of the group.
    pub ranks: Option<usize>,
    /// Rendering and differentiation.
    pub compute: Option<Spread>,
    /// All-reduce, including waiting for the slowest rank.
    pub reduce: Option<Spread>,
    /// The optimiser.
    pub update: Option<Spread>,
    /// Waiting for particles.
    pub wait: Option<Spread>,
    /// Bytes read from the particle file by the group.
    pub bytes_read: Option<u64>,
}

/// The epochs of one model.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ModelEpochs {
    /// Name of the model.
    pub model: String,
    /// Epochs in order.
    pub epochs: Vec<EpochRecord>,
}

/// A model and its number of particles.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ModelParticles {
    /// Name of the model.
    pub name: String,
    /// Number of particles.
    pub particles: Option<u64>,
}

/// The particle set of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ParticleSetRecord {
    /// Identity of the particle set.
    pub identity: Option<String>,
    /// Box size in pixels.
    pub box_size: Option<usize>,
    /// Models of the run.
    pub models: Vec<ModelParticles>,
}

/// Summary of an FSC curve.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct FscSummary {
    /// Resolution at FSC = 0.143 in angstrom.
    #[serde(rename = "resolution_0.143")]
    pub resolution: Option<f64>,
    /// Mean FSC over the shells.
    pub mean: Option<f64>,
}

/// Content of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    state: Option<String>,
    ranks: Option<usize>,
    nodes: Option<usize>,
    cores: Option<usize>,
    threads_per_rank: Option<usize>,
    device: Option<String>,
    half: Option<Value>,
    settings: Map<String, Value>,
    particles: ParticleSetRecord,
    images_per_second: Option<f64>,
    epochs: Vec<ModelEpochs>,
    fsc: BTreeMap<String, FscSummary>,
}

/// A measured run.
#[derive(Clone, Debug)]
pub struct Run {
    /// File of the record.
    pub file: PathBuf,
    /// MPI ranks.
    pub ranks: usize,
    /// Ranks of the largest group.
    pub group: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// CPU cores per node, including hyperthreads.
    pub cores: Option<usize>,
    /// Threads per rank.
    pub threads: Option<usize>,
    /// Device of a rank.
    pub device: String,
    /// Images per step, over all ranks of a group.
    pub batch: usize,
    /// All settings except the batch, and the trained halves.
    pub settings: Map<String, Value>,
    /// Particle set.
    pub particles: ParticleSetRecord,
    /// Images per second of all ranks.
    pub rate: f64,
    /// Epochs of all models.
    pub epochs: Vec<EpochRecord>,
    /// FSC between the half maps.
    pub halves: FscSummary,
    /// FSC of the map against the true map.
    pub truth: FscSummary,
}

const REMEDY: &str =
    "give folders of finished `cryosplat-mpi train` runs, or files of `cryosplat-mpi bench --json`";

/// The file of the record of `source`.
pub(super) fn file_of(source: &Path) -> PathBuf {
    if source.is_dir() { source.join(names::RUN) } else { source.to_path_buf() }
}

/// Reads the record of `source`: a run folder, or a file.
///
/// # Errors
/// When the file is missing or is not a record, the run is not finished, or a required member is missing.
pub fn read(source: &Path) -> Result<Run> {
    let file = file_of(source);
    if source.is_dir() && !file.exists() {
        return Err(Error::input(source, "", "contains no run.json: no run has finished there", REMEDY));
    }
    let text = files::read_text(&file).map_err(Error::io(&file, "read the run's record", REMEDY))?;
    parse(&file, &text)
}

fn parse(file: &Path, text: &str) -> Result<Run> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        Error::input(
            file,
            format!("line {}", error.line()),
            format!("is not the record of a run: {error}"),
            REMEDY,
        )
    })?;
    if let Some(state) = document.state.as_deref().filter(|&state| state != "done") {
        return Err(Error::input(
            file,
            "state",
            format!("is {state:?}, expected \"done\": the run has not finished"),
            "finish the run with --resume, or leave it out",
        ));
    }
    let missing = |name: &str| Error::input(file, name, "is missing or zero", REMEDY);
    let ranks = document.ranks.filter(|&r| r > 0).ok_or_else(|| missing("ranks"))?;
    let batch = document.settings.get("batch").and_then(Value::as_u64).filter(|&b| b > 0);
    let batch = batch.ok_or_else(|| missing("settings.batch"))? as usize;
    let rate = document.images_per_second.filter(|r| r.is_finite() && *r > 0.0);
    let rate = rate.ok_or_else(|| missing("images_per_second"))?;
    let mut settings = document.settings;
    settings.remove("batch");
    if let Some(half) = document.half {
        settings.insert("half".into(), half);
    }
    let epochs: Vec<EpochRecord> = document.epochs.into_iter().flat_map(|model| model.epochs).collect();
    let models = document.particles.models.len().max(1);
    let group = epochs.iter().filter_map(|epoch| epoch.ranks).max();
    let fsc = |name: &str| document.fsc.get(name).copied().unwrap_or_default();
    Ok(Run {
        file: file.to_path_buf(),
        ranks,
        group: group.unwrap_or_else(|| ranks.div_ceil(models)),
        nodes: document.nodes.unwrap_or(1).max(1),
        cores: document.cores,
        threads: document.threads_per_rank,
        device: document.device.unwrap_or_else(|| "unknown device".into()),
        batch,
        settings,
        particles: document.particles,
        rate,
        epochs,
        halves: fsc("half maps"),
        truth: fsc("map against truth"),
    })
}

/// Selects a stage of an epoch.
type Stage = fn(&EpochRecord) -> Option<Spread>;

/// Rendering and differentiation.
pub const COMPUTE: Stage = |epoch| epoch.compute;
/// All-reduce.
pub const REDUCE: Stage = |epoch| epoch.reduce;
/// The optimiser.
pub const UPDATE: Stage = |epoch| epoch.update;
/// Waiting for particles.
pub const WAIT: Stage = |epoch| epoch.wait;

impl Run {
    /// Number of models that are trained at the same time.
    pub fn concurrent_models(&self) -> usize {
        self.particles.models.len().clamp(1, self.ranks)
    }

    /// Seconds per step of one model, from the total rate.
    pub fn step_seconds(&self) -> f64 {
        (self.batch * self.concurrent_models()) as f64 / self.rate
    }

    /// Fraction of the time spent in a stage, mean over the ranks; `None` if an epoch lacks it.
    pub fn share(&self, stage: Stage) -> Option<f64> {
        let seconds = self.sum(|epoch| epoch.seconds)?;
        let part = self.sum(|epoch| stage(epoch).map(|spread| spread.mean))?;
        (seconds > 0.0).then(|| part / seconds)
    }

    /// Compute time of the slowest rank divided by the mean; `None` if an epoch lacks it.
    pub fn imbalance(&self) -> Option<f64> {
        let slowest = self.sum(|epoch| epoch.compute.map(|spread| spread.max))?;
        let mean = self.sum(|epoch| epoch.compute.map(|spread| spread.mean))?;
        (mean > 0.0).then(|| slowest / mean)
    }

    fn sum(&self, value: impl Fn(&EpochRecord) -> Option<f64>) -> Option<f64> {
        if self.epochs.is_empty() {
            return None;
        }
        self.epochs.iter().map(value).sum()
    }

    /// True if the ranks had more threads than cores. `None` if unknown, or on GPUs.
    pub fn is_oversubscribed(&self) -> Option<bool> {
        if !self.on_cpu() {
            return None;
        }
        Some(self.ranks * self.threads? > self.nodes * self.cores?)
    }

    /// True for the CPU device.
    pub fn on_cpu(&self) -> bool {
        self.device.starts_with("CPU")
    }

    /// Bytes of the gradient, with the loss; `None` if the record lacks the number of Gaussians.
    pub fn gradient_bytes(&self) -> Option<f64> {
        use crate::gmm::Shape;
        let gaussians = self.settings.get("gaussians")?.as_u64()?;
        let isotropic = self.settings.get("isotropic").and_then(Value::as_bool).unwrap_or(false);
        let shape = if isotropic { Shape::Isotropic } else { Shape::Anisotropic };
        Some(4.0 * (gaussians as f64 * shape.planes() as f64 + 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Run> {
        parse(Path::new("run/run.json"), text)
    }

    #[test]
    fn values_that_an_old_record_lacks_are_unknown() {
        let run = parsed(
            r#"{"state": "done", "ranks": 2, "settings": {"batch": 8}, "images_per_second": 100.0,
                "particles": {"models": [{"name": "half1", "particles": 5}, {"name": "half2", "particles": 5}]},
                "epochs": [{"model": "half1", "epochs": [{"loss": 1.0, "seconds": 2.0, "compute_seconds": 1.0}]}],
                "half": "both", "something": [1, 2]}"#,
        )
        .unwrap();
        assert_eq!((run.ranks, run.group, run.nodes, run.batch, run.threads), (2, 1, 1, 8, None));
        assert_eq!((run.share(COMPUTE), run.imbalance(), run.is_oversubscribed()), (None, None, None));
        assert_eq!((run.halves.mean, run.truth.resolution, run.gradient_bytes()), (None, None, None));
        assert!((run.step_seconds() - 0.16).abs() < 1e-12, "two models at 50 images/s each");
    }

    #[test]
    fn fractions_cover_all_epochs_and_null_stages_are_unknown() {
        let run = parsed(
            r#"{"state": "done", "ranks": 2, "threads_per_rank": 3, "cores": 4, "device": "CPU, 3 threads",
                "settings": {"batch": 8, "gaussians": 10}, "images_per_second": 100.0, "epochs": [{"model": "map", "epochs": [
                {"seconds": 1.0, "ranks": 2, "compute": {"mean": 0.5, "min": 0.4, "max": 0.6}, "reduce": null},
                {"seconds": 3.0, "ranks": 2, "compute": {"mean": 1.5, "min": 1.4, "max": 1.8}, "reduce": null}]}]}"#,
        )
        .unwrap();
        assert_eq!((run.group, run.share(COMPUTE), run.share(REDUCE)), (2, Some(0.5), None));
        assert!((run.imbalance().unwrap() - 1.2).abs() < 1e-12);
        assert_eq!((run.is_oversubscribed(), run.gradient_bytes()), (Some(true), Some(444.0)));
    }

    #[test]
    fn errors_name_the_missing_member() {
        for (text, words) in [
            ("[", "line 1"),
            (r#"{"state": "failed"}"#, "state"),
            (r#"{"settings": {"batch": 8}, "images_per_second": 1.0}"#, "ranks"),
            (r#"{"ranks": 1, "images_per_second": 1.0}"#, "settings.batch"),
            (r#"{"ranks": 1, "settings": {"batch": 8}, "images_per_second": null}"#, "images_per_second"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("run/run.json: {words}")) && !error.contains('\n'), "{error}");
        }
    }
}
