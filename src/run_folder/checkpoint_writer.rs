//! Writes checkpoints in a separate thread, while training continues.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::error::Result;
use crate::particles::Subset;
use crate::run_folder::checkpoint::Checkpoint;
use crate::run_folder::owner::Claim;

/// Writes the checkpoints of one model, one at a time.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PathBuf,
    subset: Subset,
    claim: Claim,
    writing: Option<JoinHandle<Result<()>>>,
}

impl CheckpointWriter {
    /// For the checkpoints of the model of `subset` in `folder`, which are written while `claim` holds.
    pub fn new(folder: PathBuf, subset: Subset, claim: Claim) -> Self {
        Self { folder, subset, claim, writing: None }
    }

    /// Starts to write `checkpoint`, after the previous one is written. A failure does not end the run: it is logged, and earlier
    /// checkpoints are untouched.
    pub fn save(&mut self, checkpoint: Checkpoint) {
        self.wait();
        let (folder, subset, claim) = (self.folder.clone(), self.subset, self.claim.clone());
        let write = move || {
            let outcome = claim.check().and_then(|()| checkpoint.write(&folder, subset));
            if let Err(error) = &outcome {
                tracing::warn!(
                    "NO CHECKPOINT of {subset} after step {}: {error}. Training continues; if the run ends now, everything \
                     since its last checkpoint is lost",
                    checkpoint.clock.step
                );
            }
            outcome
        };
        match std::thread::Builder::new().name("checkpoint".into()).spawn(write.clone()) {
            Ok(thread) => self.writing = Some(thread),
            // No thread could be started: write here.
            Err(_) => drop(write()),
        }
    }

    /// Waits until the last checkpoint is written. False if it could not be.
    pub fn wait(&mut self) -> bool {
        self.writing.take().is_none_or(|thread| matches!(thread.join(), Ok(Ok(()))))
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use crate::gmm::{Gmm, Shape};
    use crate::particles::store::SetDigests;
    use crate::random::{Purpose, stream};
    use crate::recipe::{Choices, Clock, Recipe, Settings};
    use crate::render::DeviceState;
    use crate::run_folder::checkpoint::{Position, path};
    use crate::run_folder::checkpoint_writer::*;
    use crate::run_folder::identity::RunIdentity;

    #[test]
    fn waiting_reports_whether_the_checkpoint_was_written() {
        let folder = tempfile::tempdir().unwrap();
        // Some megabytes, so that writing takes a while.
        let gmm = Gmm::random(30_000, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        let moments = vec![0.5; gmm.values().len()];
        let mut checkpoint = Checkpoint {
            position: Position::default(),
            clock: Clock { step: 7, ..Clock::default() },
            state: DeviceState { first: moments.clone(), second: moments, gmm },
            trained: vec![],
            excluded: vec![],
            appraisal: None,
            refinement: None,
            ranks: 1,
            identity: RunIdentity::new(
                &SetDigests::default(),
                &Settings::resolve(Recipe::Paper, &Choices::default(), false, 3.0, 1, 10, 16),
            ),
        };
        let read = |step| Checkpoint::read(&path(folder.path(), Subset::Half1, step)).unwrap();
        let claim = Claim::for_tests(folder.path());
        let mut writer = CheckpointWriter::new(folder.path().to_owned(), Subset::Half1, claim.clone());
        writer.save(checkpoint.clone());
        assert!(writer.wait());
        assert_eq!(read(7), checkpoint);
        assert!(writer.wait(), "nothing is being written");
        checkpoint.clock.step = 8;
        writer.save(checkpoint.clone());
        drop(writer);
        assert_eq!(read(8), checkpoint);
        let mut writer = CheckpointWriter::new(folder.path().join("none"), Subset::Half1, claim.clone());
        writer.save(checkpoint.clone());
        assert!(!writer.wait());
        // Another job has taken the folder over.
        Claim::for_tests(folder.path());
        checkpoint.clock.step = 9;
        let mut writer = CheckpointWriter::new(folder.path().to_owned(), Subset::Half1, claim);
        writer.save(checkpoint);
        assert!(!writer.wait() && !path(folder.path(), Subset::Half1, 9).exists());
    }
}
