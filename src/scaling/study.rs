//! Grouping of runs into series: strong scaling, weak scaling and other batches, with predictions for the first two.

use std::collections::BTreeSet;

use super::model::{StepSample, StepTimeModel};
use super::record::{Run, WAIT};
use crate::error::{Error, Result};

/// Predictions are made for these multiples of the largest measured number of ranks.
const EXTRAPOLATION: [usize; 3] = [2, 4, 8];

/// Residual above which the model gets a warning.
const MAX_RESIDUAL: f64 = 0.1;

/// What is held constant in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    /// The same batch on more ranks.
    Strong {
        /// Images per step over all ranks of a group.
        batch: usize,
    },
    /// The same number of images per rank on more ranks.
    Weak {
        /// Images per step and rank.
        images: usize,
    },
    /// Runs without a partner, which compare quality.
    Other,
}

impl Comparison {
    /// Name in tables and charts.
    pub fn label(self) -> String {
        match self {
            Self::Strong { batch } => format!("strong, batch {batch}"),
            Self::Weak { images } => format!("weak, {images} per rank"),
            Self::Other => "other batches".into(),
        }
    }

    /// Name in scaling.csv.
    pub fn key(self) -> &'static str {
        match self {
            Self::Strong { .. } => "strong",
            Self::Weak { .. } => "weak",
            Self::Other => "other",
        }
    }
}

/// A run as a member of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesRun {
    /// Index in [`Study::runs`].
    pub run: usize,
    /// Rate divided by the mean rate of the runs with the fewest ranks in the series; `None` for [`Comparison::Other`].
    pub speed_up: Option<f64>,
    /// Speed-up per rank.
    pub efficiency: Option<f64>,
}

/// Prediction of the model for a run that was not made.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// MPI ranks.
    pub ranks: usize,
    /// Ranks per group.
    pub group: usize,
    /// Images per step over all ranks of a group.
    pub batch: usize,
    /// Images per second.
    pub rate: f64,
    /// Rate divided by the measured rate of the fewest ranks.
    pub speed_up: f64,
    /// Speed-up per rank.
    pub efficiency: f64,
    /// True beyond the largest measured number of ranks of the machine.
    pub extrapolated: bool,
}

/// Runs that are compared with each other.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the runs have in common.
    pub comparison: Comparison,
    /// Index in [`Study::machines`].
    pub machine: usize,
    /// Runs, sorted by ranks.
    pub rows: Vec<SeriesRun>,
    /// Predictions, sorted by ranks: at the measured numbers of ranks, then beyond. Empty if the series does not reach the largest
    /// number of ranks of the machine.
    pub predictions: Vec<Prediction>,
}

/// A device and number of threads, with the model of its runs.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Device of a rank.
    pub device: String,
    /// Threads per rank.
    pub threads: Option<usize>,
    /// `None` if all runs have the same number of ranks.
    pub model: Option<StepTimeModel>,
}

/// All runs, grouped into series.
#[derive(Clone, Debug)]
pub struct Study {
    /// Runs, sorted by ranks and batch.
    pub runs: Vec<Run>,
    /// Machines; usually one.
    pub machines: Vec<Machine>,
    /// Series: strong, then weak, then other.
    pub series: Vec<Series>,
    /// Warnings about the predictions.
    pub warnings: Vec<String>,
}

impl Study {
    /// Groups `runs`.
    ///
    /// # Errors
    /// When there are none, or they differ in more than ranks, machine and batch.
    pub fn new(mut runs: Vec<Run>) -> Result<Self> {
        let Some(first) = runs.first() else {
            return Err(Error::request("a study needs at least one run", "name at least one run folder"));
        };
        for run in &runs[1..] {
            same_study(first, run)?;
        }
        runs.sort_by(|a, b| (a.ranks, a.batch, &a.file).cmp(&(b.ranks, b.batch, &b.file)));
        let mut machines: Vec<Machine> = Vec::new();
        for run in &runs {
            if !machines.iter().any(|machine| machine.has(run)) {
                machines.push(Machine { device: run.device.clone(), threads: run.threads, model: None });
            }
        }
        let mut warnings = Vec::new();
        for machine in &mut machines {
            machine.fit(&runs, &mut warnings);
        }
        let mut study = Self { runs, machines, series: Vec::new(), warnings };
        study.group();
        Ok(study)
    }

