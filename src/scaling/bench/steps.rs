//! Times steps of all ranks.

use std::time::{Duration, Instant};

use super::particles::BenchParticles;
use crate::error::Result;
use crate::render::{AdamStep, Alone, Device, Step};
use crate::resources::all_reduce::AllReduce;
use crate::run_folder::metrics::Spread;

/// Steps before the measurement: libraries load and compile kernels on first use.
const WARM_UP: usize = 3;

/// Ranks over which a step sums its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOver {
    /// All ranks of the group.
    Group,
    /// Only this rank.
    Alone,
}

/// Times of a number of steps, over all ranks, in seconds of all steps.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Number of steps.
    pub steps: usize,
    /// Number of images.
    pub images: u64,
    /// Wall time on the slowest rank.
    pub seconds: f64,
    /// Waiting for particles.
    pub wait: Spread,
    /// Compute, all-reduce and update; `None` if the device does not time them separately.
    pub stages: Option<[Spread; 3]>,
}

/// Runs steps for about `time`, after a warm-up.
///
/// # Errors
/// When particles cannot be read, or the device or the all-reduce fails.
pub fn measure(
    device: &mut dyn Device,
    particles: &mut BenchParticles,
    reduction: &mut AllReduce,
    sum_over: SumOver,
    time: Duration,
) -> Result<Timing> {
    let mut steps = WARM_UP;
    run(device, particles, reduction, sum_over, steps)?;
    // A short measurement gives the number of steps. All ranks use the same seconds.
    loop {
        let seconds = run(device, particles, reduction, sum_over, steps)?.seconds;
        if seconds >= time.as_secs_f64() / 10.0 {
            let wanted = steps as f64 * time.as_secs_f64() / seconds;
            return run(device, particles, reduction, sum_over, wanted.ceil().max(1.0) as usize);
        }
        steps *= 4;
    }
}

fn run(
    device: &mut dyn Device,
    particles: &mut BenchParticles,
    reduction: &mut AllReduce,
    sum_over: SumOver,
    steps: usize,
) -> Result<Timing> {
    let mut images = 0;
    device.times();
    reduction.collective.barrier();
    let started = Instant::now();
    let waited = particles.each_step(steps, |count, batch| {
        images += count;
        let step = Step { images: count, adam: AdamStep::IDLE };
        match sum_over {
            SumOver::Group => {
                device.step(batch, &step, reduction)?;
                device.outcomes(false, reduction)?;
            }
            SumOver::Alone => {
                device.step(batch, &step, &mut Alone)?;
                device.outcomes(false, &mut Alone)?;
            }
        }
        Ok(())
    })?;
    match sum_over {
        SumOver::Group => device.outcomes(true, reduction)?,
        SumOver::Alone => device.outcomes(true, &mut Alone)?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let collective = &reduction.collective;
    let over_ranks = |value: f64| Spread::of(&collective.all_gather_f64(value));
    let times = device.times();
    // Stages must be known on all ranks.
    let known = collective.all_gather(u64::from(times.is_some())).iter().all(|&known| known == 1);
    let stages = times.filter(|_| known).map(|times| {
        [times.compute, times.reduce, times.update].map(|stage| over_ranks(stage.as_secs_f64()))
    });
    Ok(Timing {
        steps,
        images,
        seconds: over_ranks(seconds).max,
        wait: over_ranks(waited.as_secs_f64()),
        stages,
    })
}
