//! Runs that belong together: strong scaling, weak scaling, other batches; and what a model predicts of the first two.

use std::collections::BTreeSet;

use super::model::{Model, Sample};
use super::record::{Run, WAIT};
use crate::error::{Error, Result};

/// Times the largest measured number of ranks for which predictions are made.
const FURTHER: [usize; 3] = [2, 4, 8];

/// A model that is off by more than this, by its residual, is no base for predictions.
const DOUBTFUL: f64 = 0.1;

/// Why runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The same batch on more ranks.
    Strong {
        /// Images of a step over all ranks of a group.
        batch: usize,
    },
    /// The same images of a step on each of more ranks.
    Weak {
        /// Images of a step on a rank.
        images: usize,
    },
    /// Alone with its batch: to compare quality.
    Other,
}

impl Kind {
    /// For a reader.
    pub fn label(self) -> String {
        match self {
            Self::Strong { batch } => format!("strong, batch {batch}"),
            Self::Weak { images } => format!("weak, {images} a rank"),
            Self::Other => "other batches".into(),
        }
    }

    /// For a program.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strong { .. } => "strong",
            Self::Weak { .. } => "weak",
            Self::Other => "other",
        }
    }
}

/// A run in a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place in [`Study::runs`].
    pub run: usize,
    /// Its rate over that of the fewest ranks in the series; `None` where nothing is compared.
    pub speed_up: Option<f64>,
    /// The same by rank.
    pub efficiency: Option<f64>,
}

/// What the model says of a run that was not made.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// MPI ranks.
    pub ranks: usize,
    /// Ranks of a group.
    pub group: usize,
    /// Images of a step over all ranks of a group.
    pub batch: usize,
    /// Images a second.
    pub rate: f64,
    /// Over the measured rate of the fewest ranks.
    pub speed_up: f64,
    /// The same by rank.
    pub efficiency: f64,
    /// Of more ranks than any measured run of the machine had.
    pub beyond: bool,
}

/// Runs that are compared with each other.
#[derive(Clone, Debug)]
pub struct Series {
    /// Why.
    pub kind: Kind,
    /// Its place in [`Study::machines`].
    pub machine: usize,
    /// By ranks.
    pub rows: Vec<Row>,
    /// By ranks, from the fewest of the rows on: at those of the rows, and beyond. Only where the rows reach the most ranks of
    /// the machine: others are there for quality.
    pub predictions: Vec<Prediction>,
}

/// Runs on the same device with the same threads, and their model.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What ranks compute on.
    pub device: String,
    /// Threads of a rank.
    pub threads: Option<usize>,
    /// `None` where all runs have the same ranks.
    pub model: Option<Model>,
}

/// All runs, grouped.
#[derive(Clone, Debug)]
pub struct Study {
    /// In order of ranks and batch.
    pub runs: Vec<Run>,
    /// Usually one.
    pub machines: Vec<Machine>,
    /// Strong, then weak, then others.
    pub series: Vec<Series>,
    /// What a reader must know before believing the predictions.
    pub warnings: Vec<String>,
}

impl Study {
    /// Groups `runs`.
    ///
    /// # Errors
    /// When there is none, or they differ in more than ranks, machine and batch.
    pub fn of(mut runs: Vec<Run>) -> Result<Self> {
        let Some(first) = runs.first() else {
            return Err(Error::request("a study of no runs", "name at least one run folder"));
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
        let mut lone: BTreeSet<usize> = (0..self.runs.len()).collect();
        for machine in 0..self.machines.len() {
            let members: Vec<usize> =
                (0..self.runs.len()).filter(|&i| self.machines[machine].has(&self.runs[i])).collect();
            let kinds: BTreeSet<Kind> = members
                .iter()
                .flat_map(|&i| [Some(strong(&self.runs[i])), weak(&self.runs[i])])
                .flatten()
                .collect();
            for kind in kinds {
                let of_kind = |run: &Run| strong(run) == kind || weak(run) == Some(kind);
                let rows: Vec<usize> = members.iter().copied().filter(|&i| of_kind(&self.runs[i])).collect();
                let ranks: BTreeSet<usize> = rows.iter().map(|&i| self.runs[i].ranks).collect();
                if ranks.len() < 2 {
                    continue;
                }
                rows.iter().for_each(|i| {
                    lone.remove(i);
                });
                let series = self.compare(kind, machine, &rows);
                self.series.push(series);
            }
        }
        self.series.sort_by_key(|series| (series.kind, series.machine));
        for machine in 0..self.machines.len() {
            let rows: Vec<Row> = lone
                .iter()
                .filter(|&&i| self.machines[machine].has(&self.runs[i]))
                .map(|&run| Row { run, speed_up: None, efficiency: None })
                .collect();
            if !rows.is_empty() {
                self.series.push(Series { kind: Kind::Other, machine, rows, predictions: Vec::new() });
            }
        }
    }

    /// Rates relative to those of the fewest ranks, which come first.
    fn compare(&self, kind: Kind, machine: usize, rows: &[usize]) -> Series {
        let fewest = self.runs[rows[0]].ranks;
        let base: Vec<f64> =
            rows.iter().map(|&i| &self.runs[i]).filter(|r| r.ranks == fewest).map(|r| r.rate).collect();
        let base = base.iter().sum::<f64>() / base.len() as f64;
        let relative = |rate: f64, ranks: usize| (rate / base, rate / base * fewest as f64 / ranks as f64);
        let compared = rows.iter().map(|&run| {
            let (speed_up, efficiency) = relative(self.runs[run].rate, self.runs[run].ranks);
            Row { run, speed_up: Some(speed_up), efficiency: Some(efficiency) }
        });
        let compared = compared.collect();
        let mine = self.runs.iter().filter(|run| self.machines[machine].has(run));
        let largest = mine.map(|run| run.ranks).max().unwrap_or(fewest);
        if self.runs[rows[rows.len() - 1]].ranks < largest {
            return Series { kind, machine, rows: compared, predictions: Vec::new() };
        }
        let measured: BTreeSet<usize> = rows.iter().map(|&i| self.runs[i].ranks).collect();
        let models = self.runs[rows[0]].particles.models.len().max(1);
        let predict = |ranks: usize| {
            let model = self.machines[machine].model.as_ref()?;
            let group = ranks.div_ceil(models.min(ranks));
            let batch = match kind {
                Kind::Strong { batch } => batch,
                Kind::Weak { images } => images * group,
                Kind::Other => return None,
            };
            if batch < group {
                return None;
            }
            let step = model.step(group, batch.div_ceil(group) as f64);
            let rate = (batch * models.min(ranks)) as f64 / step;
            let (speed_up, efficiency) = relative(rate, ranks);
            Some(Prediction { ranks, group, batch, rate, speed_up, efficiency, beyond: ranks > largest })
        };
        let further = FURTHER.iter().map(|times| times * largest);
        let predictions = measured.into_iter().chain(further).filter_map(predict).collect();
        Series { kind, machine, rows: compared, predictions }
    }

    /// Runs that models were fitted to.
    pub fn fitted(&self) -> usize {
        self.machines.iter().filter_map(|machine| machine.model.as_ref()).map(|model| model.samples).sum()
    }
}

fn strong(run: &Run) -> Kind {
    Kind::Strong { batch: run.batch }
}

fn weak(run: &Run) -> Option<Kind> {
    run.batch.is_multiple_of(run.group).then(|| Kind::Weak { images: run.batch / run.group })
}

impl Machine {
    fn has(&self, run: &Run) -> bool {
        self.device == run.device && self.threads == run.threads
    }

