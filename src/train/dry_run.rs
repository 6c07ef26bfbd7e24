//! `train --dry-run`: what a run would take, from its plan and from steps that are timed on the devices of this job. Writes nothing.

use std::time::{Duration, Instant};

use super::densify;
use super::estimate::{self, Bytes, Estimate, Seconds};
use super::foretold;
use super::options::RunOptions;
use super::pace;
use super::plan::Plan;
use super::planner::{self, Foreseen};
use super::writes;
use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::memory;
use crate::parallel::{Failure, HalfGroup, World};
use crate::particles::store::{Block, Dtype, Store};
use crate::render::{AdamStep, Device, Observation, Step, Target};
use crate::resources::all_reduce::AllReduce;
use crate::resources::devices::{self, RankDevice};

/// Time of the steps that are timed.
const BENCH: Duration = Duration::from_secs(4);
/// Bytes of the images that the steps use.
const IMAGES: usize = 32 << 20;
/// A round of an all-reduce between devices in seconds, and its bytes per second: assumed, where more ranks are asked for than run.
const LATENCY: f64 = 50e-6;
const BANDWIDTH: f64 = 5e9;

/// What is asked of a dry run.
#[derive(Clone, Debug, Default)]
pub struct DryRun {
    /// Ranks of the run; `None` for those of this job.
    pub ranks: Option<usize>,
    /// Particles of each half of the run, where the particle file is a sample of them.
    pub whole: Option<[usize; 2]>,
}

/// The estimate of a run with these `options`, on rank 0. Every rank calls it.
///
/// # Errors
/// What would stop the run: an unusable particle file, settings that do not fit, a device that fails.
pub fn dry_run(
    world: &World,
    options: &RunOptions,
    asked: &DryRun,
) -> std::result::Result<Option<Estimate>, Failure> {
    let started = Instant::now();
    let whole = asked.whole.map(|halves| options.models.particles(halves));
    let Foreseen { store, plan, guess } = planner::foresee_on_all_ranks(world, options, whole.as_deref())?;
    let particles =
        whole.unwrap_or_else(|| plan.models.iter().map(|model| model.subset.rows.len()).collect());
    let mut bench = Bench::open(world, options, (&store, &plan), |mine| {
        guess.starts(world, &plan, store.header().box_size, mine)
    })?;
    let slowness = if world.rank() == 0 { pace::slowness(&store, &plan.subsets())? } else { 1.0 };
    let preparing = started.elapsed().as_secs_f64();
    let timed = bench.measure(&store, &plan, asked.ranks.is_some_and(|ranks| ranks != world.size()))?;
    let (device, device_memory) = bench.close()?;
    if world.rank() > 0 {
        return Ok(None);
    }
    let ranks = asked.ranks.unwrap_or(world.size());
    Ok(Some(timed.estimate(
        options,
        (&store, &plan),
        &particles,
        Machine { world, ranks, device, device_memory, preparing, slowness },
    )))
}

/// Times of steps and of reading.
struct Timed {
    /// Seconds of a step of this job.
    step: f64,
    /// Seconds of a step on one rank that do not depend on its images, and of each image; `None` if they were not told apart.
    parts: Option<[f64; 2]>,
    /// Seconds to read an image.
    read: f64,
    /// Values of the gradient.
    values: usize,
}

/// Where the run takes place.
struct Machine<'a> {
    world: &'a World,
    ranks: usize,
    device: String,
    device_memory: Option<u64>,
    preparing: f64,
    /// The time of work on the CPU over that on the machine of the constants.
    slowness: f64,
}

impl Timed {
    fn estimate(
        &self,
        options: &RunOptions,
        (store, plan): (&Store, &Plan),
        particles: &[usize],
        machine: Machine,
    ) -> Estimate {
        let (header, settings) = (store.header(), &plan.models[0].settings);
        let Machine { world, ranks, device, device_memory, preparing, slowness } = machine;
        let mut assumptions = Vec::new();
        let (models, most) = (particles.len(), particles.iter().copied().max().unwrap_or(0));
        let group = (ranks / models).max(1);
        let step = match self.parts {
            Some([overhead, image]) => {
                let share = settings.batch.div_ceil(group) as f64;
                let bytes = (self.values * size_of::<f32>()) as f64 * 2.0 * (group - 1) as f64 / group as f64;
                assumptions.push(format!(
                    "{ranks} ranks, each on a device and threads like this one's: extrapolated from one rank, not measured"
                ));
                if group > 1 {
                    assumptions.push(format!(
                        "a network of {:.0} us per round and {:.0} GB/s",
                        LATENCY * 1e6,
                        BANDWIDTH / 1e9
                    ));
                }
                overhead + image * share + LATENCY * (group as f64).log2() + bytes / BANDWIDTH
            }
            None => self.step,
        };
        // A single rank trains all models, one after the other.
        let images = if ranks == 1 { particles.iter().sum::<usize>() } else { most };
        let pass = images as f64 / settings.batch as f64 * step;
        let training = pass * estimate::weighted_epochs(settings, 0..settings.epochs);
        let refining = estimate::refining(settings, 0, pass);
        if refining > 0.0 {
            assumptions.push("the time of the refinement, from that of the training".into());
        }
        if device_memory.is_some() {
            assumptions.push("diagnosis and outputs, from a model that was not measured beside a GPU".into());
        }
        let of = (header.box_size, most);
        let ending = estimate::Ending::of(options, settings, of, (ranks.min(world.local_size()), slowness));
        let reading = self.read * images as f64 / group as f64;
        let seconds = ending.follow(Seconds { preparing, reading, training, refining, ..Seconds::default() });
        let run_folder = writes::run_folder(plan, header);
        let image_bytes = header.pixels() as u64 * if store.dtype() == Dtype::F16 { 2 } else { 4 };
        let all: usize = particles.iter().sum();
        let on_node = ranks.min(world.local_size().max(1));
        let memory = foretold::host_bytes((ranks, on_node), options, plan, (header.box_size, particles));
        Estimate {
            particles: particles.to_vec(),
            box_size: header.box_size,
            pixel_size: header.pixel_size,
            gaussians: settings.gaussians,
            mixtures: settings.mixtures,
            epochs: settings.epochs,
            batch: settings.batch,
            ranks,
            device,
            images_per_second: models.min(ranks) as f64 * settings.batch as f64 / step,
            seconds,
            bytes: Bytes {
                memory_per_rank: memory / on_node as u64,
                memory,
                device: device_memory,
                particle_file: all as u64 * (image_bytes + foretold::PARTICLE_BYTES),
                run_folder,
            },
            assumptions,
        }
    }
}

