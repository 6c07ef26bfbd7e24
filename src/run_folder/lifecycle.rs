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
use crate::run_folder::owner::{Owner, Request};
use crate::run_folder::{excluded, foreign, log, metrics, names};

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
    /// Continue the finished run for more epochs, from its last checkpoints.
    Extend,
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

/// Takes the run folder for this job, which releases it when the returned value is dropped. `None` where the run to resume is done. A
/// folder that is refused stays as it was.
///
/// # Errors
/// When a living job holds the folder; when it holds a run that may not be replaced, no run that could be resumed, or files that no run
/// has written; when it cannot be written.
pub(crate) fn enter(folder: &Path, existing: ExistingRun, request: &Request) -> Result<Option<Owner>> {
    // A folder that nobody holds is judged before anything in it is made.
    if folder.join(names::OWNER).symlink_metadata().is_err() && !has_work(folder, existing)? {
        return Ok(None);
    }
    let owner = Owner::take(folder, request)?;
    // Another job may have written to it meanwhile.
    Ok(has_work(folder, existing)?.then_some(owner))
}

/// Whether something is left to do for a run in `folder`, by what the folder holds.
fn has_work(folder: &Path, existing: ExistingRun) -> Result<bool> {
    let last = last_checkpoint(folder);
    let is_done = done(folder).is_some();
    match existing {
        ExistingRun::Refuse if last.is_some() || is_done => {
            return Err(Error::input(
                folder,
                "",
                match last {
                    Some(step) => format!("holds a run already, with checkpoints up to step {step}"),
                    None => "holds a run that is done".into(),
                },
                "resume it (--resume), replace it (--overwrite), or choose another folder",
            ));
        }
        ExistingRun::Resume if last.is_none() && !is_done => {
            return Err(Error::input(
                folder,
                "",
                "holds no checkpoint to resume from",
                "leave out --resume, or use --resume auto, which then starts from the beginning",
            ));
        }
        ExistingRun::Extend if last.is_none() => {
            return Err(Error::input(
                folder,
                "checkpoints",
                "holds no checkpoint from which the run could be extended",
                "train again with as many --epochs (--overwrite), or start from its mixture (--init)",
            ));
        }
        _ => {}
    }
    foreign::check(folder)?;
    Ok(!(is_done && matches!(existing, ExistingRun::Resume | ExistingRun::ResumeOrStart)))
}

/// The step of the newest checkpoint of any model.
fn last_checkpoint(folder: &Path) -> Option<u64> {
    let checkpoints = names::checkpoints(folder);
    Subset::ALL.iter().filter_map(|&model| checkpoint::steps(&checkpoints, model).pop()).max()
}

/// Finds where the run starts, in the folder that `owner` holds, and checks that it can be written; without an owner, the run in the folder
/// is done. `identities` are the models of this run with the identity that their checkpoints must have.
///
/// # Errors
/// When the run to resume is another one or cannot be read; when the folder cannot be written.
pub(crate) fn prepare(
    folder: &Path,
    owner: Option<&mut Owner>,
    existing: ExistingRun,
    identities: &[(Subset, RunIdentity)],
) -> Result<Start> {
    let Some(owner) = owner else {
        check_done(folder, identities)?;
        return Ok(Start::Done);
    };
    let checkpoints = names::checkpoints(folder);
    let start = match existing {
        ExistingRun::Replace | ExistingRun::Refuse => {
            Start::At { steps: vec![0; identities.len()], epoch: 0, ranks: 0 }
        }
        ExistingRun::Resume | ExistingRun::ResumeOrStart | ExistingRun::Extend => {
            resume(&checkpoints, identities)?
        }
    };
    // Fail now, not after hours of training.
    owner.create_folder(&checkpoints)?;
    drop(Pending::new(&checkpoints.join("half1"))?);
    drop(Pending::new(&folder.join(names::RUN))?);
    Ok(start)
}

