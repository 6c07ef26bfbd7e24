//! The maps on the report: FSC, slices, surface, resolution by direction, Guinier plot.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{bytes, resolve_path};
use crate::error::Result;
use crate::evaluate::compare;
use crate::evaluate::fsc::Fsc;
use crate::evaluate::maps::{MapReader, read_cube};
use crate::evaluate::{Headline, Mask};
use crate::figures::chart::Chart;
use crate::figures::comparison::comparison_chart;
use crate::figures::plots::{fsc_chart, reference_chart};
use crate::figures::quality;
use crate::figures::report::{Part, Surface};
use crate::run_folder::names;

const READ_FSC: &str = "The correlation of two half maps in shells of Fourier space. The resolution is where the curve falls below the \
    dashed line, 0.143. \"Corrected\" is under the mask, without the correlation that the mask itself adds. \"Cross-validated\" compares \
    each half map of the model with the particles of the other half: where it lies far below the half maps' own curve, the half maps share \
    errors of the model. A curve that does not fall to 0 before the end of the axis is limited by the pixel size or the box.";
const READ_TRUTH: &str = "The correlation of each map with the known map of the simulation. One of the two maps has no noise, so the \
    threshold is 0.5.";
const READ_COMPARISON: &str = "The half maps of each run; against the known map, if there is one. Half maps of a model can share its bias: \
    `compare` ranks runs by their cross-validated curves.";
const READ_SLICES: &str = "Slices through the centre and the sum along z, of both half maps and their mean, in common grey scales: density \
    is bright. The line is the edge of the mask (at 0.5), inside which the resolution is given. Density cut off by the line, or a mask \
    that is full of solvent, makes the resolution unreliable. Half maps should look alike.";
/// FSC charts, surface and slices of the maps.
pub(super) fn parts(
    folder: &Path,
    document: &Value,
    names: &[String],
    curves: &[(String, Fsc)],
    baselines: &[PathBuf],
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let (truth, halves): (Vec<_>, Vec<_>) =
        curves.iter().cloned().partition(|(label, _)| label.ends_with("against truth"));
    if !halves.is_empty() {
        parts.push(Part::Chart(fsc_chart(&halves)).with_guide(READ_FSC));
    }
    if !truth.is_empty() {
        parts.push(Part::Chart(reference_chart(&truth)).with_guide(READ_TRUTH));
    }
    if !baselines.is_empty() {
        parts.push(comparison(folder, document, baselines)?.with_guide(READ_COMPARISON));
    }
    let maps = std::iter::once("map").chain(names.iter().map(String::as_str));
    if let Some(map) = maps.map(|name| folder.join(names::map(name))).find(|file| file.exists()) {
        parts.extend(Surface::from_map(&read_cube(&map)?).map(Part::Surface));
    }
    if let Some(png) = bytes(&folder.join(names::SLICES))? {
        let picture = Part::Picture {
            heading: "Slices".into(),
            description: "Central slices and projections of the maps".into(),
            png,
        };
        parts.push(picture.with_guide(READ_SLICES));
    }
    Ok(parts)
}

fn comparison(folder: &Path, document: &Value, baselines: &[PathBuf]) -> Result<Part> {
    let runs: Vec<PathBuf> = std::iter::once(folder.to_owned()).chain(baselines.iter().cloned()).collect();
    let truth = document["truth"].as_str().map(|file| resolve_path(document, file));
    // As in the run itself, whose truth may have any frame.
    let reader = MapReader { ignore_frame: true, ..MapReader::default() };
    let compared = compare::compare(&runs, truth.as_deref(), None, &reader, |_| Ok(None))?;
    Ok(Part::Chart(Chart {
        title: "Comparison with other runs".into(),
        ..comparison_chart(&compared.curves)
    }))
}

/// The resolution by direction and the Guinier plot, where the run has two half maps.
pub(super) fn half_map_parts(folder: &Path, document: &Value) -> Result<Option<[Part; 2]>> {
    let [half1, half2] = ["half1", "half2"].map(|half| folder.join(names::map(half)));
    if !(half1.exists() && half2.exists()) {
        return Ok(None);
    }
    let (half1, half2) = (read_cube(&half1)?, read_cube(&half2)?);
    let mask = folder.join(names::MASK);
    let mask = mask.exists().then(|| Mask::read(&mask, &half1, &MapReader::default())).transpose()?;
    let resolution = Headline::from_document(document).and_then(|found| found.angstrom);
    let directions = quality::directions([&half1, &half2], mask.as_ref(), resolution)?;
    Ok(Some([directions, quality::guinier([&half1, &half2], resolution)]))
}
