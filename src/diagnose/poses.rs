//! Errors of poses, shifts and defoci of single particles, against what chance and the noise of the maps make of none.

use std::f64::consts::PI;

use super::fits::{BETTER, Fits};
use super::outcome::Outcome;
use super::subject::Subject;
use crate::error::Result;
use crate::imaging::ctf::wavelength;
use crate::run_folder::diagnosis::{Finding, Severity, Tested};

/// A kind of error: the least that matters, and the least that spoils the map; in degrees, pixels of the particle file, angstrom.
struct Kind {
    what: &'static str,
    id: &'static str,
    unit: &'static str,
    matters: f64,
    spoils: f64,
    /// The error over that of imitated images from which on it is one.
    ratio: f64,
}

const KINDS: [Kind; 3] = [
    Kind { what: "poses", id: "poses", unit: "degrees", matters: 1.0, spoils: 3.0, ratio: 1.5 },
    Kind { what: "shifts", id: "shifts", unit: "px", matters: 0.6, spoils: 1.5, ratio: 1.5 },
    Kind {
        what: "defocus of single particles",
        id: "defocus-scatter",
        unit: "A",
        matters: 1000.0,
        spoils: f64::INFINITY,
        ratio: 2.2,
    },
];
/// Median distance of the particles from where they fit best, over the standard deviation of the errors per axis, at least.
const LEAST_MEDIAN: f64 = 0.4;
/// Change of phase in radians by an error of the defocus that shows.
const VISIBLE_PHASE: f64 = 1.0;
/// Displacement by shifts over that by poses from which on the shifts alone are found.
const DOMINANT: f64 = 2.0;
/// Error of the poses in degrees that particles without errors show in poor maps, and the ratio to it from which on it is one.
const POOR_MAPS: f64 = 2.0;
const RATIO_IN_POOR_MAPS: f64 = 1.8;
/// Error of the poses in degrees from which on they have nothing to do with the images, and the least median.
const LOST: [f64; 2] = [14.0, 3.0];
/// Fewest particles of a half.
const FEWEST: usize = 40;

/// Tests the poses, shifts and defoci of single particles.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let fits = subject.fits()?;
    let mut all = Outcome::default();
    if fits.iter().any(|of_half| of_half.particles.len() < FEWEST) {
        for kind in &KINDS {
            let reason = "the particles confirm too few shells of the maps, or are too few";
            all.add(Outcome::untested(kind.what, reason));
        }
        return Ok(all);
    }
    let (mut poses_are_wrong, mut pose_displaced) = (false, 0.0);
    for (index, kind) in KINDS.iter().enumerate() {
        let mean = |of: fn(&Fits) -> &[f64; 3]| 0.5 * (of(&fits[0])[index] + of(&fits[1])[index]);
        let (error, floor) = (mean(|fits| &fits.errors), mean(|fits| &fits.floor));
        let excess = (error * error - floor * floor).max(0.0).sqrt();
        let digits = if index == 2 { 0 } else { 2 };
        let measured = format!("{error:.digits$} {}", kind.unit);
        let of_none = format!("{floor:.digits$}");
        let median = median_of(kind, fits);
        // The defocus that turns the phase at the limit by less is not seen.
        let matters =
            if index == 2 { kind.matters.max(visible_defocus(subject, fits)) } else { kind.matters };
        if index == 0 && are_lost(subject)? {
            all.add(Outcome::found(kind.what, lost(subject, fits, &measured)));
            for kind in &KINDS[1..] {
                all.add(Outcome::untested(kind.what, "poses must be right first"));
            }
            return Ok(all);
        }
        let ratio = if index == 0 && floor > POOR_MAPS { RATIO_IN_POOR_MAPS } else { kind.ratio };
        // A few particles that are none, or lost, make a wide distribution with a narrow middle.
        if excess < matters || error < ratio * floor || median < LEAST_MEDIAN * excess {
            let outcome = format!(
                "errors of {measured} (standard deviation per axis; particles without errors would show {of_none})"
            );
            all.add(Outcome::sound(kind.what, outcome));
            continue;
        }
        if index == 2 && poses_are_wrong {
            all.add(Outcome::untested(kind.what, "poses or shifts must be right first"));
            continue;
        }
        poses_are_wrong = true;
        let found = finding(subject, kind, fits, (excess, digits), (&measured, &of_none));
        let displaced = match index {
            0 => excess.to_radians() * rim(subject) / subject.store.header().pixel_size,
            _ => excess,
        };
        if index == 1 && displaced > DOMINANT * pose_displaced && all.findings.len() == 1 {
            // Poses make up for a part of wrong shifts.
            all.findings.clear();
            let reason = format!("first correct this: {}", found.title);
            all.tested[0] = Tested { what: KINDS[0].what.into(), done: false, outcome: reason };
        }
        pose_displaced = displaced;
        all.add(Outcome::found(kind.what, found));
    }
    Ok(all)
}

