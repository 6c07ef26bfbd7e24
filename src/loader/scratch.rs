//! A copy of the particle file on a node-local disk, which is freed however the job ends.
//!
//! The first rank of a node copies the file. All ranks of the node open the copy, and then its name is removed: the system frees
//! the space when the last of them ends. A lock on the folder is held while the copy has a name, so that two jobs do not count
//! the same free space. A copy with a name that is found under the lock was left by a killed program, and is removed.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk;
use crate::error::{Error, Result};
use crate::files;
use crate::parallel::World;
use crate::progress::{Progress, gib};

/// Prefix and suffix of the names of copies; the process id is between.
const NAME: (&str, &str) = (".cryosplat-mpi.", ".copy");
/// Bytes copied at a time.
const CHUNK_BYTES: u64 = 64 << 20;
/// Free space in bytes to leave on the disk; on small disks a twentieth of it.
const MARGIN: u64 = 1 << 30;
/// Time between two attempts to lock the folder.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait for the lock of a folder.
const PATIENCE: Patience =
    Patience { without_progress: Duration::from_secs(10), in_all: Duration::from_secs(300) };

const REMEDY: &str = "choose another folder with --scratch, or omit it";

/// Default folder for copies: `SLURM_TMPDIR`, `TMPDIR`, or /tmp.
pub(crate) fn default_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    variable("SLURM_TMPDIR").or_else(|| variable("TMPDIR")).map_or_else(|| "/tmp".into(), PathBuf::from)
}

/// Copies `file` into `folder` on each node where a rank wants it (`wanted`), and opens the copy. Every rank calls it. Returns
/// the copy on all ranks of a node, or `None` on all; a failure is logged, not returned.
pub(crate) fn stage(world: &World, file: &Path, folder: &Path, wanted: bool) -> Option<File> {
    let needed = world.local_all_reduce_sum(u64::from(wanted)) > 0;
    let made =
        (needed && world.local_rank() == 0).then(|| ScratchCopy::create(file, folder, world.rank() == 0));
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
        let opened =
            files::open_input(&path).map_err(Error::io(&path, "open the copy of the particles", REMEDY));
        opened.map_err(|error| problem = Some(error)).ok()
    };
    // The name is removed after all ranks of the node have opened the copy.
    let all_opened = world.local_all_reduce_sum(u64::from(opened.is_none())) == 0;
    drop(copy);
    let problem = problem.map_or_else(String::new, |error| format!("{}: {error}", World::host()));
    let problems = world.gather_text(&problem).unwrap_or_default();
    let without = world.all_reduce_sum(u64::from(needed && !all_opened));
    for problem in problems.iter().filter(|problem| !problem.is_empty()) {
        tracing::warn!("no scratch copy of the particles on {problem}");
    }
    if without > 0 && world.rank() == 0 {
        tracing::warn!(
            "{without} of {} ranks stream {} without a scratch copy, which may be slower",
            world.size(),
            file.display()
        );
    }
    opened.filter(|_| all_opened)
}

/// A copy that still has a name. Dropping it removes the name, then releases the lock.
#[derive(Debug)]
pub struct ScratchCopy {
    path: PathBuf,
    _lock: Lock,
}

impl ScratchCopy {
    /// Copies `file` into the existing folder `folder`, after other copies into it are finished. Prints its progress with `show`.
    ///
    /// # Errors
    /// When the folder cannot be locked, has no room, or the file cannot be copied. No part of the copy remains then.
    pub fn create(file: &Path, folder: &Path, show: bool) -> Result<Self> {
        let source =
            files::open_input(file).map_err(Error::io(file, "open the particle set", "check the path"))?;
        let size = source.metadata().map_err(Error::io(file, "read its size", "check the disk"))?.len();
        let lock = Lock::take(folder, &PATIENCE)?;
        remove_leftovers(folder);
        check_room(folder, size)?;
        let failed = || Error::io(folder, "copy the particles there", REMEDY);
        let mut name = tempfile::Builder::new();
        // Made exclusively, for this user only, under a name that nobody can foretell.
        let prefix = format!("{}{}-", NAME.0, std::process::id());
        name.prefix(&prefix).suffix(NAME.1).rand_bytes(16).disable_cleanup(true);
        let (mut target, path) = name.tempfile_in(folder).map_err(failed())?.into_parts();
        let copy = Self { path: path.to_path_buf(), _lock: lock };
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let mut progress = if show {
            Progress::new(format!("copy to {}", folder.display()), megabytes(size), "MB")
        } else {
            Progress::silent()
        };
        let mut done = 0;
        while done < size {
            let count = std::io::copy(&mut (&source).take(CHUNK_BYTES), &mut target).map_err(failed())?;
            if count == 0 {
                return Err(Error::input(
                    file,
                    "",
                    format!("was truncated while it was copied: {done} of {size} bytes"),
                    "import it again",
                ));
            }
            progress.advance(megabytes(done + count) - megabytes(done));
            done += count;
        }
        progress.finish();
        Ok(copy)
    }

