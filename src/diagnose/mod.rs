//! What is wrong with the particles or the settings of a run: tests of its metadata, images and maps against each other
//! (docs/method.md, section 16). A finding has evidence, a cause, a cost and the next command.
//!
//! [`subject`] is the run that is tested; [`outcome`] is what a test returns. Each test is a file of its own.

mod bias;
mod consequences;
mod contrast;
mod conventions;
mod copies;
pub(crate) mod cost;
mod explain;
mod fits;
mod groups;
mod junk;
mod model;
mod noise;
mod origins;
pub mod outcome;
mod poses;
mod shift_errors;
pub mod subject;
mod symmetry;
mod transfer;
mod trial;
mod verdict;
mod views;

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use outcome::Judged;
pub use outcome::Outcome;
pub use subject::Subject;

use trial::Agreement;

use crate::error::Result;
use crate::evaluate::Headline;
use crate::particles::store::Store;
use crate::run_folder::diagnosis::{Diagnosis, Severity};

/// Fewest particles of a half that are tested: with fewer, chance decides.
pub const FEWEST_PARTICLES: usize = 100;

/// Factor by which other metadata must increase the information where poses do not fit at all.
const DECISIVE: f64 = 2.0;

/// A test of a run, with its name for the log.
type Test = (&'static str, fn(&Subject) -> Result<Outcome>);

/// All tests, in the order of their outcomes.
const TESTS: [Test; 10] = [
    ("contrast", contrast::test),
    ("metadata", metadata),
    ("poses", poses::test),
    ("views", views::test),
    ("symmetry", symmetry::test),
    ("noise", noise::test),
    ("junk", junk::test),
    ("copies", copies::test),
    ("model", model::test),
    ("bias", bias::test),
];

/// Tests the metadata of all particles. Of several explanations that beat the metadata as given, the one that the halves agree best with is
/// found; the others may follow from it, and wait until it is corrected.
fn metadata(subject: &Subject) -> Result<Outcome> {
    let all = [
        conventions::test(subject)?,
        origins::test(subject)?,
        transfer::test(subject)?,
        groups::test(subject)?,
    ];
    let whats = [conventions::WHAT, origins::WHAT, transfer::WHAT, groups::WHAT];
    let information =
        |found: &Judged| if found.outcome.findings.is_empty() { 0.0 } else { found.information };
    let best = (0..all.len()).max_by(|&a, &b| information(&all[a]).total_cmp(&information(&all[b])));
    // Where no view is right, any explanation that smears the images agrees a little better.
    let lost = best.is_some_and(|best| information(&all[best]) > 0.0) && poses::are_lost(subject)?;
    let given = Agreement::of(subject.sample()?.given()).information;
    if lost && best.is_some_and(|best| information(&all[best]) < DECISIVE * given) {
        let mut outcome = Outcome::default();
        for what in whats {
            outcome.add(Outcome::untested(what, "the poses do not fit the images"));
        }
        return Ok(outcome);
    }
    let title = best.and_then(|best| Some(all[best].outcome.findings.first()?.title.clone()));
    let mut outcome = Outcome::default();
    for ((index, found), what) in all.into_iter().enumerate().zip(whats) {
        match &title {
            Some(title) if Some(index) != best && !found.outcome.findings.is_empty() => {
                outcome.add(Outcome::untested(what, format!("first correct this: {title}")));
            }
            _ => outcome.add(found.outcome),
        }
    }
    Ok(outcome)
}

/// Tests a run.
///
/// # Errors
/// When its files or particles cannot be read.
pub fn diagnose(subject: &Subject) -> Result<Diagnosis> {
    Ok(diagnose_until(subject, || false)?.expect("nothing stops it"))
}

/// Tests a run; `None` where `stopped` is true before one of the tests.
fn diagnose_until(subject: &Subject, stopped: impl Fn() -> bool) -> Result<Option<Diagnosis>> {
    let mut all = Outcome::default();
    if subject.subsets.iter().all(|subset| subset.rows.len() >= FEWEST_PARTICLES) {
        for (name, test) in TESTS {
            if stopped() {
                return Ok(None);
            }
            let started = Instant::now();
            all.add(test(subject)?);
            tracing::debug!("diagnosis: {name} in {:.2} s", started.elapsed().as_secs_f64());
        }
    } else {
        let reason = format!("a half has fewer than {FEWEST_PARTICLES} particles");
        all.add(Outcome::untested("particles and metadata", reason));
    }
    let Outcome { mut findings, tested } = consequences::without(all);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let headline = Headline::from_document(&subject.document);
    let verdict = verdict::verdict(headline.as_ref(), &findings, &tested);
    Ok(Some(Diagnosis { verdict, findings, tested }))
}

/// Tests the run in `folder`, whose record is `document`, on the particles of `store`, and writes diagnosis.json. A run is done also
/// where it cannot be tested, or `stopped` asks for its end: that is logged.
pub fn of_new_run(
    folder: &Path,
    document: &Value,
    store: &Store,
    stopped: impl Fn() -> bool,
) -> Option<Diagnosis> {
    tracing::info!("the run is diagnosed (--no-diagnosis leaves it out)");
    let diagnosed = Subject::open(folder, document.clone(), store.clone())
        .and_then(|subject| diagnose_until(&subject, stopped));
    match diagnosed.and_then(|found| found.map(|found| found.write(folder).map(|()| found)).transpose()) {
        Ok(Some(diagnosis)) => Some(diagnosis),
        Ok(None) => {
            tracing::warn!("the diagnosis was stopped; cryosplat-mpi diagnose {} makes it", folder.display());
            None
        }
        Err(error) => {
            tracing::warn!("the run could not be diagnosed: {error}");
            None
        }
    }
}

/// Logs findings and verdict.
pub fn log(diagnosis: &Diagnosis) {
    for finding in &diagnosis.findings {
        let next = finding.next.first().map_or(String::new(), |next| format!("; next: {next}"));
        let text = format!(
            "{} [{}]: {}; likely cause: {}{next}",
            finding.title, finding.id, finding.evidence, finding.cause
        );
        if finding.severity >= Severity::Warning {
            tracing::warn!("{text}")
        } else {
            tracing::info!("{text}")
        }
    }
    let line = &diagnosis.verdict.line;
    match diagnosis.verdict.severity {
        Severity::Fault | Severity::Warning => tracing::warn!("verdict: {line}"),
        Severity::Note | Severity::Sound => tracing::info!("verdict: {line}"),
    }
}
