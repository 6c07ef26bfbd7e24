//! What a run must share with its checkpoints to be resumed: the particle set and the settings.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::particles::store::{DataSetId, SetDigests};
use crate::recipe::Settings;

/// Identity of a run. Two runs are the same exactly if these values are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Identity of the particle set.
    pub particles: DataSetId,
    /// What it follows from: part by part, so that a message can name what differs.
    pub columns: SetDigests,
    /// Settings of the model.
    pub settings: Settings,
}

impl RunIdentity {
    /// Of a model with `settings`, trained on the set of `digests`.
    pub fn new(digests: &SetDigests, settings: &Settings) -> Self {
        Self { particles: digests.id(), columns: digests.clone(), settings: settings.clone() }
    }

    /// As stored in checkpoints and `run.json`: JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("settings have no map with keys that are not strings")
    }

    /// From [`RunIdentity::to_json`], as stored in the file `path`.
    ///
    /// # Errors
    /// When the text is of another version of the program, or damaged.
    pub fn from_json(path: &Path, text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            let problem = format!("is of a run of another version of the program, or damaged: {error}");
            Error::input(path, "identity", problem, REMEDY)
        })
    }

    /// Checks that the file `path`, which is of a run of this identity, is of the run `wanted`.
    ///
    /// # Errors
    /// Names the file and the settings that differ.
    pub fn check_same(&self, path: &Path, wanted: &Self) -> Result<()> {
        if self == wanted {
            return Ok(());
        }
        let problem = format!("is of another run: {}", wanted.differences_from(self));
        Err(Error::input(path, "", problem, REMEDY))
    }

    /// Checks that the checkpoint in the file `path`, which is of a run of this identity and after `epoch` epochs, is of the run `wanted`
    /// or of the finished run that `wanted` extends.
    ///
    /// # Errors
    /// As [`RunIdentity::check_same`], or when the run to extend is not finished.
    pub fn check_continues(&self, path: &Path, wanted: &Self, epoch: usize) -> Result<()> {
        let Settings { extensions, epochs, .. } = &self.settings;
        let unextended =
            Settings { extensions: extensions.clone(), epochs: *epochs, ..wanted.settings.clone() };
        let is_extended = wanted.settings.extensions.len() > extensions.len()
            && *self == Self { settings: unextended, ..wanted.clone() };
        match is_extended {
            true if epoch >= *epochs => Ok(()),
            true => Err(Error::input(
                path,
                "",
                format!("is after {epoch} of {epochs} epochs: only a finished run can be extended"),
                "finish it first (--resume auto without --extend-epochs)",
            )),
            false => self.check_same(path, wanted),
        }
    }

    /// "particle set was ... and is ...; batch was 8 and is 4": how the identity `old` differs from this one.
    fn differences_from(&self, old: &Self) -> String {
        let mut all = Vec::new();
        if old.particles != self.particles {
            let parts = self.columns.differences_from(&old.columns).join(", ");
            all.push(format!(
                "particle set was {} and is {} (what differs: {parts})",
                old.particles, self.particles
            ));
        }
        let fields = |of: &Self| match serde_json::to_value(&of.settings) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (before, now) = (fields(old), fields(self));
        // A field that one of them lacks is null there.
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        for key in now.keys().chain(gone) {
            let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or_default();
            if value(&before) != value(&now) {
                let name = key.replace('_', " ");
                all.push(format!("{name} was {} and is {}", value(&before), value(&now)));
            }
        }
        all.join(", ")
    }
}

const REMEDY: &str =
    "use the same particles and options, replace the old run (--overwrite), or choose another folder";

/// The error for the file `path`, which is of a model that the run does not train.
pub(crate) fn other_model(path: &Path) -> Error {
    Error::input(path, "", "is of a run with another --half", REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Choices, InitIdentity, Recipe};

    fn identity(id: u8, choices: &Choices) -> RunIdentity {
        let settings = Settings::resolve(Recipe::Scaled, choices, false, 3.0, 1, 150, 32);
        let columns = SetDigests::default();
        RunIdentity { particles: DataSetId::from_bytes([id; 32]), columns, settings }
    }

    #[test]
    fn json_round_trips_bit_for_bit() {
        for rate in [0.1 + 0.2, 1e-300, 4e-4 * (1.0f64 / 3.0).sqrt()] {
            let choices = Choices { learning_rate: Some(rate), ..Choices::default() };
            let written = identity(3, &choices);
            let read = RunIdentity::from_json(Path::new("run.json"), &written.to_json()).unwrap();
            assert_eq!(read.settings.learning_rate.to_bits(), rate.to_bits());
            assert_eq!(read, written);
        }
        let refused = RunIdentity::from_json(Path::new("run.json"), "{}").unwrap_err().to_string();
        assert!(refused.contains("run.json") && refused.contains("another version"), "{refused}");
    }

    #[test]
    fn a_finished_run_can_be_extended_and_no_other() {
        let with = |extensions: &[usize], batch| {
            let extensions = extensions.to_vec();
            let choices = Choices { epochs: Some(5), batch: Some(batch), extensions, ..Choices::default() };
            identity(10, &choices)
        };
        let check = |old: &[usize], new: &[usize], batch, epoch| {
            with(old, 8).check_continues(Path::new("c.h5"), &with(new, batch), epoch)
        };
        for (old, new, epoch) in [(&[][..], &[][..], 2), (&[], &[3], 5), (&[3], &[3], 6), (&[3], &[3, 1], 8)]
        {
            check(old, new, 8, epoch).unwrap();
        }
        for (old, new, batch, epoch, problem) in [
            (&[][..], &[3][..], 8, 4, "after 4 of 5 epochs"),
            (&[3], &[3, 1], 8, 7, "after 7 of 8 epochs"),
            (&[3], &[], 8, 8, "extensions was [3] and is null"),
            (&[3], &[4], 8, 8, "extensions was [3] and is [4]"),
            (&[], &[3], 4, 5, "batch was 8 and is 4"),
        ] {
            let message = check(old, new, batch, epoch).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn differences_are_named() {
        let with = |batch, init: Option<f64>| {
            let init = init.map(|low_pass| InitIdentity { sha256: "0a".into(), low_pass: Some(low_pass) });
            Choices { batch: Some(batch), init, ..Choices::default() }
        };
        let check = |old: &RunIdentity, new: &RunIdentity| {
            old.check_same(Path::new("c.h5"), new).unwrap_err().to_string()
        };
        let (old, new) = (identity(10, &with(8, None)), identity(11, &with(4, None)));
        let message = check(&old, &new);
        assert!(message.contains(&format!("particle set was {} and is {}", old.particles, new.particles)));
        assert!(message.contains("batch was 8 and is 4"), "{message}");
        let from_map = identity(10, &with(8, Some(30.0)));
        let text = r#"{"low_pass":30.0,"sha256":"0a"}"#;
        assert!(check(&old, &from_map).contains(&format!("init was null and is {text}")));
        assert!(check(&from_map, &old).contains(&format!("init was {text} and is null")));
        assert!(old.check_same(Path::new("c.h5"), &old.clone()).is_ok());
    }
}
