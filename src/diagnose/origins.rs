//! The shifts that were applied at import: their sign, size and axes.

use super::explain::{WIDE, best, is_better};
use super::outcome::{Judged, Outcome};
use super::subject::Subject;
use super::transfer::of_binning;
use super::trial::{Agreement, Change};
use crate::error::Result;
use crate::run_folder::diagnosis::{Finding, Severity};

/// What is tested.
pub(super) const WHAT: &str = "origins";

/// Root mean square of the shifts, in pixels of the trial, below which their sign makes no difference.
const LEAST_SHIFT: f64 = 0.3;

/// Another use of the shifts: the matrix of what should have been applied, the id and title of the finding, and the cause.
const USES: [([[f64; 2]; 2], &str, &str, &str); 6] = [
    (
        [[-1.0, 0.0], [0.0, -1.0]],
        "origins-sign",
        "the origins have the wrong sign",
        "origins of a program that moves the particle, where this one moves the image (rlnOriginX centres by plus its value)",
    ),
    (
        [[0.0, 0.0], [0.0, 0.0]],
        "origins-applied-twice",
        "the origins were applied already",
        "particles that were extracted again, centred, while the metadata kept their origins",
    ),
    (
        [[2.0, 0.0], [0.0, 2.0]],
        "origins-unit",
        "the origins are half of what they should be",
        "origins in pixels of images of another size, or a wrong pixel size",
    ),
    (
        [[0.5, 0.0], [0.0, 0.5]],
        "origins-unit",
        "the origins are twice what they should be",
        "origins in pixels of images of another size, or a wrong pixel size",
    ),
    (
        [[0.0, 1.0], [1.0, 0.0]],
        "origins-axes",
        "x and y of the origins are exchanged",
        "columns in another order",
    ),
    (
        [[1.0, 0.0], [0.0, -1.0]],
        "origins-axes",
        "y of the origins has the wrong sign",
        "images whose rows are counted from the other end",
    ),
];

/// Tests the shifts.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Judged> {
    let sample = subject.sample()?;
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
    let given = Agreement::of(sample.given());
    let changes = USES.iter().map(|(matrix, _, title, _)| (Change::Shift(*matrix), (*title).to_owned()));
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
        return Ok(Outcome::found(WHAT, of_binning(subject, sample, factor, (&found, &given)))
            .by(found.agreement.information));
    }
    let of_use = USES.iter().find(|(_, _, title, _)| *title == found.name);
    let Some((matrix, id, title, cause)) = of_use else { return Ok(Judged::default()) };
    let operate = |factor: f64| subject.multiplied(["rlnOriginXAngst", "rlnOriginYAngst"], factor);
    let first = match matrix {
        [[factor, 0.0], [0.0, other]] if factor == other => operate(*factor),
        _ => "correct rlnOriginXAngst and rlnOriginYAngst in the STAR file (fixed.star)".into(),
    };
    Ok(Outcome::found(
        WHAT,
        Finding {
            id: (*id).into(),
            severity: Severity::Fault,
            title: (*title).into(),
            evidence: format!(
                "import applied shifts of {in_file:.1} px (root mean square per axis); with this corrected, {}",
                sample.compared(&found.agreement, &given)
            ),
            cause: (*cause).into(),
            cost:
                "particles lie beside the centre by up to twice their shift: detail finer than that is lost"
                    .into(),
            next: vec![first, subject.import_again()],
        },
    ).by(found.agreement.information))
}
