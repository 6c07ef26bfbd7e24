//! The sum over the ranks alone, without steps around it: at the gradient's size, and how its time grows with the bytes.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Result;
use crate::render::{Reduce, cuda};
use crate::resources::devices::Choice;
use crate::resources::reduction::Reduction;
use crate::scaling::fit;

/// Numbers of f32 values that are added up: 4 bytes to 16 MiB.
const LENGTHS: [usize; 7] = [1, 256, 1 << 12, 1 << 14, 1 << 16, 1 << 19, 1 << 22];

/// One size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Bytes of the buffer.
    pub bytes: usize,
    /// Seconds of a sum, on the slowest rank.
    pub seconds: f64,
}

/// The sum at all sizes.
#[derive(Clone, Debug, Serialize)]
pub struct AllReduce {
    /// At the gradient's size, with the loss.
    pub gradient: Point,
    /// At sizes from 4 bytes on.
    pub sweep: Vec<Point>,
    /// Seconds of a sum of no bytes, by the fit.
    pub latency: f64,
    /// Bytes of the buffer a second, by the fit; `None` where they made no difference.
    pub bandwidth: Option<f64>,
    /// The largest relative error of the fit.
    pub worst: f64,
}

/// Where the buffer is.
enum Adder {
    Host(Vec<f32>),
    Gpu(cuda::Sums),
}

impl Adder {
    fn run(&mut self, reduction: &mut Reduction, length: usize, times: usize) -> Result<()> {
        match self {
            Self::Host(buffer) => (0..times).try_for_each(|_| reduction.sum(&mut buffer[..length])),
            Self::Gpu(sums) => sums.run(reduction, length, times),
        }
    }
}

/// Adds up over the ranks for about `time` in all; `None` for a rank alone. `gradient` is the gradient's length.
///
/// # Errors
/// When the device or the group fails.
pub fn measure(
    choice: Choice,
    reduction: &mut Reduction,
    gradient: usize,
    time: Duration,
) -> Result<Option<AllReduce>> {
    if reduction.ranks() == 1 {
        return Ok(None);
    }
    let longest = LENGTHS[LENGTHS.len() - 1].max(gradient);
    let mut adder = match choice {
        Choice::Gpu(ordinal) if reduction.on_device().is_some() => {
            Adder::Gpu(cuda::Sums::new(ordinal, longest)?)
        }
        _ => Adder::Host(vec![0.0; longest]),
    };
    let each = time.as_secs_f64() / (LENGTHS.len() + 1) as f64;
    let mut point = |length| one(&mut adder, reduction, length, each);
    let gradient = point(gradient)?;
    let sweep = LENGTHS.into_iter().map(point).collect::<Result<Vec<_>>>()?;
    Ok(Some(summary(gradient, sweep)))
}

/// Repeats a sum for about `time` seconds.
fn one(adder: &mut Adder, reduction: &mut Reduction, length: usize, time: f64) -> Result<Point> {
    let mut times = 2;
    loop {
        reduction.collective.barrier();
        let started = Instant::now();
        adder.run(reduction, length, times)?;
        let seconds = started.elapsed().as_secs_f64();
        // All ranks see the same seconds, and go on alike.
        let seconds = reduction.collective.all_gather_f64(seconds).into_iter().fold(0.0, f64::max);
        // The first round of all is a trial at any rate.
        if seconds >= time / 2.0 && times > 2 {
            return Ok(Point { bytes: length * size_of::<f32>(), seconds: seconds / times as f64 });
        }
        let wanted = times as f64 * time / seconds.max(1e-9);
        times = (wanted.ceil() as usize).clamp(3, 16 * times);
    }
}

/// Seconds = latency + bytes / bandwidth, with the least sum of squared relative errors.
fn summary(gradient: Point, sweep: Vec<Point>) -> AllReduce {
    let rows: Vec<Vec<f64>> =
        sweep.iter().map(|p| vec![1.0 / p.seconds, p.bytes as f64 / p.seconds]).collect();
    let found = fit::nonnegative(&rows, &vec![1.0; rows.len()]);
    let (latency, per_byte) = (found[0], found[1]);
    let error = |p: &Point| ((latency + p.bytes as f64 * per_byte) / p.seconds - 1.0).abs();
    let worst = sweep.iter().map(error).fold(0.0, f64::max);
    let bandwidth = (per_byte > 0.0).then(|| 1.0 / per_byte);
    AllReduce { gradient, sweep, latency, bandwidth, worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_and_bandwidth_come_back() {
        let point = |bytes: usize| Point { bytes, seconds: 8e-6 + bytes as f64 / 5e9 };
        let all = summary(point(1000), LENGTHS.map(|length| point(4 * length)).to_vec());
        assert!((all.latency / 8e-6 - 1.0).abs() < 1e-9 && all.worst < 1e-9, "{all:?}");
        assert!((all.bandwidth.unwrap() / 5e9 - 1.0).abs() < 1e-9, "{all:?}");
        let flat = summary(point(0), vec![point(0); 3]);
        assert_eq!(flat.bandwidth, None);
    }
}
