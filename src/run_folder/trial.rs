//! Before a run starts: the ranks that write prove that they can.
//!
//! Every such rank finds the record of the owner in the folder that it sees, so that it is rank 0's folder; it writes a file of the size
//! of a checkpoint there, as checkpoints are written; and rank 0 finds that file, so that what the rank writes arrives. The space that
//! the run takes is compared with what is free.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files;
use crate::parallel::{Failure, World};
use crate::progress::gib;
use crate::run_folder::names;
use crate::run_folder::owner::Claim;

/// How long a file that another host has made may take to appear.
const APPEARS: Duration = Duration::from_secs(15);
/// Largest file that is written as a trial; beyond it, only the free space is compared.
const LARGEST_TRIAL: u64 = 1 << 30;
const REMEDY: &str = "nothing in the run folder was changed";

/// What a rank will write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    /// Folder of its trial; created if missing.
    pub folder: PathBuf,
    /// Size of its largest checkpoint in bytes, or of another file that stands for it.
    pub checkpoint: u64,
    /// Size of its largest file in bytes.
    pub largest: u64,
    /// Size of all files of all ranks in bytes.
    pub total: u64,
    /// Files that it appends to, where they exist.
    pub appended: Vec<PathBuf>,
}

/// Lets every rank that writes prove it; `own` is what this rank writes, if anything. Every rank calls it.
///
/// # Errors
/// On every rank, with the ranks and hosts that cannot write and why.
pub(crate) fn prove(world: &World, own: Option<(&Claim, &Writes)>) -> std::result::Result<(), Failure> {
    let trial = own.map(|(claim, writes)| write(claim, writes));
    let told = match &trial {
        None => String::new(),
        Some(Ok(name)) => format!("+{name}"),
        Some(Err(error)) => format!("-{error}"),
    };
    let told = world.gather_text(&format!("{} {told}", World::host()));
    let folder = own.map(|(_, writes)| writes.folder.as_path());
    let outcome = world.on_root(|| judge(folder.unwrap_or(Path::new("")), &told.unwrap_or_default()));
    if let (Some(folder), Some(Ok(name))) = (folder, &trial) {
        // A trial that cannot be removed only takes space, until the next run removes it.
        let _ = std::fs::remove_file(folder.join(name));
    }
    outcome.map(|_| ())
}

/// What the ranks `told`: "HOST +NAME", "HOST -ERROR" or "HOST ". Rank 0 sees their files in `folder`.
fn judge(folder: &Path, told: &[String]) -> Result<()> {
    let started = Instant::now();
    let ranks = told.len();
    let mut problems = Vec::new();
    for (rank, told) in told.iter().enumerate() {
        let (host, outcome) = told.split_once(' ').unwrap_or((told, ""));
        let who = if ranks == 1 { String::new() } else { format!("rank {rank} of {ranks} on {host}: ") };
        let patience = if host == World::host() { Duration::ZERO } else { APPEARS };
        if let Some(error) = outcome.strip_prefix('-') {
            problems.push(format!("{who}{error}"));
        } else if let Some(name) = outcome.strip_prefix('+') {
            while folder.join(name).symlink_metadata().is_err() {
                if started.elapsed() >= patience {
                    problems.push(format!(
                        "{who}what it writes to {} does not arrive in the folder of that name of rank 0",
                        folder.display()
                    ));
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::request(problems.join("; "), REMEDY)) }
}

/// Writes the trial of this rank. Returns its name in the folder.
fn write(claim: &Claim, own: &Writes) -> Result<String> {
    let Writes { folder, checkpoint, largest, total, appended } = own;
    if !claim.appears_within(APPEARS) {
        return Err(Error::input(
            claim.folder(),
            "",
            "is not the folder of that name that rank 0 sees",
            "choose a run folder on a file system that all nodes share",
        ));
    }
    files::create_folder(folder)?;
    check_limit(folder, *largest)?;
    check_space(folder, *total)?;
    for file in appended.iter().filter(|file| file.exists()) {
        let open = OpenOptions::new().append(true).open(file).map(|_| ());
        open.map_err(Error::io(
            file,
            "append to the file",
            "get write permission, or choose another folder",
        ))?;
    }
    let name = format!("{}{:016x}.h5", names::TRIAL, rand::random::<u64>());
    write_trial(&folder.join(&name), (*checkpoint).min(LARGEST_TRIAL))?;
    Ok(name)
}

/// Writes an HDF5 file of `bytes` bytes that cannot be compressed, as checkpoints are written.
fn write_trial(path: &Path, bytes: u64) -> Result<()> {
    const PIECE: usize = 1 << 20;
    let count = bytes as usize;
    let piece: Vec<u64> = (0..PIECE.min(count.next_multiple_of(8)) / 8).map(|_| rand::random()).collect();
    let piece: &[u8] = bytemuck::cast_slice(&piece);
    let outcome = files::write_hdf5(path, "write a trial of the size of a checkpoint", |file| {
        let set = file.new_dataset::<u8>().shape((count,)).create("trial")?;
        for first in (0..count).step_by(PIECE) {
            let end = count.min(first + PIECE);
            set.write_slice(&piece[..end - first], first..end)?;
        }
        Ok(())
    });
    if outcome.is_err() {
        let _ = std::fs::remove_file(path);
    }
    outcome
}

/// Checks that this process may write files of `largest` bytes.
fn check_limit(folder: &Path, largest: u64) -> Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    // "unlimited" is no number.
    match limit.and_then(|limit| limit.split_whitespace().next()?.parse::<u64>().ok()) {
        Some(limit) if limit < largest => Err(Error::input(
            folder,
            "",
            format!("gets files of up to {largest} bytes, but the limit of this process is {limit}"),
            "raise it (ulimit -f)",
        )),
        _ => Ok(()),
    }
}

/// Checks that `total` bytes are free in the file system of `folder`.
fn check_space(folder: &Path, total: u64) -> Result<()> {
    // A file system that does not report it is not judged.
    let Ok(found) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if found.f_blocks == 0 || free >= total {
        return Ok(());
    }
    let problem =
        format!("has {:.3} GiB of free space, but the run writes about {:.3} GiB", gib(free), gib(total));
    Err(Error::input(folder, "", problem, "free some space, or choose another folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_has_the_size_of_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [1, 5000, 3_000_001] {
            let path = folder.path().join("trial.h5");
            write_trial(&path, bytes).unwrap();
            assert!((bytes..bytes + 8192).contains(&std::fs::metadata(&path).unwrap().len()));
        }
        assert!(check_space(folder.path(), 1).is_ok());
        let message = check_space(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(message.contains("GiB of free space, but the run writes about"), "{message}");
    }

    #[test]
    fn ranks_that_cannot_write_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".trial-1.h5"), "").unwrap();
        let told = |texts: [&str; 3]| judge(folder.path(), &texts.map(String::from));
        assert!(told(["a +.trial-1.h5", "a ", "b +.trial-1.h5"]).is_ok());
        let message =
            told(["a +.trial-1.h5", "b -run: is full", "c -run: is read-only"]).unwrap_err().to_string();
        assert!(
            message.contains("rank 1 of 3 on b: run: is full; rank 2 of 3 on c: run: is read-only"),
            "{message}"
        );
    }
}
