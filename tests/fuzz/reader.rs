//! Reads HDF5 files in a separate process, which a damaged file may crash inside the HDF5 library.

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cryosplat_mpi::error::Result;
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::particles::store::Store;
use cryosplat_mpi::run_folder::checkpoint::Checkpoint;

use crate::crash::{MARK, expect_an_end, report_crashes};
use crate::memory::measured;

/// Environment variable that makes a process the reader.
const READER: &str = "CRYOSPLAT_FUZZ_READER";
/// Limit of CPU time per file in seconds; a file takes a few milliseconds.
const SECONDS: i64 = 1;
/// Limit of memory above that at the start: without it, the library allocates whatever a file requests.
const MEMORY: u64 = 1 << 30;

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Particles,
    Checkpoint,
    Gaussians,
}

impl Kind {
    const ALL: [(Self, &str); 3] =
        [(Self::Particles, "particles"), (Self::Checkpoint, "checkpoint"), (Self::Gaussians, "gaussians")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Reads all of a file, as `info --verify` does.
    fn read(self, path: &Path) -> Result<()> {
        match self {
            Self::Checkpoint => Checkpoint::read(path).map(drop),
            Self::Gaussians => GmmFile::read(path).map(drop),
            Self::Particles => {
                let store = Store::open(path)?;
                store.validate()?;
                store.verify()
            }
        }
    }
}

/// The answer of the reader for a file.
#[derive(Debug)]
pub enum Answer {
    /// The file was read, with this peak memory in bytes.
    Read(usize),
    /// The file was refused, with this peak memory and message.
    Refused(usize, String),
    /// The reader panicked, with this message.
    Panicked(String),
    /// The reader was killed by a signal at this place.
    Crashed(i32, Place),
    /// The reader terminated without an answer.
    Ended(String),
}

/// Where a process crashed. Names may be empty.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program or library.
    pub file: String,
    pub function: String,
    /// The function of the C library that was called there.
    pub called: String,
}

/// The reader process, restarted after a crash.
#[derive(Default)]
pub struct Reader {
    running: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Reader {
    /// Lets the process read `path` as a file of this kind.
    pub fn ask(&mut self, kind: Kind, path: &Path) -> Answer {
        let (_, input, output) = self.running.get_or_insert_with(start);
        writeln!(input, "{} {}", kind.name(), path.display()).unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            if output.read_line(&mut line).unwrap_or(0) == 0 {
                let (mut child, ..) = self.running.take().expect("it was started");
                return Answer::Ended(
                    child.wait().map_or_else(|e| e.to_string(), |status| status.to_string()),
                );
            }
            let line = line.trim_end_matches('\n');
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
            match mark {
                "@read" => return Answer::Read(number.parse().unwrap()),
                "@refused" => return Answer::Refused(number.parse().unwrap(), unescape(text)),
                "@panicked" => return Answer::Panicked(unescape(rest)),
                mark if mark == MARK.trim() => {
                    self.stop();
                    let mut names = text.split(' ').map(str::to_owned);
                    let mut name = || names.next().unwrap_or_default();
                    let place = Place { file: name(), function: name(), called: name() };
                    return Answer::Crashed(number.parse().unwrap(), place);
                }
                _ => {}
            }
        }
    }

    fn stop(&mut self) {
        if let Some((mut child, input, _)) = self.running.take() {
            drop(input);
            child.wait().unwrap();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start() -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["reader::answers", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(READER, "1")
        .env("HDF5_USE_FILE_LOCKING", "FALSE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    (child, input, output)
}

/// Escapes line ends: an answer is a single line.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\\", "\\")
}

/// The reader process: answers each line of its input.
#[test]
#[ignore = "a part of the tests of HDF5 files, which start it"]
fn answers() {
    if std::env::var_os(READER).is_none() {
        return;
    }
    report_crashes();
    limit_memory();
    std::panic::set_hook(Box::new(|_| {}));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (name, path) = line.split_once(' ').unwrap();
        let (kind, _) = Kind::ALL.into_iter().find(|(_, known)| *known == name).unwrap();
        expect_an_end(SECONDS);
        let (outcome, held) = measured(|| {
            catch_unwind(AssertUnwindSafe(|| kind.read(Path::new(path)).map_err(|e| e.to_string())))
        });
        expect_an_end(0);
        let answer = match outcome {
            Ok(Ok(())) => format!("@read {held}"),
            Ok(Err(message)) => format!("@refused {held} {}", escape(&message)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                format!("@panicked {}", escape(&text.unwrap_or_default()))
            }
        };
        let mut output = std::io::stdout().lock();
        writeln!(output, "\n{answer}").and_then(|()| output.flush()).unwrap();
    }
}

fn limit_memory() {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    let limit = 4096 * pages + MEMORY;
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the limit is initialised.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}
