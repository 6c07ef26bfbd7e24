//! Charts of a run: FSC, loss, rates over epochs.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use crate::error::Result;
use crate::evaluate::directional::{Directional, HALF_ANGLE};
use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD, REFERENCE_THRESHOLD};
use crate::evaluate::fsc_table;
use crate::figures::axis::{Axis, number};
use crate::figures::chart::{Chart, Curve};
use crate::figures::colours::Colours;
use crate::figures::picture;
use crate::files;

/// Size of a chart file in user units; the PNG has twice as many pixels.
const SIZE: (f64, f64) = (760.0, 480.0);
/// Number of points above which neighbours are averaged.
const MAX_POINTS: usize = 1000;
/// Ratio of largest to smallest loss above which the axis is logarithmic.
const LOGARITHMIC_FROM: f64 = 8.0;

/// Ending of the labels of curves against a ground truth, whose threshold is 0.5.
const AGAINST_TRUTH: &str = "against truth";

/// The FSC chart of labelled curves over spatial frequency and resolution. The threshold is 0.143, or 0.5 for curves whose label ends with
/// "against truth"; those in use are named in the legend.
pub fn fsc_chart(curves: &[(String, Fsc)]) -> Chart {
    chart_with(curves, |label| if is_against_truth(label) { REFERENCE_THRESHOLD } else { GOLD_STANDARD })
}

/// Whether the label is that of a curve against a ground truth.
pub(crate) fn is_against_truth(label: &str) -> bool {
    label.ends_with(AGAINST_TRUTH)
}

/// The FSC chart of curves against a reference: the threshold is 0.5.
pub(crate) fn reference_chart(curves: &[(String, Fsc)]) -> Chart {
    chart_with(curves, |_| REFERENCE_THRESHOLD)
}

fn chart_with(curves: &[(String, Fsc)], threshold_of: impl Fn(&str) -> f64) -> Chart {
    let nyquist = |fsc: &Fsc| 0.5 / fsc.pixel_size;
    let high = curves.iter().map(|(_, fsc)| nyquist(fsc)).filter(|f| f.is_finite()).fold(0.0, f64::max);
    let lowest = curves.iter().flat_map(|(_, fsc)| fsc.shells.iter().skip(1)).copied().fold(0.0, f64::min);
    let curve = |(label, fsc): &(String, Fsc)| {
        let threshold = threshold_of(label);
        let crossing = fsc.crossing(threshold);
        let resolution = match crossing {
            Crossing::At(resolution) => format!("{resolution:.2} Å"),
            Crossing::NeverBelow(finest) => format!("< {finest:.2} Å"),
            Crossing::BelowFromStart(coarsest) => format!("> {coarsest:.0} Å"),
        };
        Curve {
            legend: format!("{label}: {resolution}"),
            points: fsc
                .shells
                .iter()
                .enumerate()
                .skip(1)
                .map(|(shell, &value)| [fsc.frequency(shell as f64), value])
                .collect(),
            dots: crossing.resolution().map(|at| [1.0 / at, threshold]).into_iter().collect(),
            // Not "-0.00".
            end: fsc
                .shells
                .last()
                .map_or(String::new(), |v| format!("{:.2}", (v * 100.0).round() / 100.0 + 0.0)),
            ..Curve::default()
        }
    };
    Chart {
        title: "Fourier shell correlation".into(),
        x: Axis {
            label: "Spatial frequency (1/Å)".into(),
            low: 0.0,
            high: if high > 0.0 { high } else { 1.0 },
            logarithmic: false,
            marks: Vec::new(),
        },
        y: Axis {
            label: "Correlation".into(),
            low: axis_start(lowest),
            high: 1.0,
            logarithmic: false,
            marks: Vec::new(),
        },
        resolution_on_top: true,
        curves: curves.iter().map(curve).collect(),
        thresholds: thresholds(curves, threshold_of),
    }
}

/// The thresholds in use, with their legends.
fn thresholds(curves: &[(String, Fsc)], threshold_of: impl Fn(&str) -> f64) -> Vec<(f64, String)> {
    let used = |threshold: &f64| curves.iter().any(|(label, _)| threshold_of(label) == *threshold);
    let used: Vec<f64> = [GOLD_STANDARD, REFERENCE_THRESHOLD].into_iter().filter(used).collect();
    let legend = |threshold: f64| match (used.len(), threshold == GOLD_STANDARD) {
        (1, _) => format!("threshold: FSC = {threshold}"),
        (_, true) => format!("threshold of half maps: FSC = {threshold}"),
        (_, false) => format!("threshold against truth: FSC = {threshold}"),
    };
    used.iter().map(|&threshold| (threshold, legend(threshold))).collect()
}

