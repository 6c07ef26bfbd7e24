//! Charts of a study: images/s and efficiency against ranks, measured and predicted, and quality against batch.

use super::record::Run;
use super::study::{Comparison, Prediction, Series, SeriesRun, Study};
use crate::figures::axis::Axis;
use crate::figures::chart::{Chart, Curve};
use crate::figures::colours::Colours;
use crate::figures::picture::FONT;

const WIDTH: f64 = 760.0;
const RATE_HEIGHT: f64 = 440.0;
const EFFICIENCY_HEIGHT: f64 = 330.0;
const QUALITY_HEIGHT: f64 = 300.0;
/// Height without charts.
const EMPTY_HEIGHT: f64 = 60.0;

/// The charts as one SVG document.
pub fn svg(study: &Study) -> String {
    let mut charts = Vec::new();
    if study.series.iter().any(|series| series.comparison != Comparison::Other) {
        charts.push((rate_chart(study), RATE_HEIGHT));
        charts.push((efficiency_chart(study), EFFICIENCY_HEIGHT));
    }
    charts.extend(quality_chart(study).map(|chart| (chart, QUALITY_HEIGHT)));
    let height: f64 = charts.iter().map(|(_, height)| height).sum::<f64>().max(EMPTY_HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n"
    );
    if charts.is_empty() {
        let words = "No two runs differ in ranks or quality: there is nothing to compare.";
        svg += &format!("<text x=\"16\" y=\"34\" font-family=\"{FONT}\" font-size=\"12\">{words}</text>\n");
    }
    let mut y = 0.0;
    for (chart, height) in charts {
        let drawn = chart.to_svg(&Colours::light(), WIDTH, height);
        svg += &format!("<g transform=\"translate(0 {y})\">\n{drawn}</g>\n");
        y += height;
    }
    svg + "</svg>\n"
}

/// The series that compare ranks, with their colour index.
fn compared(study: &Study) -> impl Iterator<Item = (usize, &Series)> {
    study.series.iter().filter(|series| series.comparison != Comparison::Other).enumerate()
}

fn name(study: &Study, series: &Series) -> String {
    let device = &study.machines[series.machine].device;
    if study.machines.len() == 1 {
        series.comparison.label()
    } else {
        format!("{}, {device}", series.comparison.label())
    }
}

/// Measured curves, with one dot per run, then predictions as dashed curves of the same colours. `measured` and `predicted` give
/// the y value.
fn curves(
    study: &Study,
    measured: impl Fn(&SeriesRun) -> f64,
    predicted: impl Fn(&Prediction) -> f64,
) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (colour, series) in compared(study) {
        let dots: Vec<[f64; 2]> =
            series.rows.iter().map(|row| [study.runs[row.run].ranks as f64, measured(row)]).collect();
        curves.push(Curve {
            legend: name(study, series),
            // Through the mean of the runs with equal ranks.
            points: dots.chunk_by(|a, b| a[0] == b[0]).map(mean).collect(),
            dots,
            colour: Some(colour),
            ..Curve::default()
        });
    }
    for (colour, series) in compared(study) {
        curves.push(Curve {
            points: series.predictions.iter().map(|p| [p.ranks as f64, predicted(p)]).collect(),
            colour: Some(colour),
            dashed: true,
            ..Curve::default()
        });
    }
    curves
}

fn mean(points: &[[f64; 2]]) -> [f64; 2] {
    [points[0][0], points.iter().map(|p| p[1]).sum::<f64>() / points.len() as f64]
}

/// Logarithmic axis of ranks, with a tick for each number of ranks.
fn ranks_axis(curves: &[Curve]) -> Axis {
    let mut marks: Vec<f64> = curves.iter().flat_map(|curve| &curve.points).map(|p| p[0]).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let (low, high) = (marks.first().copied().unwrap_or(1.0), marks.last().copied().unwrap_or(2.0));
    Axis { label: "MPI ranks".into(), low, high: high.max(1.01 * low), logarithmic: true, marks }
}

