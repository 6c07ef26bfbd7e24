//! Whether the views cover all directions of Fourier space: from the poses, and from the FSC of voxel half maps in cones.

use super::{Outcome, Subject};
use crate::error::Result;
use crate::evaluate::directional::{DIRECTIONS, Directional};
use crate::evaluate::fsc::GOLD_STANDARD;
use crate::imaging::sampling::{FourierSampling, MissingDirections};
use crate::particles::views;
use crate::run_folder::diagnosis::{Finding, Severity};
use crate::run_folder::names;

const WHAT: &str = "views";

/// Tests the views.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let Some(sampling) = views::sampling(&subject.store, subject.symmetry)? else {
        return Ok(Outcome::untested(WHAT, "there are no particles"));
    };
    let [first, second] = &subject.voxels()?.maps;
    let directional = Directional::between(first, second, None, DIRECTIONS)?;
    let cones = Cones {
        area_ratio: directional.area_ratio(),
        range: {
            let summary = directional.summary(GOLD_STANDARD);
            [summary.highest, summary.lowest]
        },
    };
    let Some(mut finding) = judge(&sampling, &cones, subject.symmetry.order()) else {
        let area = cones.area_ratio.map_or(String::new(), |ratio| format!(", cFAR {ratio:.2}"));
        return Ok(Outcome::sound(
            WHAT,
            format!(
                "SCF* {:.2} from {} particles (uneven below {}){area}",
                sampling.scf,
                sampling.particles,
                FourierSampling::UNEVEN
            ),
        ));
    };
    let run = subject.run();
    let half = |name| format!("{run}/{}", names::map(name));
    finding.next = vec![
        format!(
            "cryosplat-mpi fsc {} {} --directional -o {run}/fsc_by_direction",
            half("half1"),
            half("half2")
        ),
        format!("cryosplat-mpi info {} --directions {run}/directions.svg", subject.particles()),
    ];
    Ok(Outcome::found(WHAT, finding))
}

/// What the FSC in cones shows.
struct Cones {
    /// cFAR.
    area_ratio: Option<f64>,
    /// Resolution in angstrom of the best and of the worst direction.
    range: [f64; 2],
}

/// An axis as "(0.00, 0.71, 0.71)".
fn vector([x, y, z]: [f64; 3]) -> String {
    format!("({x:.2}, {y:.2}, {z:.2})")
}

/// The finding where the views are uneven.
fn judge(sampling: &FourierSampling, cones: &Cones, order: usize) -> Option<Finding> {
    if !sampling.is_uneven() {
        return None;
    }
    let FourierSampling { particles, scf, least, missing, .. } = *sampling;
    let area =
        cones.area_ratio.map_or(String::new(), |ratio| format!(", cFAR {ratio:.2} (anisotropic below 0.5)"));
    let [best, worst] = cones.range;
    let mut evidence = format!(
        "SCF* {scf:.2} (uneven below {}) from the poses of {particles} particles{area}; voxel half maps reach {best:.1} to {worst:.1} A, by \
         direction",
        FourierSampling::UNEVEN
    );
    let (id, title, severity) = match missing {
        Some(MissingDirections { share, axis, half_angle: Some(angle) }) => {
            evidence += &format!("; {:.0}% of the directions of Fourier space have no views", 100.0 * share);
            let title =
                format!("views leave out a cone of {angle:.0} degrees about the axis {}", vector(axis));
            ("missing-cone", title, Severity::Warning)
        }
        Some(MissingDirections { share, axis, half_angle: None }) => {
            let title = format!(
                "views leave out {:.0}% of the directions of Fourier space, most of them about the axis {}",
                100.0 * share,
                vector(axis)
            );
            ("missing-views", title, Severity::Warning)
        }
        None => {
            let title = format!("views are uneven: the direction {} has the fewest", vector(least));
            ("preferred-views", title, if scf < 0.5 { Severity::Warning } else { Severity::Note })
        }
    };
    let of_symmetry = if order > 1 { " even with all symmetric views" } else { "" };
    Some(Finding {
        id: id.into(),
        severity,
        title,
        evidence,
        cause: format!(
            "preferred orientation on the grid{of_symmetry}: collect tilted images or other grids, or thin out the commonest views; \
             or poses that collapsed onto a few views: refine them again"
        ),
        cost: match missing {
            Some(_) => "the map is smeared along the missing directions, where it holds nothing but the model's guess; its FSC does not show it".into(),
            None => format!(
                "the spectral SNR is {scf:.2} of that of even views, as with {:.0} particles in place of {particles}; the map is worse along this direction",
                scf * particles as f64
            ),
        },
        next: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_cones_and_preferred_views_are_named_and_even_views_are_not() {
        let cones = Cones { area_ratio: Some(0.4), range: [8.0, 14.0] };
        let even = FourierSampling {
            particles: 1000,
            radius: 12.0,
            scf: 0.98,
            least: [0.0, 0.0, 1.0],
            missing: None,
        };
        assert_eq!(judge(&even, &cones, 1), None);
        assert_eq!(judge(&FourierSampling { particles: 10, scf: 0.1, ..even }, &cones, 1), None, "too few");
        let missing = MissingDirections { share: 0.134, axis: [0.0, 0.0, 1.0], half_angle: Some(30.0) };
        let found = judge(&FourierSampling { scf: 0.1, missing: Some(missing), ..even }, &cones, 1).unwrap();
        assert_eq!(found.id, "missing-cone");
        assert!(found.title.contains("30 degrees about the axis (0.00, 0.00, 1.00)"), "{}", found.title);
        assert!(found.evidence.contains("13%") && found.evidence.contains("cFAR 0.40"), "{}", found.evidence);
        let wedge = MissingDirections { half_angle: None, ..missing };
        let found = judge(&FourierSampling { scf: 0.1, missing: Some(wedge), ..even }, &cones, 1).unwrap();
        assert_eq!(found.id, "missing-views");
        let found = judge(&FourierSampling { scf: 0.6, ..even }, &cones, 1).unwrap();
        assert_eq!((found.id.as_str(), found.severity), ("preferred-views", Severity::Note));
        assert!(found.cost.contains("as with 600 particles"), "{}", found.cost);
    }
}
