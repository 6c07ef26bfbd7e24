//! A copy of the particle file on the node's own disk, which nobody can leave behind.
//!
//! The first rank of a node copies the file, the others wait; all open the copy, and then it loses its name: the system
//! frees it when the last of them ends, however that is. Whoever copies holds a lock on the folder, so that two jobs do not
//! count the same free space, and that a copy with a name, seen under the lock, is one that a killed program left: it goes.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::parallel::World;
use crate::progress::Progress;

/// How the names of copies begin and end; a process's number is between.
const NAME: (&str, &str) = (".cryosplat-mpi.", ".copy");
/// Bytes copied at a time.
const PIECE: u64 = 64 << 20;
/// Free space that is left to others, at most; or a twentieth of the disk.
const MARGIN: u64 = 1 << 30;
/// Between two looks at whether the lock is free.
const PATIENCE: Duration = Duration::from_millis(100);

const REMEDY: &str = "choose another folder with --scratch, or leave it out";

/// Where copies go if nobody says: the folder that SLURM makes for the job, or that for temporary files.
pub fn default_folder() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    named("SLURM_TMPDIR").or_else(|| named("TMPDIR")).map_or_else(|| "/tmp".into(), PathBuf::from)
}

/// Copies `file` into `folder` on each node where a rank wants it (`wanted`). Every rank calls it. The copy, or nothing, for
/// all ranks of a node alike; what went wrong is in the log.
pub fn stage(world: &World, file: &Path, folder: &Path, wanted: bool) -> Option<File> {
    let needed = world.local_all_reduce_sum(u64::from(wanted)) > 0;
    let made = (needed && world.local_rank() == 0).then(|| Copy::make(file, folder, world.rank() == 0));
    let (copy, mut problem) = match made {
        Some(Ok(copy)) => (Some(copy), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let name = world.local_broadcast(copy.as_ref().map_or(&[], |copy| copy.path.as_os_str().as_bytes()));
    let opened = if name.is_empty() {
        None
    } else {
        let path = PathBuf::from(OsString::from_vec(name));
        let opened = File::open(&path).map_err(Error::io(&path, "open the copy of the particles", REMEDY));
        opened.map_err(|error| problem = Some(error)).ok()
    };
    // Nobody goes on before all have it open.
    let together = world.local_all_reduce_sum(u64::from(opened.is_none())) == 0;
    drop(copy);
    let problem = problem.map_or_else(String::new, |error| error.to_string());
    let problems = world.gather_text(&problem).unwrap_or_default();
    let without = world.all_reduce_sum(u64::from(needed && !together));
    for problem in problems.iter().filter(|problem| !problem.is_empty()) {
        tracing::warn!("no copy of the particles near the ranks: {problem}");
    }
    if without > 0 {
        tracing::warn!("{without} ranks read {} itself in every epoch, which may be slower", file.display());
    }
    opened.filter(|_| together)
}

/// A copy that has a name still. Dropping it takes the name away, and then the lock.
#[derive(Debug)]
pub struct Copy {
    path: PathBuf,
    _lock: Lock,
}

impl Copy {
    /// Copies `file` into `folder`, which must be there.
    ///
    /// # Errors
    /// When the folder cannot be locked, has no room, or the file cannot be copied. Nothing is left there then.
    pub fn make(file: &Path, folder: &Path, show: bool) -> Result<Self> {
        let source = File::open(file).map_err(Error::io(file, "open the particle set", "check the path"))?;
        let size = source.metadata().map_err(Error::io(file, "read its size", "check the disk"))?.len();
        let lock = Lock::take(folder)?;
        remove_left(folder);
        check_room(folder, size)?;
        let copy =
            Self { path: folder.join(format!("{}{}{}", NAME.0, std::process::id(), NAME.1)), _lock: lock };
        let failed = || Error::io(folder, "copy the particles there", REMEDY);
        let target = File::options().write(true).create_new(true).mode(0o600).open(&copy.path);
        let mut target = target.map_err(failed())?;
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let mut progress = if show {
            Progress::new(format!("copy to {}", folder.display()), megabytes(size), "MB")
        } else {
            Progress::silent()
        };
        let mut done = 0;
        while done < size {
            let count = std::io::copy(&mut (&source).take(PIECE), &mut target).map_err(failed())?;
            if count == 0 {
                return Err(Error::input(file, "", "became shorter while it was copied", "copy it again"));
            }
            progress.advance(megabytes(done + count) - megabytes(done));
            done += count;
        }
        progress.finish();
        Ok(copy)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Before the lock goes; where it cannot be taken away now, the next copy takes it away.
        let _ = fs::remove_file(&self.path);
    }
}

/// An exclusive lock on a folder, until it is dropped or the process ends.
#[derive(Debug)]
struct Lock {
    _folder: File,
}

impl Lock {
    fn take(folder: &Path) -> Result<Self> {
        let failed = || Error::io(folder, "lock the folder for copies", REMEDY);
        let file = File::open(folder).map_err(failed())?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _folder: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
            if !told {
                tracing::info!(
                    "{}: another job copies its particles there: waiting for it",
                    folder.display()
                );
                told = true;
            }
            std::thread::sleep(PATIENCE);
        }
    }
}

/// Takes away what killed programs left. Under the lock, no other copy has a name.
fn remove_left(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(NAME.0) && name.ends_with(NAME.1)) {
            // Those of other users stay.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn check_room(folder: &Path, size: u64) -> Result<()> {
    let failed = Error::io(folder, "read its free space", REMEDY);
    let space = rustix::fs::statvfs(folder).map_err(|error| failed(error.into()))?;
    let free = space.f_bavail * space.f_frsize;
    let margin = MARGIN.min(space.f_blocks * space.f_frsize / 20);
    if free < size.saturating_add(margin) {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        return Err(Error::input(
            folder,
            "",
            format!(
                "has {:.2} GiB free, and the copy takes {:.2} and leaves {:.2} to others",
                gib(free),
                gib(size),
                gib(margin)
            ),
            REMEDY,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::loader::scratch::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_copy_is_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        let bytes: Vec<u8> = (0..3_000_001u32).map(|i| (i * 7) as u8).collect();
        fs::write(&file, &bytes).unwrap();
        let disk = tempfile::tempdir().unwrap();
        let left = disk.path().join(".cryosplat-mpi.1.copy");
        fs::write(&left, "of a killed program").unwrap();
        fs::write(disk.path().join("mine"), "of a user").unwrap();
        let copy = Copy::make(&file, disk.path(), false).unwrap();
        assert!(!left.exists() && disk.path().join("mine").exists());
        let mut open = File::open(copy.path()).unwrap();
        drop(copy);
        assert_eq!(entries(disk.path()), 1);
        let mut read = Vec::new();
        open.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn what_has_no_room_or_cannot_be_written_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let message = check_room(folder.path(), 1 << 60).unwrap_err().to_string();
        assert!(message.contains("GiB free") && !message.contains('\n'), "{message}");
        let file = folder.path().join("p.h5");
        fs::write(&file, b"particles").unwrap();
        for wrong in [file.clone(), folder.path().join("none")] {
            let message = Copy::make(&file, &wrong, false).unwrap_err().to_string();
            assert!(message.contains("--scratch") && !message.contains('\n'), "{message}");
        }
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn one_copies_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        fs::write(&file, b"particles").unwrap();
        let disk = tempfile::tempdir().unwrap();
        let first = Copy::make(&file, disk.path(), false).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(Copy::make(&file, disk.path(), false).map(|copy| copy.path().exists()))
            });
            // The second one must not have come through; it looks every tenth of a second.
            assert!(receiver.recv_timeout(4 * PATIENCE).is_err());
            assert!(first.path().exists());
            drop(first);
            assert!(receiver.recv().unwrap().unwrap());
        });
        assert_eq!(entries(disk.path()), 0);
    }
}
