//! What the main thread of a rank and its watchdog share; see `watch`.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sign_of_life::Channel;
use super::signals::EndSignal;

/// What the job has saved when a signal arrives; decides how the signal ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Signals are left to the main thread, or to their default action.
    Unguarded,
    /// Nothing was trained yet: a signal ends the job at once, and this is the state of its checkpoints.
    Preparing(String),
    /// The main thread stops with a checkpoint after a signal, unless it waits in vain.
    Training,
}

/// What the main thread does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    /// What it waits for; `None` while it works.
    pub waits_for: Option<&'static str>,
    /// Since when.
    pub since: Instant,
    /// The part of the job that it is in.
    pub task: &'static str,
}

impl Activity {
    /// "an all-reduce while training": what it waits for.
    pub fn wait(&self) -> Option<String> {
        let what = self.waits_for?;
        Some(if self.task.is_empty() { what.into() } else { format!("{what} while {}", self.task) })
    }
}

/// What the main thread and the watchdog share.
pub(super) struct Shared {
    /// Longest time without a sign of life.
    pub timeout: Duration,
    pub signal: EndSignal,
    pub activity: Mutex<Activity>,
    pub stage: Mutex<Stage>,
    /// Held during each call of MPI; holds the channel between the watchdogs, from the start of MPI to its end.
    pub mpi: Mutex<Option<Channel>>,
    pub ended: AtomicBool,
}

/// A poisoned lock belongs to a rank that has panicked and ends the job.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn current_activity(&self) -> Activity {
        *lock(&self.activity)
    }

    pub fn current_stage(&self) -> Stage {
        lock(&self.stage).clone()
    }

    /// The channel, unless the main thread is in a call of MPI.
    pub fn try_mpi(&self) -> Option<MutexGuard<'_, Option<Channel>>> {
        match self.mpi.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}
