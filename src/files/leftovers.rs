//! Temporary files: their names, those of this process, and those that killed programs have left.
//!
//! A name is ".NAME.NODE-PROCESS-RANDOM.partial". NODE stands for a boot of a machine and a namespace of process numbers, so
//! that a process number means one process. A file is stale if its process has ended, or if it is of another NODE (another
//! machine that shares the disk, or the time before a reboot) and was not written to for a day: no file locks are needed,
//! which network file systems may refuse.

use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, Result};

/// Suffix of temporary files.
pub(super) const SUFFIX: &str = ".partial";
/// Time without a write after which a temporary file of another node is stale.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The temporary files of this process that exist.
static OWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// What else is to be done when the process ends early.
static ACTIONS: Mutex<BTreeMap<u64, Action>> = Mutex::new(BTreeMap::new());

type Action = Box<dyn FnMut() + Send>;

/// The destinations whose leftovers this process has removed.
static CLEANED: Mutex<BTreeSet<(PathBuf, String)>> = Mutex::new(BTreeSet::new());

/// This boot of this machine, and its namespace of process numbers, as eight hexadecimal digits.
static NODE: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for file in ["/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"] {
        fs::read_to_string(file).unwrap_or_default().hash(&mut hasher);
    }
    fs::read_link("/proc/self/ns/pid").unwrap_or_default().hash(&mut hasher);
    format!("{:08x}", hasher.finish() as u32)
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Beginning of the name of a temporary file for the file `name`.
pub(super) fn prefix(name: &str) -> String {
    format!(".{}.{}-{}-", shortened(name), *NODE, std::process::id())
}

/// The part of the file name `name` that is in the names of its temporary files: they may be no longer than 255 bytes.
fn shortened(name: &str) -> &str {
    const LONGEST: usize = 180;
    let end = (0..=LONGEST.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

/// A temporary file's name, in the list of this process while the file exists.
#[derive(Debug)]
pub(super) struct Listed {
    path: TempPath,
}

/// Creates a temporary file and lists it. A signal between the two waits.
pub(super) fn create(
    make: impl FnOnce() -> std::io::Result<NamedTempFile>,
) -> std::io::Result<(File, Listed)> {
    let mut own = lock(&OWN);
    let (file, path) = make()?.into_parts();
    own.insert(path.to_path_buf());
    Ok((file, Listed { path }))
}

impl Listed {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name.
    pub(super) fn rename(mut self, destination: &Path) -> std::io::Result<()> {
        let mut own = lock(&OWN);
        fs::rename(&self.path, destination)?;
        own.remove(&*self.path);
        self.path.disable_cleanup(true);
        Ok(())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Under the lock, so that a signal leaves no file that is not listed. Not listed is a file that has its final name.
        let mut own = lock(&OWN);
        if own.remove(&*self.path) {
            let _ = fs::remove_file(&self.path);
            self.path.disable_cleanup(true);
        }
    }
}

/// Who wrote a temporary file.
#[derive(Debug, PartialEq)]
enum Writer<'a> {
    Process {
        node: &'a str,
        process: u32,
    },
    /// Of an earlier version, which did not record the node.
    Unknown,
}

/// The file that a temporary file `name` was written for, and who wrote it; `None` if it is not a temporary file.
fn parse(name: &str) -> Option<(&str, Writer<'_>)> {
    let (output, id) = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    let mut parts = id.split('-');
    let is_node = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        (node, Some(process), Some(_), None) if is_node(node) => {
            Some((output, Writer::Process { node, process: process.parse().ok()? }))
        }
        // Earlier versions: ".NAME.PROCESS-RANDOM.partial", and before that ".NAME.PROCESS.partial".
        (process, _, None, None) => process.parse::<u32>().ok().map(|_| (output, Writer::Unknown)),
        _ => None,
    }
}

/// All temporary files in `folder`, of living programs too.
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| parse(name).is_some()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes the stale temporary files of the output `name` in `folder`, once in the life of this process.
pub(super) fn remove_stale(folder: &Path, name: &str) {
    if !lock(&CLEANED).insert((folder.to_path_buf(), name.to_owned())) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let Some((output, writer)) = found.to_str().and_then(parse) else { continue };
        if output == shortened(name) && is_stale(&writer, &entry) {
            // Fails for files of other users, which stay.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_stale(writer: &Writer<'_>, entry: &fs::DirEntry) -> bool {
    match writer {
        Writer::Process { node, process } if *node == *NODE => has_ended(*process),
        _ => {
            let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > STALE_AFTER)
        }
    }
}

