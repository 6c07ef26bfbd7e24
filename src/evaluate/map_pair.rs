//! The comparison of two maps: all FSC curves, mask, corrections and cross-validation.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::compare;
use crate::evaluate::correction::{Correction, PhaseRandomization};
use crate::evaluate::cross_validation::{CrossValidation, LABEL};
use crate::evaluate::curves;
use crate::evaluate::directional::{DIRECTIONS, Directional, HALF_ANGLE};
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD, REFERENCE_THRESHOLD};
use crate::evaluate::headline::{Evidence, Headline};
use crate::evaluate::maps::{self, MapReader};
use crate::evaluate::mask::Mask;
use crate::evaluate::mask_choice::LabelledMask;
use crate::evaluate::reference::{self, FileKind};
use crate::imaging::mrc::Volume;
use crate::simulate::atoms::ModelChoice;

/// Label of the FSC without a mask.
pub(crate) const UNMASKED: &str = "no mask";

/// Two maps to compare.
pub(crate) struct MapPair {
    first_path: PathBuf,
    second_path: PathBuf,
    first: Volume,
    second: Volume,
    reader: MapReader,
    /// True if the second map is a reference, not the other half map.
    is_reference: bool,
}

/// Options of [`MapPair::evaluate`].
pub(crate) struct PairOptions<'a> {
    pub randomization: PhaseRandomization,
    /// Run folder with voxel half maps to cross-validate with.
    pub voxels: Option<&'a Path>,
    pub directional: bool,
}

/// Results of [`MapPair::evaluate`].
pub(crate) struct PairEvaluation {
    /// Curves by label; the first is the one to quote.
    pub curves: Vec<(String, Fsc)>,
    /// Description of the mask.
    pub mask: Option<Value>,
    /// First shell with randomised phases.
    pub randomized_from: Option<usize>,
    pub cross_validation: Option<Value>,
    /// The directional FSC, and the threshold of its resolutions.
    pub directional: Option<(Directional, f64)>,
    /// The resolution to quote; `None` where the second map is a reference.
    pub headline: Option<Headline>,
    /// Remarks for the user, one per line.
    pub notes: Vec<String>,
}

impl MapPair {
    /// Reads `first`, a map, and `second`: a map, or an atomic model or mixture that is put on the grid of the first.
    /// `centre_model` places the centre of an atomic model on the centre of the box; `models` chooses among several.
    pub(crate) fn read(
        first_path: &Path,
        second_path: &Path,
        reader: MapReader,
        is_reference: bool,
        centre_model: bool,
        models: ModelChoice,
    ) -> Result<Self> {
        let first = reader.read(first_path)?;
        let kind = reference::file_kind(second_path)?;
        let chosen = models != ModelChoice::First;
        if (centre_model || chosen) && kind != FileKind::Model {
            let option = if centre_model { "--center-model" } else { "--model-number or --all-models" };
            return Err(Error::input(
                second_path,
                "",
                format!("is not an atomic model, but {option} needs one"),
                format!("leave out {option}"),
            ));
        }
        // The pixel size of the first map must be known to put a model on its grid.
        maps::check_comparable((first_path, &first), (first_path, &first))?;
        let second = match kind {
            FileKind::Map => reader.read_like(second_path, (first_path, &first))?,
            FileKind::Model => {
                reference::map_of_model(second_path, models, centre_model, (first_path, &first))?
            }
            FileKind::Mixture => reference::map_of_mixture(second_path, &first)?,
        };
        maps::check_varies(first_path, &first)?;
        maps::check_varies(second_path, &second)?;
        Ok(Self {
            first_path: first_path.to_owned(),
            second_path: second_path.to_owned(),
            first,
            second,
            reader,
            is_reference: is_reference || kind != FileKind::Map,
        })
    }

    /// Fails if the second map is a reference; `option` is the command-line option that needs two half maps.
    pub(crate) fn require_half_maps(&self, option: &str) -> Result<()> {
        if !self.is_reference {
            return Ok(());
        }
        Err(Error::input(
            &self.second_path,
            "",
            format!("is not a half map, but {option} needs two half maps"),
            format!("give the other half map, or leave out {option}"),
        ))
    }

    /// The map an automatic mask is made from: the mean of two half maps, or the first map where the second is a reference.
    pub(crate) fn mask_source(&self) -> Volume {
        if self.is_reference { self.first.clone() } else { maps::mean(&self.first, &self.second) }
    }

