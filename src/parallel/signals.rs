//! The signals that end a job: one flag, which the step loop and the watchdog poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::error::{Error, Result};

/// Exit code after a second Ctrl-C, as shells report it.
const INTERRUPTED: i32 = 130;

/// Flags that are set when this process receives SIGUSR1, SIGTERM or SIGINT.
#[derive(Clone, Debug, Default)]
pub struct EndSignal {
    received: Arc<AtomicBool>,
    /// SIGTERM or SIGINT: the sender will kill the process soon.
    terminates: Arc<AtomicBool>,
}

impl EndSignal {
    /// Installs handlers: from now on the signals only set the flags. A second SIGINT ends the process. To be called before MPI
    /// starts, so that a signal meanwhile is not lost.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn watch() -> Result<Self> {
        use signal_hook::flag::{register, register_conditional_shutdown};
        let flags = Self::default();
        let install = || -> std::io::Result<()> {
            register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&flags.terminates))?;
            for signal in [SIGTERM, SIGINT] {
                register(signal, Arc::clone(&flags.terminates))?;
            }
            for signal in [SIGUSR1, SIGTERM, SIGINT] {
                register(signal, Arc::clone(&flags.received))?;
            }
            Ok(())
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
