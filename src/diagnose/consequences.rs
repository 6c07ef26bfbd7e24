//! Findings that follow from others: wrong metadata of all particles also move each of them.

use super::outcome::Outcome;
use crate::run_folder::diagnosis::{Finding, Severity, Tested};

/// Faults of all particles...
const CAUSES: [&str; 18] = [
    "pose-convention",
    "origins-sign",
    "origins-applied-twice",
    "origins-unit",
    "origins-axes",
    "origins-offset",
    "amplitude-contrast",
    "pixel-size",
    "voltage",
    "defocus",
    "phase-flipped",
    "premultiplied",
    "ctf-corrected",
    "phase-shift",
    "astigmatism-angle",
    "symmetry-absent",
    "contrast-inverted",
    "no-agreement",
];
/// The halves are not independent where many images are in both: it spoils the same tests.
const COPIES: &str = "copies-in-both-halves";
/// ...that lead to these findings too...
const CONSEQUENCES: [&str; 9] = [
    "poses",
    "shifts",
    "defocus-scatter",
    "junk",
    "contrast-spread",
    "half-map-bias",
    "model-too-small",
    "training-too-short",
    "model-behind-voxels",
];
/// ...and spoil these tests.
const SPOILT: [&str; 3] = ["poses", "shifts", "defocus of single particles"];

/// The outcome without findings that follow from others.
pub(super) fn without(outcome: Outcome) -> Outcome {
    let Outcome { mut findings, mut tested } = outcome;
    let is_cause = |finding: &&Finding| {
        let of_copies = finding.id == COPIES && finding.severity == Severity::Fault;
        of_copies || CAUSES.contains(&finding.id.as_str())
    };
    let of_all = findings.iter().find(is_cause);
    let Some(cause) = of_all.map(|finding| finding.title.clone()) else {
        return Outcome { findings, tested };
    };
    findings.retain(|finding| !CONSEQUENCES.contains(&finding.id.as_str()));
    for Tested { what, done, outcome } in &mut tested {
        if SPOILT.contains(&what.as_str()) {
            (*done, *outcome) = (false, format!("first correct this: {cause}"));
        }
    }
    Outcome { findings, tested }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, severity: Severity) -> Finding {
        let text = String::new;
        Finding {
            id: id.into(),
            severity,
            title: id.into(),
            evidence: text(),
            cause: text(),
            cost: text(),
            next: Vec::new(),
        }
    }

    fn ids(findings: Vec<Finding>) -> Vec<String> {
        let outcome = without(Outcome { findings, tested: Vec::new() });
        outcome.findings.into_iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn consequences_of_a_fault_of_all_particles_are_left_out() {
        let poses = || finding("poses", Severity::Fault);
        assert_eq!(ids(vec![poses(), finding("defocus", Severity::Fault)]), ["defocus"]);
        assert_eq!(
            ids(vec![finding("half-map-bias", Severity::Warning), finding("pixel-size", Severity::Fault)]),
            ["pixel-size"]
        );
        assert_eq!(ids(vec![poses(), finding("missing-cone", Severity::Warning)]), ["poses", "missing-cone"]);
        let copies = |severity| ids(vec![poses(), finding(COPIES, severity)]);
        assert_eq!(copies(Severity::Fault), [COPIES]);
        assert_eq!(copies(Severity::Warning), ["poses", COPIES]);
    }
}
