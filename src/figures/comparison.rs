//! The FSC chart of several runs side by side.

use crate::evaluate::compare::{Against, Compared};
use crate::evaluate::fsc::Fsc;
use crate::figures::chart::Chart;
use crate::figures::plots;

/// The chart of all curves: a colour a run, and half maps dashed where the truth is known.
pub fn comparison_chart(curves: &[Compared]) -> Chart {
    let labelled: Vec<(String, Fsc)> = curves.iter().map(|c| (c.label.clone(), c.fsc.clone())).collect();
    let mut chart = plots::fsc_chart(&labelled);
    let truth = curves.iter().any(|curve| curve.against == Against::Truth);
    for (drawn, curve) in chart.curves.iter_mut().zip(curves) {
        drawn.colour = Some(curve.run);
        drawn.dashed = truth && curve.against == Against::Halves;
    }
    chart
}
