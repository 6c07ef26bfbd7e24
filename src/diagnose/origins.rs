//! The shifts that were applied at import: their sign, size and axes.

use super::explain::{NARROW, WIDE, best, is_better};
use super::outcome::{Judged, Outcome};
use super::shift_errors::Errors;
use super::subject::Subject;
use super::transfer::of_binning;
use super::trial::{Agreement, Change};
use crate::error::Result;
use crate::run_folder::diagnosis::{Finding, Severity};

/// What is tested.
pub(super) const WHAT: &str = "origins";

/// Root mean square of the shifts, in pixels of the trial, below which their sign makes no difference.
const LEAST_SHIFT: f64 = 0.3;

/// Factors of the offset that are tried: what fits in a blurred map is too small.
const OFFSET_FACTORS: [f64; 3] = [1.0, 1.15, 1.3];
/// Factors of the shifts closer than this, as logarithms, are the same.
const SAME_FACTOR: f64 = 0.15;

/// Another use of the shifts.
struct Use {
    change: Change,
    id: &'static str,
    title: String,
    cause: &'static str,
    remedy: String,
}

impl Use {
    /// Whether the shifts keep their direction.
    fn is_scale(&self) -> bool {
        matches!(self.change, Change::Shift([[x, 0.0], [0.0, y]]) if x == y && x >= 0.0)
    }
}

/// The outcome where all particles seem to lie beside the centre by the same offset, in pixels of the particle file.
fn of_offset(subject: &Subject, given: &Agreement, [x, y]: [f64; 2]) -> Result<Judged> {
    let sample = subject.sample()?;
    let changes = OFFSET_FACTORS.map(|factor| (Change::Offset([-factor * x, -factor * y]), String::new()));
    let Some(found) = best(sample, changes.to_vec()) else { return Ok(Judged::default()) };
    let Change::Offset(added) = found.change else { return Ok(Judged::default()) };
    if !is_better(&found.agreement, given, WIDE) {
        return Ok(Judged::default());
    }
    let pixel_size = subject.store.header().pixel_size;
    let [x, y] = added.map(|value| value * pixel_size);
    let finding = Finding {
        id: "origins-offset".into(),
        severity: Severity::Fault,
        title: format!("all images are off their centre by {:.1} px", added[0].hypot(added[1])),
        evidence: format!(
            "the particles fit the map of the other half best when moved by ({:.1}, {:.1}) px on average; so moved, {}",
            added[0],
            added[1],
            sample.compared(&found.agreement, given)
        ),
        cause: "images that were cropped beside their centre, or another pixel taken for the centre".into(),
        cost: "each view is displaced in another direction of the map: finer detail is lost".into(),
        next: vec![
            format!(
                "add {x:.2} A to rlnOriginXAngst and {y:.2} A to rlnOriginYAngst in the STAR file (fixed.star)"
            ),
            subject.import_again(),
        ],
    };
    Ok(Outcome::found(WHAT, finding).by(found.agreement.information))
}

/// The uses that are tried.
fn uses(subject: &Subject) -> Vec<Use> {
    let columns = ["rlnOriginXAngst", "rlnOriginYAngst"];
    let scaled = |factor: f64, id: &'static str, title: &str, cause: &'static str| Use {
        change: Change::Shift([[factor, 0.0], [0.0, factor]]),
        id,
        title: title.to_owned(),
        cause,
        remedy: subject.multiplied(columns, (1e5 * factor).round() / 1e5),
    };
    let axes = |matrix: [[f64; 2]; 2], title: &str, cause: &'static str| Use {
        change: Change::Shift(matrix),
        id: "origins-axes",
        title: title.to_owned(),
        cause,
        remedy: "correct rlnOriginXAngst and rlnOriginYAngst in the STAR file (fixed.star)".into(),
    };
    let size = "origins in pixels of images of another size, or a wrong pixel size";
    let mut all = vec![
        scaled(
            -1.0,
            "origins-sign",
            "the origins have the wrong sign",
            "origins of a program that moves the particle, where this one moves the image (rlnOriginX centres by plus its value)",
        ),
        scaled(
            0.0,
            "origins-applied-twice",
            "the origins were applied already",
            "particles that were extracted again, centred, while the metadata kept their origins",
        ),
        scaled(2.0, "origins-unit", "the origins are half of what they should be", size),
        scaled(0.5, "origins-unit", "the origins are twice what they should be", size),
        axes([[0.0, 1.0], [1.0, 0.0]], "x and y of the origins are exchanged", "columns in another order"),
        axes(
            [[1.0, 0.0], [0.0, -1.0]],
            "y of the origins has the wrong sign",
            "images whose rows are counted from the other end",
        ),
    ];
    let pixel_size = subject.store.header().pixel_size;
    let near = |factor: f64| (pixel_size / factor).ln().abs() < SAME_FACTOR;
    if ![0.5, 1.0, 2.0].into_iter().any(near) {
        let unit = "the columns of rlnOriginX (in pixels) and rlnOriginXAngst (in angstrom) were mixed up";
        all.push(scaled(
            pixel_size,
            "origins-unit",
            "the origins are in pixels, and were taken in angstrom",
            unit,
        ));
        all.push(scaled(
            1.0 / pixel_size,
            "origins-unit",
            "the origins are in angstrom, and were taken in pixels",
            unit,
        ));
    }
    all
}