/// Lower end of the axis of an FSC: negative values are shown too.
fn axis_start(lowest: f64) -> f64 {
    if lowest < 0.0 { (lowest * 5.0).floor() / 5.0 } else { 0.0 }
}

/// The chart of labelled loss curves of (epoch, loss), logarithmic if the losses span a large range.
pub fn loss_chart(curves: &[(String, Vec<(f64, f64)>)]) -> Chart {
    let curve = |(label, points): &(String, Vec<(f64, f64)>)| {
        let points = thinned(points);
        let last = points.iter().rev().find(|p| p[1].is_finite());
        Curve {
            legend: label.clone(),
            end: last.map_or(String::new(), |p| loss_number(p[1])),
            points,
            ..Curve::default()
        }
    };
    let drawn: Vec<Curve> = curves.iter().map(curve).collect();
    let losses = drawn.iter().flat_map(|c| &c.points).map(|p| p[1]).filter(|v| v.is_finite());
    let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let epochs = curves.iter().flat_map(|(_, points)| points).map(|p| p.0).filter(|v| v.is_finite());
    let last_epoch = epochs.fold(0.0, f64::max);
    let logarithmic = low > 0.0 && high / low > LOGARITHMIC_FROM;
    let (low, high) = if !(low.is_finite() && high.is_finite()) {
        (0.0, 1.0)
    } else if logarithmic {
        (low / 1.1, high * 1.1)
    } else {
        // A constant loss also needs an axis of positive length.
        let margin = (0.06 * (high - low)).max(1e-6 * high.abs()).max(1e-12);
        (low - margin, high + margin)
    };
    Chart {
        title: "Training loss".into(),
        x: Axis {
            label: "Epoch".into(),
            low: 0.0,
            high: if last_epoch > 0.0 { last_epoch } else { 1.0 },
            logarithmic: false,
            marks: Vec::new(),
        },
        y: Axis { label: "Loss (mean squared residual)".into(), low, high, logarithmic, marks: Vec::new() },
        resolution_on_top: false,
        curves: drawn,
        thresholds: Vec::new(),
    }
}

/// The chart of labelled curves of a non-negative quantity over epochs.
pub fn rate_chart(title: &str, quantity: &str, curves: &[(String, Vec<(f64, f64)>)]) -> Chart {
    let mut chart = loss_chart(curves);
    let highest = chart.curves.iter().flat_map(|curve| &curve.points).map(|point| point[1]);
    let highest = highest.filter(|value| value.is_finite()).fold(0.0, f64::max);
    chart.title = title.to_owned();
    let high = if highest > 0.0 { 1.05 * highest } else { 1.0 };
    chart.y = Axis { label: quantity.to_owned(), low: 0.0, high, logarithmic: false, marks: Vec::new() };
    for curve in &mut chart.curves {
        curve.end = curve.points.last().map_or(String::new(), |point| number(point[1]));
    }
    chart
}

/// Formats a loss; the losses of two halves often agree in three digits.
fn loss_number(loss: f64) -> String {
    if (0.01..100.0).contains(&loss.abs()) { format!("{loss:.4}") } else { number(loss) }
}

/// Averages neighbours until at most [`MAX_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<[f64; 2]> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        [sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64]
    };
    points.chunks(group).map(mean).collect()
}

/// Writes `stem`.csv, `stem`.svg and `stem`.png to `folder`: the curves as a table ([`fsc_table`]) and as a chart.
///
/// # Errors
/// When there is no curve, a curve is longer than the first, the curves differ in box or pixel size, or a file cannot be written.
pub fn write_fsc_files(folder: &Path, stem: impl AsRef<OsStr>, curves: &[(String, Fsc)]) -> Result<()> {
    write_chart_files(folder, stem, curves, &fsc_chart(curves))
}

/// Extensions of the files of [`write_chart_files`].
pub(crate) const CHART_FILES: [&str; 3] = ["csv", "svg", "png"];