    /// The file of the copy.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchCopy {
    fn drop(&mut self) {
        // Under the lock. If this fails, the next copy into the folder removes the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// How long to wait for a lock.
struct Patience {
    /// While the one that has it makes no progress with its copy.
    without_progress: Duration,
    in_all: Duration,
}

/// An exclusive lock on a folder, until it is dropped or the process ends.
#[derive(Debug)]
struct Lock {
    _folder: File,
}

impl Lock {
    /// Waits for the lock while another program that has it makes progress with its copy.
    fn take(folder: &Path, patience: &Patience) -> Result<Self> {
        let failed = || Error::io(folder, "lock the folder for copies", REMEDY);
        // A named pipe in the place of the folder would wait for a writer.
        let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(folder).map_err(failed())?;
        let started = Instant::now();
        let (mut copied, mut progressed) = (bytes_of_copies(folder), started);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _folder: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
            if progressed == started && started.elapsed() < POLL_INTERVAL {
                tracing::info!("{}: waiting for another job to finish its copy there", folder.display());
            }
            std::thread::sleep(POLL_INTERVAL);
            let now = bytes_of_copies(folder);
            if now != copied {
                (copied, progressed) = (now, Instant::now());
            }
            if progressed.elapsed() > patience.without_progress || started.elapsed() > patience.in_all {
                let problem = format!(
                    "is locked by another program, for {} s now, of which {} s without progress with a copy there",
                    started.elapsed().as_secs(),
                    progressed.elapsed().as_secs()
                );
                return Err(Error::input(folder, "", problem, REMEDY));
            }
        }
    }
}

/// Bytes of all copies in the folder that have a name.
fn bytes_of_copies(folder: &Path) -> u64 {
    let copies = fs::read_dir(folder).into_iter().flatten().flatten().filter(is_copy);
    copies.filter_map(|copy| copy.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn is_copy(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.starts_with(NAME.0) && name.ends_with(NAME.1))
}

/// Removes the copies that killed programs left. Under the lock, no other copy has a name.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(is_copy) {
        // Fails for files of other users, which stay.
        let _ = fs::remove_file(entry.path());
    }
}

fn check_room(folder: &Path, size: u64) -> Result<()> {
    let (free, all) = disk::free(folder).map_err(Error::io(folder, "read its free space", REMEDY))?;
    let margin = MARGIN.min(all / 20);
    if free < size.saturating_add(margin) {
        return Err(Error::input(
            folder,
            "",
            format!(
                "has {:.2} GiB free; the copy needs {:.2} GiB and leaves a margin of {:.2} GiB",
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
    fn a_copy_has_the_content_of_the_file_and_leaves_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        let bytes: Vec<u8> = (0..3_000_001u32).map(|i| (i * 7) as u8).collect();
        fs::write(&file, &bytes).unwrap();
        let disk = tempfile::tempdir().unwrap();
        let leftover = disk.path().join(".cryosplat-mpi.1.copy");
        fs::write(&leftover, "of a killed program").unwrap();
        fs::write(disk.path().join("mine"), "of a user").unwrap();
        let copy = ScratchCopy::create(&file, disk.path(), false).unwrap();
        assert!(!leftover.exists() && disk.path().join("mine").exists());
        let mut open = File::open(copy.path()).unwrap();
        drop(copy);
        assert_eq!(entries(disk.path()), 1);
        let mut read = Vec::new();
        open.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn a_copy_without_room_or_access_is_refused_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = check_room(folder.path(), 1 << 60).unwrap_err().to_string();
        assert!(message.contains("GiB free") && !message.contains('\n'), "{message}");
        let file = folder.path().join("p.h5");
        fs::write(&file, b"particles").unwrap();
        for wrong in [file.clone(), folder.path().join("none")] {
            let message = ScratchCopy::create(&file, &wrong, false).unwrap_err().to_string();
            assert!(message.contains("--scratch") && !message.contains('\n'), "{message}");
        }
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_lock_that_is_held_without_a_copy_is_not_waited_for() {
        let disk = tempfile::tempdir().unwrap();
        let held = Lock::take(disk.path(), &PATIENCE).unwrap();
        let patience = Patience { without_progress: 3 * POLL_INTERVAL, in_all: Duration::from_secs(60) };
        let message = Lock::take(disk.path(), &patience).unwrap_err().to_string();
        assert!(message.contains("without progress") && message.contains("--scratch"), "{message}");
        let copy = disk.path().join(".cryosplat-mpi.1-x.copy");
        let growing = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take(disk.path(), &patience).map(drop));
            for length in 1..10 {
                fs::write(&copy, vec![0; length]).unwrap();
                std::thread::sleep(POLL_INTERVAL);
            }
            assert!(!waiting.is_finished());
            drop(held);
            waiting.join().unwrap()
        });
        growing.unwrap();
        let pipe = disk.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(Lock::take(&pipe, &patience).is_err());
    }

    #[test]
    fn copies_into_a_folder_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        fs::write(&file, b"particles").unwrap();
        let disk = tempfile::tempdir().unwrap();
        let first = ScratchCopy::create(&file, disk.path(), false).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(ScratchCopy::create(&file, disk.path(), false).map(|copy| copy.path().exists()))
            });
            // The second copy must still wait for the lock.
            assert!(receiver.recv_timeout(4 * POLL_INTERVAL).is_err());
            assert!(first.path().exists());
            drop(first);
            assert!(receiver.recv().unwrap().unwrap());
        });
        assert_eq!(entries(disk.path()), 0);
    }
}
