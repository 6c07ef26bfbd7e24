//! Assessment of a run's maps: FSC of the half maps (unmasked, and corrected for a mask), cross-validated, and against a ground truth; slices.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::evaluate::automask::AutoMask;
use crate::evaluate::cross_validation::LABEL;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD, REFERENCE_THRESHOLD};
use crate::evaluate::headline::{Evidence, Headline, Limit};
use crate::evaluate::maps::{PIXEL_SIZE_TOLERANCE, read_cube};
use crate::evaluate::{Correction, CrossValidation, Mask, PhaseRandomization};
use crate::figures::plots::write_fsc_files;
use crate::figures::slices;
use crate::files;
use crate::imaging::mrc::{self, Frame, Stack, Volume};
use crate::particles::store::Store;
use crate::run_folder::names;

/// FSC curves of a run's maps.
pub struct Assessment {
    /// FSC curves with their labels.
    pub curves: Vec<(String, Fsc)>,
    /// Cross-validations of the half maps: with the automatic mask if there is one, and without a mask.
    pub cross_validations: Vec<CrossValidation>,
    /// The resolution to quote; `None` for a single map.
    pub headline: Option<Headline>,
}

/// What the half maps of a run are checked against.
#[derive(Clone, Copy)]
pub enum Check<'a> {
    /// Half maps of a model, against the voxel maps of the same halves; `None` where there are none.
    Voxels(Option<&'a [Volume; 2]>),
    /// Voxel half maps, whose errors are independent.
    Independent,
}

