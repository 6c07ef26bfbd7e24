//! Whether the symmetry of the run is that of the particles.

use super::{Outcome, Subject};
use crate::error::Result;
use crate::imaging::Symmetry;
use crate::run_folder::diagnosis::{Finding, Severity};
use crate::voxels::detection::{self, Evidence, evidence};

const WHAT: &str = "symmetry";

/// Tests the symmetry.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let given = subject.symmetry;
    let particles = subject.particles();
    Ok(match evidence(&subject.store, &subject.subsets, given)? {
        Evidence::None => Outcome::untested(WHAT, "the voxel maps have too little signal"),
        Evidence::AsGiven if given == Symmetry::C1 => {
            Outcome::sound(WHAT, "the particles have no point group beyond C1")
        }
        Evidence::AsGiven => Outcome::sound(WHAT, format!("nothing speaks against {given}")),
        Evidence::Unused(found) => Outcome::found(WHAT, unused(&found, &particles)),
        Evidence::Absent(found) => Outcome::found(WHAT, absent(&found, &particles)),
    })
}

fn unused(found: &detection::Finding, particles: &str) -> Finding {
    let &detection::Finding { symmetry, agreement, resolution } = found;
    Finding {
        id: "symmetry-unused".into(),
        severity: Severity::Note,
        title: format!("the particles have the symmetry {symmetry}, which the run does not use"),
        evidence: format!(
            "to {resolution:.0} A, the voxel map of half 1 agrees with the rotated copies of half 2 as with half 2 itself: {agreement:.2} (1 for {symmetry})"
        ),
        cause: format!(
            "the run was started without --symmetry {symmetry}; or the specimen is only nearly symmetric"
        ),
        cost: format!("each image counts once, not {} times", symmetry.order()),
        next: vec![format!("cryosplat-mpi train {particles} --symmetry {symmetry} -o run_{symmetry}")],
    }
}

fn absent(found: &detection::Finding, particles: &str) -> Finding {
    let &detection::Finding { symmetry, agreement, resolution } = found;
    Finding {
        id: "symmetry-absent".into(),
        severity: Severity::Fault,
        title: format!("the particles do not have the symmetry {symmetry} that the run uses"),
        evidence: format!(
            "to {resolution:.0} A, the voxel map of half 1 agrees with the rotated copies of half 2 by {agreement:.2} of what it agrees with half 2 itself \
             (about 1 for {symmetry})"
        ),
        cause: "another group, another setting of its axes (they are those of RELION), or axes that do not pass through the centre of the box".into(),
        cost: format!("the map is the mean of {} different views of the specimen", symmetry.order()),
        next: vec![format!("cryosplat-mpi train {particles} --symmetry C1 -o run_C1")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_name_the_group() {
        let found = detection::Finding { symmetry: Symmetry::D(7), agreement: 0.97, resolution: 14.0 };
        let note = unused(&found, "p.h5");
        assert_eq!(note.next, ["cryosplat-mpi train p.h5 --symmetry D7 -o run_D7"]);
        assert!(note.cost.contains("14 times") && note.severity == Severity::Note);
        let fault = absent(&detection::Finding { agreement: 0.2, ..found }, "p.h5");
        assert_eq!(fault.next, ["cryosplat-mpi train p.h5 --symmetry C1 -o run_C1"]);
        assert!(fault.evidence.contains("by 0.20 of") && fault.severity == Severity::Fault);
    }
}
