//! The opening of the report: the diagnosis of the run, or that there is none.

use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::evaluate::Headline;
use crate::evaluate::headline::Limit;
use crate::figures::report::{Judgement, Light, Remark};
use crate::run_folder::diagnosis::{Diagnosis, Finding, Severity};

/// The judgement of the run in `folder`, whose run.json is `document`.
pub(super) fn judgement(folder: &Path, document: &Value) -> Result<Judgement> {
    let run = folder.display();
    let postprocess = format!("cryosplat-mpi postprocess {run}/half1.mrc {run}/half2.mrc -o {run}/post");
    let Some(diagnosis) = Diagnosis::read(folder)? else {
        let is_single = document["particles"]["models"].as_array().is_some_and(|models| models.len() < 2);
        let (line, next) = match (is_single, document["method"] == "backproject") {
            (true, _) => ("without two half maps, a run has no resolution and is not tested.", None),
            (_, true) => (
                "voxel maps are not diagnosed; poses, CTF, pixel size and symmetry were not tested.",
                Some(postprocess),
            ),
            _ => (
                "poses, CTF, pixel size, symmetry and views of the particles were not tested.",
                Some(format!("cryosplat-mpi diagnose {run}")),
            ),
        };
        return Ok(Judgement {
            light: Light::Grey,
            label: "Not diagnosed:".into(),
            line: line.into(),
            next: next.into_iter().collect(),
            reasons: sentences(document),
            ..Judgement::default()
        });
    };
    let worst = diagnosis.worst();
    let mut next = worst.map_or(Vec::new(), |finding| finding.next.clone());
    // A resolution that is not confirmed is never green.
    let unconfirmed = Headline::from_document(document).filter(|found| found.limit == Limit::Unconfirmed);
    if next.is_empty() {
        let filter = unconfirmed.and_then(|found| found.angstrom);
        next.push(filter.map_or(postprocess.clone(), |a| format!("{postprocess} --low-pass {a:.2}")));
    }
    let severity = diagnosis.verdict.severity;
    let is_doubtful = unconfirmed.is_some() && severity < Severity::Warning;
    Ok(Judgement {
        light: if is_doubtful { Light::Amber } else { light(severity) },
        label: if is_doubtful { "Unconfirmed:".into() } else { format!("{}:", name(severity)) },
        line: diagnosis.verdict.line.clone(),
        reasons: sentences(document),
        next,
        findings: diagnosis.findings.iter().map(remark).collect(),
        tested: diagnosis.tested.into_iter().map(|test| (test.what, test.outcome, test.done)).collect(),
    })
}

/// The resolution and the verdict of the cross-validation, as sentences.
fn sentences(document: &Value) -> Vec<String> {
    let resolution = Headline::from_document(document).map(|found| format!("Resolution: {found}."));
    let verdict = document["cross_validation"]["verdict"].as_str().map(|verdict| {
        let warns = document["cross_validation"]["confirms"] == false;
        let capital = verdict.get(..1).map(str::to_uppercase).unwrap_or_default();
        let rest = verdict.get(1..).unwrap_or_default();
        if warns { format!("Warning: {verdict}.") } else { format!("{capital}{rest}.") }
    });
    resolution.into_iter().chain(verdict).collect()
}

fn remark(finding: &Finding) -> Remark {
    let texts = [("Evidence", &finding.evidence), ("Cause", &finding.cause), ("Cost", &finding.cost)];
    Remark {
        light: light(finding.severity),
        label: format!("{}:", name(finding.severity)),
        title: finding.title.clone(),
        texts: texts.map(|(name, text)| (name.to_owned(), text.clone())).into(),
        next: finding.next.clone(),
    }
}

/// The light of a verdict of this severity.
pub(crate) fn light(severity: Severity) -> Light {
    match severity {
        Severity::Sound | Severity::Note => Light::Green,
        Severity::Warning => Light::Amber,
        Severity::Fault => Light::Red,
    }
}

/// The severity with a capital letter.
fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Sound => "Sound",
        Severity::Note => "Note",
        Severity::Warning => "Warning",
        Severity::Fault => "Fault",
    }
}
