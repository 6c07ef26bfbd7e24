//! Who may write to a run folder: one job at a time.
//!
//! The job that runs in a folder holds `owner.json` there, from before it changes anything until it ends. The file is made
//! exclusively. Its heartbeat is a number in the file, which the owner increases; another machine watches whether it changes, so that
//! clocks need not agree. An owner that has ended is replaced: whoever first makes the file that follows from the old owner's token
//! may do it, so that of several jobs one wins.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::owner_record::{Life, OwnerRecord, beat};
use super::{log, names};
use crate::error::{Error, Result};
use crate::files::{self, AtExit, Pending};
use crate::parallel::World;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a requeued job waits for the processes of its own job to end.
const WAIT_FOR_OWN_JOB: Duration = Duration::from_secs(60);
/// Time between two looks at another owner's record.
const POLL: Duration = Duration::from_millis(200);
/// How many owners may follow each other while this process looks.
const MOST_CHANGES: usize = 1000;
const REMEDY: &str = "choose another folder, or get write permission there";

/// What a job does about another owner.
pub(crate) struct Request<'a> {
    /// Command line as typed.
    pub command: &'a [String],
    /// Whether to wait for living processes of this very job, as a requeued job does.
    pub waits_for_own_job: bool,
    /// Whether the job has been asked to stop, which ends a wait.
    pub stopped: &'a dyn Fn() -> bool,
}

/// The ownership of a run folder. Dropping it releases the folder.
#[derive(Debug)]
pub(crate) struct Owner {
    claim: Claim,
    /// Folders that did not exist before, innermost first. Dropping the owner removes those that are still empty.
    created: Arc<Mutex<Vec<PathBuf>>>,
    /// Ends the heartbeat when dropped.
    _heartbeat: Sender<()>,
    /// Releases the folder if the process ends without its destructors.
    _at_exit: AtExit,
}

/// What proves to any rank that its job still holds the run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    folder: PathBuf,
    token: String,
    /// Host of rank 0.
    host: String,
}

impl Owner {
    /// Takes the run folder, which is created if missing. Nothing else in it is changed.
    ///
    /// # Errors
    /// When a living job holds it: names host, process and job. When the folder cannot be written.
    pub fn take(folder: &Path, request: &Request) -> Result<Self> {
        Self::take_with(folder, request, HEARTBEAT)
    }

    fn take_with(folder: &Path, request: &Request, heartbeat: Duration) -> Result<Self> {
        let mut created = Vec::new();
        let taken = create_missing(folder, &mut created).and_then(|()| acquire(folder, request, heartbeat));
        match taken {
            Ok((record, file)) => {
                let claim = Claim { folder: folder.to_owned(), token: record.token, host: record.host };
                let created = Arc::new(Mutex::new(created));
                let at_end = (claim.clone(), Arc::clone(&created));
                let _at_exit = files::at_exit(move || release(&at_end.0, &at_end.1));
                Ok(Self { claim, created, _heartbeat: start_heartbeat(file, heartbeat), _at_exit })
            }
            Err(error) => {
                remove_empty(&created);
                Err(error)
            }
        }
    }

    /// Creates `folder`, inside the run folder, if it is missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_folder(&mut self, folder: &Path) -> Result<()> {
        create_missing(folder, &mut lock(&self.created))
    }

    /// The proof of this ownership.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        release(&self.claim, &self.created);
    }
}