    pub(crate) fn evaluate(
        &self,
        mask: Option<&LabelledMask>,
        options: &PairOptions<'_>,
    ) -> Result<PairEvaluation> {
        let unmasked = Fsc::between(&self.first, &self.second)?;
        let mut found = PairEvaluation {
            curves: Vec::new(),
            mask: None,
            randomized_from: None,
            cross_validation: None,
            directional: None,
            headline: None,
            notes: Vec::new(),
        };
        if let Some(mask) = mask {
            self.add_masked_curves(mask, &unmasked, &options.randomization, &mut found)?;
        }
        found.curves.push((UNMASKED.to_owned(), unmasked));
        let validation = match options.voxels {
            Some(folder) => Some(self.cross_validate(folder, mask, &mut found)?),
            None => None,
        };
        if !self.is_reference {
            let (_, quoted) = &found.curves[0];
            let in_mask = mask.is_some();
            found.headline = Some(Headline::new(quoted, in_mask, Evidence::HalfMaps, validation.as_ref()));
        }
        if options.directional {
            let mask = mask.map(|made| &made.mask);
            let threshold = if self.is_reference { REFERENCE_THRESHOLD } else { GOLD_STANDARD };
            let directional = Directional::between(&self.first, &self.second, mask, DIRECTIONS)?;
            found.directional = Some((directional, threshold));
        }
        Ok(found)
    }

    fn add_masked_curves(
        &self,
        mask: &LabelledMask,
        unmasked: &Fsc,
        randomization: &PhaseRandomization,
        found: &mut PairEvaluation,
    ) -> Result<()> {
        found.mask = Some(mask.description.clone());
        let (first, second) = (&self.first, &self.second);
        let masked = Fsc::between_masked(first, second, &mask.mask)?;
        let correction = if self.is_reference {
            None
        } else {
            Correction::compute(first, second, &mask.mask, [unmasked, &masked], randomization)?
        };
        let label = mask.label.to_owned();
        if let Some(Correction { from, randomized, corrected }) = correction {
            found.curves.push(("corrected".into(), corrected));
            found.curves.push((label, masked));
            found.curves.push(("phases randomised".into(), randomized));
            found.randomized_from = Some(from);
            found.notes.push(format!(
                "corrected for the mask: phases randomised beyond {:.2} A (shell {from}), mean of {} draws",
                1.0 / unmasked.frequency(from as f64),
                randomization.draws
            ));
        } else {
            found.curves.push((label, masked));
            if !self.is_reference {
                found.notes.push(format!(
                    "not corrected for the mask: the unmasked FSC is nowhere below {}, so there is no shell to randomise from",
                    randomization.below
                ));
            }
        }
        Ok(())
    }

    fn cross_validate(
        &self,
        folder: &Path,
        mask: Option<&LabelledMask>,
        found: &mut PairEvaluation,
    ) -> Result<CrossValidation> {
        let like = Some((&*self.first_path, &self.first));
        let [first, second] = compare::voxel_half_maps(folder, &self.reader, like)?;
        let label = mask.map_or(UNMASKED, |mask| mask.label);
        let (_, half_maps) = found
            .curves
            .iter()
            .find(|(of, _)| of == label)
            .expect("the half maps' own curve was added before");
        let mask: Option<&Mask> = mask.map(|mask| &mask.mask);
        let validation = CrossValidation::compute(
            [&self.first, &self.second],
            [&first, &second],
            mask,
            half_maps.clone(),
        )?;
        if validation.resolution_limit().is_some() {
            found.curves.push((LABEL.into(), validation.curve.clone()));
        }
        found.notes.push(validation.verdict());
        found.cross_validation = Some(validation.to_json());
        Ok(validation)
    }
}

impl PairEvaluation {
    /// A table for people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = curves::to_text(&self.curves);
        if let Some((directional, threshold)) = &self.directional {
            let summary = directional.summary(*threshold);
            text += &format!(
                "{} cones of {HALF_ANGLE} degrees, FSC = {threshold}: lowest resolution {:.2} A, mean {:.2} A, highest {:.2} A, standard deviation {:.2} A\n",
                directional.directions.len(),
                summary.lowest,
                summary.mean,
                summary.highest,
                summary.spread
            );
            if summary.open > 0 {
                text += &format!(
                    "{} of them never fall below the threshold: the resolution of their last shell is used\n",
                    summary.open
                );
            }
        }
        if let Some(headline) = &self.headline {
            text += &format!("resolution: {headline}\n");
        }
        for note in &self.notes {
            text += note;
            text.push('\n');
        }
        text
    }

    /// A JSON object with all shells.
    pub(crate) fn to_json(&self) -> Value {
        let mut document = json!({ "curves": self.curves.iter().map(curves::to_json).collect::<Vec<_>>() });
        if let Some(headline) = &self.headline {
            document["resolution"] = json!(headline);
        }
        if let Some(mask) = &self.mask {
            document["mask"] = mask.clone();
        }
        if let Some(shell) = self.randomized_from {
            document["randomized_from_shell"] = json!(shell);
        }
        if let Some(found) = &self.cross_validation {
            document["cross_validation"] = found.clone();
        }
        if let Some((directional, threshold)) = &self.directional {
            document["directional"] = json!({
                "directions": directional.directions.len(),
                "half_angle": HALF_ANGLE,
                "threshold": threshold,
                "resolution": directional.summary(*threshold),
            });
        }
        document
    }
}