/// The device of a rank, joined with those of its group.
struct Bench {
    device: Box<dyn Device>,
    reduction: AllReduce,
    kind: RankDevice,
    index: usize,
    /// Images of this rank in a full batch.
    share: usize,
    ranks: usize,
    /// Values of the gradient.
    values: usize,
}

impl Bench {
    fn open(
        world: &World,
        options: &RunOptions,
        (store, plan): (&Store, &Plan),
        starts: impl FnOnce(&[usize]) -> Vec<Vec<Option<Gmm>>>,
    ) -> std::result::Result<Self, Failure> {
        let HalfGroup { assignment, collective } = HalfGroup::split(world, plan.models.len());
        let kind = devices::choose(options.device, world)?;
        let index = assignment.models[0];
        let mut starts = starts(&assignment.models);
        let first = starts[0][0].take().expect("the first mixture of a model always has a start");
        let values = first.values().len();
        let sampler = plan.sampler(index, store.header());
        let share = sampler.slots_of(assignment.rank, assignment.size).len();
        let geometry = plan.geometry(index, store.header());
        let open = |gmm| devices::open(kind, gmm, geometry, share, options.cache_half);
        let mut device = densify::open_for_growth(first, &plan.models[index].settings, open)?;
        let mut reduction = devices::connect(world, kind, options.collective, collective)?;
        device.join(&mut reduction)?;
        Ok(Self { device, reduction, kind, index, share, ranks: assignment.size, values })
    }

    /// Times steps; with `parts` also of half as many images, which tells the time of an image from the rest.
    fn measure(&mut self, store: &Store, plan: &Plan, parts: bool) -> Result<Timed> {
        let rows = plan.models[self.index].subset.rows.clone();
        let pixels = store.header().pixels();
        let count = (IMAGES / (size_of::<f32>() * pixels)).clamp(1, rows.len());
        let (reader, mut block) = (store.reader(), Block::default());
        let started = Instant::now();
        reader.read(rows.start..rows.start + count, &mut block)?;
        let read = started.elapsed().as_secs_f64() / count as f64;
        if let Some(&(row, defect)) = block.defects.first() {
            return Err(store.image_error(row, defect));
        }
        let mut images = block.images.to_vec();
        self.device.prepare(&mut images)?;
        let each = block.particles.iter().zip(images.chunks_exact(pixels)).zip(&block.energies);
        let observations: Vec<Observation> = each
            .map(|((particle, image), &energy)| {
                Observation::new(reader.view(particle), Target::Prepared(image), energy)
            })
            .collect();
        let step = self.time(&observations, self.share)?;
        let parts = (parts && self.ranks == 1 && self.share > 1)
            .then(|| {
                let half = self.share / 2;
                let image = (step - self.time(&observations, half)?).max(0.0) / (self.share - half) as f64;
                Ok::<_, Error>([(step - image * self.share as f64).max(0.0), image])
            })
            .transpose()?;
        Ok(Timed { step, parts, read, values: self.values })
    }

    /// Seconds of a step of `share` images on this rank, over all ranks of the group.
    fn time(&mut self, observations: &[Observation], share: usize) -> Result<f64> {
        let Self { device, reduction, ranks, .. } = self;
        let (mut next, mut steps) = (0, 2);
        let mut run = |steps: usize| -> Result<f64> {
            reduction.collective.barrier();
            let started = Instant::now();
            for _ in 0..steps {
                let batch: Vec<Observation> =
                    (0..share).map(|k| observations[(next + k) % observations.len()]).collect();
                next += share;
                let step = Step { images: (share * *ranks) as u64, adam: AdamStep::IDLE };
                device.step(&batch, &step, reduction)?;
                device.outcomes(false, reduction)?;
            }
            device.outcomes(true, reduction)?;
            // All ranks take the same number of steps.
            let seconds = reduction.collective.all_gather_f64(started.elapsed().as_secs_f64());
            Ok(seconds.into_iter().fold(0.0, f64::max))
        };
        run(2)?;
        loop {
            let seconds = run(steps)?;
            let wanted = BENCH.as_secs_f64();
            if seconds >= wanted / 3.0 {
                return Ok(seconds / steps as f64);
            }
            steps = ((steps as f64 * wanted / seconds.max(1e-6)) as usize).clamp(steps + 1, 16 * steps);
        }
    }

    /// Releases the device, then the network. Returns the name of the device, and its memory if it is a GPU.
    fn close(self) -> Result<(String, Option<u64>)> {
        let Self { device, reduction, kind, .. } = self;
        let found = (device.name(), (kind != RankDevice::Cpu).then(|| device.memory()));
        tracing::debug!("peak of the memory of the dry run: {} bytes", memory::peak());
        drop(device);
        reduction.finish()?;
        Ok(found)
    }
}
