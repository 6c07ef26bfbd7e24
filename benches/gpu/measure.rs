//! One case: a device, its particles, and the time that steps take.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cryosplat_mpi::imaging::ctf::Ctf;
use cryosplat_mpi::render::cuda::gpu::Gpu;
use cryosplat_mpi::render::cuda::{CudaDevice, CudaOptions};
use cryosplat_mpi::render::{AdamStep, Alone, Device, Observation, Step};
use serde::Serialize;

use super::cases::{Case, Particles, mean_support};

/// Particles that are handed to the device at a time.
const STORED_AT_ONCE: usize = 64;
/// Steps before anything is timed: the first one compiles nothing, but loads what libraries load when first used.
const WARM_UP: usize = 3;

/// How long is measured.
pub struct Effort {
    repeats: usize,
    /// Of each repeat, about.
    time: Duration,
    stage_repeats: usize,
}

impl Effort {
    /// A second a case, in five parts; `quick`: as little as gives numbers.
    pub fn new(quick: bool) -> Self {
        if quick {
            Self { repeats: 2, time: Duration::from_millis(1), stage_repeats: 2 }
        } else {
            Self { repeats: 5, time: Duration::from_millis(200), stage_repeats: 20 }
        }
    }
}

/// Of several repeats.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
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
    /// cuFFT's work area, as cuFFT says.
    pub work_area: usize,
    /// Particles on their way.
    pub staged: usize,
    /// Particles kept on the device.
    pub kept: usize,
    /// By how much the free memory went down, all of the above and code included.
    pub used: usize,
    /// What was free before.
    pub free_before: usize,
}

/// A stage of a pass by the device's own clock.
#[derive(Clone, Debug, Serialize)]
pub struct StageTime {
    /// Its name.
    pub name: &'static str,
    /// The median over the repeats.
    pub milliseconds: f64,
}

/// A case with all its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which.
    #[serde(flatten)]
    pub case: Case,
    /// Images a second of whole steps, by the host's clock.
    pub images_per_second: Spread,
    /// Steps of each repeat.
    pub steps: usize,
    /// Repeats.
    pub repeats: usize,
    /// Particles that took turns.
    pub particles: usize,
    /// Images rendered side by side.
    pub images_at_once: usize,
    /// Blocks that share a tile.
    pub slices: usize,
    /// Pixels of a splat's support, on average.
    pub mean_support: f64,
    /// What the exponentials of an image take at least.
    pub floor_seconds: f64,
    /// The floor's share of the time that an image took (median).
    pub fraction_of_floor: f64,
    /// What it took of the device.
    pub memory: Memory,
    /// Stages of one pass, one after the other outside a graph.
    pub stages: Vec<StageTime>,
}

/// Measures `case` on `gpu`, which makes `exponentials` a second.
///
/// # Errors
/// When the device fails, or has no room.
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

    // The memory of the case before comes back only now.
    gpu.context.synchronize().map_err(gpu.failed("finish its work"))?;
    let (free_before, _) = gpu.memory()?;
    let options = CudaOptions { ordinal: 0, batch: case.batch, kept_half: false };
    let mut device = CudaDevice::new(gmm, geometry, &options)?;
    store(&mut device, &case, particles)?;
    let mut turns = Turns::new(particles.kept(case.box_size), case.batch);

    run(&mut device, &mut turns, WARM_UP)?;
    let steps = steps(&mut device, &mut turns, effort.time)?;
    let rates = (0..effort.repeats)
        .map(|_| {
            let elapsed = run(&mut device, &mut turns, steps)?;
            Ok((steps * case.batch) as f64 / elapsed.as_secs_f64())
        })
        .collect::<Result<_>>()?;
    let images_per_second = Spread::of(rates);
    let stages = stages(&mut device, &mut turns, effort.stage_repeats)?;

    let (free_after, _) = gpu.memory()?;
    let (plan, work_area) = device.plan();
    // METHOD.md section 6: as many exponentials backward as forward.
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

/// Keeps all particles on the device.
fn store(device: &mut CudaDevice, case: &Case, particles: &Particles) -> Result<()> {
    let count = particles.count(case.box_size);
    ensure!(device.keep(count)?, "the device has no room for {count} particles of {} px", case.box_size);
    let mut images = Vec::new();
    for first in (0..count).step_by(STORED_AT_ONCE) {
        let range = first..(first + STORED_AT_ONCE).min(count);
        let ctfs: Vec<Ctf> = particles.views()[range.clone()].iter().map(|view| view.ctf).collect();
        // A device may prepare them in place.
        images.clear();
        images.extend_from_slice(particles.images(range, case.box_size));
        device.store(first, &ctfs, &mut images)?;
    }
    Ok(())
}

/// Particles in their order, again and again.
struct Turns {
    /// With the first ones once more at the end, so that every batch is in one piece.
    observations: Vec<Observation<'static>>,
    particles: usize,
    batch: usize,
    next: usize,
}

impl Turns {
    fn new(mut observations: Vec<Observation<'static>>, batch: usize) -> Self {
        let particles = observations.len();
        for k in 0..batch {
            observations.push(observations[k % particles]);
        }
        Self { observations, particles, batch, next: 0 }
    }

    fn batch(&mut self) -> &[Observation<'static>] {
        let first = self.next;
        self.next = (first + self.batch) % self.particles;
        &self.observations[first..first + self.batch]
    }
}

/// How long `steps` take until the last one has ended.
fn run(device: &mut CudaDevice, turns: &mut Turns, steps: usize) -> Result<Duration> {
    let step = Step { images: turns.batch as u64, adam: AdamStep::IDLE };
    let started = Instant::now();
    for _ in 0..steps {
        device.step(turns.batch(), &step, &mut Alone)?;
    }
    let losses = device.outcomes(true, &mut Alone)?;
    let elapsed = started.elapsed();
    ensure!(losses.len() == steps, "{} of {steps} steps have an outcome", losses.len());
    Ok(elapsed)
}

/// How many steps take about `time`. Fewer are tried at first; the end of a run takes time too, which must not count much.
fn steps(device: &mut CudaDevice, turns: &mut Turns, time: Duration) -> Result<usize> {
    let mut steps = WARM_UP;
    loop {
        let elapsed = run(device, turns, steps)?;
        if elapsed >= time / 4 {
            let ratio = time.as_secs_f64() / elapsed.as_secs_f64();
            return Ok((steps as f64 * ratio).ceil().max(1.0) as usize);
        }
        steps *= 4;
    }
}

/// Medians over `repeats` passes.
fn stages(device: &mut CudaDevice, turns: &mut Turns, repeats: usize) -> Result<Vec<StageTime>> {
    let passes = (0..repeats).map(|_| Ok(device.stage_times(turns.batch())?)).collect::<Result<Vec<_>>>()?;
    let names = passes[0].iter().map(|&(name, _)| name);
    Ok(names
        .enumerate()
        .map(|(k, name)| {
            let times = passes.iter().map(|pass| f64::from(pass[k].1)).collect();
            StageTime { name, milliseconds: Spread::of(times).median }
        })
        .collect())
}
