//! Files in a run folder that no run of this program has written: they are never replaced.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;
use crate::particles::Subset;
use crate::run_folder::{checkpoint, excluded, metrics, names};

/// Values of `state` in run.json.
const STATES: [&str; 4] = ["training", "running", "stopped", "done"];

/// Checks that the files in `folder` whose names are those of a run's files are of a run of this program: its run.json or a checkpoint
/// proves it.
///
/// # Errors
/// Names the first file of another origin.
pub(super) fn check(folder: &Path) -> Result<()> {
    if is_record(&folder.join(names::RUN)) || has_checkpoint(folder) {
        return Ok(());
    }
    let of_models = Subset::ALL.into_iter().flat_map(|model| {
        let [metrics, excluded] = [metrics::path(folder, model), excluded::path(folder, model)];
        names::of_model(model).map(|name| folder.join(name)).into_iter().chain([metrics, excluded])
    });
    let of_run = names::OUTPUTS.into_iter().chain([names::RUN]).map(|name| folder.join(name));
    let mut all = of_run.chain(of_models);
    match all.find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Error::input(
            path,
            "",
            "is not of a run of this program, and the run would replace it",
            "choose another folder, or move the file away",
        )),
        None => Ok(()),
    }
}

/// Whether the file is the run.json of a run of this program.
fn is_record(path: &Path) -> bool {
    let run: Value =
        files::read_bytes(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    run["state"].as_str().is_some_and(|state| STATES.contains(&state)) && run["command"].is_array()
}

fn has_checkpoint(folder: &Path) -> bool {
    let at = names::checkpoints(folder);
    let paths = Subset::ALL.into_iter().flat_map(|model| {
        let (at, steps) = (at.clone(), checkpoint::steps(&at, model));
        steps.into_iter().map(move |step| checkpoint::path(&at, model, step))
    });
    paths.into_iter().any(|path| checkpoint::is_checkpoint(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_folder::lifecycle;

    #[test]
    fn files_of_others_are_refused_and_those_of_a_run_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check(folder.path()).unwrap();
        check(&at("none")).unwrap();
        std::fs::write(at("notes.txt"), "mine").unwrap();
        check(folder.path()).unwrap();
        for name in ["map.mrc", "half2.mrc", "gmm_half1.h5", "run.json", "metrics_half1.jsonl", "report.html"]
        {
            std::fs::write(at(name), r#"{"state": "open"}"#).unwrap();
            let message = check(folder.path()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("not of a run of this program"), "{message}");
            std::fs::remove_file(at(name)).unwrap();
        }
        // A link may lead to a file of the user.
        std::os::unix::fs::symlink(at("notes.txt"), at("map.mrc")).unwrap();
        assert!(check(folder.path()).is_err());
        lifecycle::write_state(folder.path(), "stopped", &[]).unwrap();
        check(folder.path()).unwrap();
    }
}
