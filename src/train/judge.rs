//! What a run's maps come to: FSC of the half maps, as they stand and corrected for a mask, and against a truth; slices.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::evaluate::automask::AutoMask;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD, HALF};
use crate::evaluate::maps::read_cube;
use crate::evaluate::plots::write_fsc_files;
use crate::evaluate::{Correction, Randomization, slices};
use crate::files;
use crate::imaging::mrc::{self, Volume};

/// Judges a run by its `halves` (one is no half map) and its `map`, against the map in the file `truth` where there is one.
/// Writes FSC curves, slices and the automatic mask into `folder`. Gives the curves by label; the first is the one to quote.
///
/// # Errors
/// When maps do not fit each other, the truth cannot be read, or a file cannot be written.
pub fn judge(
    folder: &Path,
    halves: &[&Volume],
    map: &Volume,
    truth: Option<&Path>,
) -> Result<Vec<(String, Fsc)>> {
    let mut curves: Vec<(String, Fsc)> = Vec::new();
    if let [half1, half2] = halves {
        let unmasked = Fsc::between(half1, half2)?;
        let corrected = corrected(folder, half1, half2, map, &unmasked)?;
        curves.push(("half maps".into(), unmasked));
        curves.extend(corrected.map(|fsc| ("half maps corrected for a mask".into(), fsc)));
    }
    let mut truth_map = None;
    if let Some(path) = truth {
        let mut truth = read_cube(path)?;
        // The header of a map holds its pixel size in single precision.
        truth.pixel_size = map.pixel_size;
        curves.push(("map against truth".into(), Fsc::between(map, &truth)?));
        if let [half1, half2] = halves {
            curves.push(("half1 against truth".into(), Fsc::between(half1, &truth)?));
            curves.push(("half2 against truth".into(), Fsc::between(half2, &truth)?));
        }
        truth_map = Some(truth);
    }
    if !curves.is_empty() {
        write_fsc_files(folder, "fsc", &curves)?;
    }
    let picture = slices::draw(halves[0], halves.get(1).copied(), map, truth_map.as_ref())?;
    files::write_atomically(&folder.join("slices.png"), |w| w.write_all(&picture))?;
    Ok(curves)
}

/// The half maps' FSC under the automatic mask of their `map`, corrected for it; the mask is written. `None` where the map is
/// nothing that a mask can be made of, or the FSC without it falls nowhere.
fn corrected(
    folder: &Path,
    half1: &Volume,
    half2: &Volume,
    map: &Volume,
    unmasked: &Fsc,
) -> Result<Option<Fsc>> {
    let mask = match AutoMask::default().of(map) {
        Ok((mask, _)) => mask,
        Err(error) => {
            tracing::warn!("no FSC under a mask: {error}");
            return Ok(None);
        }
    };
    mrc::write_volume(&folder.join("mask.mrc"), &mask.volume(map.pixel_size))?;
    let masked = Fsc::between_masked(half1, half2, &mask)?;
    let correction = Correction::of(half1, half2, &mask, [unmasked, &masked], &Randomization::default())?;
    Ok(correction.map(|correction| correction.corrected))
}

/// The curves for the log.
pub fn say(curves: &[(String, Fsc)]) {
    for (label, fsc) in curves {
        tracing::info!(
            "FSC of {label}: {} at 0.143, {} at 0.5, mean {:.4}",
            fsc.crossing(GOLD_STANDARD),
            fsc.crossing(HALF),
            fsc.mean()
        );
    }
}

/// The curves for run.json.
pub fn as_json(curves: &[(String, Fsc)]) -> Map<String, Value> {
    let numbers = |fsc: &Fsc| {
        json!({
            "resolution_0.143": fsc.crossing(GOLD_STANDARD).resolution(),
            "resolution_0.5": fsc.crossing(HALF).resolution(),
            "mean": fsc.mean(),
        })
    };
    curves.iter().map(|(label, fsc)| (label.clone(), numbers(fsc))).collect()
}
