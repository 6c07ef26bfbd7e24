//! Progress of long work: a bar on a terminal, log lines elsewhere, with the rate and the time left.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a log line is written where there is no terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Progress over a known number of things. Silent when made by [`Progress::silent`] (ranks other than 0).
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    unit: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    logged: Instant,
    silent: bool,
}

impl Progress {
    /// Starts a progress of `total` `unit`s ("images").
    pub fn new(label: impl Into<String>, total: u64, unit: &'static str) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = format!(
                "{{msg:12}} {{bar:32.cyan/black.dim}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left"
            );
            let style =
                ProgressStyle::with_template(&template).expect("the template is fixed").progress_chars("━━━");
            ProgressBar::new(total).with_style(style).with_message(label.clone())
        });
        let now = Instant::now();
        Self { bar, label, unit, total, done: 0, started: now, logged: now, silent: false }
    }

    /// A progress that shows nothing.
    pub fn silent() -> Self {
        let now = Instant::now();
        Self {
            bar: None,
            label: String::new(),
            unit: "",
            total: 0,
            done: 0,
            started: now,
            logged: now,
            silent: true,
        }
    }

    /// Says that `count` more are done.
    pub fn advance(&mut self, count: u64) {
        self.done += count;
        if self.silent {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.inc(count);
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let left = (self.total.saturating_sub(self.done)) as f64 / self.rate().max(1e-9);
            tracing::info!(
                "{}: {} of {} {}, {:.0} {}/s, {} left",
                self.label,
                self.done,
                self.total,
                self.unit,
                self.rate(),
                self.unit,
                duration(left)
            );
        }
    }

    /// Things per second since the start.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Ends the progress and says how fast it went.
    pub fn finish(self) {
        if self.silent {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        tracing::info!(
            "{}: {} {} in {}, {:.0} {}/s",
            self.label,
            self.done,
            self.unit,
            duration(self.started.elapsed().as_secs_f64()),
            self.rate(),
            self.unit
        );
    }
}

/// Seconds as a person writes them: "4.2 s", "3 min 20 s", "2 h 5 min".
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    } else {
        format!("{} h {} min", seconds as u64 / 3600, seconds as u64 % 3600 / 60)
    }
}
