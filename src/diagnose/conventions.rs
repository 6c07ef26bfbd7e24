//! Poses of another convention: inverse rotations, mirrored images, an angle with the other sign.

use super::explain::{WIDE, best, is_better};
use super::outcome::{Judged, Outcome};
use super::subject::Subject;
use super::trial::{Agreement, Change};
use crate::error::Result;
use crate::imaging::pose::{Rotation, product, relion_from_rotation, rotation_from_relion, transposed};
use crate::run_folder::diagnosis::{Finding, Severity};

/// What is tested.
pub(super) const WHAT: &str = "convention of the poses";

/// Information in nats below which the halves do not agree at all, with any convention.
const NO_SIGNAL: f64 = 30.0;

/// The image mirrored along y, as when rows are read from the other end.
fn mirrored(w: &Rotation) -> Rotation {
    [w[0], w[1].map(|v| -v), w[2].map(|v| -v)]
}

/// x and y of the image exchanged.
fn exchanged(w: &Rotation) -> Rotation {
    product(&[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], w)
}

fn mirrored_inverse(w: &Rotation) -> Rotation {
    mirrored(&transposed(w))
}

fn with_psi_negated(w: &Rotation) -> Rotation {
    let [rot, tilt, psi] = relion_from_rotation(w);
    rotation_from_relion(rot, tilt, -psi)
}

fn with_rot_negated(w: &Rotation) -> Rotation {
    let [rot, tilt, psi] = relion_from_rotation(w);
    rotation_from_relion(-rot, tilt, psi)
}

/// The image turned by 90 degrees, from y to x.
fn turned(w: &Rotation) -> Rotation {
    [w[1], w[0].map(|v| -v), w[2]]
}

/// The image turned by 90 degrees, from x to y.
fn turned_back(w: &Rotation) -> Rotation {
    [w[1].map(|v| -v), w[0], w[2]]
}

/// Matrices that take the shifts as given to those of the convention.
const SAME: [[f64; 2]; 2] = [[1.0, 0.0], [0.0, 1.0]];
const MIRRORED: [[f64; 2]; 2] = [[1.0, 0.0], [0.0, -1.0]];
const EXCHANGED: [[f64; 2]; 2] = [[0.0, 1.0], [1.0, 0.0]];
const TURNED: [[f64; 2]; 2] = [[0.0, 1.0], [-1.0, 0.0]];
const TURNED_BACK: [[f64; 2]; 2] = [[0.0, -1.0], [1.0, 0.0]];

/// Another convention.
struct Convention {
    rotation: fn(&Rotation) -> Rotation,
    shifts: [[f64; 2]; 2],
    name: &'static str,
    remedy: &'static str,
}

const CONVENTIONS: [Convention; 10] = [
    Convention {
        rotation: transposed,
        shifts: SAME,
        name: "inverse rotations",
        remedy: "invert the rotations where the poses were converted (rot becomes -psi, tilt -tilt, psi -rot)",
    },
    Convention {
        rotation: mirrored,
        shifts: MIRRORED,
        name: "images mirrored along y",
        remedy: "write the stack with its rows in the other order",
    },
    Convention {
        rotation: exchanged,
        shifts: EXCHANGED,
        name: "images with x and y exchanged",
        remedy: "transpose the images of the stack",
    },
    Convention {
        rotation: mirrored_inverse,
        shifts: MIRRORED,
        name: "inverse rotations and images mirrored along y",
        remedy: "convert the poses again",
    },
    Convention {
        rotation: with_psi_negated,
        shifts: SAME,
        name: "psi of the other sign",
        remedy: "multiply rlnAnglePsi by -1 in the STAR file",
    },
    Convention {
        rotation: with_rot_negated,
        shifts: SAME,
        name: "rot of the other sign",
        remedy: "multiply rlnAngleRot by -1 in the STAR file",
    },
    // The mirror image of the map, in mirrored images.
    Convention {
        rotation: mirrored,
        shifts: SAME,
        name: "angles of the other sign",
        remedy: "multiply rlnAngleRot, rlnAngleTilt and rlnAnglePsi by -1 in the STAR file",
    },
    Convention {
        rotation: turned,
        shifts: SAME,
        name: "psi off by 90 degrees",
        remedy: "add 90 to rlnAnglePsi in the STAR file (or subtract it: the map is the same but for its hand)",
    },
    Convention {
        rotation: turned_back,
        shifts: TURNED_BACK,
        name: "images turned by 90 degrees, from x to y",
        remedy: "turn the images of the stack back",
    },
    Convention {
        rotation: turned,
        shifts: TURNED,
        name: "images turned by 90 degrees, from y to x",
        remedy: "turn the images of the stack back",
    },
];

/// Tests the convention of the poses. The hand is not among them: the mirror image of a map fits the same images.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Judged> {
    let sample = subject.sample()?;
    let given = Agreement::of(sample.given());
    let changes = CONVENTIONS.iter().map(|of| (Change::Rotation(of.rotation, of.shifts), of.name.to_owned()));
    let Some(found) = best(sample, changes.collect()) else { return Ok(Judged::default()) };
    if !is_better(&found.agreement, &given, WIDE) {
        if given.information < NO_SIGNAL {
            return Ok(Outcome::found(WHAT, no_signal(subject, &given)).by(given.information.max(1.0)));
        }
        let outcome = format!(
            "no other convention explains the images better (best: {}, {:.2} of the information as given)",
            found.name,
            found.agreement.information / given.information
        );
        return Ok(Outcome::sound(WHAT, outcome).into());
    }
    let remedy = CONVENTIONS.iter().find(|of| of.name == found.name).map_or("", |of| of.remedy);
    Ok(Outcome::found(
        WHAT,
        Finding {
            id: "pose-convention".into(),
            severity: Severity::Fault,
            title: format!("poses are of another convention: {}", found.name),
            evidence: format!("with {}, {}", found.name, sample.compared(&found.agreement, &given)),
            cause: "a conversion between programs, or a stack that was rewritten".into(),
            cost: "most of the map: views contradict each other".into(),
            next: vec![remedy.to_owned(), subject.import_again()],
        },
    )
    .by(found.agreement.information))
}

fn no_signal(subject: &Subject, given: &Agreement) -> Finding {
    let sample = subject.sample().map_or(0, super::trial::Sample::particles);
    Finding {
        id: "no-agreement".into(),
        severity: Severity::Fault,
        title: "the halves do not agree".into(),
        evidence: format!(
            "two halves of {sample} particles share {:.0} nats of information, with the poses as given and in other conventions",
            given.information
        ),
        cause: "poses that belong to other images, images without particles, or far too few particles".into(),
        cost: "the map shows noise".into(),
        next: vec![format!("cryosplat-mpi info {} --pictures particles.html", subject.particles())],
    }
}
