//! A line of the page.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::error::printable;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A training runs, but slower than it could, or with a risk.
    Warning,
    /// A training would fail.
    Problem,
}

/// A line of the page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// What it is about.
    pub topic: String,
    /// What was found.
    pub text: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
}

impl Finding {
    /// A finding that is as it should be.
    pub(super) fn ok(topic: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, topic, text, "")
    }

    /// A finding with a remedy.
    pub(super) fn new(
        level: Level,
        topic: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        // Names of files and messages of libraries may hold control characters.
        Self { level, topic: topic.into(), text: printable(&text.into()), remedy: remedy.into() }
    }
}

impl Display for Finding {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        write!(formatter, "{level:8} {:9} {}", self.topic, self.text)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(formatter, "; {}", self.remedy) }
    }
}