/// The legend and the band of a directional FSC for [`fsc_chart_with_band`].
pub(crate) fn direction_band(directional: &Directional, threshold: f64) -> (String, Vec<[f64; 2]>) {
    let summary = directional.summary(threshold);
    let legend =
        format!("cones of {HALF_ANGLE}°: {:.2} to {:.2} Å at {threshold}", summary.lowest, summary.highest);
    (legend, directional.band())
}

/// [`fsc_chart`] with a band behind the curves: its legend, and the lowest and highest correlation of each shell.
pub fn fsc_chart_with_band(curves: &[(String, Fsc)], band: Option<(String, Vec<[f64; 2]>)>) -> Chart {
    with_band(fsc_chart(curves), curves, band)
}

/// `chart`, which is that of `curves`, with a band behind the curves.
pub(crate) fn with_band(
    mut chart: Chart,
    curves: &[(String, Fsc)],
    band: Option<(String, Vec<[f64; 2]>)>,
) -> Chart {
    if let (Some((legend, band)), Some((_, first))) = (band, curves.first()) {
        let lowest = band.iter().skip(1).map(|[low, _]| *low).fold(0.0, f64::min);
        chart.y.low = chart.y.low.min(axis_start(lowest));
        let place = |(shell, &[low, high]): (usize, &[f64; 2])| [first.frequency(shell as f64), low, high];
        let band = band.iter().enumerate().skip(1).map(place).collect();
        chart.curves.push(Curve { legend, band, faint: true, ..Curve::default() });
    }
    chart
}

