//! Guinier plots of maps.

use crate::evaluate::guinier::{Line, Point};
use crate::figures::axis::Axis;
use crate::figures::chart::{Chart, Curve};

/// Amplitudes fainter than this factor below the strongest are not drawn, as a logarithm: filters leave nothing but rounding there.
const DEPTH: f64 = 14.0;

/// The Guinier plot of labelled curves and of the `line` fitted to one of them: ln of the mean modulus over 1/d^2.
pub(crate) fn guinier_chart(curves: &[(&str, &[Point])], line: Option<&Line>) -> Chart {
    let points = |of: &[Point]| -> Vec<[f64; 2]> {
        of.iter().map(|p| [p.inverse_square, p.log_amplitude.unwrap_or(f64::NAN)]).collect()
    };
    let values = || curves.iter().flat_map(|(_, of)| points(of)).filter(|p| p[1].is_finite());
    let most = values().map(|p| p[1]).fold(f64::NEG_INFINITY, f64::max);
    let most = if most.is_finite() { most } else { 1.0 };
    let shown = |p: &[f64; 2]| p[1] >= most - DEPTH;
    let least = values().filter(shown).map(|p| p[1]).fold(most, f64::min);
    let margin = (0.05 * (most - least)).max(0.1);
    let end = curves.iter().flat_map(|(_, of)| of.last()).map(|p| p.inverse_square).fold(0.0, f64::max);
    let curve = |(legend, of): &(&str, &[Point])| {
        let visible = |p: [f64; 2]| if shown(&p) { p } else { [p[0], f64::NAN] };
        let points = points(of).into_iter().map(visible).collect();
        Curve { legend: (*legend).to_owned(), points, ..Curve::default() }
    };
    let mut drawn: Vec<Curve> = curves.iter().map(curve).collect();
    drawn.extend(line.map(|line| {
        let at = |resolution: f64| {
            let x = resolution.powi(-2);
            [x, line.intercept + line.slope * x]
        };
        Curve {
            legend: format!(
                "fit: B = {:.0} Å², {:.1} to {:.1} Å",
                line.b_factor(),
                line.range[0],
                line.range[1]
            ),
            points: line.range.map(at).into(),
            dashed: true,
            ..Curve::default()
        }
    }));
    let axis = |label: &str, low: f64, high: f64| Axis {
        label: label.to_owned(),
        low,
        high,
        logarithmic: false,
        marks: Vec::new(),
    };
    Chart {
        title: "Guinier plot".into(),
        x: axis("1/d² (1/Å²)", 0.0, if end > 0.0 { end } else { 1.0 }),
        y: axis("ln of the mean amplitude", least - margin, most + margin),
        resolution_on_top: false,
        curves: drawn,
        thresholds: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::colours::Colours;

    #[test]
    fn filtered_shells_do_not_stretch_the_axis() {
        let point =
            |(i, log): (usize, Option<f64>)| Point { inverse_square: 0.01 * i as f64, log_amplitude: log };
        let logs = [Some(8.0), Some(7.0), Some(-40.0), None];
        let points: Vec<Point> = logs.into_iter().enumerate().map(point).collect();
        let line = Line { range: [10.0, 5.0], shells: 3, slope: -20.0, intercept: 8.0, correlation: -1.0 };
        let chart = guinier_chart(&[("map", &points)], Some(&line));
        assert!(chart.y.low > 6.0 && chart.y.high < 9.0, "{:?}", chart.y);
        assert_eq!(chart.curves[1].legend, "fit: B = -80 Å², 10.0 to 5.0 Å");
        for curves in [vec![], vec![("empty", &points[3..])]] {
            let svg = guinier_chart(&curves, None).to_svg(&Colours::light(), 400.0, 300.0);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
