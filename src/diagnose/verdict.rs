//! The verdict: one line that says no more than the tests know.

use crate::evaluate::Headline;
use crate::run_folder::diagnosis::{Finding, Severity, Tested, Verdict};

/// The verdict on a run with this headline resolution, these findings (the most serious first) and tests.
pub(super) fn verdict(headline: Option<&Headline>, findings: &[Finding], tested: &[Tested]) -> Verdict {
    let severity = findings.first().map_or(Severity::Sound, |worst| worst.severity);
    let resolution =
        headline.map_or("no resolution is known".to_owned(), |headline| format!("resolution {headline}"));
    let of = |wanted: Severity| {
        let titles = findings
            .iter()
            .filter(|finding| finding.severity == wanted)
            .map(|finding| finding.title.as_str());
        titles.collect::<Vec<_>>().join("; ")
    };
    let names = |done: bool| {
        // The outcome of a test that found something is its evidence.
        let found = |test: &Tested| findings.iter().any(|finding| finding.evidence == test.outcome);
        let all =
            tested.iter().filter(|test| test.done == done && !found(test)).map(|test| test.what.as_str());
        all.collect::<Vec<_>>().join(", ")
    };
    let line = match severity {
        Severity::Fault => format!("do not use this map: {}", of(Severity::Fault)),
        Severity::Warning => format!("{}; {resolution}", of(Severity::Warning)),
        Severity::Note | Severity::Sound => {
            let untested = match names(false) {
                none if none.is_empty() => String::new(),
                some => format!("; not tested: {some}"),
            };
            let noted = match of(Severity::Note) {
                none if none.is_empty() => String::new(),
                some => format!("; noted: {some}"),
            };
            format!(
                "{resolution}{noted}; nothing wrong was found in: {}{untested}; the images cannot tell the hand",
                names(true)
            )
        }
    };
    Verdict { severity, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, title: &str) -> Finding {
        Finding {
            id: title.into(),
            severity,
            title: title.into(),
            evidence: format!("evidence: {title}"),
            cause: String::new(),
            cost: String::new(),
            next: Vec::new(),
        }
    }

    #[test]
    fn the_worst_findings_are_named_and_what_was_not_tested() {
        let tested = [("poses", true), ("origins", false)].map(|(what, done)| Tested {
            what: what.into(),
            done,
            outcome: String::new(),
        });
        let sound = verdict(None, &[], &tested);
        assert_eq!(sound.severity, Severity::Sound);
        assert!(sound.line.contains("found in: poses; not tested: origins;"), "{}", sound.line);
        // A test that noted something did not find nothing.
        let noted = Tested { what: "model".into(), done: true, outcome: "evidence: c".into() };
        let with_note = [&tested[..], &[noted]].concat();
        let line = verdict(None, &[finding(Severity::Note, "c")], &with_note).line;
        assert!(line.contains("; noted: c; nothing wrong was found in: poses; not tested"), "{line}");
        let findings = [
            finding(Severity::Fault, "a is wrong"),
            finding(Severity::Fault, "b is wrong"),
            finding(Severity::Note, "c"),
        ];
        let worst = verdict(None, &findings, &tested);
        assert_eq!(
            (worst.severity, worst.line.as_str()),
            (Severity::Fault, "do not use this map: a is wrong; b is wrong")
        );
    }
}
