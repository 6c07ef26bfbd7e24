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

impl Outcome {
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
