//! Programs that run while a test sends them signals.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{program_file, text};

/// A running program and its log.
pub struct Job {
    child: Child,
    log: File,
}

impl Job {
    /// Starts `command` with its log in a temporary file.
    pub fn start(mut command: Command) -> Self {
        let log = tempfile::tempfile().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone().unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has logged so far.
    pub fn said(&self) -> String {
        // Without moving the place where the program writes.
        let mut bytes = vec![0; self.log.metadata().unwrap().len() as usize];
        let count = self.log.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Kills it, and the ranks that it has started.
    pub fn kill(mut self) {
        children(self.id()).into_iter().for_each(|rank| send(9, rank));
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the program, for at most a minute.
    pub fn wait(mut self) -> Output {
        let started = Instant::now();
        let mut hangs = false;
        while self.runs() {
            if started.elapsed() > Duration::from_secs(60) {
                hangs = true;
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut stderr = Vec::new();
        self.log.rewind().and_then(|()| self.log.read_to_end(&mut stderr)).unwrap();
        let output = Output { status: self.child.wait().unwrap(), stdout: Vec::new(), stderr };
        assert!(!hangs, "hangs:\n{}", text(&output));
        output
    }
}

/// The program without a launcher.
pub fn alone(arguments: &[String]) -> Command {
    let mut command = Command::new(program_file());
    command.args(arguments);
    command
}

/// Sends `signal` to `process`.
pub fn send(signal: i32, process: u32) {
    let number = format!("-{signal}");
    // The process may have ended.
    let _ = Command::new("kill").args([number, process.to_string()]).stderr(Stdio::null()).status();
}

/// The processes that `process` started.
pub fn children(process: u32) -> Vec<u32> {
    let text =
        std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Waits until `done`, for at most a minute.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The complete checkpoints of a run.
pub fn checkpoints(run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(run).join("checkpoints")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".h5") && !name.starts_with('.'));
    names.sort();
    names
}

/// The one of `processes` that is rank `rank`: the launcher's order of processes need not be that of the ranks.
pub fn rank_process(processes: &[u32], rank: usize) -> u32 {
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
    let is_rank = |process: &&u32| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    *processes.iter().find(is_rank).expect("Open MPI numbers its ranks")
}
