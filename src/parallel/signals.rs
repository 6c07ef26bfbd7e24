//! The signals by which a batch system asks a job to end: one flag, looked at between steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGTERM, SIGUSR1, SIGXFSZ};

use crate::error::{Error, Result};

/// True once this process has received SIGUSR1 or SIGTERM.
#[derive(Clone, Debug)]
pub struct EndSignal(Arc<AtomicBool>);

impl EndSignal {
    /// From now on SIGUSR1 and SIGTERM raise the flag, and do nothing else.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGUSR1, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(|error| {
                Error::request(
                    format!("cannot watch for signal {signal}: {error}"),
                    "start the program as usual, without a tool that keeps its signals",
                )
            })?;
        }
        // A file that may not grow is an error of whoever writes it, as on a disk that is full.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
        Ok(Self(flag))
    }

    /// Has one come?
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
