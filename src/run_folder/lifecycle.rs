//! The run folder from start to end: an older run in it, the point of resumption, and the state in `run.json`.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::{self, Pending};
use crate::particles::Subset;
use crate::recipe::Settings;
use crate::run_folder::checkpoint::{self, Checkpoint};
use crate::run_folder::identity::{self, RunIdentity};
use crate::run_folder::{excluded, metrics, names};

/// Outputs that do not belong to one model.
const OUTPUTS: [&str; 9] = [
    names::MAP,
    names::MASK,
    names::FSC_TABLE,
    "fsc.svg",
    "fsc.png",
    names::SLICES,
    names::NOISE,
    names::PARTICLES,
    names::REPORT,
];

/// What a run does about an older run in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingRun {
    /// Refuse to start.
    Refuse,
    /// Remove its files, as soon as the new run is ready to train.
    Replace,
    /// Resume from its checkpoints, which must exist and be of the same run; do nothing if it is done.
    Resume,
    /// The same, but start from the beginning if there are no checkpoints.
    ResumeOrStart,
}

/// Where a run starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nowhere: it is done.
    Done,
    /// At its beginning, or at the newest readable checkpoint of each model.
    At {
        /// Steps done by each model, in the order of the models.
        steps: Vec<u64>,
        /// First epoch, from 0, that some model has not finished.
        epoch: usize,
        /// Largest number of ranks that trained a model; 0 at the beginning.
        ranks: usize,
    },
}

/// The folder of the checkpoints.
pub fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// Creates the folder, checks that it can be written, and finds where the run starts. `identities` are the models of this run with
/// the identity that their checkpoints must have.
///
/// # Errors
/// When there is an older run and it may not be replaced; when the run to resume is another one, does not exist or cannot be read;
/// when the folder cannot be written.
pub(crate) fn prepare(
    folder: &Path,
    existing: ExistingRun,
    identities: &[(Subset, RunIdentity)],
) -> Result<Start> {
    let checkpoints = checkpoints(folder);
    files::create_folder(&checkpoints)?;
    // Fail now, not after hours of training.
    drop(Pending::new(&checkpoints.join("half1"))?);
    drop(Pending::new(&folder.join(names::RUN))?);
    let last = Subset::ALL.iter().filter_map(|&model| checkpoint::steps(&checkpoints, model).pop()).max();
    let fresh = Start::At { steps: vec![0; identities.len()], epoch: 0, ranks: 0 };
    match existing {
        ExistingRun::Replace => Ok(fresh),
        ExistingRun::Refuse if last.is_some() || done(folder).is_some() => Err(Error::input(
            folder,
            "",
            match last {
                Some(step) => format!("holds a run already, with checkpoints up to step {step}"),
                None => "holds a run that is done".into(),
            },
            "resume it (--resume), replace it (--overwrite), or choose another folder",
        )),
        ExistingRun::Refuse => Ok(fresh),
        ExistingRun::Resume | ExistingRun::ResumeOrStart => {
            if let Some(done) = done(folder) {
                let path = folder.join(names::RUN);
                if !done.models.iter().eq(identities.iter().map(|(subset, _)| subset.name())) {
                    return Err(identity::other_model(&path));
                }
                RunIdentity::from_json(&path, &done.identity)?.check_same(&path, &identities[0].1)?;
                return Ok(Start::Done);
            }
            if last.is_none() && existing == ExistingRun::Resume {
                return Err(Error::input(
                    folder,
                    "",
                    "holds no checkpoint to resume from",
                    "leave out --resume, or use --resume auto, which then starts from the beginning",
                ));
            }
            resume(&checkpoints, identities)
        }
    }
}