/// Whether no process has this number. /proc may hide those of other users.
fn has_ended(process: u32) -> bool {
    let Some(process) = libc::pid_t::try_from(process).ok().filter(|&process| process > 0) else {
        return false;
    };
    // SAFETY: signal 0 is not sent: only the existence of the process is checked.
    let outcome = unsafe { libc::kill(process, 0) };
    outcome != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// From now on SIGINT, SIGTERM and SIGHUP remove the temporary files of this process and end it, with 128 plus the number of the
/// signal as the exit code.
///
/// # Errors
/// When a handler cannot be installed.
pub fn remove_on_signals() -> Result<()> {
    let failed = |error| {
        Error::request(
            format!("cannot install a handler for signals: {error}"),
            "start the program without a tool that blocks its signals",
        )
    };
    // A signal that the parent ignores, as nohup does, stays ignored.
    let watched = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
    let mut signals = Signals::new(watched).map_err(failed)?;
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("error: stopped by signal {signal}; unfinished output files are removed");
            exit_without_leftovers(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop).map_err(failed)
}

/// An action at the end of a process that ends early, until it is dropped.
pub struct AtExit(u64);

/// Has `action` done if the process ends without its destructors: by a signal, or because another rank has failed.
pub fn at_exit(action: impl FnMut() + Send + 'static) -> AtExit {
    let mut actions = lock(&ACTIONS);
    let number = actions.keys().next_back().map_or(0, |last| last + 1);
    actions.insert(number, Box::new(action));
    AtExit(number)
}

impl Drop for AtExit {
    fn drop(&mut self) {
        lock(&ACTIONS).remove(&self.0);
    }
}

impl std::fmt::Debug for AtExit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AtExit")
    }
}

/// Makes exceeding the limit on the size of files (`ulimit -f`) a write error, like a full disk, that does not kill the process.
pub fn survive_size_limit() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Removes the temporary files of this process, which is about to end, and does what [`at_exit`] was told. Files on a file system that
/// hangs stay: the next program that writes the same output removes them. No file is created or renamed afterwards.
pub fn clean_up_at_exit() {
    const PATIENCE: Duration = Duration::from_secs(2);
    let (done, wait) = std::sync::mpsc::channel();
    let remove = move || {
        // Locked to the end.
        let own = lock(&OWN);
        own.iter().for_each(|path| drop(fs::remove_file(path)));
        lock(&ACTIONS).values_mut().for_each(|action| action());
        let _ = done.send(());
        loop {
            std::thread::park();
        }
    };
    if std::thread::Builder::new().spawn(remove).is_ok() {
        let _ = wait.recv_timeout(PATIENCE);
    }
}

/// Ends the process at once, from any thread, after [`clean_up_at_exit`].
pub fn exit_without_leftovers(code: i32) -> ! {
    clean_up_at_exit();
    // SAFETY: `_exit` ends the process at once. Exit handlers would run beside the threads that still compute.
    unsafe { libc::_exit(code) }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null action only reads the current one, into a structure of the right type that is valid for all-zero bytes.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::files::Pending;

    #[test]
    fn names_tell_who_wrote_a_temporary_file() {
        let process = |node, process| Writer::Process { node, process };
        for (name, expected) in [
            (".map.mrc.0badcafe-12-aB3.partial", Some(("map.mrc", process("0badcafe", 12)))),
            (".map.mrc.123-aB3.partial", Some(("map.mrc", Writer::Unknown))),
            (".map.mrc.123.partial", Some(("map.mrc", Writer::Unknown))),
            (".map.mrc.0badcafe-12.partial", None),
            (".notes.partial", None),
            ("map.mrc.7.partial", None),
            (".map.mrc.0badcafe-x-aB3.partial", None),
        ] {
            assert_eq!(parse(name), expected, "{name}");
        }
        let name = prefix("a.b") + "R" + SUFFIX;
        assert_eq!(parse(&name), Some(("a.b", process(&NODE, std::process::id()))));
    }

    #[test]
    fn the_next_writer_removes_what_killed_programs_left_of_the_same_output() {
        let folder = tempfile::tempdir().unwrap();
        // A process that has ended and whose number is not taken again at once.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (dead, own) = (child.id(), std::process::id());
        let day = Duration::from_secs(25 * 3600);
        let cases = [
            (format!(".map.mrc.{}-{dead}-a.partial", *NODE), 0, false),
            (format!(".map.mrc.{}-{own}-b.partial", *NODE), 2, true),
            (".map.mrc.0badcafe-1-c.partial".to_owned(), 0, true),
            (".map.mrc.0badcafe-1-d.partial".to_owned(), 1, false),
            (format!(".map.mrc.{dead}-e.partial"), 0, true),
            (format!(".map.mrc.{dead}-f.partial"), 1, false),
            (format!(".other.mrc.{}-{dead}-g.partial", *NODE), 1, true),
            ("map.mrc".to_owned(), 1, true),
        ];
        for (name, days, _) in &cases {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - day * *days).unwrap();
        }
        drop(Pending::new(&folder.path().join("map.mrc")).unwrap());
        for (name, _, stays) in &cases {
            assert_eq!(folder.path().join(name).exists(), *stays, "{name}");
        }
    }
}
