//! The deadline of every wait. A thread of each rank, the watchdog, knows what its main thread waits for. Where a wait is long, the
//! watchdogs tell each other over MPI whether their ranks wait or work; a rank of which no sign of life comes within the timeout
//! ends the job, with the names of the missing ranks and of what the others wait for.
//!
//! - A rank that waits is alive. A rank that works is alive as long as it uses CPU time, reads or writes: a rank that has hung in a
//!   file system is not.
//! - Ranks that all wait for longer than the timeout wait for each other: the job ends, too.
//! - A process that was suspended forgives the others the time that it has slept.
//! - Nothing is sent while all waits are short.
//!
//! The watchdog and the main thread call MPI in turn, under a lock (MPI_THREAD_SERIALIZED): all calls of the main thread return at
//! once, and a wait is a loop of tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mpi::point_to_point::Status;
use mpi::request::{Request, Scope};
use mpi::topology::SimpleCommunicator;

use super::sign_of_life::Channel;
use super::signals::EndSignal;
use super::watchdog::Watchdog;
use super::watched::{Activity, Shared, Stage, lock};

/// A wait that is shorter ends by testing without a pause.
const SPIN: Duration = Duration::from_millis(20);
/// Pauses between two tests: of the next second, and afterwards.
const PAUSES: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(200)];

/// The watch over the waits of this rank.
pub struct Watch {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Starts the watchdog. The main thread counts as waiting for MPI until the first [`Watch::call`].
    pub(super) fn start(timeout: Duration, signal: EndSignal) -> Arc<Self> {
        let shared = Arc::new(Shared {
            timeout,
            signal,
            activity: Mutex::new(Activity {
                waits_for: Some("MPI to start"),
                since: Instant::now(),
                task: "",
            }),
            stage: Mutex::new(Stage::Unguarded),
            mpi: Mutex::new(None),
            ended: AtomicBool::new(false),
        });
        let mut watchdog = Watchdog::new(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || watchdog.run());
        // Without a thread there are no deadlines; MPI itself would not start on such a machine.
        Arc::new(Self { shared, thread: Mutex::new(thread.ok()) })
    }

    /// Connects the watchdogs of all ranks: from now on they exchange signs of life.
    pub(super) fn connect(&self, channel: Channel) {
        *lock(&self.shared.mpi) = Some(channel);
    }

    /// Disconnects the watchdogs, before MPI ends, which then counts as a wait.
    pub(super) fn disconnect(&self) {
        self.begin("MPI to end");
        drop(lock(&self.shared.mpi).take());
    }

    /// Ends the watchdog, after MPI has ended.
    pub(super) fn finish(&self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }

    /// Names the part of the job that begins: "training". Messages say it after what a rank waits for.
    pub fn task(&self, task: &'static str) {
        lock(&self.shared.activity).task = task;
    }

    /// Declares what a signal finds.
    pub fn enter(&self, stage: Stage) {
        *lock(&self.shared.stage) = stage;
    }

    /// Tells the other ranks that this one ends the job, so that they do not report the signals with which the launcher ends them.
    pub(super) fn announce_end(&self) {
        if let Some(mut guard) = self.shared.try_mpi()
            && let Some(channel) = guard.as_mut()
        {
            channel.announce_end();
        }
    }

    /// Whether another rank has told that it ends the job, and has reported why.
    pub fn another_rank_ends(&self) -> bool {
        let mut guard = lock(&self.shared.mpi);
        guard.as_mut().is_some_and(Channel::hears_of_an_end)
    }

    /// The flag of the signals that end the job.
    pub fn signal(&self) -> &EndSignal {
        &self.shared.signal
    }

    /// Makes a call of MPI that returns at once.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        let _guard = lock(&self.shared.mpi);
        call()
    }

    /// The main thread waits for `what` from now on.
    pub fn begin(&self, what: &'static str) {
        let mut activity = lock(&self.shared.activity);
        (activity.waits_for, activity.since) = (Some(what), Instant::now());
    }

    /// The main thread works from now on.
    pub fn end(&self) {
        let mut activity = lock(&self.shared.activity);
        (activity.waits_for, activity.since) = (None, Instant::now());
    }

    /// Waits for `what` until `done`, which calls MPI or another library, and returns at once.
    pub(super) fn wait(&self, what: &'static str, mut done: impl FnMut() -> bool) {
        if self.call(&mut done) {
            return;
        }
        self.begin(what);
        let started = Instant::now();
        while !self.call(&mut done) {
            pause(started.elapsed());
        }
        self.end();
    }

    /// Waits until `request` is complete.
    pub(super) fn complete<'a, D: ?Sized, S: Scope<'a>>(
        &self,
        what: &'static str,
        request: Request<'a, D, S>,
    ) -> Status {
        let mut pending = Some(request);
        let mut status = None;
        self.wait(what, || {
            match pending.take().map(Request::test) {
                Some(Ok(complete)) => status = Some(complete),
                Some(Err(incomplete)) => pending = Some(incomplete),
                None => {}
            }
            pending.is_none()
        });
        status.expect("the wait ends when the request is complete")
    }

    /// Waits until all ranks of `ranks` wait here.
    pub(super) fn barrier(&self, what: &'static str, ranks: &SimpleCommunicator) {
        use mpi::collective::CommunicatorCollectives;
        let request = self.call(|| ranks.immediate_barrier());
        self.complete(what, request);
    }
}

/// Pauses between two tests of a wait that has lasted for `waited`: first not at all, because most waits take microseconds.
fn pause(waited: Duration) {
    if waited < SPIN {
        std::thread::yield_now();
    } else {
        std::thread::sleep(PAUSES[usize::from(waited > Duration::from_secs(1))]);
    }
}
