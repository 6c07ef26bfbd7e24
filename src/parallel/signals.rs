//! The signals that end a job: one flag, which the step loop and the watchdog poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};
use crate::files;

/// Exit code after a second Ctrl-C, as shells report it.
const INTERRUPTED: i32 = 130;
/// A launcher may forward the Ctrl-C that the terminal has sent already: SIGINT within this time of the first is the same one.
const SAME_PRESS: Duration = Duration::from_millis(300);

/// Whether a signal was received.
static RECEIVED: AtomicBool = AtomicBool::new(false);
/// Whether the training of this process is over.
static TRAINED: AtomicBool = AtomicBool::new(false);

/// Says that the training of this process is over: a signal no longer stops it.
pub fn training_is_over() {
    TRAINED.store(true, Ordering::Relaxed);
}

/// Whether a signal asks this process to end soon.
pub fn end_is_asked() -> bool {
    RECEIVED.load(Ordering::Relaxed)
}

/// Flags that are set when this process receives SIGUSR1, SIGTERM or SIGINT.
#[derive(Clone, Debug, Default)]
pub struct EndSignal {
    received: Arc<AtomicBool>,
    /// SIGTERM or SIGINT: the sender will kill the process soon.
    terminates: Arc<AtomicBool>,
}

impl EndSignal {
    /// Installs handlers: from now on the signals only set the flags. The first is logged, and a second Ctrl-C ends the process, whose
    /// unfinished files are removed. To be called before MPI starts, so that a signal meanwhile is not lost.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn watch() -> Result<Self> {
        use signal_hook::flag::register;
        let flags = Self::default();
        let install = || -> std::io::Result<()> {
            for signal in [SIGTERM, SIGINT] {
                register(signal, Arc::clone(&flags.terminates))?;
            }
            for signal in [SIGUSR1, SIGTERM, SIGINT] {
                register(signal, Arc::clone(&flags.received))?;
            }
            let signals = Signals::new([SIGUSR1, SIGTERM, SIGINT])?;
            std::thread::Builder::new().name("signals".into()).spawn(move || follow(signals)).map(drop)
        };
        install().map_err(|error| {
            Error::request(
                format!("cannot install the handlers of signals: {error}"),
                "start the program without a tool that blocks its signals",
            )
        })?;
        Ok(flags)
    }

    /// True once a signal was received.
    pub fn received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }

    /// True once SIGTERM or SIGINT was received: the sender kills the process after a while.
    pub fn terminates(&self) -> bool {
        self.terminates.load(Ordering::Relaxed)
    }
}

/// Logs the first signal, and ends the process on a second Ctrl-C.
fn follow(mut signals: Signals) {
    let mut interrupted: Option<Instant> = None;
    let mut is_logged = false;
    for signal in signals.forever() {
        if signal == SIGINT && interrupted.is_some_and(|first| first.elapsed() > SAME_PRESS) {
            eprintln!("error: ended by a second Ctrl-C; unfinished files are removed, checkpoints stay");
            files::exit_without_leftovers(INTERRUPTED);
        }
        if signal == SIGINT {
            interrupted.get_or_insert_with(Instant::now);
        }
        RECEIVED.store(true, Ordering::Relaxed);
        if !std::mem::replace(&mut is_logged, true) {
            let again = if signal == SIGINT { "; a second Ctrl-C ends the job at once" } else { "" };
            let name = match signal {
                SIGINT => "Ctrl-C",
                SIGTERM => "SIGTERM",
                _ => "SIGUSR1",
            };
            match TRAINED.load(Ordering::Relaxed) {
                true => tracing::info!(
                    "{name}: the training is over; what is left is written without a diagnosis{again}"
                ),
                false => {
                    tracing::info!("{name}: training stops at the next step and writes checkpoints{again}")
                }
            }
        }
    }
}
