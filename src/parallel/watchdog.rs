//! The thread that watches the waits of a rank; see `watch`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::host::host;
use super::progress_evidence::ProgressEvidence;
use super::sign_of_life::{Channel, Report};
use super::watched::{Activity, Shared, Stage};
use crate::files::{clean_up_at_exit, exit_without_leftovers};

/// Exit code of a job that a signal has stopped, and that can be resumed.
const STOPPED: i32 = 75;
/// Time from SIGTERM to the end of a job whose ranks still wait for others. SLURM kills it after 30 s.
const TERM_GRACE: Duration = Duration::from_secs(20);
/// Time between two looks at the signals.
const SIGNAL_PERIOD: Duration = Duration::from_millis(100);
/// Time for MPI to abort the job.
const ABORT_TIME: Duration = Duration::from_secs(10);
/// Ranks and hosts that a message names one by one.
const NAMED: usize = 8;

/// The end of a job: exit code and message.
type End = (i32, String);

pub(super) struct Watchdog {
    shared: Arc<Shared>,
    period: Duration,
    evidence: ProgressEvidence,
    /// Last sign of life and last report of each rank, once the ranks are connected.
    others: Vec<Other>,
    rank: usize,
    hosts: Vec<String>,
    /// Time before this counts for nobody: the process may have been suspended.
    forgiven: Instant,
    /// When the main thread was last found outside of a call of MPI.
    outside_mpi: Instant,
    signalled: Option<Instant>,
    /// Another rank ends the job.
    ending: bool,
    warned: bool,
}

#[derive(Clone, Debug)]
struct Other {
    alive: Instant,
    heard: Instant,
    report: Option<Report>,
}

impl Other {
    /// What it waits for, if it has reported that within the last `period`s.
    fn waits_for(&self, now: Instant, period: Duration) -> Option<(&str, f64)> {
        let age = now.saturating_duration_since(self.heard);
        match &self.report {
            Some(Report::Waits(what, seconds)) if age < 4 * period => {
                Some((what, seconds + age.as_secs_f64()))
            }
            _ => None,
        }
    }
}

