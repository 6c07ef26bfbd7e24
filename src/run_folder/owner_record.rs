//! `owner.json`: which process holds a run folder, and whether it still lives.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::parallel::World;

/// Value of `program`.
const PROGRAM: &str = "cryosplat-mpi";
/// Longest record that is read, in bytes.
const LONGEST: u64 = 64 << 10;
/// Longest command that is recorded, in bytes.
const LONGEST_COMMAND: usize = 4096;
/// Where the digits of `beat` begin in the file: it is the first field.
const BEAT_AT: u64 = br#"{"beat":""#.len() as u64;
/// Variables in which batch systems name a job: SLURM, PBS, LSF, Grid Engine.
const JOB_VARIABLES: [&str; 4] = ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"];

/// The process that holds a run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnerRecord {
    /// Counts heartbeats, in ten digits. Declared first, so that its place in the file is known.
    beat: String,
    /// "cryosplat-mpi".
    program: String,
    /// Random name of this ownership.
    pub token: String,
    /// Job of the batch system.
    pub job: Option<String>,
    /// Host name.
    pub host: String,
    /// Identity of the running kernel: another one after a restart of the machine.
    boot: String,
    /// The namespace in which `pid` counts: containers have their own.
    namespace: String,
    /// Process.
    pub pid: u32,
    /// Start of the process, in clock ticks since the start of the machine: numbers of processes are used again.
    started: u64,
    /// User, by name or number.
    user: String,
    /// UTC.
    since: String,
    /// Time between two heartbeats, in milliseconds.
    heartbeat_ms: u64,
    /// Command line.
    command: String,
}

/// Whether a process lives, as far as this one can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs on this machine.
    Alive,
    /// It ran on this machine, and has ended.
    Ended,
    /// It is on another machine, or in another container: only its heartbeat shows whether it lives.
    Elsewhere,
}

impl OwnerRecord {
    /// A record of this process, with a new token.
    pub fn of_this_process(command: &[String], heartbeat: Duration) -> Self {
        let pid = std::process::id();
        let mut command = command.join(" ");
        command.truncate((0..=LONGEST_COMMAND).rev().find(|&at| command.is_char_boundary(at)).unwrap_or(0));
        let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let number = || std::fs::metadata("/proc/self").map_or("unknown".into(), |of| of.uid().to_string());
        Self {
            beat: digits(0),
            program: PROGRAM.into(),
            token: format!("{:032x}", rand::random::<u128>()),
            job: JOB_VARIABLES.iter().find_map(|name| std::env::var(name).ok()),
            host: World::host(),
            boot: boot(),
            namespace: namespace(),
            pid,
            started: start_of(pid).unwrap_or(0),
            user: user.unwrap_or_else(number),
            since: utc(SystemTime::now()),
            heartbeat_ms: heartbeat.as_millis() as u64,
            command,
        }
    }

    /// Reads the record in the file `path`, never through a link; `None` if there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no record of this program.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let fail = Error::io(path, "read who holds the run folder", "get permission to read it");
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let bytes = options.open(path).and_then(|file| {
            if !file.metadata()?.is_file() {
                return Ok(Vec::new());
            }
            let mut bytes = Vec::new();
            file.take(LONGEST).read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        let record = serde_json::from_slice::<Self>(&bytes).ok().filter(|record| record.program == PROGRAM);
        record.map(Some).ok_or_else(|| {
            Error::input(
                path,
                "",
                "does not record who holds the run folder",
                "remove it if no run is using the folder, or choose another folder",
            )
        })
    }

    /// As written to a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is made of texts and numbers")
    }

    /// Whether the process of this record lives.
    pub fn life(&self) -> Life {
        if (&self.host, &self.boot, &self.namespace) != (&World::host(), &boot(), &namespace()) {
            return Life::Elsewhere;
        }
        match start_of(self.pid) {
            Some(started) if started == self.started => Life::Alive,
            _ => Life::Ended,
        }
    }

    /// Whether `other`, read later from the same place, shows a heartbeat since.
    pub fn beats_until(&self, other: &Self) -> bool {
        self.token != other.token || self.beat != other.beat
    }

    /// How long the heartbeat of a living owner may stay away: some network file systems show changes after seconds.
    pub fn patience(&self) -> Duration {
        3 * Duration::from_millis(self.heartbeat_ms.clamp(10, 60_000))
    }

    /// "process 123 on node7, job 4711, of user ada, since 2026-01-31 12:00:00 UTC".
    pub fn describe(&self) -> String {
        let Self { pid, host, job, user, since, .. } = self;
        let job = job.as_ref().map(|job| format!(", job {job}")).unwrap_or_default();
        format!("process {pid} on {host}{job}, of user {user}, since {since}")
    }
}

/// Writes heartbeat `number` into `file`, which holds a record.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn beat(file: &File, number: u64) -> std::io::Result<()> {
    // The file is not replaced: a process that was suspended while its folder was taken over cannot bring its record back.
    file.write_all_at(digits(number).as_bytes(), BEAT_AT)?;
    file.sync_data()
}

fn digits(number: u64) -> String {
    format!("{:010}", number % 10_000_000_000)
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| "unknown".into(), |id| id.trim().into())
}

fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid");
    link.map_or_else(|_| "unknown".into(), |link| link.display().to_string())
}

/// When the process `pid` started, in clock ticks since the start of the machine; `None` if it does not run.
fn start_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in brackets, may hold anything. State and start are fields 3 and 22.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // A process that has ended stays until its parent asks for its exit code.
    let ended = matches!(*fields.first()?, "Z" | "X" | "x");
    if ended { None } else { fields.get(19)?.parse().ok() }
}

/// "2026-01-31 12:00:00 UTC".
pub(super) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, which makes the leap day the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (400 * era + year + month / 10, (month + 2) % 12 + 1);
    let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60];
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> OwnerRecord {
        OwnerRecord::of_this_process(&["train".into(), "p.h5".into()], Duration::from_secs(10))
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_process_lives_until_it_ends_even_if_nobody_waits_for_it() {
        let own = record();
        assert_eq!(own.life(), Life::Alive);
        assert_eq!(OwnerRecord { started: own.started + 1, ..own.clone() }.life(), Life::Ended);
        for other in [
            OwnerRecord { host: "elsewhere".into(), ..own.clone() },
            OwnerRecord { boot: "before".into(), ..own.clone() },
            OwnerRecord { namespace: "pid:[1]".into(), ..own.clone() },
        ] {
            assert_eq!(other.life(), Life::Elsewhere);
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let at = std::time::Instant::now();
        while start_of(child.id()).is_some() {
            assert!(at.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_heartbeat_changes_nothing_but_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.json");
        let own = record();
        std::fs::write(&path, own.to_bytes()).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(!own.beats_until(&OwnerRecord::read(&path).unwrap().unwrap()));
        beat(&file, 12).unwrap();
        let read = OwnerRecord::read(&path).unwrap().unwrap();
        assert!(own.beats_until(&read));
        assert_eq!(read, OwnerRecord { beat: "0000000012".into(), ..own });
    }

    #[test]
    fn what_is_not_a_record_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(OwnerRecord::read(&path("none")).unwrap(), None);
        std::fs::write(path("text"), "{\"pid\": 1}").unwrap();
        std::fs::write(path("record"), record().to_bytes()).unwrap();
        std::os::unix::fs::symlink(path("record"), path("link")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        for name in ["text", "link", "folder", "pipe"] {
            let message = OwnerRecord::read(&path(name)).unwrap_err().to_string();
            assert!(message.contains("does not record who holds the run folder"), "{name}: {message}");
        }
    }
}
