//! The run folder at the start of a run: what an older run left in it, and from where a resumed one goes on.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkpoint;
use crate::error::{Error, Result};
use crate::files::{self, Pending};

/// Models that a run may have.
const MODELS: [&str; 3] = ["half1", "half2", "map"];
/// Outputs that are not of one model.
const OUTPUTS: [&str; 7] =
    ["map.mrc", "fsc.csv", "fsc.svg", "fsc.png", "slices.png", "metrics.jsonl", "report.html"];

/// What a run does about an older one in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// Refuse to start.
    Refuse,
    /// Remove its files, when everything else is ready.
    Replace,
    /// Go on from its checkpoints; they must be of the same run.
    Resume,
}

/// The checkpoints of a run folder.
pub fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// Looks at the folder before anything is done, makes it, and tries to write there. `identities` are the models of this
/// run with what their checkpoints must share. Returns the epochs that are done.
///
/// # Errors
/// When an older run is in the way or, to resume, is another one; when the folder cannot be written.
pub fn prepare(folder: &Path, older: Older, identities: &[(&str, String)]) -> Result<usize> {
    files::make_folder(&checkpoints(folder))?;
    // Try to write now, not after hours of training.
    drop(Pending::new(&checkpoints(folder).join("half1"))?);
    drop(Pending::new(&folder.join("run.json"))?);
    let found: Vec<(&str, Vec<usize>)> =
        MODELS.map(|model| (model, checkpoint::epochs(&checkpoints(folder), model))).into();
    let last = found.iter().filter_map(|(_, epochs)| epochs.last()).max();
    match older {
        Older::Replace => Ok(0),
        Older::Refuse if last.is_some() || is_done(folder) => Err(Error::input(
            folder,
            "",
            match last {
                Some(epoch) => format!("holds a run already, with checkpoints up to epoch {epoch}"),
                None => "holds a run that is done".into(),
            },
            "go on with it (--resume), replace it (--overwrite), or choose another folder",
        )),
        Older::Refuse => Ok(0),
        Older::Resume => {
            for (model, epochs) in &found {
                let identity =
                    identities.iter().find(|(name, _)| name == model).map(|(_, text)| text.as_str());
                for &epoch in epochs {
                    let path = checkpoint::path(&checkpoints(folder), model, epoch);
                    same_run(&path, &checkpoint::identity_of(&path)?, identity)?;
                }
            }
            let done = |name: &str| found.iter().find(|(model, _)| *model == name).map(|(_, epochs)| epochs);
            let all: Vec<&Vec<usize>> = identities.iter().filter_map(|(name, _)| done(name)).collect();
            // The last epoch that every model has a checkpoint of.
            let common = all[0].iter().rev().find(|epoch| all.iter().all(|one| one.contains(epoch)));
            Ok(common.copied().unwrap_or(0))
        }
    }
}

/// Checks that a checkpoint, which holds the identity `found`, is of the run with `identity`.
///
/// # Errors
/// Names the file and the settings that differ.
pub fn same_run(path: &Path, found: &str, identity: Option<&str>) -> Result<()> {
    const REMEDY: &str =
        "use the same particles and options, replace the old run (--overwrite), or choose another folder";
    match identity {
        Some(identity) if identity == found => Ok(()),
        Some(identity) => {
            let problem = format!("is of another run: {}", differences(found, identity));
            Err(Error::input(path, "", problem, REMEDY))
        }
        None => Err(Error::input(path, "", "is of a run with another --half", REMEDY)),
    }
}

/// "batch was 8 and is 4", of two identities.
fn differences(old: &str, new: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    let mut all = Vec::new();
    if old["particles"] != new["particles"] {
        all.push(format!("particle set was {} and is {}", old["particles"], new["particles"]));
    }
    for (key, value) in new["settings"].as_object().into_iter().flatten() {
        let before = &old["settings"][key];
        if before != value {
            all.push(format!("{} was {before} and is {value}", key.replace('_', " ")));
        }
    }
    if all.is_empty() { "it was written by another version".into() } else { all.join(", ") }
}

fn is_done(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("run.json")).unwrap_or_default();
    serde_json::from_str::<Value>(&text).is_ok_and(|run| run["state"] == "done")
}

/// Makes the folder that of this run, once nothing but training is left to do: without what an older run left (`epoch`
/// 0), or with the metrics of the epochs that are done. Writes run.json.
///
/// # Errors
/// When a file cannot be removed or written.
pub fn begin(folder: &Path, epoch: usize, command: &[String]) -> Result<()> {
    let remove = |path: PathBuf| match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(&path, "remove the old run's file", "remove it by hand, or choose another folder")(
                error,
            ))
        }
        _ => Ok(()),
    };
    // A run that was killed while it wrote.
    for place in [folder, &checkpoints(folder)] {
        for torn in files::torn(place) {
            remove(torn)?;
        }
    }
    if epoch == 0 {
        for name in OUTPUTS {
            remove(folder.join(name))?;
        }
        for model in MODELS {
            for name in [format!("{model}.mrc"), format!("gmm_{model}.h5"), format!("gmm_{model}.ply")] {
                remove(folder.join(name))?;
            }
            for epoch in checkpoint::epochs(&checkpoints(folder), model) {
                remove(checkpoint::path(&checkpoints(folder), model, epoch))?;
            }
        }
    } else {
        trim_metrics(&folder.join("metrics.jsonl"), epoch)?;
    }
    files::write_atomically(&folder.join("run.json"), |w| {
        writeln!(w, "{}", json!({"state": "training", "command": command}))
    })
}

/// Keeps the lines of epochs that are done: those after the checkpoint come again, and the last may be torn.
fn trim_metrics(path: &Path, epoch: usize) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            line.ends_with('\n') && value["epoch"].as_f64().is_some_and(|at| at <= epoch as f64)
        })
        .collect();
    files::write_atomically(path, |w| w.write_all(kept.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_after_the_checkpoint_and_torn_lines_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |model: &str, epoch: f64| format!("{}\n", json!({"model": model, "epoch": epoch}));
        let done = line("half1", 0.5) + &line("half2", 1.0);
        std::fs::write(&path, done.clone() + &line("half1", 1.25) + "{\"model\":\"ha").unwrap();
        trim_metrics(&path, 1).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), done);
    }

    #[test]
    fn differences_are_named() {
        let old = r#"{"particles":"0a","settings":{"batch":8,"learning_rate":1e-3,"seed":0}}"#;
        let new = r#"{"particles":"0b","settings":{"batch":4,"learning_rate":1e-3,"seed":0}}"#;
        let said = differences(old, new);
        assert_eq!(said, "particle set was \"0a\" and is \"0b\", batch was 8 and is 4");
    }
}
