//! Progress of long operations: a bar on a terminal, log lines otherwise, with rate and remaining time.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Interval between log lines without a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The rate is averaged over at least this time, or over the last quarter of the elapsed time.
const MIN_WINDOW: Duration = Duration::from_secs(20);

/// A moving average of the rate: the first steps of a training run are slower than the others.
#[derive(Debug)]
struct RateWindow {
    samples: VecDeque<(Duration, u64)>,
}

impl RateWindow {
    fn new() -> Self {
        Self { samples: VecDeque::from([(Duration::ZERO, 0)]) }
    }

    /// Records that `done` items are done after `elapsed`.
    fn sample(&mut self, elapsed: Duration, done: u64) {
        let last = self.samples.back().expect("never empty").0;
        if elapsed < last + Duration::from_secs(1).max(elapsed / 500) {
            return;
        }
        self.samples.push_back((elapsed, done));
        let start = elapsed.saturating_sub(MIN_WINDOW.max(elapsed / 4));
        while self.samples.len() > 2 && self.samples[1].0 <= start {
            self.samples.pop_front();
        }
    }

    /// Items per second in the window that ends at `elapsed`.
    fn rate(&self, elapsed: Duration, done: u64) -> f64 {
        let (start, before) = self.samples[0];
        (done - before) as f64 / (elapsed - start).as_secs_f64().max(1e-9)
    }
}

/// Progress over a known number of items.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    unit: &'static str,
    total: u64,
    done: u64,
    /// What follows, in the words of a line.
    then: String,
    rate_window: RateWindow,
    started: Instant,
    logged: Instant,
    silent: bool,
}

impl Progress {
    /// Starts progress over `total` items named `unit` ("images").
    pub fn new(label: impl Into<String>, total: u64, unit: &'static str) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = format!(
                "{{msg:12}} {{bar:32.cyan/black.dim}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left{{prefix}}"
            );
            let style =
                ProgressStyle::with_template(&template).expect("the template is fixed").progress_chars("━━━");
            ProgressBar::new(total).with_style(style).with_message(label.clone())
        });
        let now = Instant::now();
        Self {
            bar,
            label,
            unit,
            total,
            done: 0,
            then: String::new(),
            rate_window: RateWindow::new(),
            started: now,
            logged: now,
            silent: false,
        }
    }

    /// Progress without output, for ranks other than 0.
    pub fn silent() -> Self {
        let now = Instant::now();
        Self {
            bar: None,
            label: String::new(),
            unit: "",
            total: 0,
            done: 0,
            then: String::new(),
            rate_window: RateWindow::new(),
            started: now,
            logged: now,
            silent: true,
        }
    }

    /// Adds `count` completed items.
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
        self.rate_window.sample(elapsed, self.done);
        if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let rate = self.rate_window.rate(elapsed, self.done);
            let left = (self.total.saturating_sub(self.done)) as f64 / rate.max(1e-9);
            tracing::info!(
                "{}: {} of {} {}, {:.0} {}/s, {} left{}",
                self.label,
                self.done,
                self.total,
                self.unit,
                rate,
                self.unit,
                duration(left),
                self.then
            );
        }
    }

    /// Says from now on that about `seconds` of other work follow.
    pub fn then(&mut self, seconds: f64) {
        self.then = format!(", then {} of other work", duration(seconds));
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.then.clone());
        }
    }

    /// Items per second since the start.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Ends the progress and logs the rate.
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

/// Bytes in GiB, for messages.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Formats bytes: "4.2 GiB", "310.0 MiB".
pub(crate) fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes < GIB { format!("{:.1} MiB", gib(bytes) * 1024.0) } else { format!("{:.1} GiB", gib(bytes)) }
}

/// Formats seconds: "4.2 s", "3 min 20 s", "2 h 5 min".
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
    fn small_sizes_are_not_zero() {
        for (bytes, expected) in
            [(0, "0.0 MiB"), (5 << 20, "5.0 MiB"), (1 << 30, "1.0 GiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn the_remaining_time_follows_the_recent_rate() {
        let mut window = RateWindow::new();
        // One slow minute, then ten times the rate.
        let done = |seconds: u64| if seconds <= 60 { 10 * seconds } else { 600 + 100 * (seconds - 60) };
        for tenth in 0..2000 {
            let elapsed = Duration::from_millis(100 * tenth);
            window.sample(elapsed, done(tenth / 10));
            assert!(window.samples.len() < 300);
        }
        let rate =
            |window: &RateWindow, seconds: u64| window.rate(Duration::from_secs(seconds), done(seconds));
        assert!((rate(&window, 200) / 100.0 - 1.0).abs() < 0.05, "{}", rate(&window, 200));
        let mut early = RateWindow::new();
        (0..30).for_each(|s| early.sample(Duration::from_secs(s), done(s)));
        assert!((rate(&early, 30) / 10.0 - 1.0).abs() < 0.05);
    }
}
