//! Questions that are asked in a process of their own: what they ask may block or crash.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::folder::FolderRecord;
use super::gpus::GpuLibraries;
use super::particles::ParticlesRecord;
use crate::error::printable;

/// Longest time that a question may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at a process.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time for the last output of a process that has ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The GPUs and their libraries.
    Gpus,
    /// The file system of a folder.
    Folder(PathBuf),
    /// A particle file.
    Particles(PathBuf),
}

impl Probe {
    /// The question in the words of the command line: "gpus", "folder PATH" or "particles PATH".
    ///
    /// # Errors
    /// When there is no such question.
    pub fn from_words(words: &[String]) -> Result<Self, String> {
        match words {
            [what] if what == "gpus" => Ok(Self::Gpus),
            [what, path] if what == "folder" => Ok(Self::Folder(path.into())),
            [what, path] if what == "particles" => Ok(Self::Particles(path.into())),
            _ => Err("expected gpus, folder PATH or particles PATH".into()),
        }
    }

    /// Answers in this process.
    pub fn answer(&self) -> Value {
        let answer = match self {
            Self::Gpus => serde_json::to_value(GpuLibraries::find()),
            Self::Folder(path) => serde_json::to_value(FolderRecord::of(path)),
            Self::Particles(path) => serde_json::to_value(ParticlesRecord::of(path)),
        };
        answer.unwrap_or(Value::Null)
    }

    /// Asks another process of this program.
    ///
    /// # Errors
    /// Why there is no answer: the process has not ended in time, or has crashed.
    pub(super) fn ask<T: DeserializeOwned>(&self) -> Result<T, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["check", "--probe"]);
        match self {
            Self::Gpus => command.arg("gpus"),
            Self::Folder(path) => command.arg("folder").arg(path),
            Self::Particles(path) => command.arg("particles").arg(path),
        };
        let text = output_of(&mut command, TIMEOUT)?;
        serde_json::from_str(text.trim())
            .map_err(|error| format!("an answer that is not understood: {error}"))
    }
}

/// Standard output of a program that must succeed within `timeout`. A process that cannot be killed is left behind: it waits in the
/// kernel, for a file system or a device.
///
/// # Errors
/// Why there is none.
pub(super) fn output_of(command: &mut Command, timeout: Duration) -> Result<String, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let output = reader(child.stdout.take());
    let errors = reader(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < timeout => std::thread::sleep(POLL_INTERVAL),
            Ok(None) => {
                let _ = child.kill();
                return Err(format!("no answer within {} s", timeout.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let text = output.recv_timeout(OUTPUT_GRACE).unwrap_or_default();
    if status.success() {
        return Ok(text);
    }
    let errors = errors.recv_timeout(OUTPUT_GRACE).unwrap_or_default();
    let last = errors.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("without a message");
    Err(format!("ended with {status}: {}", excerpt(last)))
}

/// `text` in one line, shortened.
pub(super) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    printable(&text.chars().take(MAX_CHARS).collect::<String>())
}

/// Reads a pipe in a thread of its own, which may outlive this call.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    const MAX_BYTES: u64 = 1 << 20;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(MAX_BYTES).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The folder as a path without links, if it can be had.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_block_or_crash_give_a_reason() {
        let run = |script: &str, timeout| {
            output_of(Command::new("bash").args(["-c", script]), Duration::from_millis(timeout))
        };
        assert_eq!(run("echo found", 60_000).unwrap(), "found\n");
        let started = Instant::now();
        assert!(run("sleep 600", 1000).unwrap_err().contains("no answer within 1 s"));
        // A grandchild holds the pipes open.
        assert!(run("sleep 600 & exit 0", 60_000).is_ok());
        assert!(started.elapsed().as_secs() < 60);
        let crashed = run("echo 'the \x1b[31mdriver fell' >&2; kill -SEGV $$", 60_000).unwrap_err();
        assert!(crashed.contains("signal") && crashed.contains("driver fell"), "{crashed}");
        assert!(!crashed.contains('\x1b'));
        assert!(output_of(&mut Command::new("/none"), TIMEOUT).unwrap_err().contains("cannot start"));
    }

    #[test]
    fn questions_have_words() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Probe::from_words(&words("gpus")), Ok(Probe::Gpus));
        assert_eq!(Probe::from_words(&words("folder /tmp")), Ok(Probe::Folder("/tmp".into())));
        assert!(Probe::from_words(&words("fortune")).is_err());
    }
}
