//! The run folder at the start of a run: what an older run left in it, and from where a resumed one goes on.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::{self, Pending};
use crate::run_folder::checkpoint::{self, Checkpoint};
use crate::run_folder::excluded;
use crate::run_folder::metrics;

/// Models that a run may have.
const MODELS: [&str; 3] = ["half1", "half2", "map"];
/// Outputs that are not of one model.
const OUTPUTS: [&str; 7] =
    ["map.mrc", "mask.mrc", "fsc.csv", "fsc.svg", "fsc.png", "slices.png", "report.html"];

/// What a run does about an older one in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// Refuse to start.
    Refuse,
    /// Remove its files, when everything else is ready.
    Replace,
    /// Go on from its checkpoints, which must be there and of the same run; do nothing where it is done.
    Resume,
    /// The same, but start where there are none.
    ResumeOrStart,
}

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// All is there already.
    Done,
    /// Each model after so many steps, which are 0 or those of a checkpoint that can be read; and the first epoch that some
    /// model has not done.
    At {
        /// Steps of the models, in their order.
        steps: Vec<u64>,
        /// From 0.
        epoch: usize,
        /// The largest number of ranks that trained a model.
        ranks: usize,
    },
}

/// The checkpoints of a run folder.
pub fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// Looks at the folder before anything is done, makes it, and tries to write there. `identities` are the models of this
/// run with what their checkpoints must share.
///
/// # Errors
/// When an older run is in the way or, to resume, is another one, is not there, or cannot be read; when the folder cannot be
/// written.
pub fn prepare(folder: &Path, older: Older, identities: &[(&str, String)]) -> Result<Start> {
    let checkpoints = checkpoints(folder);
    files::make_folder(&checkpoints)?;
    // Try to write now, not after hours of training.
    drop(Pending::new(&checkpoints.join("half1"))?);
    drop(Pending::new(&folder.join("run.json"))?);
    let last = MODELS.iter().filter_map(|model| checkpoint::steps(&checkpoints, model).pop()).max();
    let fresh = Start::At { steps: vec![0; identities.len()], epoch: 0, ranks: 0 };
    match older {
        Older::Replace => Ok(fresh),
        Older::Refuse if last.is_some() || done(folder).is_some() => Err(Error::input(
            folder,
            "",
            match last {
                Some(step) => format!("holds a run already, with checkpoints up to step {step}"),
                None => "holds a run that is done".into(),
            },
            "go on with it (--resume), replace it (--overwrite), or choose another folder",
        )),
        Older::Refuse => Ok(fresh),
        Older::Resume | Older::ResumeOrStart => {
            if let Some((models, identity)) = done(folder) {
                let same = models.iter().eq(identities.iter().map(|(name, _)| name));
                same_run(&folder.join("run.json"), &identity, same.then_some(identities[0].1.as_str()))?;
                return Ok(Start::Done);
            }
            if last.is_none() && older == Older::Resume {
                return Err(Error::input(
                    folder,
                    "",
                    "holds no checkpoint to go on from",
                    "leave out --resume, or use --resume auto, which then starts from the beginning",
                ));
            }
            resume(&checkpoints, identities)
        }
    }
}

