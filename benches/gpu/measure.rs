//! Measures one case: images per second of steps, time per stage, and device memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cryosplat_mpi::render::cuda::gpu::Gpu;
use cryosplat_mpi::render::cuda::{CudaDevice, CudaOptions};
use cryosplat_mpi::render::{AdamStep, Alone, Device, Observation, Step};
use serde::Serialize;

use super::cases::{Case, Particles, mean_support};

/// Particles stored on the device per call.
const STORED_PER_CALL: usize = 64;
/// Steps before the first measurement: libraries load at their first use.
const WARM_UP: usize = 3;

/// Duration of the measurements.
pub struct Effort {
    repeats: usize,
    /// Approximate time of each repeat.
    time: Duration,
    stage_repeats: usize,
}

impl Effort {
    /// Five repeats in one second per case; with `quick`, as few as give numbers.
    pub fn new(quick: bool) -> Self {
        if quick {
            Self { repeats: 2, time: Duration::from_millis(1), stage_repeats: 2 }
        } else {
            Self { repeats: 5, time: Duration::from_millis(200), stage_repeats: 20 }
        }
    }
}

/// Statistics of several repeats.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

/// Device memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// All buffers of the plan.
    pub planned: usize,
    /// cuFFT's work area.
    pub work_area: usize,
    /// Staging buffers.
    pub staged: usize,
    /// Resident particles.
    pub kept: usize,
    /// Decrease of the free memory, which includes all of the above and code.
    pub used: usize,
    /// Free memory before.
    pub free_before: usize,
}

/// Time of a stage of a pass, by the device's clock.
#[derive(Clone, Debug, Serialize)]
pub struct StageTime {
    /// Name of the stage.
    pub name: &'static str,
    /// Median over the repeats.
    pub milliseconds: f64,
}

/// The results of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// Images per second of whole steps, by the host's clock.
    pub images_per_second: Spread,
    /// Steps per repeat.
    pub steps: usize,
    /// Number of repeats.
    pub repeats: usize,
    /// Number of particles, used in rotation.
    pub particles: usize,
    /// Images per pass.
    pub images_at_once: usize,
    /// Blocks of `draw` per tile.
    pub slices: usize,
    /// Mean number of pixels per support.
    pub mean_support: f64,
    /// Lower bound on the time per image, by its exponentials.
    pub floor_seconds: f64,
    /// That bound over the median time per image.
    pub fraction_of_floor: f64,
    /// Device memory.
    pub memory: Memory,
    /// Stages of one pass, launched one by one outside a graph.
    pub stages: Vec<StageTime>,
}

/// Measures `case` on `gpu`, which evaluates `exponentials` exponentials per second.
///
/// # Errors
/// When the device fails, or its memory does not suffice.
pub fn measure(
    case: Case,
    gpu: &Gpu,
    exponentials: f64,
    particles: &Particles,
    effort: &Effort,
) -> Result<Measured> {
    let geometry = case.geometry();
    let gmm = case.mixture.gaussians(case.count, case.box_size);
    let support = mean_support(&gmm, particles.views(), &geometry);

    // Memory of the previous case is freed asynchronously.
    gpu.context.synchronize().map_err(gpu.failed("finish its work"))?;
    let (free_before, _) = gpu.memory()?;
    let options = CudaOptions { ordinal: 0, batch: case.batch, kept_half: false };
    let mut device = CudaDevice::new(gmm, geometry, &options)?;
    store(&mut device, &case, particles)?;
    let mut batches = Batches::new(particles.resident(case.box_size), case.batch);

    run(&mut device, &mut batches, WARM_UP)?;
    let steps = steps(&mut device, &mut batches, effort.time)?;
    let rates = (0..effort.repeats)
        .map(|_| {
            let elapsed = run(&mut device, &mut batches, steps)?;
            Ok((steps * case.batch) as f64 / elapsed.as_secs_f64())
        })
        .collect::<Result<_>>()?;
    let images_per_second = Spread::of(rates);
    let stages = stages(&mut device, &mut batches, effort.stage_repeats)?;

    let (free_after, _) = gpu.memory()?;
    let (plan, work_area) = device.plan();
    // docs/method.md, section 6: as many exponentials backward as forward.
    let floor_seconds = 2.0 * case.count as f64 * support / exponentials;
    Ok(Measured {
        case,
        images_per_second,
        steps,
        repeats: effort.repeats,
        particles: particles.count(case.box_size),
        images_at_once: plan.images,
        slices: plan.slices,
        mean_support: support,
        floor_seconds,
        fraction_of_floor: floor_seconds * images_per_second.median,
        memory: Memory {
            planned: plan.bytes(),
            work_area,
            staged: plan.staged_bytes(),
            kept: plan.resident_bytes(particles.count(case.box_size), false),
            used: free_before.saturating_sub(free_after),
            free_before,
        },
        stages,
    })
}

