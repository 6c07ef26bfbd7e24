//! The FSC chart of several runs.

use crate::evaluate::compare::{Against, Compared};
use crate::evaluate::fsc::Fsc;
use crate::figures::chart::Chart;
use crate::figures::plots;

/// The FSC chart of several runs: one colour per run; curves without the ground truth are dashed if there are curves
/// against it, and those of half maps beside cross-validated ones.
pub fn comparison_chart(curves: &[Compared]) -> Chart {
    let labelled: Vec<(String, Fsc)> = curves.iter().map(|c| (c.label.clone(), c.fsc.clone())).collect();
    let mut chart = plots::fsc_chart(&labelled);
    let truth = curves.iter().any(|curve| curve.against == Against::Truth);
    for (drawn, curve) in chart.curves.iter_mut().zip(curves) {
        drawn.colour = Some(curve.run);
        let better = |other: &Compared| other.run == curve.run && other.against == Against::Particles;
        drawn.dashed = curve.against == Against::Halves && (truth || curves.iter().any(better))
            || truth && curve.against == Against::Particles;
    }
    chart
}
