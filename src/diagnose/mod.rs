//! What is wrong with the particles or the settings of a run: tests of its metadata, images and maps against each other
//! (docs/method.md, section 16). A finding has evidence, a cause, a cost and the next command.
//!
//! [`subject`] is the run that is tested; [`outcome`] is what a test returns. Each test is a file of its own.

mod conventions;
mod explain;
mod fits;
mod origins;
pub mod outcome;
mod poses;
pub mod subject;
mod transfer;
mod trial;

pub use outcome::Outcome;
pub use subject::Subject;

use crate::error::Result;
use crate::run_folder::diagnosis::{Diagnosis, Severity, Verdict};

/// A test of a run.
type Test = fn(&Subject) -> Result<Outcome>;

/// All tests, in the order of their outcomes.
const TESTS: [Test; 4] = [conventions::test, origins::test, transfer::test, poses::test];

/// Tests a run.
///
/// # Errors
/// When its files or particles cannot be read.
pub fn diagnose(subject: &Subject) -> Result<Diagnosis> {
    let mut all = Outcome::default();
    for test in TESTS {
        all.add(test(subject)?);
    }
    let Outcome { mut findings, tested } = all;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let severity = findings.first().map_or(Severity::Sound, |worst| worst.severity);
    let line =
        findings.first().map_or_else(|| "nothing wrong was found".to_owned(), |worst| worst.title.clone());
    Ok(Diagnosis { verdict: Verdict { severity, line }, findings, tested })
}
