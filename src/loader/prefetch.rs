//! Reading blocks of particles ahead of who needs them, in threads of its own and in memory that is used again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::particles::store::{Block, Reader};

/// Threads that read: while some wait for the disk, others check what they have read.
pub const READERS: usize = 4;
/// Blocks beyond those that are being read of which the system is told.
const ANNOUNCED: usize = 4;

/// A block that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its rows.
    pub rows: Range<usize>,
    /// Are its images compared with their checksums?
    pub check: bool,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Time that the trainer waited for particles.
    pub waited: Duration,
    /// Bytes of images read from the file.
    pub bytes: u64,
    /// Time in which at least one thread was reading.
    pub reading: Duration,
}

impl Traffic {
    /// For the log, of the time `elapsed`: "1.4 GB/s read, 3% of the time waiting for the file". The rate is that of the time
    /// in which there was something to read.
    pub fn describe(&self, elapsed: Duration) -> String {
        let share = 100.0 * self.waited.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        if self.bytes == 0 {
            return "nothing read".into();
        }
        let rate = self.bytes as f64 / self.reading.as_secs_f64().max(1e-9);
        format!("{} read, {share:.0}% of the time waiting for the file", per_second(rate))
    }
}

/// "1.4 GB/s".
fn per_second(rate: f64) -> String {
    match rate {
        _ if rate >= 1e9 => format!("{:.1} GB/s", rate / 1e9),
        _ if rate >= 1e7 => format!("{:.0} MB/s", rate / 1e6),
        _ => format!("{:.1} MB/s", rate / 1e6),
    }
}

/// Blocks of rows, read ahead in the order in which they are asked for. Dropping it ends the reading.
#[derive(Debug)]
pub struct ReadAhead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

struct Shared {
    reader: Reader,
    state: Mutex<State>,
    /// There is room again, or all is over.
    room: Condvar,
    /// A block is there, or none will come.
    arrival: Condvar,
}

struct State {
    wanted: Box<dyn Iterator<Item = Wanted> + Send>,
    /// The next of them, which the system knows of.
    announced: VecDeque<Wanted>,
    /// Blocks that were begun.
    begun: u64,
    free: Vec<Block>,
    done: BTreeMap<u64, Result<Block>>,
    /// Nothing more is to be begun.
    over: bool,
    threads: usize,
    busy: usize,
    /// When the first of those that are busy began.
    since: Instant,
    traffic: Traffic,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// Begins to read `wanted` into `blocks` blocks: so many are read and not given back at most.
    pub fn start(
        reader: Reader,
        wanted: impl Iterator<Item = Wanted> + Send + 'static,
        blocks: usize,
    ) -> Self {
        let count = READERS.min(blocks).max(1);
        let shared = Arc::new(Shared {
            reader,
            state: Mutex::new(State {
                wanted: Box::new(wanted),
                announced: VecDeque::new(),
                begun: 0,
                free: vec![Block::default(); blocks.max(1)],
                done: BTreeMap::new(),
                over: false,
                threads: count,
                busy: 0,
                since: Instant::now(),
                traffic: Traffic::default(),
            }),
            room: Condvar::new(),
            arrival: Condvar::new(),
        });
        let read = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.read())
        };
        Self { threads: (0..count).map(read).collect(), shared, next: 0 }
    }

    /// The next block, when it is there; `None` behind the last.
    ///
    /// Whoever holds as many blocks as there are must give one back first: nothing else makes room.
    ///
    /// # Errors
    /// What reading it came to.
    pub fn take(&mut self) -> Result<Option<Block>> {
        let asked = Instant::now();
        let mut state = self.shared.lock();
        let outcome = loop {
            if let Some(outcome) = state.done.remove(&self.next) {
                break Some(outcome);
            }
            if state.threads == 0 {
                break None;
            }
            state = wait(&self.shared.arrival, state);
        };
        state.traffic.waited += asked.elapsed();
        match outcome {
            Some(block) => {
                self.next += 1;
                block.map(Some)
            }
            None if self.next < state.begun => Err(Error::request(
                "a thread that reads particles has ended before its time",
                "this is a defect of the program: report it",
            )),
            None => Ok(None),
        }
    }

    /// Gives a block's memory back, or room for one in its place.
    pub fn give_back(&mut self, block: Block) {
        self.shared.lock().free.push(block);
        self.shared.room.notify_one();
    }

    /// What reading came to since the last call.
    pub fn traffic(&mut self) -> Traffic {
        let mut state = self.shared.lock();
        if state.busy > 0 {
            let since = std::mem::replace(&mut state.since, Instant::now());
            state.traffic.reading += since.elapsed();
        }
        std::mem::take(&mut state.traffic)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.room.notify_all();
        // Each ends behind the block at hand. One that panicked has said so.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does.
    fn read(&self) {
        let _leaving = Leaving(self);
        while let Some((number, Wanted { rows, check }, mut block)) = self.begin() {
            let bytes = self.reader.bytes_of(rows.clone());
            let outcome = if check {
                self.reader.read(rows, &mut block)
            } else {
                self.reader.read_again(rows, &mut block)
            };
            let mut state = self.lock();
            state.busy -= 1;
            if state.busy == 0 {
                let spent = state.since.elapsed();
                state.traffic.reading += spent;
            }
            match &outcome {
                Ok(()) => state.traffic.bytes += bytes.end - bytes.start,
                Err(_) => state.over = true,
            }
            state.done.insert(number, outcome.map(|()| block));
            drop(state);
            self.arrival.notify_one();
        }
    }

    /// What to read next, and where to, once there is room.
    fn begin(&self) -> Option<(u64, Wanted, Block)> {
        let mut state = self.lock();
        loop {
            if state.over {
                return None;
            }
            if let Some(block) = state.free.pop() {
                while state.announced.len() <= ANNOUNCED
                    && let Some(wanted) = state.wanted.next()
                {
                    self.reader.announce(wanted.rows.clone());
                    state.announced.push_back(wanted);
                }
                let Some(wanted) = state.announced.pop_front() else {
                    state.over = true;
                    self.room.notify_all();
                    return None;
                };
                let number = state.begun;
                state.begun += 1;
                if state.busy == 0 {
                    state.since = Instant::now();
                }
                state.busy += 1;
                return Some((number, wanted, block));
            }
            state = wait(&self.room, state);
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// Tells who waits when a thread ends, however it does.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads -= 1;
        // All end together: what one has begun and not ended is waited for.
        state.over = true;
        drop(state);
        self.0.arrival.notify_one();
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use crate::loader::prefetch::*;

    #[test]
    fn traffic_is_told_in_rates_and_shares() {
        let seconds = Duration::from_secs_f64;
        let traffic = Traffic { waited: seconds(0.3), bytes: 2_800_000_000, reading: seconds(2.0) };
        let said = traffic.describe(seconds(10.0));
        assert_eq!(said, "1.4 GB/s read, 3% of the time waiting for the file");
        assert_eq!(Traffic::default().describe(seconds(10.0)), "nothing read");
        for (rate, said) in [(2.36e8, "236 MB/s"), (9.87e6, "9.9 MB/s"), (1.0e10, "10.0 GB/s")] {
            assert_eq!(per_second(rate), said);
        }
    }
}