/// [`write_fsc_files`] with the given chart.
///
/// # Errors
/// As [`write_fsc_files`].
pub fn write_chart_files(
    folder: &Path,
    stem: impl AsRef<OsStr>,
    curves: &[(String, Fsc)],
    chart: &Chart,
) -> Result<()> {
    let table = fsc_table::to_csv(curves)?;
    let svg = chart.to_svg(&Colours::light(), SIZE.0, SIZE.1);
    let png = picture::to_png(&svg, 2.0)?;
    // All files are rendered before the first is written.
    for (extension, content) in CHART_FILES.into_iter().zip([table.as_bytes(), svg.as_bytes(), &png]) {
        let file = folder.join(files::extended(&stem, &format!(".{extension}")));
        files::write_atomically(&file, |w| w.write_all(content))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use resvg::tiny_skia::Pixmap;

    fn falling(steepness: f64) -> Fsc {
        let shells = (0..32).map(|s| 1.0 / (1.0 + (steepness * (f64::from(s) - 20.0)).exp())).collect();
        Fsc { pixel_size: 6.0, box_size: 64, shells }
    }

    #[test]
    fn table_reads_back_and_pictures_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let curves = [("half maps, \"masked\" <&>".to_owned(), falling(0.6)), ("none".into(), falling(0.3))];
        let mut ends = curves.clone().to_vec();
        ends[1].1.shells.truncate(20);
        write_fsc_files(folder.path(), "ends", &ends).unwrap();
        let read = fsc_table::read(&folder.path().join("ends.csv"), 64, 6.0).unwrap();
        assert_eq!(read.iter().map(|(_, fsc)| fsc.shells.len()).collect::<Vec<_>>(), [32, 20]);
        let text = std::fs::read_to_string(folder.path().join("ends.csv")).unwrap();
        std::fs::write(folder.path().join("ends.csv"), format!("{}0.5\n", text.trim_end())).unwrap();
        let message = fsc_table::read(&folder.path().join("ends.csv"), 64, 6.0).unwrap_err().to_string();
        assert!(message.contains("line 32"), "{message}");
        for (from, to) in [("\n3,0.", "\n3,?"), ("\n1,", "\n2,")] {
            std::fs::write(folder.path().join("ends.csv"), text.replacen(from, to, 1)).unwrap();
            assert!(fsc_table::read(&folder.path().join("ends.csv"), 64, 6.0).is_err(), "{from}");
        }
        let line = text.lines().nth(5).unwrap();
        let fields: Vec<&str> = line.split(',').collect();
        let headless = text.replace(line, &format!("{},,{}", fields[..3].join(","), fields[4]));
        std::fs::write(folder.path().join("ends.csv"), headless).unwrap();
        let message = fsc_table::read(&folder.path().join("ends.csv"), 64, 6.0).unwrap_err().to_string();
        assert!(message.contains("line 6"), "{message}");
        ends.swap(0, 1);
        assert!(write_fsc_files(folder.path(), "ends", &ends).is_err());
        for extension in ["csv", "svg", "png"] {
            std::fs::remove_file(folder.path().join(format!("ends.{extension}"))).unwrap();
        }
        write_fsc_files(folder.path(), "fsc", &curves).unwrap();
        let csv = std::fs::read_to_string(folder.path().join("fsc.csv")).unwrap();
        let mut lines = csv.lines();
        assert_eq!(
            lines.next(),
            Some("shell,spatial_frequency_1_per_A,resolution_A,\"half maps, \"\"masked\"\" <&>\",none")
        );
        for (shell, line) in (1..32).zip(lines.by_ref()) {
            let numbers: Vec<f64> = line.split(',').map(|v| v.parse().unwrap()).collect();
            assert_eq!(numbers[0], f64::from(shell));
            assert!((numbers[1] * numbers[2] - 1.0).abs() < 1e-4, "{line}");
            assert!((numbers[3] - curves[0].1.shells[shell as usize]).abs() < 1e-8);
            assert!((numbers[4] - curves[1].1.shells[shell as usize]).abs() < 1e-8);
        }
        assert_eq!(lines.next(), None);
        let read = fsc_table::read(&folder.path().join("fsc.csv"), 64, 6.0).unwrap();
        for ((label, fsc), (written, curve)) in read.iter().zip(&curves) {
            assert_eq!((label, fsc.shells.len()), (written, curve.shells.len()));
            assert!(fsc.shells.iter().zip(&curve.shells).skip(1).all(|(a, b)| (a - b).abs() < 1e-8));
            assert!((fsc.mean() - curve.mean()).abs() < 1e-7);
        }
        std::fs::write(folder.path().join("bad.csv"), csv.replace("\n3,", "\n4,")).unwrap();
        let message = fsc_table::read(&folder.path().join("bad.csv"), 64, 6.0).unwrap_err().to_string();
        assert!(message.contains("bad.csv") && message.contains("line 4"), "{message}");
        let many = ",none".repeat(100) + "\n";
        std::fs::write(folder.path().join("bad.csv"), csv.replace(",none\n", &many)).unwrap();
        let message = fsc_table::read(&folder.path().join("bad.csv"), 64, 6.0).unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("names 101 curves"), "{message}");
        std::fs::remove_file(folder.path().join("bad.csv")).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("fsc.svg")).unwrap();
        assert!(svg.contains("&quot;masked&quot; &lt;&amp;&gt;") && svg.contains(">20 Å<"), "{svg}");
        let png = Pixmap::load_png(folder.path().join("fsc.png")).unwrap();
        assert_eq!((png.width(), png.height()), (1520, 960));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn curves_on_different_grids_are_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let other = Fsc { pixel_size: 5.0, ..falling(0.5) };
        let curves = [("a".to_owned(), falling(0.5)), ("b".to_owned(), other)];
        assert!(write_fsc_files(folder.path(), "fsc", &curves).is_err());
        assert!(write_fsc_files(folder.path(), "fsc", &[]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn degenerate_curves_make_valid_charts() {
        let odd = [
            Vec::new(),
            vec![(0.0, f64::NAN), (1.0, 0.5)],
            vec![(0.0, 1.0); 3],
            (0..9000).map(|i| (f64::from(i) / 3000.0, 40.0 / f64::from(i + 1))).collect(),
            vec![(0.0, f64::INFINITY), (0.5, -1.0), (f64::NAN, 2.0)],
        ];
        for points in odd {
            let chart = loss_chart(&[("loss".into(), points)]);
            let svg = chart.to_svg(&Colours::light(), 380.0, 300.0);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            picture::to_png(&svg, 1.0).unwrap();
        }
        let nothing = fsc_chart(&[]).to_svg(&Colours::light(), 380.0, 300.0);
        picture::to_png(&nothing, 1.0).unwrap();
    }

    #[test]
    fn only_long_curves_are_averaged() {
        let long: Vec<(f64, f64)> = (0..2500).map(|i| (f64::from(i), 2.0)).collect();
        let thin = thinned(&long);
        assert!(thin.len() <= MAX_POINTS && thin.iter().all(|p| p[1] == 2.0));
        assert_eq!(thinned(&long[..2]), [[0.0, 2.0], [1.0, 2.0]]);
    }
}
