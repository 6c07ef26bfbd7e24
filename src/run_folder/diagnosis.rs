//! The diagnosis of a run: what seems wrong with its particles or settings, what was tested, and the verdict. `diagnose` writes it to the
//! run folder (diagnosis.json); the report shows it.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::run_folder::names;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Sound,
    /// The map can be used; something better can be had.
    Note,
    /// The map is worse than it could be, or claims more than the particles confirm.
    Warning,
    /// Metadata, images or settings are wrong: the map must not be used as it is.
    Fault,
}

/// Something that seems wrong, with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the kind of finding, which scripts can rely on ("poses", "missing-cone").
    pub id: String,
    /// How serious it is.
    pub severity: Severity,
    /// The finding in a few words.
    pub title: String,
    /// What was measured, with numbers and units.
    pub evidence: String,
    /// The likely cause.
    pub cause: String,
    /// What it costs.
    pub cost: String,
    /// Commands to run next, the best first.
    pub next: Vec<String>,
}

/// A test and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// What was tested ("poses").
    pub what: String,
    /// False where it could not be tested; `outcome` says why.
    pub done: bool,
    /// The outcome, with numbers.
    pub outcome: String,
}

/// The result in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The severity of the worst finding.
    pub severity: Severity,
    /// One line: the headline resolution, the worst finding, and what was tested.
    pub line: String,
}

/// The diagnosis of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The result in one line.
    pub verdict: Verdict,
    /// Findings, the most serious first.
    pub findings: Vec<Finding>,
    /// All tests, in a fixed order.
    pub tested: Vec<Tested>,
}

impl Diagnosis {
    /// Writes the diagnosis to the run folder `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let document =
            serde_json::to_value(self).expect("a diagnosis has no map with keys that are not strings");
        files::write_json(&folder.join(names::DIAGNOSIS), &document)
    }

    /// The diagnosis in the run folder `folder`; `None` if there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(names::DIAGNOSIS);
        if !path.exists() {
            return Ok(None);
        }
        let remedy = "run `diagnose` again";
        let text = files::read_text(&path).map_err(Error::io(&path, "read the diagnosis", remedy))?;
        let diagnosis = serde_json::from_str(&text);
        diagnosis.map(Some).map_err(|error| Error::input(&path, "", error.to_string(), remedy))
    }

    /// The most serious finding.
    pub fn worst(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

impl Display for Severity {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Sound => "sound",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        })
    }
}

impl Display for Finding {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:8} {} [{}]", self.severity, self.title, self.id)?;
        for (name, text) in [("evidence", &self.evidence), ("cause", &self.cause), ("cost", &self.cost)] {
            if !text.is_empty() {
                writeln!(formatter, "         {name}: {text}")?;
            }
        }
        self.next.iter().try_for_each(|command| writeln!(formatter, "         next: {command}"))
    }
}

impl Display for Diagnosis {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:8} {}\n", self.verdict.severity, self.verdict.line)?;
        for finding in &self.findings {
            writeln!(formatter, "{finding}")?;
        }
        writeln!(formatter, "Tested:")?;
        for Tested { what, done, outcome } in &self.tested {
            let mark = if *done { "" } else { "NOT TESTED: " };
            writeln!(formatter, "  {what}: {mark}{outcome}")?;
        }
        Ok(())
    }
}
