//! The resolution to quote: one number for a pair of half maps, used by every log, page and document.
//!
//! It is the coarser of two crossings of FSC = 0.143: that of the half maps, in the mask and corrected for it, and that of their
//! cross-validation by the particles ([`CrossValidation`]). Where the half maps correlate further than the particles confirm, the rest
//! is unconfirmed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evaluate::cross_validation::CrossValidation;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};

/// What limits the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The signal of the particles, or the model: the curve crosses the threshold.
    Particles,
    /// The pixel size: the curve is above the threshold up to Nyquist.
    PixelSize,
    /// The half maps claim more than cross-validation confirms.
    Unconfirmed,
    /// The half maps do not correlate.
    NoSignal,
}

/// What the resolution is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The half maps and their cross-validation.
    CrossValidated,
    /// Half maps that are linear in the images, as those of `backproject`: their errors are independent.
    VoxelHalfMaps,
    /// The half maps of a model alone, which can share a bias.
    HalfMaps,
}

/// The resolution of two half maps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// Resolution in angstrom; `None` if there is none to quote. Where the pixel size limits it, that of the last shell.
    pub angstrom: Option<f64>,
    /// What limits it.
    pub limit: Limit,
    /// What it is based on.
    pub evidence: Evidence,
    /// Whether it holds inside the automatic mask, with the curve of the half maps corrected for it.
    pub in_mask: bool,
    /// Resolution at which the half maps' own curve falls below 0.143, in angstrom; `None` if it never does.
    pub half_maps: Option<f64>,
    /// Resolution at Nyquist, in angstrom.
    pub nyquist: f64,
}

impl Headline {
    /// The resolution of half maps with the FSC `half_maps`, of the whole box or in a mask and corrected for it (`in_mask`), and with
    /// `cross_validation`, if there is one. `evidence` is what the half maps are without cross-validation.
    pub(crate) fn new(
        half_maps: &Fsc,
        in_mask: bool,
        evidence: Evidence,
        cross_validation: Option<&CrossValidation>,
    ) -> Self {
        let claimed = half_maps.shell_of(half_maps.crossing(GOLD_STANDARD));
        let evidence = cross_validation.map_or(evidence, |_| Evidence::CrossValidated);
        let last = half_maps.last_shell() as f64;
        let confirmed = cross_validation.map_or(last, CrossValidation::confirmed_shell);
        let limit = if claimed <= 0.0 {
            Limit::NoSignal
        } else if cross_validation.is_some_and(|found| found.is_unconfirmed(claimed)) {
            Limit::Unconfirmed
        } else if claimed >= last && half_maps.crossing(GOLD_STANDARD).resolution().is_none() {
            Limit::PixelSize
        } else {
            Limit::Particles
        };
        let shell = claimed.min(confirmed);
        Self {
            angstrom: (shell > 0.0 && limit != Limit::NoSignal).then(|| 1.0 / half_maps.frequency(shell)),
            limit,
            evidence,
            in_mask,
            half_maps: half_maps.crossing(GOLD_STANDARD).resolution(),
            nyquist: 2.0 * half_maps.pixel_size,
        }
    }

    /// The resolution recorded in a run's document; `None` if it holds none.
    pub fn from_document(document: &Value) -> Option<Self> {
        serde_json::from_value(document["resolution"].clone()).ok()
    }

    /// The number alone: "8.25 A", "finer than 4.13 A", or "none".
    pub fn number(&self) -> String {
        match (self.angstrom, self.limit) {
            (None, _) => "none".into(),
            (Some(angstrom), Limit::PixelSize) => format!("finer than {angstrom:.2} A"),
            (Some(angstrom), _) => format!("{angstrom:.2} A"),
        }
    }

    /// What the number is: "FSC 0.143 in the mask, cross-validated".
    pub fn basis(&self) -> String {
        let (place, corrected) = if self.in_mask { (" in the mask", ", corrected for it") } else { ("", "") };
        match self.evidence {
            Evidence::CrossValidated => format!("FSC {GOLD_STANDARD}{place}, cross-validated"),
            Evidence::VoxelHalfMaps => format!("FSC {GOLD_STANDARD} of voxel half maps{place}{corrected}"),
            Evidence::HalfMaps => {
                format!("FSC {GOLD_STANDARD} of the half maps{place}{corrected}; not cross-validated")
            }
        }
    }
}