/// The newest checkpoint of each model that can be read.
fn resume(checkpoints: &Path, identities: &[(&str, String)]) -> Result<Start> {
    for model in MODELS {
        let known = identities.iter().any(|(name, _)| *name == model);
        if let (false, Some(step)) = (known, checkpoint::steps(checkpoints, model).pop()) {
            let path = checkpoint::path(checkpoints, model, step);
            same_run(&path, "", None)?;
        }
    }
    let (mut steps, mut epochs, mut ranks) = (Vec::new(), Vec::new(), 0);
    for (model, identity) in identities {
        let mut found = None;
        let mut unreadable = None;
        for step in checkpoint::steps(checkpoints, model).into_iter().rev() {
            let path = checkpoint::path(checkpoints, model, step);
            match Checkpoint::read(&path) {
                Ok(checkpoint) => {
                    same_run(&path, &checkpoint.identity, Some(identity))?;
                    found = Some(checkpoint);
                    break;
                }
                Err(error) => {
                    tracing::warn!("{error} (going on from the one before it, if there is one)");
                    unreadable.get_or_insert(error);
                }
            }
        }
        match (found, unreadable) {
            (Some(checkpoint), _) => {
                steps.push(checkpoint.clock.step);
                epochs.push(checkpoint.position.epoch);
                ranks = ranks.max(checkpoint.ranks);
            }
            // To begin again could throw days of work away: that is for the user to say.
            (None, Some(error)) => return Err(error),
            (None, None) => {
                steps.push(0);
                epochs.push(0);
            }
        }
    }
    Ok(Start::At { steps, epoch: epochs.into_iter().min().unwrap_or(0), ranks })
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
    let settings = |of: &Value| of["settings"].as_object().cloned().unwrap_or_default();
    let (before, now) = (settings(&old), settings(&new));
    // What one of them does not have is null there.
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    for key in now.keys().chain(gone) {
        let (before, now) = (&old["settings"][key], &new["settings"][key]);
        if before != now {
            all.push(format!("{} was {before} and is {now}", key.replace('_', " ")));
        }
    }
    if all.is_empty() { "it was written by another version".into() } else { all.join(", ") }
}

/// The models and the identity of the run that the folder holds, if that is done.
fn done(folder: &Path) -> Option<(Vec<String>, String)> {
    let text = std::fs::read_to_string(folder.join("run.json")).ok()?;
    let run: Value = serde_json::from_str(&text).ok()?;
    let models = run["particles"]["models"].as_array().into_iter().flatten();
    let models = models.map(|model| model["name"].as_str().unwrap_or_default().to_owned()).collect();
    (run["state"] == "done").then(|| (models, run["identity"].as_str().unwrap_or_default().to_owned()))
}

/// Makes the folder that of this run, once nothing but training is left to do: without what an older run left, or, where
/// `models` (by name) have done some steps, without what came after these. Writes run.json.
///
/// # Errors
/// When a file cannot be removed or written.
pub fn begin(folder: &Path, models: &[(&str, u64)], command: &[String]) -> Result<()> {
    clear(folder, models)?;
    write_state(folder, "training", command)
}

/// Removes what an older run left, as [`begin`] says.
fn clear(folder: &Path, models: &[(&str, u64)]) -> Result<()> {
    // A run that was killed while it wrote.
    for place in [folder, &checkpoints(folder)] {
        for torn in files::torn(place) {
            remove(torn)?;
        }
    }
    let fresh = models.iter().all(|(_, step)| *step == 0);
    if fresh {
        for name in OUTPUTS {
            remove(folder.join(name))?;
        }
    }
    for model in MODELS {
        let kept = models.iter().find(|(name, _)| *name == model).map_or(0, |(_, step)| *step);
        for step in checkpoint::steps(&checkpoints(folder), model) {
            if step > kept || kept == 0 {
                remove(checkpoint::path(&checkpoints(folder), model, step))?;
            }
        }
        if kept > 0 {
            metrics::trim(folder, model, kept)?;
        } else {
            remove(metrics::path(folder, model))?;
            remove(excluded::path(folder, model))?;
        }
        if fresh {
            for name in [format!("{model}.mrc"), format!("gmm_{model}.h5"), format!("gmm_{model}.ply")] {
                remove(folder.join(name))?;
            }
        }
    }
    Ok(())
}

/// The settings of the run that the folder holds: of run.json where it is done, else of its newest checkpoint that can be read;
/// null where there is none.
pub fn settings(folder: &Path) -> Value {
    let checkpoints = checkpoints(folder);
    let files = MODELS.iter().flat_map(|model| {
        let steps = checkpoint::steps(&checkpoints, model).into_iter().rev();
        steps.map(|step| checkpoint::path(&checkpoints, model, step))
    });
    let of_file = |file: PathBuf| checkpoint::read_identity(&file).ok();
    let identity = done(folder).map(|(_, identity)| identity).or_else(|| files.into_iter().find_map(of_file));
    let identity: Value = serde_json::from_str(&identity.unwrap_or_default()).unwrap_or_default();
    identity["settings"].clone()
}

