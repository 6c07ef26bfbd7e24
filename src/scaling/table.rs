//! A study as tables: Markdown for a reader, CSV for a program. What is not known is "-".

use super::record::{COMPUTE, REDUCE, Run, UPDATE, WAIT};
use super::study::{Kind, Prediction, Row, Series, Study};
use crate::figures::axis::number;

const COLUMNS: [&str; 19] = [
    "Series",
    "Ranks",
    "A group",
    "Nodes",
    "Threads",
    "Batch",
    "Images/s",
    "Speed-up",
    "Efficiency",
    "Compute",
    "All-reduce",
    "Update",
    "Waiting",
    "Imbalance",
    "FSC 0.143 (Å)",
    "Mean FSC",
    "Truth 0.143 (Å)",
    "Truth mean FSC",
    DEVICE,
];
/// Left out where all are the same.
const DEVICE: &str = "Device";

const CSV_COLUMNS: [&str; 20] = [
    "series",
    "origin",
    "ranks",
    "ranks_per_group",
    "nodes",
    "threads_per_rank",
    "batch",
    "images_per_second",
    "speed_up",
    "efficiency",
    "compute_share",
    "reduce_share",
    "update_share",
    "wait_share",
    "imbalance",
    "fsc_resolution_A",
    "fsc_mean",
    "truth_fsc_resolution_A",
    "truth_fsc_mean",
    "device",
];

/// One line of either table; numbers that are not known are `None`.
struct Line {
    series: String,
    kind: Kind,
    predicted: bool,
    /// Its ranks had to share cores.
    crowded: bool,
    counts: [Option<usize>; 5],
    rate: f64,
    /// Speed-up and efficiency.
    relative: [Option<f64>; 2],
    /// Compute, all-reduce, update, waiting.
    shares: [Option<f64>; 4],
    imbalance: Option<f64>,
    /// Resolution and mean, of half maps and against the truth.
    quality: [Option<f64>; 4],
    device: String,
}

fn lines(study: &Study) -> Vec<Line> {
    let mut lines = Vec::new();
    for series in &study.series {
        lines.extend(series.rows.iter().map(|row| measured(study, series, row)));
        let beyond = series.predictions.iter().filter(|prediction| prediction.beyond);
        lines.extend(beyond.map(|prediction| predicted(study, series, prediction)));
    }
    lines
}

fn measured(study: &Study, series: &Series, row: &Row) -> Line {
    let run: &Run = &study.runs[row.run];
    Line {
        series: series.kind.label(),
        kind: series.kind,
        predicted: false,
        crowded: run.shares_cores() == Some(true),
        counts: [Some(run.ranks), Some(run.group), Some(run.nodes), run.threads, Some(run.batch)],
        rate: run.rate,
        relative: [row.speed_up, row.efficiency],
        shares: [COMPUTE, REDUCE, UPDATE, WAIT].map(|stage| run.share(stage)),
        imbalance: run.imbalance(),
        quality: [run.halves.resolution, run.halves.mean, run.truth.resolution, run.truth.mean],
        device: run.device.clone(),
    }
}

fn predicted(study: &Study, series: &Series, prediction: &Prediction) -> Line {
    let machine = &study.machines[series.machine];
    Line {
        series: format!("{}, predicted", series.kind.label()),
        kind: series.kind,
        predicted: true,
        crowded: false,
        counts: [
            Some(prediction.ranks),
            Some(prediction.group),
            None,
            machine.threads,
            Some(prediction.batch),
        ],
        rate: prediction.rate,
        relative: [Some(prediction.speed_up), Some(prediction.efficiency)],
        shares: [None; 4],
        imbalance: None,
        quality: [None; 4],
        device: machine.device.clone(),
    }
}

fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), text)
}

impl Line {
    fn markdown(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let mut cells = vec![self.series.clone()];
        cells.extend(self.counts.iter().map(|&count| or_dash(count, |n| n.to_string())));
        if self.crowded {
            cells[1] += "*";
        }
        cells.push(rate(self.rate));
        cells.push(or_dash(self.relative[0], |s| format!("{s:.2}")));
        cells.push(or_dash(self.relative[1], percent));
        cells.extend(self.shares.iter().map(|&share| or_dash(share, percent)));
        cells.push(or_dash(self.imbalance, |i| format!("{i:.3}")));
        let [resolution, mean, truth_resolution, truth_mean] = self.quality;
        for (resolution, mean) in [(resolution, mean), (truth_resolution, truth_mean)] {
            cells.push(or_dash(resolution, |r| format!("{r:.2}")));
            cells.push(or_dash(mean, |m| format!("{m:.4}")));
        }
        cells.push(self.device.clone());
        cells
    }

    fn csv(&self) -> String {
        let exact = |value: f64| format!("{value}");
        let origin = if self.predicted { "predicted" } else { "measured" };
        let mut cells = vec![self.kind.word().to_owned(), origin.to_owned()];
        cells.extend(self.counts.iter().map(|&count| or_dash(count, |n| n.to_string())));
        cells.push(exact(self.rate));
        cells.extend(self.relative.iter().chain(&self.shares).map(|&value| or_dash(value, exact)));
        cells.push(or_dash(self.imbalance, exact));
        cells.extend(self.quality.iter().map(|&value| or_dash(value, exact)));
        cells.push(format!("\"{}\"", self.device.replace('"', "\"\"")));
        cells.join(",")
    }
}

/// Images a second in few digits.
pub fn rate(value: f64) -> String {
    if value < 100.0 { number(value) } else { format!("{value:.0}") }
}

/// The table of a study as CSV, one line a run and prediction; a run is in every series that it belongs to.
pub fn csv(study: &Study) -> String {
    let mut table = CSV_COLUMNS.join(",") + "\n";
    for line in lines(study) {
        table += &(line.csv() + "\n");
    }
    table
}

/// The table of a study in Markdown, with what a reader must know beside it. Columns of which nothing is known are left out, and
/// that of the device where there is one.
pub fn markdown(study: &Study) -> String {
    let rows: Vec<Vec<String>> = lines(study).iter().map(Line::markdown).collect();
    let shown: Vec<usize> = (0..COLUMNS.len())
        .filter(|&c| rows.iter().any(|row| row[c] != "-"))
        .filter(|&c| COLUMNS[c] != DEVICE || study.machines.len() > 1)
        .collect();
    let join = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = join(shown.iter().map(|&c| COLUMNS[c]).collect());
    text += &format!("|---|{}\n", "--:|".repeat(shown.len() - 1));
    for row in &rows {
        text += &join(shown.iter().map(|&c| row[c].as_str()).collect());
    }
    text += "\nA run is in every series that it belongs to: strong (the same batch on more ranks), weak (the same images of a \
             step on each rank). Speed-up and efficiency are by images/s, against the fewest ranks of the series. Compute, \
             all-reduce (waiting for the slowest rank included), update and waiting (for particles) are shares of the time, means over the ranks; imbalance is the slowest rank's compute over the mean.\n";
    let mut lines: Vec<String> = Vec::new();
    for machine in &study.machines {
        if let Some(model) = &machine.model {
            lines.push(format!(
                "Predicted by a model fitted to {} runs, not measured: on {}, a step of R ranks with b images each takes {}. \
                 The model is off by {:.1}% (root mean square) and {:.1}% at most from the runs that it was fitted to.",
                model.samples,
                machine.device,
                model.formula(),
                100.0 * model.residual,
                100.0 * model.worst
            ));
        }
    }
    lines.extend(study.warnings.iter().map(|warning| format!("Note: {warning}")));
    for line in lines {
        text += &format!("\n{line}\n");
    }
    text
}