    fn group(&mut self) {
        let mut single: BTreeSet<usize> = (0..self.runs.len()).collect();
        for machine in 0..self.machines.len() {
            let members: Vec<usize> =
                (0..self.runs.len()).filter(|&i| self.machines[machine].has(&self.runs[i])).collect();
            let comparisons: BTreeSet<Comparison> = members
                .iter()
                .flat_map(|&i| [Some(strong(&self.runs[i])), weak(&self.runs[i])])
                .flatten()
                .collect();
            for comparison in comparisons {
                let is_member = |run: &Run| strong(run) == comparison || weak(run) == Some(comparison);
                let rows: Vec<usize> =
                    members.iter().copied().filter(|&i| is_member(&self.runs[i])).collect();
                let ranks: BTreeSet<usize> = rows.iter().map(|&i| self.runs[i].ranks).collect();
                if ranks.len() < 2 {
                    continue;
                }
                rows.iter().for_each(|i| {
                    single.remove(i);
                });
                let series = self.compare(comparison, machine, &rows);
                self.series.push(series);
            }
        }
        self.series.sort_by_key(|series| (series.comparison, series.machine));
        for machine in 0..self.machines.len() {
            let rows: Vec<SeriesRun> = single
                .iter()
                .filter(|&&i| self.machines[machine].has(&self.runs[i]))
                .map(|&run| SeriesRun { run, speed_up: None, efficiency: None })
                .collect();
            if !rows.is_empty() {
                self.series.push(Series {
                    comparison: Comparison::Other,
                    machine,
                    rows,
                    predictions: Vec::new(),
                });
            }
        }
    }

    /// Compares rates with the mean rate of the runs with the fewest ranks, which come first.
    fn compare(&self, comparison: Comparison, machine: usize, rows: &[usize]) -> Series {
        let fewest = self.runs[rows[0]].ranks;
        let base: Vec<f64> =
            rows.iter().map(|&i| &self.runs[i]).filter(|r| r.ranks == fewest).map(|r| r.rate).collect();
        let base = base.iter().sum::<f64>() / base.len() as f64;
        let relative = |rate: f64, ranks: usize| (rate / base, rate / base * fewest as f64 / ranks as f64);
        let compared = rows.iter().map(|&run| {
            let (speed_up, efficiency) = relative(self.runs[run].rate, self.runs[run].ranks);
            SeriesRun { run, speed_up: Some(speed_up), efficiency: Some(efficiency) }
        });
        let compared = compared.collect();
        let of_machine = self.runs.iter().filter(|run| self.machines[machine].has(run));
        let largest = of_machine.map(|run| run.ranks).max().unwrap_or(fewest);
        if self.runs[rows[rows.len() - 1]].ranks < largest {
            return Series { comparison, machine, rows: compared, predictions: Vec::new() };
        }
        let measured: BTreeSet<usize> = rows.iter().map(|&i| self.runs[i].ranks).collect();
        let models = self.runs[rows[0]].particles.models.len().max(1);
        let predict = |ranks: usize| {
            let model = self.machines[machine].model.as_ref()?;
            let group = ranks.div_ceil(models.min(ranks));
            let batch = match comparison {
                Comparison::Strong { batch } => batch,
                Comparison::Weak { images } => images * group,
                Comparison::Other => return None,
            };
            if batch < group {
                return None;
            }
            let step = model.step(group, batch.div_ceil(group) as f64);
            let rate = (batch * models.min(ranks)) as f64 / step;
            let (speed_up, efficiency) = relative(rate, ranks);
            Some(Prediction {
                ranks,
                group,
                batch,
                rate,
                speed_up,
                efficiency,
                extrapolated: ranks > largest,
            })
        };
        let extrapolated = EXTRAPOLATION.iter().map(|times| times * largest);
        let predictions = measured.into_iter().chain(extrapolated).filter_map(predict).collect();
        Series { comparison, machine, rows: compared, predictions }
    }

    /// Number of runs that models were fitted to.
    pub fn fitted(&self) -> usize {
        self.machines.iter().filter_map(|machine| machine.model.as_ref()).map(|model| model.samples).sum()
    }
}

fn strong(run: &Run) -> Comparison {
    Comparison::Strong { batch: run.batch }
}

fn weak(run: &Run) -> Option<Comparison> {
    run.batch.is_multiple_of(run.group).then(|| Comparison::Weak { images: run.batch / run.group })
}

impl Machine {
    fn has(&self, run: &Run) -> bool {
        self.device == run.device && self.threads == run.threads
    }

