//! Whether the half maps share a bias: their FSC against what the particles of the other half confirm.

use super::{Outcome, Subject};
use crate::error::Result;
use crate::evaluate::cross_validation::Excess;
use crate::evaluate::fsc::GOLD_STANDARD;
use crate::evaluate::{CrossValidation, Crossing, Fsc, Mask};
use crate::run_folder::diagnosis::{Finding, Severity};

const WHAT: &str = "bias of the half maps";

/// Tests the half maps of a training run, without a mask and under that of the run.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    if subject.settings.is_none() {
        return Ok(Outcome::untested(WHAT, "the run is a voxel reconstruction, which has none"));
    }
    let [g1, g2] = &subject.half_maps;
    let [v1, v2] = &subject.voxels()?.maps;
    if g1.data.dim() != v1.data.dim() {
        return Ok(Outcome::untested(
            WHAT,
            "the voxel maps have a smaller box; run.json has the cross-validation of the run",
        ));
    }
    let validate = |mask: Option<&Mask>| {
        let agreement = match mask {
            Some(mask) => Fsc::between_masked(g1, g2, mask)?,
            None => Fsc::between(g1, g2)?,
        };
        CrossValidation::compute([g1, g2], [v1, v2], mask, agreement)
    };
    let unmasked = validate(None)?;
    let masked = subject.mask.as_ref().map(|mask| validate(Some(mask))).transpose()?;
    Ok(judge(&unmasked, masked.as_ref(), &subject.run(), &subject.particles()))
}

/// The outcome from the cross-validations without a mask, and under it.
fn judge(
    unmasked: &CrossValidation,
    masked: Option<&CrossValidation>,
    run: &str,
    particles: &str,
) -> Outcome {
    let best = masked.unwrap_or(unmasked);
    let Some(limit) = best.resolution_limit() else {
        return Outcome::untested(WHAT, "the voxel maps of these particles do not correlate in any shell");
    };
    let claims = best.half_maps.crossing(GOLD_STANDARD);
    let confirmed = match best.curve.crossing(GOLD_STANDARD) {
        Crossing::NeverBelow(_) => limit,
        crossing => crossing.resolution().unwrap_or(limit),
    };
    let excess = [Some(unmasked), masked].into_iter().flatten().find_map(CrossValidation::excess);
    let figures = format!(
        "FSC {GOLD_STANDARD}: half maps {claims}, cross-validated to {confirmed:.2} A (voxel maps end at {limit:.2} A)"
    );
    let Some(Excess { resolution, half_maps, cross_validated }) = excess else {
        return Outcome::sound(WHAT, figures);
    };
    Outcome::found(
        WHAT,
        Finding {
            id: "half-map-bias".into(),
            severity: Severity::Warning,
            title: format!(
                "the half maps share a bias: at {resolution:.1} A their FSC is {half_maps:.2}, of which the particles confirm {cross_validated:.2}"
            ),
            evidence: format!("at {resolution:.2} A, the FSC of the half maps is {half_maps:.2}, and {cross_validated:.2} by the particles of the other half; {figures}"),
            cause: "both models have the same errors: too few or too wide Gaussians, a shared start, a specimen outside of the box; or wrong metadata that both halves share".into(),
            cost: "the FSC of the half maps claims more than the particles confirm".into(),
            next: vec![
                format!("cryosplat-mpi train {particles} --mixtures 4 -o run_mixtures"),
                format!("cryosplat-mpi backproject {particles} -o {run}_voxels"),
            ],
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half maps with this FSC in all shells, and a cross-validated curve.
    fn validation(half_maps: f64, curve: f64) -> CrossValidation {
        let fsc =
            |value: f64| Fsc { pixel_size: 2.0, box_size: 32, shells: [vec![1.0], vec![value; 15]].concat() };
        CrossValidation { curve: fsc(curve), errors: vec![0.01; 16], half_maps: fsc(half_maps) }
    }

    #[test]
    fn an_excess_is_found_in_either_curve_and_equal_curves_are_sound() {
        let (sound, biased) = (validation(0.8, 0.79), validation(0.9, 0.5));
        let judge = |a: &CrossValidation, b: Option<&CrossValidation>| judge(a, b, "run", "p.h5");
        assert!(judge(&sound, Some(&sound)).findings.is_empty() && judge(&sound, None).findings.is_empty());
        for found in [judge(&biased, None), judge(&sound, Some(&biased)), judge(&biased, Some(&sound))] {
            assert_eq!(found.findings[0].id, "half-map-bias");
            assert!(found.findings[0].evidence.contains("0.90, and 0.50"), "{}", found.findings[0].evidence);
        }
    }
}
