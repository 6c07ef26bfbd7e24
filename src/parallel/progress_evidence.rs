//! Evidence that this process works: it uses CPU time, reads or writes.

use std::time::{Duration, Instant};

/// Smallest share of the time, as CPU time, that counts as work.
const SHARE: f64 = 0.01;
/// Bytes of reads and writes that count as work; the observation itself reads fewer.
const BYTES: u64 = 4096;

/// The last time at which this process is known to have worked.
pub(super) struct ProgressEvidence {
    seen: Instant,
    looked: Instant,
    cpu: Duration,
    bytes: u64,
}

impl ProgressEvidence {
    pub fn new(now: Instant) -> Self {
        Self { seen: now, looked: now, cpu: cpu_time(), bytes: bytes_moved() }
    }

    /// Compares the process with the last look.
    pub fn look(&mut self, now: Instant) {
        let (cpu, bytes) = (cpu_time(), bytes_moved());
        let wanted = (now - self.looked).mul_f64(SHARE);
        if cpu.saturating_sub(self.cpu) > wanted || bytes.saturating_sub(self.bytes) > BYTES {
            self.seen = now;
        }
        (self.looked, self.cpu, self.bytes) = (now, cpu, bytes);
    }

    /// Time since the process has last worked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen)
    }
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one structure. The clock exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// Bytes that this process has read and written; 0 where the system does not count them.
fn bytes_moved() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(": ")?;
        ["rchar", "wchar"].contains(&name).then(|| count.trim().parse::<u64>().ok())?
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_by_its_cpu_time_or_its_data() {
        // The tests of this process run in parallel, and work too: only what must be seen is tested here.
        let start = Instant::now();
        let mut evidence = ProgressEvidence::new(start);
        let mut sum = 0.0f64;
        while start.elapsed() < Duration::from_millis(30) {
            sum = (sum + 1.0).sqrt();
        }
        assert!(sum > 0.0);
        let now = Instant::now();
        evidence.look(now);
        assert_eq!(evidence.age(now), Duration::ZERO);
        let before = bytes_moved();
        std::fs::read("/proc/self/exe").unwrap();
        assert!(bytes_moved() > before + BYTES || before == 0);
    }
}