/// Resumes at the newest checkpoint of each model that can be read.
fn resume(checkpoints: &Path, identities: &[(Subset, RunIdentity)]) -> Result<Start> {
    for model in Subset::ALL {
        let is_trained = identities.iter().any(|(subset, _)| *subset == model);
        if let (false, Some(step)) = (is_trained, checkpoint::steps(checkpoints, model).pop()) {
            return Err(identity::other_model(&checkpoint::path(checkpoints, model, step)));
        }
    }
    let (mut steps, mut epochs, mut ranks) = (Vec::new(), Vec::new(), 0);
    for (model, identity) in identities {
        let mut found = None;
        let mut unreadable = None;
        for step in checkpoint::steps(checkpoints, *model).into_iter().rev() {
            let path = checkpoint::path(checkpoints, *model, step);
            match Checkpoint::read(&path) {
                Ok(checkpoint) => {
                    checkpoint.identity.check_same(&path, identity)?;
                    found = Some(checkpoint);
                    break;
                }
                Err(error) => {
                    tracing::warn!("{error} (resuming from the one before it, if there is one)");
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
            // Starting again could discard days of work: the user decides.
            (None, Some(error)) => return Err(error),
            (None, None) => {
                steps.push(0);
                epochs.push(0);
            }
        }
    }
    Ok(Start::At { steps, epoch: epochs.into_iter().min().unwrap_or(0), ranks })
}

/// A finished run, from its `run.json`.
struct DoneRun {
    /// Names of its models.
    models: Vec<String>,
    /// Its identity as JSON.
    identity: String,
}

/// The finished run in the folder, if there is one.
fn done(folder: &Path) -> Option<DoneRun> {
    let text = std::fs::read_to_string(folder.join(names::RUN)).ok()?;
    let run: Value = serde_json::from_str(&text).ok()?;
    let models = run["particles"]["models"].as_array().into_iter().flatten();
    let models = models.map(|model| model["name"].as_str().unwrap_or_default().to_owned()).collect();
    let identity = || run["identity"].as_str().unwrap_or_default().to_owned();
    (run["state"] == "done").then(|| DoneRun { models, identity: identity() })
}

/// Takes over the folder when the training starts: removes the files of an older run or, where `models` resume after some steps,
/// those of later steps. Writes run.json.
///
/// # Errors
/// When a file cannot be removed or written.
pub(crate) fn begin(folder: &Path, models: &[(Subset, u64)], command: &[String]) -> Result<()> {
    clear(folder, models)?;
    write_state(folder, "training", command)
}

/// Removes the files of an older run; see [`begin`].
fn clear(folder: &Path, models: &[(Subset, u64)]) -> Result<()> {
    // Temporary files of a run that was killed.
    for place in [folder, &checkpoints(folder)] {
        for leftover in files::leftovers(place) {
            remove(leftover)?;
        }
    }
    let fresh = models.iter().all(|(_, step)| *step == 0);
    if fresh {
        for name in OUTPUTS {
            remove(folder.join(name))?;
        }
    }
    for model in Subset::ALL {
        let kept = models.iter().find(|(subset, _)| *subset == model).map_or(0, |(_, step)| *step);
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
            for name in [names::map(model), names::mixture(model), names::mixture_ply(model)] {
                remove(folder.join(name))?;
            }
        }
    }
    Ok(())
}

/// The settings of the run in the folder: from run.json if it is done, else from the newest readable checkpoint.
pub(crate) fn settings(folder: &Path) -> Option<Settings> {
    let checkpoints = checkpoints(folder);
    let files = Subset::ALL.iter().flat_map(|&model| {
        let steps = checkpoint::steps(&checkpoints, model).into_iter().rev();
        let checkpoints = &checkpoints;
        steps.map(move |step| checkpoint::path(checkpoints, model, step))
    });
    let of_file = |file: PathBuf| checkpoint::read_identity(&file).ok();
    let identity = match done(folder) {
        Some(done) => RunIdentity::from_json(&folder.join(names::RUN), &done.identity).ok(),
        None => files.into_iter().find_map(of_file),
    };
    identity.map(|identity| identity.settings)
}

/// [`prepare`] for a run without checkpoints.
///
/// # Errors
/// When an older run is in the way, or the folder cannot be written.
pub fn prepare_whole(folder: &Path, overwrite: bool) -> Result<()> {
    files::create_folder(folder)?;
    drop(Pending::new(&folder.join(names::RUN))?);
    let trained =
        Subset::ALL.into_iter().any(|model| !checkpoint::steps(&checkpoints(folder), model).is_empty());
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
    // Fails where the folder holds other files, which stay.
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

/// Writes the run.json of an unfinished run: `state` is "training", "running" or "stopped".
///
/// # Errors
/// When it cannot be written.
pub fn write_state(folder: &Path, state: &str, command: &[String]) -> Result<()> {
    files::write_atomically(&folder.join(names::RUN), |w| {
        writeln!(w, "{}", json!({"state": state, "command": command}))
    })
}

/// Writes the run.json of a finished run, last of all its files.
///
/// # Errors
/// When it cannot be written.
pub fn write_document(folder: &Path, document: &Value) -> Result<()> {
    files::write_json(&folder.join(names::RUN), document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_after_the_resumed_step_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = checkpoints(folder.path());
        files::create_folder(&at).unwrap();
        let left = |models: &[(Subset, u64)]| {
            for model in Subset::ALL {
                for step in [5, 10, 15] {
                    std::fs::write(checkpoint::path(&at, model, step), b"").unwrap();
                }
            }
            begin(folder.path(), models, &[]).unwrap();
            Subset::ALL.map(|model| checkpoint::steps(&at, model))
        };
        assert_eq!(left(&[(Subset::Half1, 10), (Subset::Half2, 15)]), [vec![5, 10], vec![5, 10, 15], vec![]]);
        assert_eq!(left(&[(Subset::Half1, 0), (Subset::Half2, 5)]), [vec![], vec![5], vec![]]);
        assert_eq!(left(&[(Subset::All, 0)]), [const { Vec::<u64>::new() }; 3]);
    }
}
