//! Agreement between ranks on what happens between two steps: a stop, or a checkpoint that is due.
//!
//! All ranks of a group do the same at the same step. The groups stop together, each at a step of its own. An agreement costs a
//! message, so the ranks agree only every few steps: as many as take half a second. The leader of the group, whose clock
//! decides, announces at each agreement after how many steps the next one follows.

use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};

use crate::parallel::{Collective, EndSignal, World};

/// Target time between two agreements.
const PERIOD: Duration = Duration::from_millis(500);
/// Largest number of steps between two agreements.
const MAX_INTERVAL: u32 = 10_000;

/// What a group does before its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// Take the step.
    Continue,
    /// Write a checkpoint, then take the step.
    Checkpoint,
    /// Stop.
    Stop,
}

/// What a rank reports to its group at an agreement.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
struct Report {
    /// 1 if the job must stop.
    stop: u32,
    /// 1 if a checkpoint is due; counts on the leader only.
    checkpoint_due: u32,
    /// Steps until the next agreement; counts on the leader only.
    interval: u32,
    /// [`LocalEvents::new_exclusions`].
    new_exclusions: u32,
    /// 1 for [`LocalEvents::step_not_finite`].
    step_not_finite: u32,
}

/// What only this rank knows, until the next agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LocalEvents {
    /// Number of particles that this rank has excluded since the last agreement.
    pub new_exclusions: u32,
    /// The device has reported a step that is not finite.
    pub step_not_finite: bool,
}

/// The result of an agreement, the same on all ranks of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// What the group does. Devices report outcomes at different times: a step that is not finite on one rank stops all.
    pub directive: Directive,
    /// Some rank has excluded particles that the others do not know of.
    pub new_exclusions: bool,
}

/// One rank's part in the agreements of its group.
pub(super) struct Agreement<'a> {
    world: &'a World,
    signal: &'a EndSignal,
    /// Leaders of the other groups.
    peers: Vec<usize>,
    is_leader: bool,
    checkpoint_every: Option<Duration>,
    last_checkpoint: Instant,
    last_agreement: Instant,
    /// Steps between agreements.
    interval: u32,
    /// Steps until the next agreement.
    steps_left: u32,
    /// Other groups that have announced their stop.
    stops_received: usize,
    stopping: bool,
}

impl<'a> Agreement<'a> {
    /// `peers` are the world ranks of the other groups' leaders.
    pub fn new(
        world: &'a World,
        signal: &'a EndSignal,
        peers: Vec<usize>,
        is_leader: bool,
        checkpoint_every: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Self {
            world,
            signal,
            peers,
            is_leader,
            checkpoint_every,
            last_checkpoint: now,
            last_agreement: now,
            interval: 1,
            steps_left: 0,
            stops_received: 0,
            stopping: false,
        }
    }

    /// Decides what the group does before the next step.
    pub fn before_step(&mut self, group: &Collective, events: LocalEvents) -> Agreed {
        if self.steps_left > 0 {
            self.steps_left -= 1;
            return Agreed { directive: Directive::Continue, new_exclusions: false };
        }
        let reports = group.all_gather_pod(&self.report(events));
        let leader = reports[0];
        self.interval = leader.interval;
        self.steps_left = self.interval - 1;
        self.last_agreement = Instant::now();
        let directive = if reports.iter().any(|report| report.stop == 1) {
            self.stop();
            Directive::Stop
        } else if leader.checkpoint_due == 1 {
            self.last_checkpoint = Instant::now();
            Directive::Checkpoint
        } else {
            Directive::Continue
        };
        let broken = reports.iter().any(|report| report.step_not_finite == 1);
        let directive = if broken { Directive::Stop } else { directive };
        Agreed { directive, new_exclusions: reports.iter().any(|report| report.new_exclusions > 0) }
    }

    fn report(&mut self, events: LocalEvents) -> Report {
        while self.is_leader && self.world.stop_announced() {
            self.stops_received += 1;
        }
        let stop = self.stopping || self.signal.received() || self.stops_received > 0;
        let report = Report {
            stop: u32::from(stop),
            new_exclusions: events.new_exclusions,
            step_not_finite: u32::from(events.step_not_finite),
            ..Report::default()
        };
        if !self.is_leader {
            return report;
        }
        let due = self.checkpoint_every.is_some_and(|every| self.last_checkpoint.elapsed() >= every);
        let seconds = self.last_agreement.elapsed().as_secs_f64().max(1e-6);
        // At most fourfold: the first steps of a run, or of an epoch, may be slower or faster than the others.
        let wanted = f64::from(self.interval) * (PERIOD.as_secs_f64() / seconds).min(4.0);
        let interval = (wanted as u32).clamp(1, MAX_INTERVAL);
        Report { checkpoint_due: u32::from(due), interval, ..report }
    }

    /// Marks the group as stopping. Its leader announces that to the other groups.
    fn stop(&mut self) {
        if self.is_leader && !self.stopping {
            self.peers.iter().for_each(|&peer| self.world.announce_stop(peer));
        }
        self.stopping = true;
    }

    /// Restarts the time until the next checkpoint.
    pub fn checkpoint_taken(&mut self) {
        self.last_checkpoint = Instant::now();
    }

    /// Waits for all ranks of the job between two epochs. True on all of them if the job must stop.
    pub fn between_epochs(&mut self) -> bool {
        if self.world.all_reduce_sum(u64::from(self.stopping || self.signal.received())) == 0 {
            return false;
        }
        // A group that had finished its epoch has not announced its stop yet. Every announcement is received, so that no
        // message is left when MPI is finalised.
        self.stop();
        while self.is_leader && self.stops_received < self.peers.len() {
            self.world.await_stop();
            self.stops_received += 1;
        }
        true
    }
}
