//! Checkpoints on their way to the disk, in a thread of their own, while the training goes on.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::error::Result;
use crate::run_folder::checkpoint::Checkpoint;

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

#[cfg(test)]
mod tests {
    use crate::gmm::{Gmm, Shape};
    use crate::random::{Purpose, stream};
    use crate::recipe::Clock;
    use crate::render::DeviceState;
    use crate::run_folder::checkpoint::{Position, path};
    use crate::run_folder::checkpoint_writer::*;

    #[test]
    fn whoever_has_waited_finds_the_checkpoint_or_knows_that_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        // Some megabytes: nobody finds them at once.
        let gmm = Gmm::random(30_000, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        let moments = vec![0.5; gmm.values().len()];
        let mut checkpoint = Checkpoint {
            position: Position::default(),
            clock: Clock { step: 7, ..Clock::default() },
            state: DeviceState { first: moments.clone(), second: moments, gmm },
            trained: vec![],
            left_out: vec![],
            ranks: 1,
            identity: "{}".into(),
        };
        let read = |step| Checkpoint::read(&path(folder.path(), "half1", step)).unwrap();
        let mut saver = Saver::new(folder.path().to_owned(), "half1".into());
        saver.save(checkpoint.clone());
        assert!(saver.wait());
        assert_eq!(read(7), checkpoint);
        assert!(saver.wait(), "nothing is being written");
        checkpoint.clock.step = 8;
        saver.save(checkpoint.clone());
        drop(saver);
        assert_eq!(read(8), checkpoint);
        let mut saver = Saver::new(folder.path().join("none"), "half1".into());
        saver.save(checkpoint);
        assert!(!saver.wait());
    }
}
