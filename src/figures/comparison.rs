//! The FSC chart of several runs.

use crate::evaluate::compare::{Against, Compared};
use crate::evaluate::fsc::Fsc;
use crate::figures::chart::Chart;
use crate::figures::plots;

/// The FSC chart of several runs: one colour per run; curves of half maps are dashed if there are curves against the ground truth.
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
