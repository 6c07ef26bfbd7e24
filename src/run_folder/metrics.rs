//! metrics_half1.jsonl and the like: the progress of a model's training, one line every few steps and one per epoch, and optionally a
//! file for the textfile collector of Prometheus' node exporter. The first rank of the group writes them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;
use crate::particles::Subset;
use crate::run_folder::owner::Claim;

/// Longest time that lines are buffered.
const FLUSH: Duration = Duration::from_secs(1);
/// Time between two updates of the file for Prometheus.
const EXPORT_PERIOD: Duration = Duration::from_secs(5);

/// One line of the metrics: one step, and rates since the previous line.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// Name of the model: "half1", "half2" or "map".
    pub model: String,
    /// Number of steps done, including this one.
    pub step: u64,
    /// Number of epochs done, with a fraction.
    pub epoch: f64,
    /// Mean loss of the step's images.
    pub loss: f64,
    /// Norm of the mean gradient of all raw parameters.
    pub gradient_norm: f64,
    /// Base learning rate of the step, at batch 1.
    pub rate: f64,
    /// Images in the step, over all ranks.
    pub images: u64,
    /// Images per second since the previous line, over all ranks of the group.
    pub images_per_second: f64,
    /// Share of that time spent waiting for particles, on this rank.
    pub input_share: f64,
    /// Share spent in all-reduces, including waiting for other ranks; `None` where the device does not measure it.
    pub reduce_share: Option<f64>,
    /// Resident memory of the process, in bytes.
    pub host_bytes: u64,
    /// Device memory of the model, in bytes.
    pub device_bytes: u64,
}