    /// Fits the model to the runs with enough cores, or to all runs if none had enough.
    fn fit(&mut self, runs: &[Run], warnings: &mut Vec<String>) {
        let mine: Vec<&Run> = runs.iter().filter(|run| self.has(run)).collect();
        if mine.iter().all(|run| run.ranks == mine[0].ranks) {
            return;
        }
        let (oversubscribed, sufficient): (Vec<&Run>, Vec<&Run>) =
            mine.iter().partition(|run| run.is_oversubscribed() == Some(true));
        if sufficient.is_empty() {
            warnings.push(format!(
                "On {}, all runs had more threads than their nodes have cores: ranks shared cores, and the model describes \
                 that.",
                self.device
            ));
        } else if !oversubscribed.is_empty() {
            let most = oversubscribed.iter().map(|run| run.ranks).min().unwrap_or_default();
            warnings.push(format!(
                "On {}, {} of {} runs (of {most} ranks and more) had more threads than their nodes have cores, so \
                 ranks shared cores. They are marked with *, and the model is not fitted to them.",
                self.device,
                oversubscribed.len(),
                mine.len()
            ));
        }
        if mine.iter().any(|run| run.on_cpu() && run.is_oversubscribed().is_none()) {
            warnings.push(format!(
                "On {}, some runs did not record the number of cores: ranks may have shared cores.",
                self.device
            ));
        }
        let used = if sufficient.is_empty() { oversubscribed } else { sufficient };
        let samples: Vec<StepSample> = used
            .iter()
            .map(|run| StepSample {
                ranks: run.group,
                images: run.batch.div_ceil(run.group) as f64,
                seconds: run.step_seconds(),
                waited: run.share(WAIT).map(|share| share * run.step_seconds()),
            })
            .collect();
        let bytes = mine[0].gradient_bytes().unwrap_or(0.0);
        let Some(model) = StepTimeModel::fit(&samples, bytes) else { return };
        if model.distinct <= model.parameters {
            warnings.push(format!(
                "On {}, the model has {} parameters, and was fitted to runs with {} different pairs of ranks and batch: it \
                 fits them exactly, so the fit does not test the model.",
                self.device, model.parameters, model.distinct
            ));
        }
        if model.residual > MAX_RESIDUAL {
            warnings.push(format!(
                "On {}, the residual of the model is {:.0}%: the times depend on more than ranks and batch (for example, on \
                 other programs on the machine). Do not rely on its predictions.",
                self.device,
                100.0 * model.residual
            ));
        }
        if samples.iter().all(|sample| sample.ranks == 1) {
            warnings.push(format!(
                "On {}, no fitted run has a group of more than one rank: predictions do not include the all-reduce.",
                self.device
            ));
        }
        self.model = Some(model);
    }
}

/// Checks that two runs differ only in ranks, machine and batch.
fn same_study(first: &Run, run: &Run) -> Result<()> {
    let differs = |what: &str, found: String, expected: String| {
        Err(Error::input(
            &run.file,
            what,
            format!("is {found}, and {expected} in {}", first.file.display()),
            "only ranks, machine and batch may differ within a study: leave this run out, or make separate studies",
        ))
    };
    let known = |value: Option<String>| value.unwrap_or_else(|| "missing".into());
    let (a, b) = (&first.particles, &run.particles);
    if a.identity != b.identity {
        return differs("particles.identity", known(b.identity.clone()), known(a.identity.clone()));
    }
    if a.box_size != b.box_size {
        let text = |size: Option<usize>| known(size.map(|s| s.to_string()));
        return differs("particles.box_size", text(b.box_size), text(a.box_size));
    }
    if a.models != b.models {
        let text = |run: &Run| {
            let models = &run.particles.models;
            let one = |m: &super::record::ModelParticles| {
                let count = m.particles.map_or_else(|| "unknown".into(), |n| n.to_string());
                format!("{} of {count} particles", m.name)
            };
            known((!models.is_empty()).then(|| models.iter().map(one).collect::<Vec<_>>().join(" and ")))
        };
        return differs("particles.models", text(run), text(first));
    }
    // A setting that one of the runs lacks is unknown, not different.
    for (name, value) in &run.settings {
        if let Some(expected) = first.settings.get(name).filter(|expected| *expected != value) {
            return differs(&format!("settings.{name}"), value.to_string(), expected.to_string());
        }
    }
    Ok(())
}
