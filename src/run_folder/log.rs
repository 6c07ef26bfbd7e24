//! The log of a run in its folder, log.txt: the lines of rank 0 and the warnings of the other ranks, over all jobs of the run.
//!
//! Lines are kept in memory until the job changes the folder, and are then written by a thread of their own: a disk that is full or
//! hangs costs lines of this file, but neither stops nor fails a run.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::names;
use super::owner_record::utc;
use crate::files::{self, AtExit};
use crate::parallel::World;

/// Bytes of lines that are kept until the file is opened; further lines are lost.
const MOST_WAITING: usize = 1 << 20;
/// How long the end of a process waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);
/// Beginning of the first line of each job.
const HEADER: &str = "cryosplat-mpi ";

static LOG: Mutex<Log> = Mutex::new(Log::Off);

enum Log {
    /// This process logs to no run folder.
    Off,
    /// Lines until the folder may be changed.
    Waiting(Vec<u8>),
    /// The thread that writes the file.
    Open(Sender<Message>, #[expect(dead_code, reason = "held until the process ends")] AtExit),
}

enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(Sender<()>),
}

fn lock() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps lines for a log that [`open`] will open.
pub(crate) fn expect() {
    *lock() = Log::Waiting(Vec::new());
}

/// Adds a line, if this process logs to a run folder.
pub(crate) fn write(line: &[u8]) {
    match &mut *lock() {
        Log::Off => {}
        Log::Waiting(lines) if lines.len() + line.len() > MOST_WAITING => {}
        Log::Waiting(lines) => lines.extend_from_slice(line),
        Log::Open(writer, _) => _ = writer.send(Message::Line(line.to_vec())),
    }
}

/// Opens the log in the run folder `folder`, which this job holds and has begun to change. Every rank calls it; a rank other than 0 makes
/// the file only if it has something to write. Does nothing where no lines are expected, or where the file is not one to write to.
pub(crate) fn open(folder: &Path, world: &World, command: &[String]) {
    let mut log = lock();
    let Log::Waiting(lines) = &mut *log else { return };
    let mut first = Vec::new();
    if world.rank() == 0 {
        let ranks = if world.size() == 1 { "1 rank".into() } else { format!("{} ranks", world.size()) };
        let (version, date, host) = (env!("CARGO_PKG_VERSION"), utc(SystemTime::now()), World::host());
        let command = command.join(" ").replace(char::is_control, " ");
        first = format!("{HEADER}{version}, {date}, {ranks}, rank 0 on {host}\n{command}\n").into_bytes();
    }
    first.append(lines);
    let (writer, messages) = channel();
    if !first.is_empty() {
        let _ = writer.send(Message::Line(first));
    }
    let path = folder.join(names::LOG);
    let thread = std::thread::Builder::new().name("run log".into()).spawn(move || serve(&path, &messages));
    *log = match thread {
        Ok(_) => {
            let last = writer.clone();
            Log::Open(writer, files::at_exit(move || wait(&last)))
        }
        Err(_) => Log::Off,
    };
}

/// Writes no more lines: another job holds the folder.
pub(super) fn close() {
    *lock() = Log::Off;
}

/// Waits until the lines so far are written, but not for long.
pub(crate) fn flush() {
    // Not under the lock: another thread may log meanwhile.
    let writer = match &*lock() {
        Log::Open(writer, _) => writer.clone(),
        _ => return,
    };
    wait(&writer);
}

fn wait(writer: &Sender<Message>) {
    let (done, wait) = channel();
    if writer.send(Message::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(PATIENCE);
    }
}

/// Writes what arrives. After an error nothing more is written.
fn serve(path: &Path, messages: &Receiver<Message>) {
    let mut file = None;
    let mut failed = false;
    for message in messages {
        match message {
            Message::Line(line) if !failed => {
                file = file.or_else(|| open_file(path));
                failed = file.as_mut().is_none_or(|file| file.write_all(&line).is_err());
            }
            Message::Line(_) => {}
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// Opens the log to append; `None` where it is no regular file, or receives standard error or output already.
fn open_file(path: &Path) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok()?;
    (found.is_file() && !receives_output(&found)).then_some(file)
}

/// Whether standard error or output of this process goes to the file `found`.
fn receives_output(found: &std::fs::Metadata) -> bool {
    [rustix::fs::fstat(std::io::stdout()), rustix::fs::fstat(std::io::stderr())]
        .into_iter()
        .flatten()
        .any(|output| (output.st_dev, output.st_ino) == (found.dev(), found.ino()))
}

/// Removes the log of an older run in `folder`, unless it is no log of this program, or receives the output of this process.
pub(super) fn remove_old(folder: &Path) {
    let path = folder.join(names::LOG);
    let Ok(mut file) = files::open_input(&path) else { return };
    let mut start = [0; HEADER.len()];
    let is_log = file.read_exact(&mut start).is_ok() && start == HEADER.as_bytes();
    if is_log && file.metadata().is_ok_and(|found| !receives_output(&found)) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_log_of_others_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(names::LOG);
        let log = |lines: &[&str]| {
            let (writer, messages) = channel();
            for line in lines {
                writer.send(Message::Line(line.as_bytes().to_vec())).unwrap();
            }
            let (done, flushed) = channel();
            writer.send(Message::Flush(done)).unwrap();
            drop(writer);
            serve(&path, &messages);
            flushed.recv().unwrap();
        };
        let text = || std::fs::read_to_string(&path).unwrap();
        log(&["cryosplat-mpi 0\n", "a\n"]);
        log(&["b\n"]);
        assert_eq!(text(), "cryosplat-mpi 0\na\nb\n");
        remove_old(folder.path());
        assert!(!path.exists());
        std::fs::write(&path, "mine\n").unwrap();
        remove_old(folder.path());
        log(&["c\n"]);
        assert_eq!(text(), "mine\nc\n");
        // A link is not followed, and a disk that is full fails nothing.
        std::fs::remove_file(&path).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "").unwrap();
        for target in [other.as_path(), Path::new("/dev/full")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            log(&["d\n"]);
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "");
    }
}
