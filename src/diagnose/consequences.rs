//! Findings that follow from others: wrong metadata of all particles also move each of them.

use super::outcome::Outcome;
use crate::run_folder::diagnosis::{Severity, Tested};

/// Findings about single particles, which a fault of all particles causes too.
const OF_PARTICLES: [&str; 3] = ["poses", "shifts", "defocus-scatter"];
/// Faults of all particles that do not move single ones.
const HARMLESS: [&str; 3] = ["contrast-inverted", "copies", "missing-cone"];
/// Of findings about the same images the first is the cause of the second.
const CAUSES: [(&str, &str); 1] = [("pose-convention", "origins-axes")];

/// The outcome without findings that follow from others.
pub(super) fn without(outcome: Outcome) -> Outcome {
    let Outcome { mut findings, mut tested } = outcome;
    let ids: Vec<String> = findings.iter().map(|finding| finding.id.clone()).collect();
    let of_all = findings.iter().find(|finding| {
        let id = finding.id.as_str();
        finding.severity == Severity::Fault && !OF_PARTICLES.contains(&id) && !HARMLESS.contains(&id)
    });
    let cause = of_all.map(|finding| finding.title.clone());
    findings.retain(|finding| {
        let follows = OF_PARTICLES.contains(&finding.id.as_str()) && cause.is_some();
        let other = CAUSES.iter().any(|(of, id)| *id == finding.id && ids.iter().any(|id| id == of));
        !(follows || other)
    });
    if let Some(cause) = cause {
        for Tested { what, done, outcome } in &mut tested {
            if ["poses", "shifts", "defocus of single particles"].contains(&what.as_str()) {
                (*done, *outcome) = (false, format!("first correct this: {cause}"));
            }
        }
    }
    Outcome { findings, tested }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_folder::diagnosis::Finding;

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
            ids(vec![poses(), finding("contrast-inverted", Severity::Fault)]),
            ["poses", "contrast-inverted"]
        );
        assert_eq!(ids(vec![poses(), finding("noise", Severity::Note)]), ["poses", "noise"]);
        assert_eq!(
            ids(vec![finding("origins-unit", Severity::Fault), finding("pixel-size", Severity::Fault)]),
            ["pixel-size"]
        );
    }
}
