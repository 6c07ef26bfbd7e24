//! The outcome of a test.

use crate::run_folder::diagnosis::{Finding, Tested};

/// What a test has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What seems wrong.
    pub findings: Vec<Finding>,
    /// What was tested, and how it came out.
    pub tested: Vec<Tested>,
}

/// The outcome of trials, and the information in nats that the best of them has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judged {
    pub outcome: Outcome,
    pub information: f64,
}

impl From<Outcome> for Judged {
    /// An outcome without a trial.
    fn from(outcome: Outcome) -> Self {
        Self { outcome, information: 0.0 }
    }
}

impl Outcome {
    /// The outcome of trials the best of which has `information`.
    pub(super) fn by(self, information: f64) -> Judged {
        Judged { outcome: self, information }
    }

    /// Nothing wrong was found in `what`.
    pub fn sound(what: &str, outcome: impl Into<String>) -> Self {
        Self {
            findings: Vec::new(),
            tested: vec![Tested { what: what.into(), done: true, outcome: outcome.into() }],
        }
    }

    /// `what` could not be tested.
    pub fn untested(what: &str, reason: impl Into<String>) -> Self {
        Self {
            findings: Vec::new(),
            tested: vec![Tested { what: what.into(), done: false, outcome: reason.into() }],
        }
    }

    /// A finding of the test of `what`.
    pub fn found(what: &str, finding: Finding) -> Self {
        let outcome = finding.evidence.clone();
        Self { findings: vec![finding], tested: vec![Tested { what: what.into(), done: true, outcome }] }
    }

    /// Adds the outcome of another test.
    pub fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.tested.extend(other.tested);
    }
}