/// Checks that the finished run in the folder is the one of `identities`.
fn check_done(folder: &Path, identities: &[(Subset, RunIdentity)]) -> Result<()> {
    let path = folder.join(names::RUN);
    let Some(done) = done(folder) else {
        return Err(Error::input(&path, "", "was changed by another program meanwhile", "start again"));
    };
    if !done.models.iter().eq(identities.iter().map(|(subset, _)| subset.name())) {
        return Err(identity::other_model(&path));
    }
    RunIdentity::from_json(&path, &done.identity)?.check_same(&path, &identities[0].1)
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
                    checkpoint.identity.check_continues(&path, identity, checkpoint.position.epoch)?;
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
    let text = files::read_text(&folder.join(names::RUN)).ok()?;
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
    for place in [folder, &names::checkpoints(folder)] {
        for leftover in files::leftovers(place).into_iter().chain(names::made_before_training(place)) {
            remove(leftover)?;
        }
    }
    let fresh = models.iter().all(|(_, step)| *step == 0);
    if fresh {
        if folder.join(names::REFINEMENT).exists() {
            // Only a run that refines writes them; another file of such a name is the user's.
            for (_, name) in names::ORIGINALS {
                remove(folder.join(name))?;
            }
        }
        for name in names::OUTPUTS {
            remove(folder.join(name))?;
        }
        log::remove_old(folder);
    } else {
        // An extended run is no longer the one that was diagnosed.
        remove(folder.join(names::DIAGNOSIS))?;
    }
    for model in Subset::ALL {
        let kept = models.iter().find(|(subset, _)| *subset == model).map_or(0, |(_, step)| *step);
        for step in checkpoint::steps(&names::checkpoints(folder), model) {
            if step > kept || kept == 0 {
                remove(checkpoint::path(&names::checkpoints(folder), model, step))?;
            }
        }
        if kept > 0 {
            metrics::trim(folder, model, kept)?;
        } else {
            remove(metrics::path(folder, model))?;
            remove(excluded::path(folder, model))?;
        }
        if fresh {
            for name in names::of_model(model) {
                remove(folder.join(name))?;
            }
        }
    }
    Ok(())
}

/// The settings of the run in the folder: from run.json if it is done, else from the newest readable checkpoints. A job that was killed
/// at the first of an extension has checkpoints of both kinds: the extended one counts.
pub(crate) fn settings(folder: &Path) -> Option<Settings> {
    let checkpoints = names::checkpoints(folder);
    let newest = |model: Subset| {
        let steps = checkpoint::steps(&checkpoints, model).into_iter().rev();
        let mut files = steps.map(|step| checkpoint::path(&checkpoints, model, step));
        files.find_map(|file| checkpoint::read_identity(&file).ok())
    };
    let identity = match done(folder) {
        Some(done) => RunIdentity::from_json(&folder.join(names::RUN), &done.identity).ok(),
        None => {
            let of_models = Subset::ALL.into_iter().filter_map(newest);
            of_models.rev().max_by_key(|identity| identity.settings.extensions.len())
        }
    };
    identity.map(|identity| identity.settings)
}

/// [`enter`] for a run without checkpoints.
///
/// # Errors
/// As [`enter`].
pub(crate) fn enter_whole(folder: &Path, overwrite: bool, request: &Request) -> Result<Owner> {
    let existing = if overwrite { ExistingRun::Replace } else { ExistingRun::Refuse };
    let owner = enter(folder, existing, request)?.expect("nothing is resumed");
    drop(Pending::new(&folder.join(names::RUN))?);
    Ok(owner)
}

/// [`begin`] for a run without checkpoints.
///
/// # Errors
/// As [`begin`].
pub fn begin_whole(folder: &Path, command: &[String]) -> Result<()> {
    clear(folder, &[])?;
    // Fails where the folder holds other files, which stay.
    let _ = std::fs::remove_dir(names::checkpoints(folder));
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
        writeln!(w, "{}", json!({"state": state, "program": "cryosplat-mpi", "command": command}))
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
    fn what_killed_runs_have_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = names::checkpoints(folder.path());
        files::create_folder(&at).unwrap();
        let left = [at.join(".trial-12.h5"), folder.path().join(".owner.json-after-ab")];
        left.iter().for_each(|path| std::fs::write(path, b"").unwrap());
        begin(folder.path(), &[(Subset::All, 0)], &[]).unwrap();
        assert!(left.iter().all(|path| !path.exists()));
    }

    #[test]
    fn checkpoints_after_the_resumed_step_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = names::checkpoints(folder.path());
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
