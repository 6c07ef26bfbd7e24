//! What may happen between two steps: the end of the job's time, and a checkpoint that is due. All ranks of a group must
//! do the same at the same step, and all groups end together, each at a step of its own.
//!
//! Agreeing takes a message, so the ranks agree every few steps only: so many that it happens twice a second. The first rank
//! of the group, whose clock decides, says each time how many steps there are until the next.

use std::time::{Duration, Instant};

use crate::parallel::{Collective, EndSignal, World};

/// How often ranks agree.
const PERIOD: Duration = Duration::from_millis(500);
/// Steps between two agreements at most.
const LARGEST: u64 = 10_000;

/// What a group does before its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Goes on.
    GoOn,
    /// Writes a checkpoint, and goes on.
    Checkpoint,
    /// Stops here.
    Stop,
}

/// One rank's view of the time.
pub struct Watch<'a> {
    world: &'a World,
    signal: &'a EndSignal,
    /// First ranks of the other groups.
    peers: Vec<usize>,
    leads: bool,
    checkpoint_every: Option<Duration>,
    last_checkpoint: Instant,
    last_agreement: Instant,
    /// Steps between agreements now, and until the next.
    interval: u64,
    left: u64,
    /// Other groups that have said that they stop.
    heard: usize,
    stopping: bool,
}

impl<'a> Watch<'a> {
    /// For a rank that `leads` its group or does not; `peers` are the first ranks of the other groups.
    pub fn new(
        world: &'a World,
        signal: &'a EndSignal,
        peers: Vec<usize>,
        leads: bool,
        checkpoint_every: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Self {
            world,
            signal,
            peers,
            leads,
            checkpoint_every,
            last_checkpoint: now,
            last_agreement: now,
            interval: 1,
            left: 0,
            heard: 0,
            stopping: false,
        }
    }

    /// What to do before the next step, the same on all ranks of the group, and the words of all ranks (`word`, below 2^32) when
    /// they met to agree on it.
    pub fn before_step(&mut self, group: &Collective, word: u32) -> (Notice, Option<Vec<u32>>) {
        if self.left > 0 {
            self.left -= 1;
            return (Notice::GoOn, None);
        }
        let said = group.all_gather(self.word() | u64::from(word) << 32);
        let first = said[0];
        self.interval = first >> 2 & 0x3fff_ffff;
        self.left = self.interval - 1;
        self.last_agreement = Instant::now();
        let notice = if said.iter().any(|&word| word & 1 == 1) {
            self.stop();
            Notice::Stop
        } else if first & 2 == 2 {
            self.last_checkpoint = Instant::now();
            Notice::Checkpoint
        } else {
            Notice::GoOn
        };
        (notice, Some(said.iter().map(|word| (word >> 32) as u32).collect()))
    }

    /// What this rank has to say: bit 0, that the job must stop; and of the first rank bit 1, that a checkpoint is due, and
    /// above that the steps until the next agreement.
    fn word(&mut self) -> u64 {
        while self.leads && self.world.stop_announced() {
            self.heard += 1;
        }
        let stop = self.stopping || self.signal.received() || self.heard > 0;
        if !self.leads {
            return u64::from(stop);
        }
        let due = self.checkpoint_every.is_some_and(|every| self.last_checkpoint.elapsed() >= every);
        let took = self.last_agreement.elapsed().as_secs_f64().max(1e-6);
        // Grows slowly: the first steps of a run, or of an epoch, may be unlike the others.
        let wanted = self.interval as f64 * (PERIOD.as_secs_f64() / took).min(4.0);
        let interval = (wanted as u64).clamp(1, LARGEST);
        u64::from(stop) | u64::from(due) << 1 | interval << 2
    }

    /// The group stops; its first rank tells the other groups.
    fn stop(&mut self) {
        if self.leads && !self.stopping {
            self.peers.iter().for_each(|&peer| self.world.announce_stop(peer));
        }
        self.stopping = true;
    }

    /// Counts the time until the next checkpoint from now.
    pub fn checkpoint_taken(&mut self) {
        self.last_checkpoint = Instant::now();
    }

    /// Waits for all ranks of the job between two epochs. True on all of them if the job must stop.
    pub fn between_epochs(&mut self) -> bool {
        if self.world.all_reduce_sum(u64::from(self.stopping || self.signal.received())) == 0 {
            return false;
        }
        // A group that had ended its epoch has told nobody. Every message that was sent is taken.
        self.stop();
        while self.leads && self.heard < self.peers.len() {
            self.world.await_stop();
            self.heard += 1;
        }
        true
    }
}
