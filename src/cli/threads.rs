//! Numbers of threads.

use crate::error::{Error, Result};

/// Threads per core that may be asked for: more only share the cores.
const MAX_PER_CORE: usize = 8;
/// Number of threads that is allowed on any machine.
const ALWAYS_ALLOWED: usize = 64;

/// Checks a number of threads that was asked for.
///
/// # Errors
/// When it is 0, or many times the cores that the process may use.
pub(super) fn check(threads: usize) -> Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = ALWAYS_ALLOWED.max(MAX_PER_CORE * cores);
    if (1..=most).contains(&threads) {
        return Ok(threads);
    }
    let problem = format!("--threads {threads} is out of range: this process may use {cores} cores");
    Err(Error::request(problem, format!("choose 1 to {most}, or omit it")))
}

/// A pool of `threads` threads; `None`: one per core.
///
/// # Errors
/// As [`check`], and when the system does not allow as many.
pub(super) fn pool(threads: Option<usize>) -> Result<rayon::ThreadPool> {
    let threads = threads.map_or(Ok(0), check)?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| cannot_start(threads, &error))
}

/// The error that the system does not start `threads` threads.
pub(super) fn cannot_start(threads: usize, reason: &dyn std::error::Error) -> Error {
    Error::request(
        format!("cannot start {threads} threads: {reason}"),
        "ask for fewer with --threads, or raise the limit of processes (ulimit -u)",
    )
}
