//! Checkpoints on their way to the disk, in a thread of their own, while the training goes on.

use std::path::PathBuf;
use std::thread::JoinHandle;

use super::checkpoint::Checkpoint;
use crate::error::Result;

/// Writes the checkpoints of one model, one at a time.
#[derive(Debug)]
pub struct Saver {
    folder: PathBuf,
    model: String,
    writing: Option<JoinHandle<Result<()>>>,
}

impl Saver {
    /// For the checkpoints of `model` in `folder`.
    pub fn new(folder: PathBuf, model: String) -> Self {
        Self { folder, model, writing: None }
    }

    /// Starts to write `checkpoint`, when the one before is written. One that cannot be written does not end the run: those before
    /// it are untouched, and the log says so loudly.
    pub fn save(&mut self, checkpoint: Checkpoint) {
        self.wait();
        let (folder, model) = (self.folder.clone(), self.model.clone());
        let write = move || {
            let outcome = checkpoint.write(&folder, &model);
            if let Err(error) = &outcome {
                tracing::warn!(
                    "NO CHECKPOINT of {model} after step {}: {error}. Training goes on; if the run is ended now, what it has \
                     done since its last checkpoint is lost",
                    checkpoint.clock.step
                );
            }
            outcome
        };
        match std::thread::Builder::new().name("checkpoint".into()).spawn(write.clone()) {
            Ok(thread) => self.writing = Some(thread),
            // A machine without room for a thread: it is written here.
            Err(_) => drop(write()),
        }
    }

    /// Waits until the last checkpoint is written. False if it could not be.
    pub fn wait(&mut self) -> bool {
        self.writing.take().is_none_or(|thread| matches!(thread.join(), Ok(Ok(()))))
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.wait();
    }
}
