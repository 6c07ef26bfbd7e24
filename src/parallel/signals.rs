//! The signals with which a batch system ends a job: one flag, which the step loop polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGTERM, SIGUSR1, SIGXFSZ};

use crate::error::{Error, Result};

/// A flag that is set when this process receives SIGUSR1 or SIGTERM.
#[derive(Clone, Debug)]
pub struct EndSignal(Arc<AtomicBool>);

impl EndSignal {
    /// Installs handlers: from now on SIGUSR1 and SIGTERM only set the flag.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGUSR1, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(|error| {
                Error::request(
                    format!("cannot install a handler for signal {signal}: {error}"),
                    "start the program without a tool that blocks its signals",
                )
            })?;
        }
        // Exceeding the file size limit is then a write error, like a full disk, and does not kill the process.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
        Ok(Self(flag))
    }

    /// True once a signal was received.
    pub fn received(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
