//! The opening of a report: a light, the verdict in one line, what to do next, and the findings behind it.

use crate::figures::picture::escape;

/// The colour of the light and of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Light {
    /// Sound, or a remark.
    Green,
    /// A warning.
    Amber,
    /// A fault.
    Red,
    /// Not tested.
    #[default]
    Grey,
}

impl Light {
    /// Class of the style sheet.
    fn class(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Amber => "amber",
            Self::Red => "red",
            Self::Grey => "grey",
        }
    }
}

/// The verdict of a report.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Colour of the light.
    pub light: Light,
    /// The light in a word, for readers who see no colours.
    pub label: String,
    /// The verdict in one line.
    pub line: String,
    /// Further sentences, each a paragraph.
    pub reasons: Vec<String>,
    /// Commands to run next, the best first.
    pub next: Vec<String>,
    /// What seems wrong, the most serious first.
    pub findings: Vec<Remark>,
    /// What was tested: name, outcome, and whether it could be tested.
    pub tested: Vec<(String, String, bool)>,
}

/// A finding.
#[derive(Clone, Debug, Default)]
pub struct Remark {
    /// Colour.
    pub light: Light,
    /// Its severity in a word.
    pub label: String,
    /// The finding in a few words.
    pub title: String,
    /// Named texts: evidence, cause, cost.
    pub texts: Vec<(String, String)>,
    /// Commands to run next.
    pub next: Vec<String>,
}

impl Judgement {
    pub(super) fn to_html(&self) -> String {
        let class = self.light.class();
        let mut html = format!(
            "<section class=\"judgement {class}\">\n<p class=\"light\"><span class=\"lamp\" aria-hidden=\"true\"></span>\
             <strong>{}</strong> {}</p>\n",
            escape(&self.label),
            escape(&self.line)
        );
        self.reasons.iter().for_each(|reason| html += &format!("<p>{}</p>\n", escape(reason)));
        html += &commands(&self.next);
        html += "</section>\n";
        if !self.findings.is_empty() {
            let findings: String = self.findings.iter().map(Remark::to_html).collect();
            html += &format!("<section><h2>Findings</h2>\n{findings}</section>\n");
        }
        if !self.tested.is_empty() {
            let row = |(what, outcome, done): &(String, String, bool)| {
                let not = if *done { "" } else { "<strong>Not tested:</strong> " };
                format!("<tr><th>{}</th><td>{not}{}</td></tr>\n", escape(what), escape(outcome))
            };
            let rows: String = self.tested.iter().map(row).collect();
            let done = self.tested.iter().filter(|(_, _, done)| *done).count();
            html += &format!(
                "<section><details><summary>What was tested ({done} of {})</summary>\n<table>\n{rows}</table></details></section>\n",
                self.tested.len()
            );
        }
        html
    }
}

impl Remark {
    fn to_html(&self) -> String {
        let texts: String = (self.texts.iter().filter(|(_, text)| !text.is_empty()))
            .map(|(name, text)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(text)))
            .collect();
        format!(
            "<article class=\"finding {}\"><h3><span class=\"lamp\" aria-hidden=\"true\"></span><strong>{}</strong> {}</h3>\n\
             <dl>\n{texts}</dl>\n{}</article>\n",
            self.light.class(),
            escape(&self.label),
            escape(&self.title),
            commands(&self.next)
        )
    }
}

/// Commands, one per line; nothing without any.
fn commands(next: &[String]) -> String {
    if next.is_empty() {
        return String::new();
    }
    format!("<p class=\"next\">Next:</p>\n<pre>{}</pre>\n", escape(&next.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_comes_with_light_findings_and_tests() {
        let finding = Remark {
            light: Light::Red,
            label: "FAULT".into(),
            title: "poses <are> wrong".into(),
            texts: vec![("Evidence".into(), "4.6 degrees".into()), ("Cost".into(), String::new())],
            next: vec!["cryosplat-mpi train --refine all".into()],
        };
        let judgement = Judgement {
            light: Light::Red,
            label: "Fault".into(),
            line: "8.25 A, but".into(),
            next: vec!["a".into(), "b".into()],
            findings: vec![finding],
            tested: vec![("poses".into(), "no".into(), true), ("hand".into(), "no atoms".into(), false)],
            ..Judgement::default()
        };
        let html = judgement.to_html();
        assert!(html.contains("judgement red") && html.contains("finding red"), "{html}");
        assert!(html.contains("poses &lt;are&gt; wrong") && html.contains("<pre>a\nb</pre>"), "{html}");
        assert!(html.contains("<dt>Evidence</dt>") && !html.contains("<dt>Cost</dt>"), "{html}");
        assert!(html.contains("1 of 2") && html.contains("<strong>Not tested:</strong> no atoms"), "{html}");
        let html = Judgement::default().to_html();
        assert!(
            !html.contains("<pre>") && !html.contains("Findings") && !html.contains("<details>"),
            "{html}"
        );
    }
}
