//! Prefetch: blocks of particles are read in threads of their own, into memory that is reused.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::particles::store::{Block, Reader};

/// Threads that read: while some wait for the disk, others compute checksums.
pub const READER_THREADS: usize = 4;
/// Blocks after those being read that are announced to the system as needed soon.
const ANNOUNCED: usize = 4;

/// A block to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadRequest {
    pub rows: Range<usize>,
    /// Whether to compare its images with their checksums.
    pub verify: bool,
}

/// Statistics of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Time that the caller waited for particles.
    pub waited: Duration,
    /// Bytes of images read from the file.
    pub bytes: u64,
    /// Time in which at least one thread was reading.
    pub reading: Duration,
}

impl Traffic {
    /// For the log: "1.4 GB/s read, 3% of the time waiting for the file". The rate is over the time in which there was something
    /// to read, the percentage is of `elapsed`.
    pub(crate) fn describe(&self, elapsed: Duration) -> String {
        let share = 100.0 * self.waited.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        if self.bytes == 0 {
            return "nothing read".into();
        }
        let rate = self.bytes as f64 / self.reading.as_secs_f64().max(1e-9);
        format!("{} read, {share:.0}% of the time waiting for the file", per_second(rate))
    }
}

/// `rate` in bytes per second, as "1.4 GB/s".
fn per_second(rate: f64) -> String {
    match rate {
        _ if rate >= 1e9 => format!("{:.1} GB/s", rate / 1e9),
        _ if rate >= 1e7 => format!("{:.0} MB/s", rate / 1e6),
        _ => format!("{:.1} MB/s", rate / 1e6),
    }
}

/// Reads blocks of rows ahead of their use, and returns them in the order of the requests. Dropping it stops its threads.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

struct Shared {
    reader: Reader,
    state: Mutex<State>,
    /// Notified when a block is free or reading stops.
    block_freed: Condvar,
    /// Notified when a block is read or a thread ends.
    block_read: Condvar,
}

struct State {
    requests: Box<dyn Iterator<Item = ReadRequest> + Send>,
    /// The next requests, already announced to the system.
    announced: VecDeque<ReadRequest>,
    /// Number of requests taken by threads.
    started: u64,
    free: Vec<Block>,
    /// Results by number of the request.
    done: BTreeMap<u64, Result<Block>>,
    /// No thread takes another request.
    stopped: bool,
    /// Threads that have not ended.
    threads: usize,
    /// Threads that are reading.
    busy: usize,
    /// Since when at least one thread has been reading.
    busy_since: Instant,
    traffic: Traffic,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Prefetcher {
    /// Starts to read `requests`, with at most `blocks` blocks in memory.
    pub fn start(
        reader: Reader,
        requests: impl Iterator<Item = ReadRequest> + Send + 'static,
        blocks: usize,
    ) -> Self {
        let count = READER_THREADS.min(blocks).max(1);
        let shared = Arc::new(Shared {
            reader,
            state: Mutex::new(State {
                requests: Box::new(requests),
                announced: VecDeque::new(),
                started: 0,
                free: vec![Block::default(); blocks.max(1)],
                done: BTreeMap::new(),
                stopped: false,
                threads: count,
                busy: 0,
                busy_since: Instant::now(),
                traffic: Traffic::default(),
            }),
            block_freed: Condvar::new(),
            block_read: Condvar::new(),
        });
        let spawn = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run())
        };
        Self { threads: (0..count).map(spawn).collect(), shared, next: 0 }
    }

    /// Waits for the next block and returns it; `None` after the last.
    ///
    /// A caller that holds all blocks must return one first, or this waits forever.
    ///
    /// # Errors
    /// When the block could not be read.
    pub fn take(&mut self) -> Result<Option<Block>> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        let outcome = loop {
            if let Some(outcome) = state.done.remove(&self.next) {
                break Some(outcome);
            }
            if state.threads == 0 {
                break None;
            }
            state = wait(&self.shared.block_read, state);
        };
        state.traffic.waited += start.elapsed();
        match outcome {
            Some(block) => {
                self.next += 1;
                block.map(Some)
            }
            None if self.next < state.started => Err(Error::request(
                "a thread that reads particles ended without a result",
                "this is a bug in the program: report it",
            )),
            None => Ok(None),
        }
    }

    /// Returns a block, whose memory is reused.
    pub fn give_back(&mut self, block: Block) {
        self.shared.lock().free.push(block);
        self.shared.block_freed.notify_one();
    }

    /// Statistics since the last call.
    pub fn traffic(&mut self) -> Traffic {
        let mut state = self.shared.lock();
        if state.busy > 0 {
            let since = std::mem::replace(&mut state.busy_since, Instant::now());
            state.traffic.reading += since.elapsed();
        }
        std::mem::take(&mut state.traffic)
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.block_freed.notify_all();
        // Each thread ends after its current block. A panic has already been printed.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread.
    fn run(&self) {
        let _exit = ThreadExit(self);
        while let Some((number, ReadRequest { rows, verify }, mut block)) = self.next_request() {
            let bytes = self.reader.bytes_of(rows.clone());
            let outcome = if verify {
                self.reader.read(rows, &mut block)
            } else {
                self.reader.read_again(rows, &mut block)
            };
            let mut state = self.lock();
            state.busy -= 1;
            if state.busy == 0 {
                let spent = state.busy_since.elapsed();
                state.traffic.reading += spent;
            }
            match &outcome {
                Ok(()) => state.traffic.bytes += bytes.end - bytes.start,
                Err(_) => state.stopped = true,
            }
            state.done.insert(number, outcome.map(|()| block));
            drop(state);
            self.block_read.notify_one();
        }
    }

    /// Waits for a free block. Returns the next request with its number and the block to read into; `None` after the last.
    fn next_request(&self) -> Option<(u64, ReadRequest, Block)> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(block) = state.free.pop() {
                while state.announced.len() <= ANNOUNCED
                    && let Some(request) = state.requests.next()
                {
                    self.reader.announce(request.rows.clone());
                    state.announced.push_back(request);
                }
                let Some(request) = state.announced.pop_front() else {
                    state.stopped = true;
                    self.block_freed.notify_all();
                    return None;
                };
                let number = state.started;
                state.started += 1;
                if state.busy == 0 {
                    state.busy_since = Instant::now();
                }
                state.busy += 1;
                return Some((number, request, block));
            }
            state = wait(&self.block_freed, state);
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the waiting threads when a thread ends, also by a panic.
struct ThreadExit<'a>(&'a Shared);

impl Drop for ThreadExit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads -= 1;
        // All threads end together, each after its current block.
        state.stopped = true;
        drop(state);
        self.0.block_read.notify_one();
        self.0.block_freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use crate::loader::prefetch::*;

    #[test]
    fn traffic_is_described_by_rate_and_percentage() {
        let seconds = Duration::from_secs_f64;
        let traffic = Traffic { waited: seconds(0.3), bytes: 2_800_000_000, reading: seconds(2.0) };
        let text = traffic.describe(seconds(10.0));
        assert_eq!(text, "1.4 GB/s read, 3% of the time waiting for the file");
        assert_eq!(Traffic::default().describe(seconds(10.0)), "nothing read");
        for (rate, text) in [(2.36e8, "236 MB/s"), (9.87e6, "9.9 MB/s"), (1.0e10, "10.0 GB/s")] {
            assert_eq!(per_second(rate), text);
        }
    }
}
