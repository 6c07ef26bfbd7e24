//! Tables of a study: Markdown and CSV. Unknown values are "-".
//!
//! The CSV is written without the csv crate, which cannot quote one column always and the others never.

use super::record::{COMPUTE, REDUCE, Run, UPDATE, WAIT};
use super::study::{Comparison, Prediction, Series, SeriesRun, Study};
use crate::figures::axis::number;
use crate::files;

const COLUMNS: [&str; 19] = [
    "Series",
    "Ranks",
    "Ranks per group",
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
/// Omitted if there is only one machine.
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

/// One row of either table.
struct TableRow {
    series: String,
    comparison: Comparison,
    predicted: bool,
    oversubscribed: bool,
    /// Ranks, ranks per group, nodes, threads per rank, batch.
    counts: [Option<usize>; 5],
    rate: f64,
    /// Speed-up and efficiency.
    relative: [Option<f64>; 2],
    /// Compute, all-reduce, update, waiting.
    shares: [Option<f64>; 4],
    imbalance: Option<f64>,
    /// Resolution and mean FSC: between half maps, then against the true map.
    quality: [Option<f64>; 4],
    device: String,
}

fn rows(study: &Study) -> Vec<TableRow> {
    let mut rows = Vec::new();
    for series in &study.series {
        rows.extend(series.rows.iter().map(|row| measured(study, series, row)));
        let extrapolated = series.predictions.iter().filter(|prediction| prediction.extrapolated);
        rows.extend(extrapolated.map(|prediction| predicted(study, series, prediction)));
    }
    rows
}

fn measured(study: &Study, series: &Series, row: &SeriesRun) -> TableRow {
    let run: &Run = &study.runs[row.run];
    TableRow {
        series: series.comparison.label(),
        comparison: series.comparison,
        predicted: false,
        oversubscribed: run.is_oversubscribed() == Some(true),
        counts: [Some(run.ranks), Some(run.group), Some(run.nodes), run.threads, Some(run.batch)],
        rate: run.rate,
        relative: [row.speed_up, row.efficiency],
        shares: [COMPUTE, REDUCE, UPDATE, WAIT].map(|stage| run.share(stage)),
        imbalance: run.imbalance(),
        quality: [run.halves.resolution, run.halves.mean, run.truth.resolution, run.truth.mean],
        device: run.device.clone(),
    }
}

fn predicted(study: &Study, series: &Series, prediction: &Prediction) -> TableRow {
    let machine = &study.machines[series.machine];
    TableRow {
        series: format!("{}, predicted", series.comparison.label()),
        comparison: series.comparison,
        predicted: true,
        oversubscribed: false,
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

impl TableRow {
    fn markdown(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let mut cells = vec![self.series.clone()];
        cells.extend(self.counts.iter().map(|&count| or_dash(count, |n| n.to_string())));
        if self.oversubscribed {
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
        let mut cells = vec![self.comparison.key().to_owned(), origin.to_owned()];
        cells.extend(self.counts.iter().map(|&count| or_dash(count, |n| n.to_string())));
        cells.push(exact(self.rate));
        cells.extend(self.relative.iter().chain(&self.shares).map(|&value| or_dash(value, exact)));
        cells.push(or_dash(self.imbalance, exact));
        cells.extend(self.quality.iter().map(|&value| or_dash(value, exact)));
        cells.push(files::csv_cell(&self.device));
        cells.join(",")
    }
}

/// Formats images per second.
pub fn rate(value: f64) -> String {
    if value < 100.0 { number(value) } else { format!("{value:.0}") }
}

/// The table of a study as CSV, one row per run and prediction. A run is in every series that it belongs to.
pub fn csv(study: &Study) -> String {
    let mut table = CSV_COLUMNS.join(",") + "\n";
    for row in rows(study) {
        table += &(row.csv() + "\n");
    }
    table
}

/// The table of a study in Markdown, followed by notes. Columns without known values are omitted, and the device column if there is
/// only one machine.
pub fn markdown(study: &Study) -> String {
    let rows: Vec<Vec<String>> = rows(study).iter().map(TableRow::markdown).collect();
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
    text += "\nA run is in every series that it belongs to: strong (the same batch on more ranks) and weak (the same number of \
             images per rank). Speed-up and efficiency are ratios of images/s, relative to the fewest ranks of the series. \
             Compute, all-reduce (including waiting for the slowest rank), update and waiting (for particles) are fractions of \
             the time, averaged over the ranks. Imbalance is the compute time of the slowest rank divided by the mean.\n";
    let mut notes: Vec<String> = Vec::new();
    for machine in &study.machines {
        if let Some(model) = &machine.model {
            notes.push(format!(
                "Predicted by a model fitted to {} runs, not measured: on {}, a step of R ranks with b images each takes {}. \
                 The relative error of the fit is {:.1}% (root mean square) and at most {:.1}%.",
                model.samples,
                machine.device,
                model.formula(),
                100.0 * model.residual,
                100.0 * model.max_error
            ));
        }
    }
    notes.extend(study.warnings.iter().map(|warning| format!("Note: {warning}")));
    for note in notes {
        text += &format!("\n{note}\n");
    }
    text
}