/// Tests the shifts.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Judged> {
    let sample = subject.sample()?;
    let given = Agreement::of(sample.given());
    let errors = Errors::of(subject, None)?;
    if let Some(offset) = errors.as_ref().and_then(Errors::common) {
        let found = of_offset(subject, &given, offset)?;
        if !found.outcome.findings.is_empty() {
            return Ok(found);
        }
    }
    let Some(width) = sample.shift_width() else {
        return Ok(Outcome::untested(
            WHAT,
            "the particle file does not record the shifts that import applied",
        )
        .into());
    };
    let in_file = width / sample.scale;
    if width < LEAST_SHIFT {
        let outcome = format!("the shifts that import applied are too small to test ({in_file:.2} px)");
        return Ok(Outcome::untested(WHAT, outcome).into());
    }
    let uses = uses(subject);
    let changes = uses.iter().map(|of| (of.change, of.title.clone()));
    // Shifts in angstrom also show a wrong pixel size.
    let binned =
        [0.5, 2.0].map(|factor| (Change::PixelSize(factor, true), format!("pixel size times {factor}")));
    let Some(found) = best(sample, changes.chain(binned).collect()) else { return Ok(Judged::default()) };
    if !is_better(&found.agreement, &given, WIDE) {
        let outcome = format!(
            "shifts of {in_file:.1} px are right in sign and size (next: {}, {:.2} of the information)",
            found.name,
            found.agreement.information / given.information.max(1.0)
        );
        return Ok(Outcome::sound(WHAT, outcome).into());
    }
    if let Change::PixelSize(factor, _) = found.change {
        // Its rings must fit too, where the errors of the shifts are not those of one factor.
        let shifts = Change::Shift([[1.0 / factor, 0.0], [0.0, 1.0 / factor]]);
        let by_rings = || is_better(&found.agreement, &sample.agreement(shifts), NARROW);
        if let (Some(cause), false) = (errors.as_ref().and_then(Errors::other_cause), by_rings()) {
            return Ok(Outcome::sound(WHAT, format!("{} would fit better, but {cause}", found.name)).into());
        }
        return Ok(Outcome::found(WHAT, of_binning(subject, sample, factor, (&found, &given)))
            .by(found.agreement.information));
    }
    let Some(of_use) = uses.into_iter().find(|of| of.title == found.name) else {
        return Ok(Judged::default());
    };
    if let (true, Some(cause)) = (of_use.is_scale(), errors.and_then(|errors| errors.other_cause())) {
        return Ok(Outcome::sound(WHAT, format!("{} would fit better, but {cause}", found.name)).into());
    }
    Ok(Outcome::found(
        WHAT,
        Finding {
            id: of_use.id.into(),
            severity: Severity::Fault,
            title: of_use.title,
            evidence: format!(
                "import applied shifts of {in_file:.1} px (root mean square per axis); with this corrected, {}",
                sample.compared(&found.agreement, &given)
            ),
            cause: of_use.cause.into(),
            cost:
                "particles lie beside the centre by up to twice their shift: detail finer than that is lost"
                    .into(),
            next: vec![of_use.remedy, subject.import_again()],
        },
    ).by(found.agreement.information))
}