/// A time in seconds, over the ranks of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean over the ranks.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl Spread {
    /// From one value per rank.
    pub fn of(values: &[f64]) -> Self {
        Self {
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// Result of an epoch. Times, images and steps count since the last resume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the epoch's images.
    pub loss: f64,
    /// Images since the last resume, over all ranks of the group.
    pub images: u64,
    /// Steps since the last resume.
    pub steps: u64,
    /// Duration in seconds.
    pub seconds: f64,
    /// Ranks of the group.
    pub ranks: usize,
    /// Seconds in rendering and its gradient. `None`, as the next two, where the device does not measure it.
    pub compute: Option<Spread>,
    /// Seconds in all-reduces, including waiting for other ranks.
    pub reduce: Option<Spread>,
    /// Seconds in the optimiser.
    pub update: Option<Spread>,
    /// Seconds spent waiting for particles.
    pub wait: Spread,
    /// Bytes read from the particle file by all ranks of the group.
    pub bytes_read: u64,
}

/// The file of the metrics of the model of `subset`.
pub fn path(folder: &Path, subset: Subset) -> PathBuf {
    folder.join(format!("metrics_{subset}.jsonl"))
}

/// All lines of the metrics of a model that can be parsed.
pub fn lines(folder: &Path, subset: Subset) -> Vec<Value> {
    let text = files::read_text(&path(folder, subset)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The epoch summaries in the metrics of a model.
pub fn epochs(folder: &Path, subset: Subset) -> Vec<EpochSummary> {
    let of_epoch = |line: Value| serde_json::from_value(line.get("summary")?.clone()).ok();
    lines(folder, subset).into_iter().filter_map(of_epoch).collect()
}

/// Removes the lines after step `step`, which a resumed run writes again, and incomplete lines.
///
/// # Errors
/// When the file cannot be written.
pub fn trim(folder: &Path, subset: Subset, step: u64) -> Result<()> {
    let path = path(folder, subset);
    let Ok(text) = files::read_text(&path) else { return Ok(()) };
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
    subset: Subset,
    /// The run, for Prometheus.
    run: String,
    prometheus: Option<PathBuf>,
    claim: Claim,
    buffer: String,
    last: Option<Metric>,
    exported: Option<Instant>,
    flushed: Instant,
    failed: bool,
}

impl Writer {
    /// For the model of `subset` of the run in `folder`. `prometheus` is the folder that the node exporter's textfile collector reads,
    /// which is created if missing. Lines are written while `claim` holds.
    ///
    /// # Errors
    /// When that folder cannot be created or written.
    pub fn new(folder: &Path, subset: Subset, prometheus: Option<&Path>, claim: Claim) -> Result<Self> {
        let run = run_name(folder);
        let prometheus = prometheus.map(|folder| folder.join(format!("cryosplat_{run}_{subset}.prom")));
        if let Some(file) = &prometheus {
            files::create_folder(file.parent().unwrap_or(Path::new(".")))?;
            drop(files::Pending::new(file)?);
        }
        Ok(Self {
            path: path(folder, subset),
            subset,
            run,
            prometheus,
            claim,
            buffer: String::new(),
            last: None,
            exported: None,
            flushed: Instant::now(),
            failed: false,
        })
    }

    /// Adds the line of a step.
    pub fn step(&mut self, metric: Metric) {
        self.line(&metric);
        self.last = Some(metric);
    }

    /// Adds the line of an epoch that ended after `step` steps.
    pub fn epoch(&mut self, step: u64, summary: &EpochSummary) {
        self.line(&serde_json::json!({"model": self.subset.name(), "step": step, "summary": summary}));
    }

    /// Adds the line of a densification before step `step`: the numbers of Gaussians before and after.
    pub fn densified(&mut self, step: u64, [from, to]: [usize; 2]) {
        let name = self.subset.name();
        self.line(&serde_json::json!({"model": name, "step": step, "densified": {"from": from, "to": to}}));
    }

    fn line(&mut self, value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            self.buffer += &line;
            self.buffer.push('\n');
        }
    }

    /// [`Writer::flush`], at most once a second.
    pub fn flush_if_due(&mut self) {
        if self.flushed.elapsed() > FLUSH {
            self.flush();
        }
    }

    /// Writes the buffered lines. A failure does not end the run, and is logged once.
    pub fn flush(&mut self) {
        let outcome = self.append().and_then(|()| self.export());
        if let Err(error) = outcome {
            if !self.failed {
                tracing::warn!("the metrics of {} have a gap: {error}; training continues", self.subset);
            }
            self.failed = true;
        }
        self.buffer.clear();
        self.flushed = Instant::now();
    }

    fn append(&self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.claim.check()?;
        let mut open = std::fs::OpenOptions::new();
        // Neither through a link that somebody has planted, nor into a pipe that nobody reads.
        open.create(true).append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        open.open(&self.path).and_then(|mut file| file.write_all(self.buffer.as_bytes())).map_err(Error::io(
            &self.path,
            "write the metrics",
            "check that the folder may be written and the disk is not full",
        ))
    }

    fn export(&mut self) -> Result<()> {
        let (Some(path), Some(metric)) = (&self.prometheus, &self.last) else { return Ok(()) };
        if self.exported.is_some_and(|at| at.elapsed() < EXPORT_PERIOD) {
            return Ok(());
        }
        self.exported = Some(Instant::now());
        let text = exposition(metric, &self.run);
        files::write_atomically(path, |w| w.write_all(text.as_bytes()))
    }

    /// Writes everything, including the file for Prometheus.
    pub fn finish(&mut self) {
        self.exported = None;
        self.flush();
    }
}

/// The name of the run in `folder` for Prometheus: that of the folder, and a digest of its path. Runs of the same name in several
/// folders, and several runs on one node, are told apart by it; a resumed run keeps it.
fn run_name(folder: &Path) -> String {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(64).collect();
    let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{name}-{digits}")
}

/// A metric in Prometheus' text format.
fn exposition(metric: &Metric, run: &str) -> String {
    let job = std::env::var("SLURM_JOB_ID").unwrap_or_default();
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = [("model", metric.model.as_str()), ("slurm_job", &job), ("run", run)];
    let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", label(value))).join(",");
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
            "# HELP cryosplat_{name} {help}.\n# TYPE cryosplat_{name} gauge\ncryosplat_{name}{{{labels}}} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_after_the_checkpoint_and_incomplete_lines_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), Subset::Half1);
        let line = |step: u64| format!("{}\n", json!({"model": "half1", "step": step}));
        let done = line(5) + &line(10);
        std::fs::write(&path, done.clone() + &line(11) + "{\"model\":\"ha").unwrap();
        trim(folder.path(), Subset::Half1, 10).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), done);
    }

    #[test]
    fn runs_have_files_of_their_own_for_prometheus() {
        let folder = tempfile::tempdir().unwrap();
        let collected = folder.path().join("collector");
        for place in ["a/run", "b/run"] {
            let run = folder.path().join(place);
            std::fs::create_dir_all(&run).unwrap();
            let mut writer =
                Writer::new(&run, Subset::Half1, Some(&collected), Claim::for_tests(&run)).unwrap();
            writer.last = Some(Metric {
                model: "half1".into(),
                step: 1,
                epoch: 0.0,
                loss: 1.0,
                gradient_norm: 1.0,
                rate: 1.0,
                images: 1,
                images_per_second: 1.0,
                input_share: 0.0,
                reduce_share: None,
                host_bytes: 1,
                device_bytes: 1,
            });
            writer.finish();
        }
        let files: Vec<_> =
            std::fs::read_dir(&collected).unwrap().map(|entry| entry.unwrap().path()).collect();
        let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert!(texts.len() == 2 && texts[0] != texts[1], "{files:?}");
        assert!(texts.iter().all(|text| text.contains("cryosplat_step{model=\"half1\"")), "{texts:?}");
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let claim = Claim::for_tests(folder.path());
        assert!(Writer::new(folder.path(), Subset::Half1, Some(&file), claim).is_err());
    }

    #[test]
    fn spread_over_ranks() {
        assert_eq!(Spread::of(&[1.0, 3.0, 2.0]), Spread { mean: 2.0, min: 1.0, max: 3.0 });
    }
}
