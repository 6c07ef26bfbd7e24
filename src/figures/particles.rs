//! Figures of what a run has found out about its particles: the noise, scores and contrasts.

use super::axis::Axis;
use super::chart::{Chart, Curve};
use super::distributions::{BARS, histogram};

/// Curves drawn at most.
const CURVES: usize = 8;

/// Power of the noise by spatial frequency: curves (1/angstrom, power) with their names.
pub fn noise_chart(curves: &[(String, Vec<[f64; 2]>)]) -> Chart {
    let points = || curves.iter().take(CURVES).flat_map(|(_, points)| points);
    let most = points().map(|point| point[1]).fold(0.0, f64::max);
    let finest = points().map(|point| point[0]).fold(0.0, f64::max);
    let axis = |label: &str, high: f64| Axis {
        label: label.to_owned(),
        low: 0.0,
        high: if high > 0.0 { high } else { 1.0 },
        logarithmic: false,
        marks: Vec::new(),
    };
    let curve = |(name, points): &(String, Vec<[f64; 2]>)| Curve {
        legend: name.clone(),
        points: points.clone(),
        ..Curve::default()
    };
    let title = match curves.len() {
        all if all > CURVES => format!("Noise ({CURVES} of {all} optics groups and halves)"),
        _ => "Noise".into(),
    };
    Chart {
        title,
        x: axis("Spatial frequency (1/Å)", finest),
        y: axis("Power (variance per pixel)", 1.05 * most),
        resolution_on_top: true,
        curves: curves.iter().take(CURVES).map(curve).collect(),
        thresholds: Vec::new(),
    }
}

/// Power of residuals over that of the noise, by spatial frequency: curves (1/angstrom, ratio) with their names.
pub(crate) fn residual_chart(curves: &[(String, Vec<[f64; 2]>)]) -> Chart {
    let mut chart = noise_chart(curves);
    let values = || curves.iter().flat_map(|(_, points)| points).map(|p| p[1]).filter(|v| v.is_finite());
    chart.title = "Unexplained signal in each shell".into();
    chart.y.label = "Residual power / noise power".into();
    chart.y.low = (values().fold(0.9, f64::min) * 20.0).floor() / 20.0;
    chart.y.high = (values().fold(1.1, f64::max) * 20.0).ceil() / 20.0;
    chart.thresholds = vec![(1.0, "noise alone".into())];
    chart
}

/// The histogram of labelled values from `low` to `high`; values beyond count in the first or last bar.
pub fn value_histogram(
    title: &str,
    label: &str,
    [low, high]: [f64; 2],
    sets: &[(String, Vec<f64>)],
) -> Chart {
    let edges: Vec<f64> = (0..=BARS).map(|i| low + (high - low) * i as f64 / BARS as f64).collect();
    let count = |values: &[f64]| {
        let mut counts = vec![0u64; BARS];
        for value in values.iter().filter(|value| value.is_finite()) {
            let place = ((value - low) / (high - low) * BARS as f64).clamp(0.0, (BARS - 1) as f64);
            counts[place as usize] += 1;
        }
        counts
    };
    let sets: Vec<_> = sets.iter().map(|(name, values)| (name.clone(), count(values))).collect();
    histogram(title, label, "Particles", &edges, &sets, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::colours::Colours;

    #[test]
    fn histograms_count_all_finite_values_and_charts_have_no_odd_numbers() {
        let values = vec![-7.0, 0.2, 0.3, 9.0, f64::NAN];
        let chart = value_histogram("Scores", "Score", [-2.0, 4.0], &[("half1".into(), values)]);
        let total: f64 = chart.curves[0].points.iter().skip(1).step_by(2).map(|point| point[1]).sum();
        assert_eq!(total, 4.0);
        for curves in
            [vec![], vec![("a".to_owned(), vec![[0.0, 0.0]])], vec![("b".into(), vec![[0.1, 2.0]]); 20]]
        {
            let svg = noise_chart(&curves).to_svg(&Colours::light(), 400.0, 300.0);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