impl fmt::Display for Headline {
    /// One phrase: "8.25 A (FSC 0.143 in the mask, cross-validated)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, basis) = (self.number(), self.basis());
        match (self.limit, self.angstrom) {
            (Limit::NoSignal, _) => write!(f, "none: the half maps do not correlate ({basis})"),
            (Limit::Particles, _) => write!(f, "{number} ({basis})"),
            (Limit::PixelSize, _) => {
                write!(f, "{number}, limited by the pixel size: Nyquist is {:.2} A ({basis})", self.nyquist)
            }
            (Limit::Unconfirmed, angstrom) => {
                let claim = match self.half_maps {
                    Some(claim) => format!("the half maps claim {claim:.2} A"),
                    None => "the half maps claim all up to Nyquist".into(),
                };
                match angstrom {
                    Some(_) => write!(f, "{number}, unconfirmed beyond: {claim} ({basis})"),
                    None => write!(f, "unconfirmed: {claim}, but the particles confirm no shell ({basis})"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Box 64, pixels of 2 A: 128 A / shell, 31 shells. Falls linearly from 1 at shell 0 to 0 at `shell`.
    fn falling(shell: f64) -> Fsc {
        let shells = (0..32).map(|s| (1.0 - f64::from(s) / shell).max(0.0)).collect();
        Fsc { pixel_size: 2.0, box_size: 64, shells }
    }

    fn validation(mut curve: Fsc, end: usize, half_maps: &Fsc) -> CrossValidation {
        curve.shells.truncate(end + 1);
        let errors = vec![0.02; end + 1];
        CrossValidation { curve, errors, half_maps: half_maps.clone() }
    }

    fn of(half_maps: &Fsc, cross_validation: Option<&CrossValidation>) -> Headline {
        Headline::new(half_maps, true, Evidence::HalfMaps, cross_validation)
    }

    #[test]
    fn confirmed_half_maps_have_the_coarser_resolution() {
        let half_maps = falling(20.0);
        for confirmed in [19.5, 20.0, 24.0] {
            let found = of(&half_maps, Some(&validation(falling(confirmed), 31, &half_maps)));
            assert_eq!((found.limit, found.evidence), (Limit::Particles, Evidence::CrossValidated));
            let shell = confirmed.min(20.0) * (1.0 - GOLD_STANDARD);
            assert!((found.angstrom.unwrap() - 128.0 / shell).abs() < 0.02, "{found:?}");
        }
        let found = of(&half_maps, Some(&validation(falling(24.0), 31, &half_maps)));
        assert_eq!(found.to_string(), "7.47 A (FSC 0.143 in the mask, cross-validated)");
    }

    #[test]
    fn what_the_particles_do_not_confirm_is_not_quoted() {
        // Cross-validation crosses far below the claim.
        let half_maps = falling(28.0);
        let found = of(&half_maps, Some(&validation(falling(14.0), 31, &half_maps)));
        assert_eq!(found.limit, Limit::Unconfirmed);
        assert_eq!(
            found.to_string(),
            "10.67 A, unconfirmed beyond: the half maps claim 5.33 A (FSC 0.143 in the mask, cross-validated)"
        );
        // The voxel maps end far below the claim, though they agree that far.
        let found = of(&half_maps, Some(&validation(half_maps.clone(), 10, &half_maps)));
        assert_eq!((found.limit, found.angstrom), (Limit::Unconfirmed, Some(12.8)));
        // They correlate nowhere.
        let found = of(&half_maps, Some(&validation(half_maps.clone(), 0, &half_maps)));
        assert_eq!((found.limit, found.angstrom), (Limit::Unconfirmed, None));
        assert!(found.to_string().starts_with("unconfirmed: the half maps claim 5.33 A"), "{found}");
        // To Nyquist, but confirmed half of the way.
        let flat = falling(200.0);
        let found = of(&flat, Some(&validation(falling(200.0), 15, &flat)));
        assert!(found.to_string().contains("the half maps claim all up to Nyquist"), "{found}");
    }

    #[test]
    fn pixel_size_limits_curves_that_never_fall() {
        let flat = falling(200.0);
        let found = of(&flat, Some(&validation(flat.clone(), 30, &flat)));
        assert_eq!(found.limit, Limit::PixelSize);
        assert_eq!(
            found.to_string(),
            "finer than 4.27 A, limited by the pixel size: Nyquist is 4.00 A (FSC 0.143 in the mask, cross-validated)"
        );
        assert_eq!(of(&flat, None).limit, Limit::PixelSize);
    }

    #[test]
    fn without_cross_validation_it_is_said() {
        let found = of(&falling(20.0), None);
        assert!(found.to_string().ends_with("corrected for it; not cross-validated)"), "{found}");
        let voxels = Headline::new(&falling(20.0), false, Evidence::VoxelHalfMaps, None);
        assert_eq!(voxels.to_string(), "7.47 A (FSC 0.143 of voxel half maps)");
        let found = of(&falling(0.5), None);
        assert_eq!((found.limit, found.angstrom), (Limit::NoSignal, None));
        let read = Headline::from_document(&serde_json::json!({ "resolution": voxels }));
        assert_eq!(read, Some(voxels));
        assert_eq!(Headline::from_document(&serde_json::json!({})), None);
    }
}
