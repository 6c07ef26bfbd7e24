//! Progress of long work: a bar on a terminal, log lines elsewhere, with the rate and the time left.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a log line is written where there is no terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The rate that foretells the end is that of so much time at least, or of the last quarter of all.
const RECENT: Duration = Duration::from_secs(20);

/// How much was done when, as far back as the present rate is taken from: a training's first steps are not like its others.
#[derive(Debug)]
struct Pace {
    samples: VecDeque<(Duration, u64)>,
}

impl Pace {
    fn new() -> Self {
        Self { samples: VecDeque::from([(Duration::ZERO, 0)]) }
    }

    /// `done` after `elapsed`.
    fn sample(&mut self, elapsed: Duration, done: u64) {
        let last = self.samples.back().expect("never empty").0;
        if elapsed < last + Duration::from_secs(1).max(elapsed / 500) {
            return;
        }
        self.samples.push_back((elapsed, done));
        let start = elapsed.saturating_sub(RECENT.max(elapsed / 4));
        while self.samples.len() > 2 && self.samples[1].0 <= start {
            self.samples.pop_front();
        }
    }

    /// Things a second, when `done` are done after `elapsed`.
    fn rate(&self, elapsed: Duration, done: u64) -> f64 {
        let (start, before) = self.samples[0];
        (done - before) as f64 / (elapsed - start).as_secs_f64().max(1e-9)
    }
}

/// Progress over a known number of things. Silent when made by [`Progress::silent`] (ranks other than 0).
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    unit: &'static str,
    total: u64,
    done: u64,
    pace: Pace,
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
        Self { bar, label, unit, total, done: 0, pace: Pace::new(), started: now, logged: now, silent: false }
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
            pace: Pace::new(),
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
            return;
        }
        let elapsed = self.started.elapsed();
        self.pace.sample(elapsed, self.done);
        if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let rate = self.pace.rate(elapsed, self.done);
            let left = (self.total.saturating_sub(self.done)) as f64 / rate.max(1e-9);
            tracing::info!(
                "{}: {} of {} {}, {:.0} {}/s, {} left",
                self.label,
                self.done,
                self.total,
                self.unit,
                rate,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_foretold_by_the_present_rate() {
        let mut pace = Pace::new();
        // A slow minute, then ten times as fast.
        let done = |seconds: u64| if seconds <= 60 { 10 * seconds } else { 600 + 100 * (seconds - 60) };
        for tenth in 0..2000 {
            let elapsed = Duration::from_millis(100 * tenth);
            pace.sample(elapsed, done(tenth / 10));
            assert!(pace.samples.len() < 300);
        }
        let rate = |pace: &Pace, seconds: u64| pace.rate(Duration::from_secs(seconds), done(seconds));
        assert!((rate(&pace, 200) / 100.0 - 1.0).abs() < 0.05, "{}", rate(&pace, 200));
        let mut early = Pace::new();
        (0..30).for_each(|s| early.sample(Duration::from_secs(s), done(s)));
        assert!((rate(&early, 30) / 10.0 - 1.0).abs() < 0.05);
    }
}
