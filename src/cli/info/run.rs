//! `info` of a run folder.

use std::path::Path;

use serde_json::Value;

use super::description::Description;
use crate::error::{Error, Result};
use crate::evaluate::Headline;
use crate::files;
use crate::progress::duration;
use crate::run_folder::diagnosis::Diagnosis;
use crate::run_folder::names;
use crate::train::of_mixtures;

/// Kind of the folder.
const KIND: &str = "run folder";

pub(super) fn describe(folder: &Path) -> Result<Description> {
    let path = folder.join(names::RUN);
    let text = files::read_text(&path).map_err(Error::io(
        &path,
        "read the run's record",
        "give the folder of a run of `train` or `backproject`",
    ))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&path, "", error.to_string(), "run `train` again"))?;
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        other => Some(other.to_string()),
    };
    if !document["state"].is_string() {
        let problem = format!("is {}, expected the state of a run, such as \"done\"", document["state"]);
        return Err(Error::input(
            &path,
            "state",
            problem,
            "give the folder of a run of `train` or `backproject`",
        ));
    }
    let diagnosis = Diagnosis::read(folder)?;
    let mut rows = Vec::new();
    let mut row = |name: &'static str, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    row("state", text(&document["state"]));
    row("particles", text(&document["particles"]["file"]));
    let models = document["particles"]["models"].as_array().into_iter().flatten();
    let models: Vec<String> = models
        .filter_map(|model| Some(format!("{} in {}", model["particles"].as_u64()?, model["name"].as_str()?)))
        .collect();
    row("models", (!models.is_empty()).then(|| models.join(", ")));
    let settings = &document["settings"];
    row("symmetry", text(&settings["symmetry"]));
    let counts = ["gaussians", "mixtures", "epochs", "batch"].map(|name| settings[name].as_u64());
    if let [Some(gaussians), Some(mixtures), Some(epochs), Some(batch)] = counts {
        row(
            "settings",
            Some(format!(
                "{gaussians} Gaussians {}, {epochs} epochs, batch {batch}",
                of_mixtures(mixtures as usize)
            )),
        );
    }
    row("verdict", diagnosis.map(|found| format!("{}: {}", found.verdict.severity, found.verdict.line)));
    row("resolution", Headline::from_document(&document).map(|headline| headline.to_string()));
    row("time", document["seconds"]["total"].as_f64().map(duration));
    row("device", text(&document["device"]));
    row("command", text(&document["command"]));
    Ok(Description { kind: KIND, rows, json: document })
}
