//! metrics_half1.jsonl and its like: what a group's training is doing, a line every so many steps and one for every epoch. The
//! first rank of the group writes; and, where that is wanted, a file that Prometheus' node exporter collects.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;

/// How long lines may wait in memory.
const FLUSH: Duration = Duration::from_secs(1);
/// How often the file for Prometheus is written.
const SCRAPE: Duration = Duration::from_secs(5);

/// One line of the metrics, about one step or the steps since the line before it.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// The model: "half1", "half2" or "map".
    pub model: String,
    /// Steps taken, this one included.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss of the step's images.
    pub loss: f64,
    /// Norm of the mean gradient of all raw parameters.
    pub gradient_norm: f64,
    /// Base learning rate of the step, at batch 1.
    pub rate: f64,
    /// Images in the step, over all ranks.
    pub images: u64,
    /// Images a second since the line before, over all ranks of the group.
    pub images_per_second: f64,
    /// Share of that time in which this rank waited for particles.
    pub input_share: f64,
    /// Share in sums over the ranks, waiting for the slowest included; nothing where the device cannot tell.
    pub reduce_share: Option<f64>,
    /// Resident memory of the process, in bytes.
    pub host_bytes: u64,
    /// Memory that the device holds for the model, in bytes.
    pub device_bytes: u64,
}

/// Seconds over the ranks of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Of the rank that took least.
    pub min: f64,
    /// Of the rank that took longest.
    pub max: f64,
}

impl Spread {
    /// Of one value a rank.
    pub fn of(values: &[f64]) -> Self {
        Self {
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// What an epoch came to. Times are of the part since the last resume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the epoch's images.
    pub loss: f64,
    /// Images that the times below are of, over all ranks of the group.
    pub images: u64,
    /// Steps that the times below are of.
    pub steps: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Ranks of the group.
    pub ranks: usize,
    /// Seconds in rendering and differentiating; nothing here and in the next two where the device cannot tell.
    pub compute: Option<Spread>,
    /// Seconds in sums over the ranks, waiting for the slowest included.
    pub reduce: Option<Spread>,
    /// Seconds in the optimiser.
    pub update: Option<Spread>,
    /// Seconds of waiting for particles.
    pub wait: Spread,
    /// Bytes read from the file, by all ranks of the group.
    pub bytes_read: u64,
}

/// Where the metrics of a model are.
pub fn path(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("metrics_{model}.jsonl"))
}

/// Every line of the metrics of `model` that can be read.
pub fn lines(folder: &Path, model: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(folder, model)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The epochs among the lines of the metrics of `model`.
pub fn epochs(folder: &Path, model: &str) -> Vec<EpochSummary> {
    let of_epoch = |line: Value| serde_json::from_value(line.get("summary")?.clone()).ok();
    lines(folder, model).into_iter().filter_map(of_epoch).collect()
}

/// Keeps the lines up to step `step`: those after the checkpoint come again, and the last may be torn.
///
/// # Errors
/// When the file cannot be written.
pub fn trim(folder: &Path, model: &str, step: u64) -> Result<()> {
    let path = path(folder, model);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            line.ends_with('\n') && value["step"].as_u64().is_some_and(|at| at <= step)
        })
        .collect();
    files::write_atomically(&path, |w| w.write_all(kept.as_bytes()))
}

/// Writes the metrics of one model.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    model: String,
    prometheus: Option<PathBuf>,
    waiting: String,
    last: Option<Metric>,
    scraped: Option<Instant>,
    flushed: Instant,
    failed: bool,
}

impl Writer {
    /// For `model`, into its file in `folder`; `prometheus` is the folder that the node exporter's textfile collector reads.
    pub fn new(folder: &Path, model: &str, prometheus: Option<&Path>) -> Self {
        Self {
            path: path(folder, model),
            model: model.to_owned(),
            prometheus: prometheus.map(|folder| folder.join(format!("cryosplat_{model}.prom"))),
            waiting: String::new(),
            last: None,
            scraped: None,
            flushed: Instant::now(),
            failed: false,
        }
    }