    /// Fits the model to the runs whose ranks had cores of their own, or to all where none had.
    fn fit(&mut self, runs: &[Run], warnings: &mut Vec<String>) {
        let mine: Vec<&Run> = runs.iter().filter(|run| self.has(run)).collect();
        if mine.iter().all(|run| run.ranks == mine[0].ranks) {
            return;
        }
        let (crowded, roomy): (Vec<&Run>, Vec<&Run>) =
            mine.iter().partition(|run| run.shares_cores() == Some(true));
        if roomy.is_empty() {
            warnings.push(format!(
                "On {}, all runs had more threads than their nodes have cores: ranks took turns, and the model describes \
                 that, not ranks with cores of their own.",
                self.device
            ));
        } else if !crowded.is_empty() {
            let most = crowded.iter().map(|run| run.ranks).min().unwrap_or_default();
            warnings.push(format!(
                "On {}, {} of {} runs (of {most} ranks and more) had more threads than their nodes have cores: ranks took \
                 turns. They are marked with *, and the model is not fitted to them.",
                self.device,
                crowded.len(),
                mine.len()
            ));
        }
        if mine.iter().any(|run| run.on_processors() && run.shares_cores().is_none()) {
            warnings.push(format!(
                "On {}, not all runs say how many cores there were: ranks may have shared some.",
                self.device
            ));
        }
        let used = if roomy.is_empty() { crowded } else { roomy };
        let samples: Vec<Sample> = used
            .iter()
            .map(|run| Sample {
                ranks: run.group,
                images: run.batch.div_ceil(run.group) as f64,
                seconds: run.step(),
                waited: run.share(WAIT).map(|share| share * run.step()),
            })
            .collect();
        let bytes = mine[0].gradient_bytes().unwrap_or(0.0);
        let Some(model) = Model::fit(&samples, bytes) else { return };
        if model.distinct <= model.parameters {
            warnings.push(format!(
                "On {}, the model has {} parameters, and was fitted to runs with {} different pairs of ranks and batch: it \
                 meets them whether it is right or not.",
                self.device, model.parameters, model.distinct
            ));
        }
        if model.residual > DOUBTFUL {
            warnings.push(format!(
                "On {}, the model is off by {:.0}% from the very runs that it was fitted to: something else than ranks and \
                 batch decided their times (other programs on the machine, say). Do not rely on its predictions.",
                self.device,
                100.0 * model.residual
            ));
        }
        if samples.iter().all(|sample| sample.ranks == 1) {
            warnings.push(format!(
                "On {}, no fitted run has a group of more than one rank: predictions leave the all-reduce out.",
                self.device
            ));
        }
        self.model = Some(model);
    }
}

/// Two runs of a study differ in ranks, machine and batch alone.
fn same_study(first: &Run, run: &Run) -> Result<()> {
    let differs = |what: &str, found: String, expected: String| {
        Err(Error::input(
            &run.file,
            what,
            format!("is {found}, and {expected} in {}", first.file.display()),
            "only ranks, machine and batch may differ within a study: leave this run out, or give each kind a study of its own",
        ))
    };
    let known = |value: Option<String>| value.unwrap_or_else(|| "not there".into());
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
    // What one of them does not say is unknown, not different.
    for (name, value) in &run.settings {
        if let Some(expected) = first.settings.get(name).filter(|expected| *expected != value) {
            return differs(&format!("settings.{name}"), value.to_string(), expected.to_string());
        }
    }
    Ok(())
}
