//! The job that this process belongs to: its time limit.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::{Finding, Level};
use super::probe;
use crate::progress::duration;

/// Time that the scheduler has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds below which the end of a job is near.
const SHORT: i64 = 600;

/// Seconds until the limit of this SLURM job, or why it is not known; `None` outside a job and without a limit.
pub fn seconds_left() -> Option<Result<i64, String>> {
    let variable = |name: &str| std::env::var(name).ok();
    let job = variable("SLURM_JOB_ID")?;
    if let Some(end) = variable("SLURM_JOB_END_TIME").and_then(|end| end.trim().parse::<i64>().ok()) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        return Some(Ok(end - now));
    }
    let mut ask = Command::new("squeue");
    ask.args(["--noheader", "--format=%L", "--jobs", &job]);
    match probe::output_of(&mut ask, TIMEOUT) {
        Ok(text) if text.trim() == "UNLIMITED" => None,
        Ok(text) => {
            Some(parse(text.trim()).ok_or_else(|| format!("squeue says {:?}", probe::excerpt(text.trim()))))
        }
        Err(reason) => Some(Err(format!("squeue: {reason}"))),
    }
}

/// Seconds of "D-HH:MM:SS", of which days and hours may be missing.
fn parse(text: &str) -> Option<i64> {
    let (days, time) = text.split_once('-').unwrap_or(("0", text));
    let numbers: Option<Vec<i64>> = time.split(':').map(|part| part.parse().ok()).collect();
    let seconds = match numbers?[..] {
        [minutes, seconds] => 60 * minutes + seconds,
        [hours, minutes, seconds] => 3600 * hours + 60 * minutes + seconds,
        _ => return None,
    };
    Some(86_400 * days.parse::<i64>().ok()? + seconds)
}

/// The finding of [`seconds_left`].
pub fn finding(left: Option<&Result<i64, String>>) -> Option<Finding> {
    let remedy = "ask for more time; `train` writes checkpoints when the scheduler sends it SIGUSR1 or SIGTERM (slurm/README.md)";
    Some(match left? {
        Ok(left) if *left < SHORT => {
            let text = format!("the job ends in {}", duration((*left).max(0) as f64));
            Finding::new(Level::Warning, "job", text, remedy)
        }
        Ok(left) => Finding::ok("job", format!("ends in {}", duration(*left as f64))),
        Err(reason) => {
            let text = format!("its time limit is not known: {reason}");
            Finding::new(Level::Warning, "job", text, "check the job with `scontrol show job`")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_scheduler_are_read() {
        for (text, seconds) in [("5:07", 307), ("1:00:00", 3600), ("2-03:04:05", 183_845)] {
            assert_eq!(parse(text), Some(seconds));
        }
        for text in ["", "INVALID", "1:2:3:4", "x-1:00"] {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn the_end_of_a_job_is_near_or_far() {
        let level = |left| finding(Some(&left)).unwrap().level;
        assert_eq!(level(Ok(7200)), Level::Ok);
        assert_eq!(level(Ok(-5)), Level::Warning);
        assert_eq!(level(Err("no answer".into())), Level::Warning);
        assert!(finding(None).is_none());
    }
}
