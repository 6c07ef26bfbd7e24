//! Time of the all-reduce alone: at the size of the gradient, and as a function of size.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Result;
use crate::render::{Reduce, cuda};
use crate::resources::all_reduce::AllReduce;
use crate::resources::devices::RankDevice;
use crate::scaling::fit;

/// Buffer lengths in f32 values: 4 bytes to 16 MiB.
const LENGTHS: [usize; 7] = [1, 256, 1 << 12, 1 << 14, 1 << 16, 1 << 19, 1 << 22];

/// Time of an all-reduce of one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AllReduceTime {
    /// Bytes of the buffer.
    pub bytes: usize,
    /// Seconds per all-reduce on the slowest rank.
    pub seconds: f64,
}

/// Times of the all-reduce at all sizes.
#[derive(Clone, Debug, Serialize)]
pub struct AllReduceTimes {
    /// At the size of gradient and loss.
    pub gradient: AllReduceTime,
    /// At increasing sizes.
    pub sweep: Vec<AllReduceTime>,
    /// Fitted seconds of an empty all-reduce.
    pub latency: f64,
    /// Fitted bytes of the buffer per second; `None` if the size has no effect.
    pub bandwidth: Option<f64>,
    /// Largest relative error of the fit.
    pub worst: f64,
}

/// The buffer, in host or GPU memory.
enum Buffer {
    Host(Vec<f32>),
    Gpu(cuda::AllReduceBench),
}

impl Buffer {
    fn run(&mut self, reduction: &mut AllReduce, length: usize, times: usize) -> Result<()> {
        match self {
            Self::Host(buffer) => (0..times).try_for_each(|_| reduction.sum(&mut buffer[..length])),
            Self::Gpu(sums) => sums.run(reduction, length, times),
        }
    }
}

/// Measures for about `time` in total. `gradient` is the length of gradient and loss. `None` with one rank.
///
/// # Errors
/// When the device or the all-reduce fails.
pub fn measure(
    device: RankDevice,
    reduction: &mut AllReduce,
    gradient: usize,
    time: Duration,
) -> Result<Option<AllReduceTimes>> {
    if reduction.ranks() == 1 {
        return Ok(None);
    }
    let max_length = LENGTHS[LENGTHS.len() - 1].max(gradient);
    let mut buffer = match device {
        RankDevice::Gpu(ordinal) if reduction.on_device().is_some() => {
            Buffer::Gpu(cuda::AllReduceBench::new(ordinal, max_length)?)
        }
        _ => Buffer::Host(vec![0.0; max_length]),
    };
    let time_per_size = time.as_secs_f64() / (LENGTHS.len() + 1) as f64;
    let mut point = |length| measure_one(&mut buffer, reduction, length, time_per_size);
    let gradient = point(gradient)?;
    let sweep = LENGTHS.into_iter().map(point).collect::<Result<Vec<_>>>()?;
    Ok(Some(summary(gradient, sweep)))
}

/// Repeats an all-reduce for about `time` seconds.
fn measure_one(
    buffer: &mut Buffer,
    reduction: &mut AllReduce,
    length: usize,
    time: f64,
) -> Result<AllReduceTime> {
    let mut times = 2;
    loop {
        reduction.collective.barrier();
        let started = Instant::now();
        buffer.run(reduction, length, times)?;
        let seconds = started.elapsed().as_secs_f64();
        // All ranks use the same seconds, so they make the same decision.
        let seconds = reduction.collective.all_gather_f64(seconds).into_iter().fold(0.0, f64::max);
        // The first round is a warm-up.
        if seconds >= time / 2.0 && times > 2 {
            return Ok(AllReduceTime { bytes: length * size_of::<f32>(), seconds: seconds / times as f64 });
        }
        let wanted = times as f64 * time / seconds.max(1e-9);
        times = (wanted.ceil() as usize).clamp(3, 16 * times);
    }
}

/// Fits seconds = latency + bytes / bandwidth, by the sum of squared relative errors.
fn summary(gradient: AllReduceTime, sweep: Vec<AllReduceTime>) -> AllReduceTimes {
    let rows: Vec<Vec<f64>> =
        sweep.iter().map(|p| vec![1.0 / p.seconds, p.bytes as f64 / p.seconds]).collect();
    let found = fit::nonnegative(&rows, &vec![1.0; rows.len()]);
    let (latency, per_byte) = (found[0], found[1]);
    let error = |p: &AllReduceTime| ((latency + p.bytes as f64 * per_byte) / p.seconds - 1.0).abs();
    let worst = sweep.iter().map(error).fold(0.0, f64::max);
    let bandwidth = (per_byte > 0.0).then(|| 1.0 / per_byte);
    AllReduceTimes { gradient, sweep, latency, bandwidth, worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_recovers_latency_and_bandwidth() {
        let point = |bytes: usize| AllReduceTime { bytes, seconds: 8e-6 + bytes as f64 / 5e9 };
        let all = summary(point(1000), LENGTHS.map(|length| point(4 * length)).to_vec());
        assert!((all.latency / 8e-6 - 1.0).abs() < 1e-9 && all.worst < 1e-9, "{all:?}");
        assert!((all.bandwidth.unwrap() / 5e9 - 1.0).abs() < 1e-9, "{all:?}");
        let flat = summary(point(0), vec![point(0); 3]);
        assert_eq!(flat.bandwidth, None);
    }
}