/// Change of the defocus in angstrom that turns the phase of the CTF by [`VISIBLE_PHASE`] at the highest frequency of the fits.
fn visible_defocus(subject: &Subject, fits: &[Fits; 2]) -> f64 {
    let voltage = subject.store.header().optics.first().map_or(300.0, |optics| optics.voltage);
    let limit = fits[0].limit.min(fits[1].limit);
    VISIBLE_PHASE / (PI * wavelength(voltage) * limit * limit)
}

/// Distance from the centre in angstrom at which errors of poses are expressed as displacements.
fn rim(subject: &Subject) -> f64 {
    let header = subject.store.header();
    0.25 * header.box_size as f64 * header.pixel_size
}

/// Median distance of the particles from where they fit best.
fn median_of(kind: &Kind, fits: &[Fits; 2]) -> f64 {
    let all = || fits.iter().flat_map(|fits| &fits.particles);
    let mut distances: Vec<f64> = all()
        .map(|one| match kind.id {
            "poses" => one.change.rotation.iter().map(|v| v * v).sum::<f64>().sqrt().to_degrees(),
            "shifts" => one.change.offset[0].hypot(one.change.offset[1]),
            _ => one.change.defocus.abs(),
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    distances[distances.len() / 2]
}

/// Whether the poses have nothing to do with the images.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn are_lost(subject: &Subject) -> Result<bool> {
    let fits = subject.fits()?;
    let enough = fits.iter().all(|of_half| of_half.particles.len() >= FEWEST);
    let mean = |of: fn(&Fits) -> f64| 0.5 * (of(&fits[0]) + of(&fits[1]));
    let (error, floor) = (mean(|fits| fits.errors[0]), mean(|fits| fits.floor[0]));
    Ok(enough && error > LOST[0].max(KINDS[0].ratio * floor) && median_of(&KINDS[0], fits) > LOST[1])
}

/// The finding where no particle shows what its pose says.
fn lost(subject: &Subject, fits: &[Fits; 2], measured: &str) -> Finding {
    let count = fits.iter().map(|fits| fits.particles.len()).sum::<usize>();
    Finding {
        id: "poses".into(),
        severity: Severity::Fault,
        title: "the poses do not fit the images at all".into(),
        evidence: format!(
            "{count} particles against the map of the other half fit as well elsewhere: the errors have a standard deviation of \
             {measured} per axis or more"
        ),
        cause: "rows that were mixed up: poses of other images; or poses of another map".into(),
        cost: "the map shows the average of wrong views".into(),
        next: vec![
            format!(
                "compare a few rows of {} with the images (cryosplat-mpi info {} --pictures particles.html)",
                subject.metadata(),
                subject.particles()
            ),
            "determine the poses anew; --refine corrects poses that are nearly right, not these".into(),
        ],
    }
}

fn finding(
    subject: &Subject,
    kind: &Kind,
    fits: &[Fits; 2],
    (excess, digits): (f64, usize),
    (measured, of_none): (&str, &str),
) -> Finding {
    let all = || fits.iter().flat_map(|fits| &fits.particles);
    let better = all().filter(|one| one.gain > BETTER).count();
    let count = all().count();
    let median = median_of(kind, fits);
    let evidence = format!(
        "{count} particles against the map of the other half: {:.0}% fit better elsewhere, at a median distance of {median:.digits$} {}; \
         the errors have a standard deviation of {measured} per axis (particles without errors: {of_none})",
        100.0 * better as f64 / count as f64,
        kind.unit
    );
    let header = subject.store.header();
    let edge = rim(subject);
    let (cause, cost, refine) = match kind.id {
        "poses" => (
            "poses of a coarse search, of another map, or of a set with mixed-up rows",
            format!(
                "the specimen's rim ({edge:.0} A from the centre) is displaced by {:.0} A: finer detail is lost there",
                excess.to_radians() * edge
            ),
            "poses,shifts",
        ),
        "shifts" => (
            "origins rounded to pixels of binned images, or of an early iteration",
            format!(
                "particles lie {:.1} A beside the centre: finer detail is lost",
                excess * header.pixel_size
            ),
            "poses,shifts",
        ),
        _ => (
            "defocus of the micrograph for all its particles: height in the ice, or tilt",
            "high frequencies fade: about as a B factor".to_owned(),
            "all",
        ),
    };
    Finding {
        id: kind.id.into(),
        severity: if excess > kind.spoils { Severity::Fault } else { Severity::Warning },
        title: format!("{} are off by {excess:.digits$} {} per axis", kind.what, kind.unit),
        evidence,
        cause: cause.into(),
        cost,
        next: vec![format!("cryosplat-mpi train {} -o refined --refine {refine}", subject.particles())],
    }
}