fn range(curves: &[Curve]) -> (f64, f64) {
    let heights = curves.iter().flat_map(|curve| &curve.points).map(|p| p[1]).filter(|v| v.is_finite());
    heights.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

fn rate_chart(study: &Study) -> Chart {
    let mut curves = curves(study, |row| study.runs[row.run].rate, |prediction| prediction.rate);
    let x = ranks_axis(&curves);
    let (low, high) = range(&curves);
    // Ideal scaling from the slowest start of all series.
    let start = compared(study).filter_map(|(_, s)| s.rows.first()).map(|row| &study.runs[row.run]);
    if let Some(start) = start.min_by(|a, b| a.rate.total_cmp(&b.rate)) {
        let per_rank = start.rate / start.ranks as f64;
        curves.push(Curve {
            legend: "ideal: proportional to ranks".into(),
            points: [x.low, x.high].map(|ranks| [ranks, per_rank * ranks]).to_vec(),
            faint: true,
            ..Curve::default()
        });
    }
    let high = high.max(range(&curves).1);
    if study.fitted() > 0 {
        curves.push(Curve {
            legend: format!("predicted by a model fitted to {} runs, not measured", study.fitted()),
            dashed: true,
            faint: true,
            ..Curve::default()
        });
    }
    Chart {
        title: "Images per second".into(),
        x,
        y: Axis {
            label: "Images/s".into(),
            low: low / 1.2,
            high: high * 1.1,
            logarithmic: true,
            marks: Vec::new(),
        },
        resolution_on_top: false,
        curves,
        thresholds: Vec::new(),
    }
}

fn efficiency_chart(study: &Study) -> Chart {
    let percent = |row: &SeriesRun| row.efficiency.map_or(f64::NAN, |efficiency| 100.0 * efficiency);
    let curves = curves(study, percent, |prediction| 100.0 * prediction.efficiency);
    let (_, high) = range(&curves);
    let x = ranks_axis(&curves);
    // The legend is that of the chart above.
    let curves = curves.into_iter().map(|curve| Curve { legend: String::new(), ..curve }).collect();
    Chart {
        title: "Efficiency: images/s per rank, relative to the fewest ranks".into(),
        x,
        y: Axis {
            label: "Efficiency (%)".into(),
            low: 0.0,
            high: (high / 20.0).ceil().max(5.0) * 20.0 + 5.0,
            logarithmic: false,
            marks: Vec::new(),
        },
        resolution_on_top: false,
        curves,
        thresholds: vec![(100.0, String::new())],
    }
}

/// Mean FSC against batch, one curve per number of ranks; against the true map if any run has one. `None` if there is only one
/// batch.
fn quality_chart(study: &Study) -> Option<Chart> {
    let against_truth = study.runs.iter().any(|run| run.truth.mean.is_some());
    let mean = |run: &Run| if against_truth { run.truth.mean } else { run.halves.mean };
    let mut points: Vec<(usize, f64, f64)> =
        study.runs.iter().filter_map(|run| Some((run.ranks, run.batch as f64, mean(run)?))).collect();
    points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut batches: Vec<f64> = points.iter().map(|p| p.1).collect();
    batches.sort_by(f64::total_cmp);
    batches.dedup();
    if batches.len() < 2 {
        return None;
    }
    let mut ranks: Vec<usize> = points.iter().map(|p| p.0).collect();
    ranks.dedup();
    let curves: Vec<Curve> = ranks
        .iter()
        .map(|&ranks| {
            let of_ranks: Vec<[f64; 2]> =
                points.iter().filter(|p| p.0 == ranks).map(|p| [p.1, p.2]).collect();
            Curve {
                legend: format!("{ranks} rank{}", if ranks == 1 { "" } else { "s" }),
                dots: of_ranks.clone(),
                points: of_ranks,
                ..Curve::default()
            }
        })
        .collect();
    let (low, high) = range(&curves);
    let margin = (0.15 * (high - low)).max(0.002);
    Some(Chart {
        title: format!(
            "Quality by batch: mean FSC {}",
            if against_truth { "against the true map" } else { "between half maps" }
        ),
        x: Axis {
            label: "Batch: images per step over all ranks of a group".into(),
            low: batches[0],
            high: batches[batches.len() - 1],
            logarithmic: true,
            marks: batches,
        },
        y: Axis {
            label: "Mean FSC".into(),
            low: low - margin,
            high: high + margin,
            logarithmic: false,
            marks: Vec::new(),
        },
        resolution_on_top: false,
        curves,
        thresholds: Vec::new(),
    })
}
