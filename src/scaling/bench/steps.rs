//! Steps of all ranks, timed.

use std::time::{Duration, Instant};

use super::particles::Particles;
use crate::error::Result;
use crate::render::{AdamStep, Alone, Device, Step};
use crate::resources::reduction::Reduction;
use crate::run_folder::metrics::Spread;

/// Steps before anything is timed: libraries load and compile what they need when it is first used.
const WARM_UP: usize = 3;

/// With whom a step adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// The group.
    Group,
    /// Nobody.
    Alone,
}

/// What steps came to, over all ranks, in seconds of all steps together.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Steps.
    pub steps: usize,
    /// Their images.
    pub images: u64,
    /// From the first step to the end of the last, on the slowest rank.
    pub seconds: f64,
    /// Waiting for particles.
    pub wait: Spread,
    /// Compute, all-reduce and update, where the device tells them apart.
    pub stages: Option<[Spread; 3]>,
}

/// Takes as many steps as last about `time`, after some that are not timed.
///
/// # Errors
/// When particles cannot be read, or the device or the group fails.
pub fn measure(
    device: &mut dyn Device,
    particles: &mut Particles,
    reduction: &mut Reduction,
    sums: Sums,
    time: Duration,
) -> Result<Timing> {
    let mut steps = WARM_UP;
    run(device, particles, reduction, sums, steps)?;
    // A fraction of the time tells how many steps it takes; all ranks see the same seconds.
    loop {
        let seconds = run(device, particles, reduction, sums, steps)?.seconds;
        if seconds >= time.as_secs_f64() / 10.0 {
            let wanted = steps as f64 * time.as_secs_f64() / seconds;
            return run(device, particles, reduction, sums, wanted.ceil().max(1.0) as usize);
        }
        steps *= 4;
    }
}

fn run(
    device: &mut dyn Device,
    particles: &mut Particles,
    reduction: &mut Reduction,
    sums: Sums,
    steps: usize,
) -> Result<Timing> {
    let mut images = 0;
    device.times();
    reduction.collective.barrier();
    let started = Instant::now();
    let waited = particles.each_step(steps, |count, batch| {
        images += count;
        let step = Step { images: count, adam: AdamStep::IDLE };
        match sums {
            Sums::Group => {
                device.step(batch, &step, reduction)?;
                device.outcomes(false, reduction)?;
            }
            Sums::Alone => {
                device.step(batch, &step, &mut Alone)?;
                device.outcomes(false, &mut Alone)?;
            }
        }
        Ok(())
    })?;
    match sums {
        Sums::Group => device.outcomes(true, reduction)?,
        Sums::Alone => device.outcomes(true, &mut Alone)?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let collective = &reduction.collective;
    let over_ranks = |value: f64| Spread::of(&collective.all_gather_f64(value));
    let times = device.times();
    // Known on all ranks or on none.
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
