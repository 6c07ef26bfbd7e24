//! Where the time of an epoch goes.

use std::time::{Duration, Instant};

use crate::render::{Device, StageTimes};

/// Images and times since the start of the epoch, or of this process.
pub(super) struct EpochTimer {
    pub images: u64,
    /// Time spent waiting for particles.
    pub waited: Duration,
    /// Times of the device's stages; `None` where the device does not measure them.
    pub stages: Option<StageTimes>,
    last_line: Totals,
}

/// Totals at the last line of the metrics.
#[derive(Clone, Copy)]
struct Totals {
    at: Instant,
    images: u64,
    waited: Duration,
    reduce: Duration,
}

/// Rates between two lines of the metrics.
pub(super) struct Rates {
    pub images_per_second: f64,
    /// Share of the time spent waiting for particles.
    pub input_share: f64,
    /// Share of the time spent in all-reduces.
    pub reduce_share: Option<f64>,
}

impl EpochTimer {
    /// Starts now.
    pub fn start() -> Self {
        let last_line =
            Totals { at: Instant::now(), images: 0, waited: Duration::ZERO, reduce: Duration::ZERO };
        Self { images: 0, waited: Duration::ZERO, stages: None, last_line }
    }

    /// Adds the device's times since the last call.
    pub fn add_stages(&mut self, device: &mut dyn Device) {
        if let Some(new) = device.times() {
            let stages = self.stages.get_or_insert_default();
            stages.compute += new.compute;
            stages.reduce += new.reduce;
            stages.update += new.update;
        }
    }

    /// Rates since the last call.
    pub fn rates(&mut self, device: &mut dyn Device) -> Rates {
        self.add_stages(device);
        let (last, now) = (self.last_line, Instant::now());
        let reduce = self.stages.map_or(Duration::ZERO, |stages| stages.reduce);
        self.last_line = Totals { at: now, images: self.images, waited: self.waited, reduce };
        let seconds = now.duration_since(last.at).as_secs_f64().max(1e-9);
        Rates {
            images_per_second: (self.images - last.images) as f64 / seconds,
            input_share: (self.waited - last.waited).as_secs_f64() / seconds,
            reduce_share: self.stages.map(|_| (reduce - last.reduce).as_secs_f64() / seconds),
        }
    }
}