    /// Takes a line.
    pub fn step(&mut self, metric: Metric) {
        self.line(&metric);
        self.last = Some(metric);
    }

    /// Takes the line of an epoch, which ended after `step` steps.
    pub fn epoch(&mut self, step: u64, summary: &EpochSummary) {
        self.line(&serde_json::json!({"model": self.model, "step": step, "summary": summary}));
    }

    fn line(&mut self, value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            self.waiting += &line;
            self.waiting.push('\n');
        }
    }

    /// [`Writer::flush`], unless it was done a moment ago.
    pub fn flush_if_due(&mut self) {
        if self.flushed.elapsed() > FLUSH {
            self.flush();
        }
    }

    /// Brings what waits to the disk. Metrics that cannot be written do not end the run: it is said once.
    pub fn flush(&mut self) {
        let outcome = self.append().and_then(|()| self.export());
        if let Err(error) = outcome {
            if !self.failed {
                tracing::warn!("the metrics of {} have a gap: {error}; training goes on", self.model);
            }
            self.failed = true;
        }
        self.waiting.clear();
        self.flushed = Instant::now();
    }

    fn append(&self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut open = std::fs::OpenOptions::new();
        open.create(true).append(true);
        open.open(&self.path).and_then(|mut file| file.write_all(self.waiting.as_bytes())).map_err(Error::io(
            &self.path,
            "write the metrics",
            "check that the folder may be written and the disk is not full",
        ))
    }

    fn export(&mut self) -> Result<()> {
        let (Some(path), Some(metric)) = (&self.prometheus, &self.last) else { return Ok(()) };
        if self.scraped.is_some_and(|at| at.elapsed() < SCRAPE) {
            return Ok(());
        }
        self.scraped = Some(Instant::now());
        let text = exposition(metric);
        files::write_atomically(path, |w| w.write_all(text.as_bytes()))
    }

    /// Brings everything to the disk, the file for Prometheus too.
    pub fn finish(&mut self) {
        self.scraped = None;
        self.flush();
    }
}

/// A metric in Prometheus' text format.
fn exposition(metric: &Metric) -> String {
    let job = std::env::var("SLURM_JOB_ID").unwrap_or_default();
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = format!("{{model=\"{}\",slurm_job=\"{}\"}}", label(&metric.model), label(&job));
    let gauges = [
        ("step", "Steps taken", metric.step as f64),
        ("epoch", "Epochs done", metric.epoch),
        ("loss", "Mean loss of the images of a step", metric.loss),
        ("gradient_norm", "Norm of the mean gradient", metric.gradient_norm),
        ("learning_rate", "Base learning rate at batch 1", metric.rate),
        ("images_per_second", "Images a second over the ranks of the group", metric.images_per_second),
        ("input_share", "Share of the time spent waiting for particles", metric.input_share),
        ("reduce_share", "Share of the time in sums over the ranks", metric.reduce_share.unwrap_or(f64::NAN)),
        ("host_bytes", "Resident memory of the first rank", metric.host_bytes as f64),
        ("device_bytes", "Memory on the device of the first rank", metric.device_bytes as f64),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        let _ = write!(
            text,
            "# HELP cryosplat_{name} {help}.\n# TYPE cryosplat_{name} gauge\ncryosplat_{name}{labels} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::run_folder::metrics::*;
    use serde_json::json;

    #[test]
    fn lines_after_the_checkpoint_and_torn_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "half1");
        let line = |step: u64| format!("{}\n", json!({"model": "half1", "step": step}));
        let done = line(5) + &line(10);
        std::fs::write(&path, done.clone() + &line(11) + "{\"model\":\"ha").unwrap();
        trim(folder.path(), "half1", 10).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), done);
    }

    #[test]
    fn a_spread_is_of_all_ranks() {
        assert_eq!(Spread::of(&[1.0, 3.0, 2.0]), Spread { mean: 2.0, min: 1.0, max: 3.0 });
    }
}