impl Watchdog {
    pub fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let period = (shared.timeout / 20).clamp(Duration::from_millis(50), Duration::from_secs(5));
        Self {
            shared,
            period,
            evidence: ProgressEvidence::new(now),
            others: Vec::new(),
            rank: 0,
            hosts: Vec::new(),
            forgiven: now,
            outside_mpi: now,
            signalled: None,
            ending: false,
            warned: false,
        }
    }

    /// Watches until the rank ends.
    pub fn run(&mut self) {
        let mut last = Instant::now();
        let mut exchanged = last;
        loop {
            std::thread::park_timeout(self.period.min(SIGNAL_PERIOD));
            if self.shared.ended.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            if now - last > self.shared.timeout / 4 {
                self.forgive(now);
            }
            last = now;
            if now - exchanged >= self.period {
                exchanged = now;
                self.evidence.look(now);
                self.exchange(now);
            }
            if let Some((code, message)) = self.signal(now).or_else(|| self.deadline(now)) {
                self.end_job(code, &message);
            }
        }
    }

    /// This process has slept: what it has not heard meanwhile counts against nobody.
    fn forgive(&mut self, now: Instant) {
        (self.forgiven, self.outside_mpi) = (now, now);
        self.evidence = ProgressEvidence::new(now);
        self.others.iter_mut().for_each(|other| other.alive = now);
    }

    /// Sends this rank's report to the others if its wait is long, or to those that wait; receives theirs.
    fn exchange(&mut self, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let tries = std::iter::repeat_with(|| {
            let channel = shared.try_mpi();
            if channel.is_none() {
                std::thread::sleep(self.period / 200);
            }
            channel
        });
        let Some(mut guard) = tries.take(50).flatten().next() else { return };
        self.outside_mpi = now;
        let Some(channel) = guard.as_mut() else {
            self.others.clear();
            return;
        };
        self.receive(channel, now);
        let (activity, period) = (self.shared.current_activity(), self.period);
        let waited = self.waited(activity, now);
        let report = match activity.wait() {
            Some(what) => Report::Waits(what, waited.as_secs_f64()),
            None => Report::Works(self.evidence.age(now).as_secs_f64()),
        };
        let waits_long = activity.waits_for.is_some() && waited > period;
        for rank in (0..self.others.len()).filter(|&rank| rank != self.rank) {
            if waits_long || self.others[rank].waits_for(now, period).is_some() {
                channel.send(rank, &report);
            }
        }
    }

    fn receive(&mut self, channel: &mut Channel, now: Instant) {
        if self.others.is_empty() {
            (self.rank, self.hosts) = (channel.rank(), channel.hosts().to_vec());
            self.others = vec![Other { alive: now, heard: now, report: None }; self.hosts.len()];
        }
        while let Some((rank, report)) = channel.receive() {
            let age = match report {
                Report::Ends | Report::Waits(..) => 0.0,
                Report::Works(age) => age.max(0.0),
            };
            let alive = now.checked_sub(Duration::from_secs_f64(age)).unwrap_or(now);
            let other = &mut self.others[rank];
            *other = Other { alive: alive.max(other.alive), heard: now, report: Some(report) };
        }
        self.ending = channel.ended();
    }

    /// How long the main thread has been at its `activity`.
    fn waited(&self, activity: Activity, now: Instant) -> Duration {
        now.saturating_duration_since(activity.since.max(self.forgiven))
    }

    /// The end of the job by a signal, unless the main thread stops it in order.
    fn signal(&mut self, now: Instant) -> Option<End> {
        if !self.shared.signal.received() {
            return None;
        }
        let since = *self.signalled.get_or_insert(now);
        // The launcher ends a job with signals, of which the others are not the cause.
        self.exchange(now);
        if self.ending {
            exit_without_leftovers(1);
        }
        match self.shared.current_stage() {
            Stage::Unguarded => None,
            Stage::Preparing(checkpoints) => {
                Some((STOPPED, format!("stopped by a signal before the first step: {checkpoints}")))
            }
            Stage::Training => {
                let activity = self.shared.current_activity();
                let in_vain = self.shared.signal.terminates()
                    && now - since > TERM_GRACE
                    && self.waited(activity, now) > TERM_GRACE;
                activity.wait().filter(|_| in_vain).map(|what| {
                    let problem = format!(
                        "stopped by a signal while this rank waits for {what}: NO NEW CHECKPOINT is written; \
                         run the same command with --resume auto to continue from the last one"
                    );
                    (STOPPED, problem)
                })
            }
        }
    }

    /// The end of the job because a wait is in vain.
    fn deadline(&mut self, now: Instant) -> Option<End> {
        // What takes exactly the timeout is noticed by its end.
        let limit = self.shared.timeout.saturating_sub(2 * self.period);
        let activity = self.shared.current_activity();
        let waited = self.waited(activity, now);
        let Some(what) = activity.wait() else {
            self.warn_of_stillness(now, limit);
            return None;
        };
        self.warned = false;
        if waited <= limit {
            return None;
        }
        let seconds = self.shared.timeout.as_secs_f64();
        if self.others.is_empty() || now - self.outside_mpi > limit {
            return Some((
                1,
                format!(
                    "has waited {seconds:.0} s for {what}, which has not returned; check the launcher, the network and the other \
                     ranks' logs, or wait longer with --timeout"
                ),
            ));
        }
        let others = (0..self.others.len()).filter(|&rank| rank != self.rank);
        let (missing, alive): (Vec<usize>, Vec<usize>) =
            others.partition(|&rank| now.saturating_duration_since(self.others[rank].alive) > limit);
        if !missing.is_empty() {
            // The first rank that is alive reports; the others follow if it cannot end them.
            let reporter = alive.iter().all(|&rank| rank > self.rank);
            let patience = if reporter { Duration::ZERO } else { 4 * self.period + Duration::from_secs(2) };
            let verb = if missing.len() == 1 { "has" } else { "have" };
            return (waited > limit + patience).then(|| {
                let message = format!(
                    "{} {verb} given no sign of life for {seconds:.0} s: stopped, dead or cut off; {}; check these machines and the \
                     network, or wait longer with --timeout",
                    self.names(&missing),
                    self.places(&alive, &what, now)
                );
                (1, message)
            });
        }
        let in_vain = |&rank: &usize| {
            self.others[rank]
                .waits_for(now, self.period)
                .is_some_and(|(_, waited)| waited > limit.as_secs_f64())
        };
        alive.iter().all(in_vain).then(|| {
            let places = self.places(&alive, &what, now);
            let alone = "check this machine and its GPU";
            let remedy = if alive.is_empty() { alone } else { "please report it, with the log" };
            (1, format!("all ranks have waited {seconds:.0} s and none works; {places}; {remedy}"))
        })
    }

    /// Warns once that the main thread works and yet uses no CPU time, nor reads or writes.
    fn warn_of_stillness(&mut self, now: Instant, limit: Duration) {
        if self.evidence.age(now) > limit && !self.warned {
            self.warned = true;
            tracing::warn!(
                "{}: no progress for {:.0} s: neither CPU time nor data; check the file system",
                self.own_name(),
                limit.as_secs_f64()
            );
        }
    }

    /// "rank 2 of 4 on nodeB"; before the ranks are connected "a rank on nodeB".
    fn own_name(&self) -> String {
        match self.hosts.len() {
            0 => format!("a rank on {}", host()),
            ranks => format!("rank {} of {ranks} on {}", self.rank, host()),
        }
    }

    /// "rank 2 on nodeB and rank 3 on nodeB".
    fn names(&self, ranks: &[usize]) -> String {
        let mut names: Vec<String> =
            ranks.iter().take(NAMED).map(|&rank| format!("rank {rank} on {}", self.hosts[rank])).collect();
        if ranks.len() > NAMED {
            names.push(format!("{} other ranks", ranks.len() - NAMED));
        }
        let last = names.pop().unwrap_or_default();
        if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
    }

    /// "rank 0 on nodeA waits for the sum of the gradients": where this rank and the `alive` ones are.
    fn places(&self, alive: &[usize], own: &str, now: Instant) -> String {
        let mut places: Vec<(String, Vec<usize>)> = Vec::new();
        let all = (0..self.others.len()).filter(|rank| *rank == self.rank || alive.contains(rank));
        for rank in all {
            let place = if rank == self.rank {
                format!("for {own}")
            } else {
                self.others[rank]
                    .waits_for(now, self.period)
                    .map_or_else(String::new, |(what, _)| format!("for {what}"))
            };
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, ranks)) => ranks.push(rank),
                None => places.push((place, vec![rank])),
            }
        }
        let sentences = places.iter().map(|(place, ranks)| {
            let (verb, s) =
                (if place.is_empty() { "work" } else { "wait" }, if ranks.len() == 1 { "s" } else { "" });
            format!("{} {verb}{s} {place}", self.names(ranks)).trim_end().to_owned()
        });
        sentences.collect::<Vec<_>>().join(", ")
    }

    fn end_job(&self, code: i32, message: &str) -> ! {
        let line = format!("{}: {message}", self.own_name());
        if let Some(mut guard) = self.shared.try_mpi()
            && let Some(channel) = guard.as_mut()
        {
            channel.announce_end();
        }
        // The log starts after MPI.
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{line}");
        } else {
            let _ = writeln!(std::io::stderr(), "error: {line}");
        }
        // Before MPI has started there is nothing to abort, and after its end nothing that could.
        if self.others.is_empty() {
            exit_without_leftovers(code);
        }
        abort(code)
    }
}

/// True under a launcher that ends all ranks when one exits without finalising MPI, as `mpirun` does. Open MPI's may hang while it
/// collects the messages of MPI_Abort, so it is not called there.
pub(super) static ENDS_WITH_A_RANK: AtomicBool = AtomicBool::new(false);

/// Ends all ranks of the job with exit code `code`, and this process even if the launcher cannot be reached. MPI is initialised.
pub(super) fn abort(code: i32) -> ! {
    clean_up_at_exit();
    if ENDS_WITH_A_RANK.load(Ordering::Relaxed) {
        exit(code);
    }
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(ABORT_TIME);
        exit(code);
    });
    // SAFETY: MPI is initialised. The call may come from any thread, and while another thread is in MPI: it does not return.
    unsafe { mpi::ffi::MPI_Abort(mpi::ffi::RSMPI_COMM_WORLD, code) };
    exit(code)
}

fn exit(code: i32) -> ! {
    // SAFETY: it has no preconditions. The destructors of a main thread that hangs must not run.
    unsafe { libc::_exit(code) }
}