/// Releases a run folder, unless another job has taken it over, and removes the `created` folders that are empty.
fn release(claim: &Claim, created: &Mutex<Vec<PathBuf>>) {
    if claim.check().is_ok() {
        let _ = std::fs::remove_file(claim.folder.join(names::OWNER));
    }
    remove_empty(&lock(created));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claim {
    /// Checks that the job still holds the folder, before a file in it is replaced: a job that was suspended may have lost it.
    ///
    /// # Errors
    /// When another job has taken the folder over, or the record was removed.
    pub fn check(&self) -> Result<()> {
        let path = self.folder.join(names::OWNER);
        let problem = match OwnerRecord::read(&path) {
            Ok(Some(record)) if record.token == self.token => return Ok(()),
            Ok(Some(record)) => format!("the run folder was taken over by {}", record.describe()),
            Ok(None) => "was removed: another job may have used the run folder".into(),
            // Not a reason to stop: the disk may be full or the server away for a while.
            Err(error @ Error::Io { .. }) => {
                tracing::warn!("{error}; whether this job still holds the run folder is not known");
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        log::close();
        let remedy = "nothing more is written by this job; resume the run when no other job uses the folder";
        Err(Error::input(&path, "", problem, remedy))
    }

    /// The run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether this rank sees the same folder as rank 0, which holds it: the record appears here with the same token. On another host than
    /// rank 0's, it may take up to `limit`: some network file systems show a new file after seconds.
    pub fn appears_within(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let limit = if self.host == World::host() { Duration::ZERO } else { limit };
        loop {
            let read = OwnerRecord::read(&self.folder.join(names::OWNER));
            if read.is_ok_and(|record| record.is_some_and(|record| record.token == self.token)) {
                return true;
            }
            if started.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// The proof that the job which holds `folder` shows to code that is tested without one.
    #[cfg(test)]
    pub(super) fn for_tests(folder: &Path) -> Self {
        let record = OwnerRecord::of_this_process(&[], HEARTBEAT);
        std::fs::write(folder.join(names::OWNER), record.to_bytes()).unwrap();
        Self { folder: folder.to_owned(), token: record.token, host: record.host }
    }
}

/// Creates `folder` and its missing parents, and notes which were missing.
fn create_missing(folder: &Path, created: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|at| !at.as_os_str().is_empty() && !at.exists())
        .map(Path::to_owned)
        .collect();
    let outcome = files::create_folder(folder);
    created.splice(0..0, missing);
    outcome
}

fn remove_empty(folders: &[PathBuf]) {
    // A folder that holds files stays.
    folders.iter().for_each(|folder| _ = std::fs::remove_dir(folder));
}

/// Increases the number in `file` until the returned sender is dropped.
fn start_heartbeat(file: File, interval: Duration) -> Sender<()> {
    let (sender, receiver) = channel();
    let run = move || {
        let mut failed = false;
        for number in 1.. {
            if receiver.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if let Err(error) = beat(&file, number)
                && !failed
            {
                failed = true;
                tracing::warn!(
                    "the heartbeat in the run folder cannot be written: {error}; another job may take the folder over"
                );
            }
        }
    };
    // Not waited for at the end: a file system that hangs would hold up the program.
    if let Err(error) = std::thread::Builder::new().name("heartbeat".into()).spawn(run) {
        tracing::warn!("no thread for the heartbeat in the run folder: {error}");
    }
    sender
}

/// Makes `owner.json` for this process, after waiting for or replacing another owner.
fn acquire(folder: &Path, request: &Request, heartbeat: Duration) -> Result<(OwnerRecord, File)> {
    let path = folder.join(names::OWNER);
    let own = OwnerRecord::of_this_process(request.command, heartbeat);
    let mut deadline = None;
    for _ in 0..MOST_CHANGES {
        let Some(first) = OwnerRecord::read(&path)? else {
            if let Some(file) = make(&path, &own)? {
                return Ok((own, file));
            }
            continue;
        };
        // An owner is followed by another one before owner.json names it.
        let (holder_at, holder) = last_successor(folder, &path, &first)?;
        if lives(&holder_at, &holder, request)? {
            let of_own_job = holder.job.is_some() && holder.job == own.job;
            wait_or_refuse(folder, &holder, request, of_own_job, &mut deadline)?;
            continue;
        }
        if let Some(file) = follow(folder, &path, &first, &holder, &own)? {
            tracing::warn!(
                "{} was held by {}, which has ended without releasing it: taken over",
                folder.display(),
                holder.describe()
            );
            return Ok((own, file));
        }
    }
    let problem = "is taken by one job after the other";
    Err(Error::input(folder, "", problem, "start one job at a time in a run folder"))
}

/// Makes the file `path` with the record `own`, unless there is one already. It appears with its whole content.
fn make(path: &Path, own: &OwnerRecord) -> Result<Option<File>> {
    let (pending, file) = write_aside(path, own)?;
    let linked = match std::fs::hard_link(pending.path(), path) {
        Err(error) if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
            // A file system without links: the file then appears empty first.
            let mut options = OpenOptions::new();
            return match options.write(true).create_new(true).open(path) {
                Ok(mut file) => {
                    file.write_all(&own.to_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(
                        path,
                        "take the run folder",
                        REMEDY,
                    ))?;
                    Ok(Some(file))
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(Error::io(path, "take the run folder", REMEDY)(error)),
            };
        }
        other => other,
    };
    // On a network file system the answer to a link that was made may be lost.
    let made = linked.is_ok() || OwnerRecord::read(path)?.is_some_and(|record| record.token == own.token);
    Ok(made.then_some(file))
}

/// Writes the record to a temporary file beside `path`.
fn write_aside(path: &Path, own: &OwnerRecord) -> Result<(Pending, File)> {
    let pending = Pending::new(path)?;
    let written = pending.writer().and_then(|mut file| {
        file.write_all(&own.to_bytes())?;
        file.sync_all()?;
        Ok(file)
    });
    Ok((pending, written.map_err(Error::io(path, "take the run folder", REMEDY))?))
}

/// The file whose maker may replace the owner with this `token`.
fn successor(folder: &Path, token: &str) -> PathBuf {
    // A token of a damaged record must not lead out of the folder.
    let token: String = token.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    folder.join(format!("{}{token}", names::NEXT_OWNER))
}

/// The last of those that follow each other after `first`, the owner in the file `path`; and the file of its record.
fn last_successor(folder: &Path, path: &Path, first: &OwnerRecord) -> Result<(PathBuf, OwnerRecord)> {
    let (mut at, mut last) = (path.to_owned(), first.clone());
    for _ in 0..MOST_CHANGES {
        let next_at = successor(folder, &last.token);
        match OwnerRecord::read(&next_at)? {
            Some(next) if next.token != last.token => (at, last) = (next_at, next),
            _ => break,
        }
    }
    Ok((at, last))
}

/// Replaces `first`, the owner in the file `path`, whose last successor `holder` has ended. `None` if another process was faster.
fn follow(
    folder: &Path,
    path: &Path,
    first: &OwnerRecord,
    holder: &OwnerRecord,
    own: &OwnerRecord,
) -> Result<Option<File>> {
    let claim = successor(folder, &holder.token);
    if make(&claim, own)?.is_none() {
        return Ok(None);
    }
    // From here on no other process replaces this owner, unless it had been replaced before.
    let unchanged = OwnerRecord::read(path)?.is_some_and(|record| record.token == first.token);
    let replaced = if unchanged {
        write_aside(path, own).and_then(|(pending, file)| pending.commit().map(|()| Some(file)))
    } else {
        Ok(None)
    };
    if matches!(replaced, Ok(Some(_))) {
        // Those between the first and this one ended in the middle of this function.
        let mut token = first.token.clone();
        while let Ok(Some(next)) = OwnerRecord::read(&successor(folder, &token)) {
            let _ = std::fs::remove_file(successor(folder, &token));
            token = next.token;
        }
    }
    let _ = std::fs::remove_file(&claim);
    replaced
}

/// Whether the owner `holder`, whose record is in the file `at`, lives. Waits for a heartbeat where nothing else can show it.
fn lives(at: &Path, holder: &OwnerRecord, request: &Request) -> Result<bool> {
    match holder.life() {
        Life::Alive => return Ok(true),
        Life::Ended => return Ok(false),
        Life::Elsewhere => {}
    }
    let patience = holder.patience();
    tracing::info!(
        "the run folder is held by {}: watching its heartbeat for {:.0} s",
        holder.describe(),
        patience.as_secs_f64().ceil()
    );
    let started = Instant::now();
    while started.elapsed() < patience {
        pause(request)?;
        match OwnerRecord::read(at)? {
            Some(now) if !holder.beats_until(&now) => {}
            // It lives, has released the folder, or was replaced: in the last two cases the caller finds out.
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// Waits a moment for the owner `holder` if it may end soon; otherwise refuses.
fn wait_or_refuse(
    folder: &Path,
    holder: &OwnerRecord,
    request: &Request,
    of_own_job: bool,
    deadline: &mut Option<Instant>,
) -> Result<()> {
    // It may have ended while its heartbeat was watched.
    let now = OwnerRecord::read(&folder.join(names::OWNER))?;
    if now.is_none_or(|now| now.token != holder.token) {
        return pause(request);
    }
    if of_own_job && request.waits_for_own_job {
        if deadline.is_none() {
            tracing::info!(
                "the run folder is held by {}, of this job: waiting up to {} s for it to end",
                holder.describe(),
                WAIT_FOR_OWN_JOB.as_secs()
            );
        }
        if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + WAIT_FOR_OWN_JOB) {
            return pause(request);
        }
    }
    let problem = format!("is held by a running job: {}", holder.describe());
    Err(Error::input(folder, "", problem, "wait for its end, stop it, or choose another folder"))
}

/// Waits a moment.
fn pause(request: &Request) -> Result<()> {
    if (request.stopped)() {
        return Err(Error::request(
            "a signal has stopped the job before it held the run folder",
            "run the same command again",
        ));
    }
    std::thread::sleep(POLL);
    Ok(())
}

#[cfg(test)]
mod tests;
