//! Runs a reader on damaged files and checks the outcomes.

use std::cell::Cell;
use std::fmt::Debug;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use cryosplat_mpi::error::Result;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::damage::{Words, damaged, damages};
use crate::memory::{allowed, measured};

/// Default number of cases per reader.
const CASES: u32 = 300;

/// The outcome of a case.
pub enum Outcome {
    /// The file was read.
    Read,
    /// The file was refused, with this message.
    Refused(String),
    /// The process crashed in a library.
    Lost,
}

/// A number from the environment.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, expected a number")))
}

/// Runs one in `share` of the requested cases and prints their outcomes. `CRYOSPLAT_FUZZ_SEED` sets the seed.
pub fn explore<S: Strategy>(
    name: &str,
    share: u32,
    strategy: S,
    mut judge: impl FnMut(S::Value) -> std::result::Result<Outcome, String>,
) where
    S::Value: Debug,
{
    let seed: u64 = number("CRYOSPLAT_FUZZ_SEED").unwrap_or(0);
    let cases = number("CRYOSPLAT_FUZZ_CASES").unwrap_or(CASES).div_ceil(share);
    let own = seed.rotate_left(32) ^ u64::from(crc32fast::hash(name.as_bytes()));
    let config =
        Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(own), ..Config::default() };
    let judge = std::cell::RefCell::new(&mut judge);
    let (read, refused, lost) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let outcome = TestRunner::new(config).run(&strategy, |case| {
        let tally = match judge.borrow_mut()(case).map_err(TestCaseError::fail)? {
            Outcome::Read => &read,
            Outcome::Refused(message) => {
                prop_assert!(!message.contains('\n') && message.contains("; "), "{message:?}");
                &refused
            }
            Outcome::Lost => &lost,
        };
        tally.set(tally.get() + 1);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{name}, seed {seed}: {failure}");
    }
    let (read, refused, lost) = (read.get(), refused.get(), lost.get());
    println!("fuzz: {name}: seed {seed}, {cases} cases, {read} read, {refused} refused, {lost} lost");
}

/// A file to damage.
pub struct Sound<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
    /// Other files in the same folder.
    pub beside: &'a [(&'a str, Vec<u8>)],
    /// Words of its format.
    pub words: Words,
    /// Run one in this many of the cases.
    pub share: u32,
    /// Additional memory in bytes for the results of the reader.
    pub beyond: usize,
}

impl<'a> Sound<'a> {
    /// A single file of a format with these `words`.
    pub fn new(name: &'a str, bytes: &'a [u8], words: Words) -> Self {
        Self { name, bytes, beside: &[], words, share: 1, beyond: 0 }
    }
}

/// Damages a file and calls `read`, which must accept the undamaged file.
pub fn fuzz(sound: &Sound, read: impl Fn(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in sound.beside {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let file = folder.path().join(sound.name);
    std::fs::write(&file, sound.bytes).unwrap();
    if let Err(error) = read(&file) {
        panic!("the sound file is refused: {error}");
    }
    fuzz_in(&file, sound, read);
}

/// Damages the file at `file` in place.
pub fn fuzz_in(file: &Path, sound: &Sound, read: impl Fn(&Path) -> Result<()>) {
    explore(sound.name, sound.share, damages(sound.words), |damages| {
        let bytes = damaged(sound.bytes, &damages);
        std::fs::write(file, &bytes).unwrap();
        let (outcome, held) = measured(|| within_a_minute(|| read(file)));
        if held > sound.beyond + allowed(bytes.len()) {
            return Err(format!("{held} bytes of memory for a file of {}", bytes.len()));
        }
        Ok(match outcome {
            Ok(()) => Outcome::Read,
            Err(error) => Outcome::Refused(error.to_string()),
        })
    });
}

/// Kills the process if `work` takes a minute of CPU time of this thread, so that a hang is detected.
fn within_a_minute<T>(work: impl FnOnce() -> T) -> T {
    let mut clock = 0;
    // SAFETY: the thread is the current one, and the clock is writable.
    unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    let spent = move || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread lives until the end of the scope below, and the time is writable.
        unsafe { libc::clock_gettime(clock, &mut time) };
        time.tv_sec
    };
    let before = spent();
    let (done, ended) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                if spent() - before > 60 {
                    eprintln!("a reader does not end");
                    std::process::abort();
                }
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}