/// Stores all particles on the device.
fn store(device: &mut CudaDevice, case: &Case, particles: &Particles) -> Result<()> {
    let count = particles.count(case.box_size);
    ensure!(device.reserve(count)?, "the device has no room for {count} particles of {} px", case.box_size);
    let mut images = Vec::new();
    for first in (0..count).step_by(STORED_PER_CALL) {
        let range = first..(first + STORED_PER_CALL).min(count);
        // A device may prepare them in place.
        images.clear();
        images.extend_from_slice(particles.images(range, case.box_size));
        device.store(first, &mut images)?;
    }
    Ok(())
}

/// Batches of consecutive particles, in rotation.
struct Batches {
    /// With the first ones repeated at the end, so that every batch is contiguous.
    observations: Vec<Observation<'static>>,
    particles: usize,
    batch: usize,
    position: usize,
}

impl Batches {
    fn new(mut observations: Vec<Observation<'static>>, batch: usize) -> Self {
        let particles = observations.len();
        for k in 0..batch {
            observations.push(observations[k % particles]);
        }
        Self { observations, particles, batch, position: 0 }
    }

    fn next(&mut self) -> &[Observation<'static>] {
        let first = self.position;
        self.position = (first + self.batch) % self.particles;
        &self.observations[first..first + self.batch]
    }
}

/// Time of `steps` steps, until the last one has ended.
fn run(device: &mut CudaDevice, batches: &mut Batches, steps: usize) -> Result<Duration> {
    let step = Step { images: batches.batch as u64, adam: AdamStep::IDLE };
    let started = Instant::now();
    for _ in 0..steps {
        device.step(batches.next(), &step, &mut Alone)?;
    }
    let losses = device.outcomes(true, &mut Alone)?;
    let elapsed = started.elapsed();
    ensure!(losses.len() == steps, "{} of {steps} steps have an outcome", losses.len());
    Ok(elapsed)
}

/// Number of steps that take about `time`. Starts from few; waiting for the last step must not dominate.
fn steps(device: &mut CudaDevice, batches: &mut Batches, time: Duration) -> Result<usize> {
    let mut steps = WARM_UP;
    loop {
        let elapsed = run(device, batches, steps)?;
        if elapsed >= time / 4 {
            let ratio = time.as_secs_f64() / elapsed.as_secs_f64();
            return Ok((steps as f64 * ratio).ceil().max(1.0) as usize);
        }
        steps *= 4;
    }
}

/// Median times of the stages over `repeats` passes.
fn stages(device: &mut CudaDevice, batches: &mut Batches, repeats: usize) -> Result<Vec<StageTime>> {
    let passes = (0..repeats).map(|_| Ok(device.stage_times(batches.next())?)).collect::<Result<Vec<_>>>()?;
    let names = passes[0].iter().map(|&(name, _)| name);
    Ok(names
        .enumerate()
        .map(|(k, name)| {
            let times = passes.iter().map(|pass| f64::from(pass[k].1)).collect();
            StageTime { name, milliseconds: Spread::of(times).median }
        })
        .collect())
}