/// Assesses the maps of a run: its `halves` (a single map is not a half map) and their mean `map`, against the
/// voxel maps of the same halves (`check`) and the ground-truth map in the file `truth`, if given. Writes FSC curves, slices and the automatic mask into `folder`.
///
/// # Errors
/// When maps do not fit each other, the truth cannot be read, or a file cannot be written.
pub fn assess(
    folder: &Path,
    halves: &[&Volume],
    map: &Volume,
    check: Check,
    truth: Option<&Path>,
) -> Result<Assessment> {
    let mut curves: Vec<(String, Fsc)> = Vec::new();
    let mut cross_validations = Vec::new();
    let (mut headline, mut mask) = (None, None);
    if let [half1, half2] = halves {
        let (voxels, evidence) = match check {
            Check::Voxels(voxels) => (voxels, Evidence::HalfMaps),
            Check::Independent => (None, Evidence::VoxelHalfMaps),
        };
        let unmasked = Fsc::between(half1, half2)?;
        curves.push(("half maps".into(), unmasked.clone()));
        let mut cross_validate =
            |label: &str, mask: Option<&Mask>, agreement: Fsc| -> Result<Option<(String, Fsc)>> {
                let Some([voxels1, voxels2]) = voxels else { return Ok(None) };
                let found = CrossValidation::compute([half1, half2], [voxels1, voxels2], mask, agreement)?;
                let curve = found.resolution_limit().map(|_| (label.to_owned(), found.curve.clone()));
                cross_validations.push(found);
                Ok(curve)
            };
        let mut quoted = None;
        mask = automatic_mask(folder, map)?;
        if let Some(mask) = &mask {
            let masked = Fsc::between_masked(half1, half2, mask)?;
            let options = PhaseRandomization::default();
            let correction = Correction::compute(half1, half2, mask, [&unmasked, &masked], &options)?;
            let corrected = correction.map(|found| found.corrected);
            quoted = Some(corrected.clone().unwrap_or_else(|| masked.clone()));
            curves.extend(corrected.map(|fsc| ("half maps corrected for a mask".into(), fsc)));
            curves.extend(cross_validate(&format!("{LABEL} under the mask"), Some(mask), masked)?);
        }
        curves.extend(cross_validate(LABEL, None, unmasked.clone())?);
        let (in_mask, quoted) = (quoted.is_some(), quoted.unwrap_or(unmasked));
        headline = Some(Headline::new(&quoted, in_mask, evidence, cross_validations.first()));
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
    let outline = mask.map(|mask| mask.volume_like(map));
    let picture = slices::draw(halves[0], halves.get(1).copied(), map, truth_map.as_ref(), outline.as_ref())?;
    files::write_atomically(&folder.join(names::SLICES), |w| w.write_all(&picture))?;
    Ok(Assessment { curves, cross_validations, headline })
}

/// Writes the automatic mask of `map`. `None` where no mask can be made of the map.
fn automatic_mask(folder: &Path, map: &Volume) -> Result<Option<Mask>> {
    let mask = match AutoMask::default().mask_from(map) {
        Ok((mask, _)) => mask,
        Err(error) => {
            tracing::warn!("no FSC under a mask: {error}");
            return Ok(None);
        }
    };
    mrc::write_volume(&folder.join(names::MASK), &mask.volume_like(map))?;
    Ok(Some(mask))
}

/// Checks that the map at `truth` can be compared with what the particles give. Its centre is voxel floor(D/2), whatever its frame;
/// a pixel size that its header does not have is taken to be that of the particles.
///
/// # Errors
/// When it cannot be read, or its box or pixel size is another one.
pub fn check_truth(truth: &Path, store: &Store) -> Result<()> {
    let header = store.header();
    let refuse = |problem: String| {
        Err(Error::input(truth, "", problem, "give the map that the particles were made from, in their box"))
    };
    // Before its voxels are read: their number is bounded by that of the particles' box.
    let [found, y, z] = Stack::open(truth)?.header().size;
    if found == y && found == z && found != header.box_size {
        let expected = header.box_size;
        return refuse(format!(
            "has a box of {found} voxels, but the particles have one of {expected} pixels"
        ));
    }
    let volume = read_cube(truth)?;
    let (voxel, pixel) = (volume.pixel_size, header.pixel_size);
    if voxel != 0.0 && (voxel - pixel).abs() > PIXEL_SIZE_TOLERANCE * pixel {
        return refuse(format!("has voxels of {voxel:.4} A, but the particles have pixels of {pixel:.4} A"));
    }
    if volume.frame != Frame::default() {
        let frame = volume.frame;
        tracing::warn!(
            "{}: its frame ({frame}) is ignored: it is compared voxel by voxel with maps that begin at zero",
            truth.display()
        );
    }
    Ok(())
}

/// Logs the curves, the verdict of the cross-validation, and the resolution.
pub fn log(assessment: &Assessment) {
    for (label, fsc) in &assessment.curves {
        tracing::info!(
            "FSC, {label}: {} at 0.143, {} at 0.5, mean {:.4}",
            fsc.crossing(GOLD_STANDARD),
            fsc.crossing(REFERENCE_THRESHOLD),
            fsc.mean()
        );
    }
    let unconfirmed = assessment.headline.is_some_and(|headline| headline.limit == Limit::Unconfirmed);
    if let Some(found) = assessment.verdict() {
        match found.excess() {
            None if !unconfirmed => tracing::info!("{}", found.verdict()),
            _ => tracing::warn!("{}", found.verdict()),
        }
    }
    if let Some(headline) = assessment.headline {
        tracing::info!("resolution: {headline}");
    }
}

impl Assessment {
    /// The cross-validation to report: the first that finds an excess, or else the first.
    pub fn verdict(&self) -> Option<&CrossValidation> {
        let all = &self.cross_validations;
        all.iter().find(|found| found.excess().is_some()).or_else(|| all.first())
    }

    /// [`Assessment::verdict`] for run.json; null where there is none.
    pub fn verdict_as_json(&self) -> Value {
        self.verdict().map_or(Value::Null, CrossValidation::to_json)
    }
}

/// The resolutions of the curves, for run.json.
pub fn as_json(curves: &[(String, Fsc)]) -> Map<String, Value> {
    let numbers = |fsc: &Fsc| {
        json!({
            "resolution_0.143": fsc.crossing(GOLD_STANDARD).resolution(),
            "resolution_0.5": fsc.crossing(REFERENCE_THRESHOLD).resolution(),
            "mean": fsc.mean(),
        })
    };
    curves.iter().map(|(label, fsc)| (label.clone(), numbers(fsc))).collect()
}
