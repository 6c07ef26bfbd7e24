//! The files of a run among the inputs and outputs of a command.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::Claims;
use crate::particles::Subset;
use crate::particles::sources;
use crate::particles::store::Store;
use crate::run_folder::{checkpoint, excluded, metrics, names};

/// Every file that a run in `folder` may write; of the checkpoints, those that exist.
fn files(folder: &Path) -> Vec<PathBuf> {
    let of_all = names::OUTPUTS.iter().chain(names::ORIGINALS.iter().map(|(_, name)| name));
    let mut files: Vec<PathBuf> =
        of_all.chain([&names::RUN, &names::LOG]).map(|name| folder.join(name)).collect();
    let checkpoints = names::checkpoints(folder);
    for model in Subset::ALL {
        // The map of all particles is `names::MAP`.
        let of_model = names::of_model(model).into_iter().filter(|name| name != names::MAP);
        files.extend(of_model.map(|name| folder.join(name)));
        files.extend([metrics::path(folder, model), excluded::path(folder, model)]);
        let steps = checkpoint::steps(&checkpoints, model);
        files.extend(steps.into_iter().map(|step| checkpoint::path(&checkpoints, model, step)));
    }
    files
}

/// Claims the files of the run in the folder `path`, or in the folder of the file `path` if there is a run, as inputs.
pub(crate) fn reads_run_of(claims: &mut Claims, path: &Path) {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    if folder.join(names::RUN).is_file() {
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let what = format!("a file of the run in {}", shown.display());
        for file in files(folder) {
            claims.reads(file, what.as_str());
        }
    }
}

/// Checks that a run on the particles of `store` in `folder` overwrites neither them, nor what they were imported from, nor `others`,
/// which the run reads: each with what it is.
///
/// # Errors
/// Names the file that would be overwritten or removed.
pub(crate) fn check_run(folder: &Path, store: &Store, others: &[(Option<&Path>, &str)]) -> Result<()> {
    let mut claims = Claims::new();
    sources::reads(claims.creates(folder).writes_all(files(folder)), store);
    for (path, what) in others {
        claims.reads_some(*path, what);
    }
    claims.check()
}
