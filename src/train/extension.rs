//! A finished run that is continued for more epochs.

use super::options::RunOptions;
use crate::error::{Error, Result};
use crate::recipe::{Choices, Settings};
use crate::run_folder::lifecycle::{self, ExistingRun};

/// Sets the extensions of a run in `choices`: those of the run that is resumed, and one more where `--extend-epochs` exceeds them.
/// Returns what the run does about the one in its folder.
///
/// The number of `--extend-epochs` counts from the end of the recipe, so that the same command resumes an extension that was stopped,
/// and does nothing once it is done.
///
/// # Errors
/// When there is no run to extend, or it has been extended further.
pub(super) fn decide(options: &RunOptions, choices: &mut Choices) -> Result<ExistingRun> {
    let existing = options.existing_run;
    if matches!(existing, ExistingRun::Refuse | ExistingRun::Replace) {
        return Ok(existing);
    }
    let older = lifecycle::settings(&options.output);
    let Some(wanted) = options.extend_epochs else {
        choices.extensions = older.map(|older| older.extensions).unwrap_or_default();
        return Ok(existing);
    };
    let Some(older) = older else {
        let problem = "holds no run that could be extended";
        return Err(Error::input(&options.output, "", problem, "leave out --extend-epochs"));
    };
    let done: usize = older.extensions.iter().sum();
    choices.extensions = older.extensions;
    if wanted < done {
        let problem = format!("was extended by {done} epochs already, more than --extend-epochs {wanted}");
        let remedy = format!("give --extend-epochs {done} or more, or leave it out");
        return Err(Error::input(&options.output, "", problem, remedy));
    }
    if wanted == done {
        return Ok(existing);
    }
    choices.extensions.push(wanted - done);
    Ok(ExistingRun::Extend)
}

/// Logs the extension of a run of `settings`.
pub(super) fn log(settings: &Settings) {
    let first = settings.epochs - settings.extensions.last().copied().unwrap_or_default() + 1;
    tracing::info!("the finished run is extended: epochs {first} to {}", settings.epochs);
}