/// [`prepare`] for a run without checkpoints.
///
/// # Errors
/// When an older run is in the way, or the folder cannot be written.
pub fn prepare_whole(folder: &Path, overwrite: bool) -> Result<()> {
    files::make_folder(folder)?;
    drop(Pending::new(&folder.join("run.json"))?);
    let trained = MODELS.iter().any(|model| !checkpoint::steps(&checkpoints(folder), model).is_empty());
    if (trained || done(folder).is_some()) && !overwrite {
        return Err(Error::input(
            folder,
            "",
            "holds a run already",
            "replace it (--overwrite), or choose another folder",
        ));
    }
    Ok(())
}

/// [`begin`] for a run without checkpoints.
///
/// # Errors
/// As [`begin`].
pub fn begin_whole(folder: &Path, command: &[String]) -> Result<()> {
    clear(folder, &[])?;
    // Stays where it is not empty: then it holds more than checkpoints.
    let _ = std::fs::remove_dir(checkpoints(folder));
    write_state(folder, "running", command)
}

fn remove(path: PathBuf) -> Result<()> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(&path, "remove the old run's file", "remove it by hand, or choose another folder")(
                error,
            ))
        }
        _ => Ok(()),
    }
}

/// Writes the run.json of a run that is not done: `state` is "training", "running" or "stopped".
///
/// # Errors
/// When it cannot be written.
pub fn write_state(folder: &Path, state: &str, command: &[String]) -> Result<()> {
    files::write_atomically(&folder.join("run.json"), |w| {
        writeln!(w, "{}", json!({"state": state, "command": command}))
    })
}

/// Writes the run.json of a run that is done, last of all its files.
///
/// # Errors
/// When it cannot be written.
pub fn write_document(folder: &Path, document: &Value) -> Result<()> {
    files::write_json(&folder.join("run.json"), document)
}

#[cfg(test)]
mod tests {
    use crate::run_folder::lifecycle::*;

    #[test]
    fn only_checkpoints_behind_those_gone_on_from_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = checkpoints(folder.path());
        files::make_folder(&at).unwrap();
        let left = |models: &[(&str, u64)]| {
            for model in MODELS {
                for step in [5, 10, 15] {
                    std::fs::write(checkpoint::path(&at, model, step), b"").unwrap();
                }
            }
            begin(folder.path(), models, &[]).unwrap();
            MODELS.map(|model| checkpoint::steps(&at, model))
        };
        assert_eq!(left(&[("half1", 10), ("half2", 15)]), [vec![5, 10], vec![5, 10, 15], vec![]]);
        assert_eq!(left(&[("half1", 0), ("half2", 5)]), [vec![], vec![5], vec![]]);
        assert_eq!(left(&[("map", 0)]), [const { Vec::<u64>::new() }; 3]);
    }

    #[test]
    fn differences_are_named() {
        let old = r#"{"particles":"0a","settings":{"batch":8,"learning_rate":1e-3,"seed":0}}"#;
        let new = r#"{"particles":"0b","settings":{"batch":4,"learning_rate":1e-3,"seed":0}}"#;
        let said = differences(old, new);
        assert_eq!(said, "particle set was \"0a\" and is \"0b\", batch was 8 and is 4");
        let none = r#"{"particles":"0a","settings":{"batch":8}}"#;
        let some = r#"{"particles":"0a","settings":{"batch":8,"init":{"low_pass":30.0}}}"#;
        assert_eq!(differences(none, some), r#"init was null and is {"low_pass":30.0}"#);
        assert_eq!(differences(some, none), r#"init was {"low_pass":30.0} and is null"#);
    }
}
