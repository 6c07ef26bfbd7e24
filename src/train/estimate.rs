//! What a run takes: time, memory and disk, from the time of a step. `--dry-run` times steps before a run, and a run times its own
//! first steps.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::options::RunOptions;
use super::plan::Plan;
use crate::particles::selection::Models;
use crate::progress::{duration, gib};
use crate::recipe::Settings;

/// Seconds of the outputs beside what follows: figures, report, tables.
const OUTPUTS: f64 = 0.5;
/// Seconds per voxel of the box: maps, masks, FSCs.
const PER_VOXEL: f64 = 5e-6;
/// Seconds of a thread per pixel of an image, and view of a symmetry, that is inserted into the voxel maps of the cross-validation.
const PER_INSERTED_PIXEL: f64 = 6e-8;
/// Seconds of a thread per pixel of an image for the diagnosis of a run, which takes a bounded number of particles, downsampled to a box
/// of this many pixels (measured: 4 to 5 s at 32 pixels, 16 to 19 s at 64 and at 128).
const DIAGNOSIS: f64 = 4.2e-3;
const DIAGNOSIS_BOX: usize = 64;
/// A round of refinement, in steps of training over the same particles.
const REFINING_PASSES: f64 = 4.0;

/// Seconds of the parts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Checks, pilot reconstruction, start of the devices.
    pub preparing: f64,
    /// Reading the particles.
    pub reading: f64,
    /// Steps of all mixtures.
    pub training: f64,
    /// Rounds of refinement.
    pub refining: f64,
    /// Maps, FSC, cross-validation, diagnosis, report.
    pub outputs: f64,
}

impl Seconds {
    /// Of the whole run.
    pub fn total(&self) -> f64 {
        self.preparing + self.reading + self.training + self.refining + self.outputs
    }
}

/// Bytes that a run takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Host memory of a rank.
    pub memory_per_rank: u64,
    /// Host memory of all ranks of this node.
    pub memory: u64,
    /// Memory of a rank's GPU; `None` on the CPU device.
    pub device: Option<u64>,
    /// The particle file.
    pub particle_file: u64,
    /// The run folder: checkpoints and outputs.
    pub run_folder: u64,
}

/// What a run takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Particles of each model.
    pub particles: Vec<usize>,
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Gaussians per mixture, of the asymmetric unit.
    pub gaussians: usize,
    /// Mixtures per half.
    pub mixtures: usize,
    /// Epochs per half.
    pub epochs: usize,
    /// Images per step and half.
    pub batch: usize,
    /// Ranks of the run.
    pub ranks: usize,
    /// Name of a rank's device.
    pub device: String,
    /// Images per second of all ranks.
    pub images_per_second: f64,
    /// Time.
    pub seconds: Seconds,
    /// Memory and disk.
    pub bytes: Bytes,
    /// What is assumed and not measured.
    pub assumptions: Vec<String>,
}

/// The table for the terminal.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |label: &str, value: String| writeln!(f, "{label:<18} {value}");
        let counts: Vec<String> = self.particles.iter().map(usize::to_string).collect();
        line(
            "particles",
            format!("{} of {} pixels, {:.4} A", counts.join(" and "), self.box_size, self.pixel_size),
        )?;
        line("Gaussians", format!("{} in each of {} mixtures per half", self.gaussians, self.mixtures))?;
        let seen: usize = self.particles.iter().sum::<usize>() * self.epochs;
        line("epochs", format!("{} per half, batch {}: {seen} images in all", self.epochs, self.batch))?;
        let ranks = if self.ranks == 1 { "1 rank".to_owned() } else { format!("{} ranks", self.ranks) };
        line("machine", format!("{ranks}; each: {}", self.device))?;
        line("speed", format!("{:.0} images/s", self.images_per_second))?;
        let Seconds { preparing, reading, training, refining, outputs } = self.seconds;
        let mut time = format!("about {}: ", duration(self.seconds.total()));
        write!(time, "training {}, ", duration(training))?;
        if refining > 0.0 {
            write!(time, "refinement {}, ", duration(refining))?;
        }
        write!(
            time,
            "preparation {}, reading {}, outputs {}",
            duration(preparing),
            duration(reading),
            duration(outputs)
        )?;
        line("time", time)?;
        let Bytes { memory_per_rank, memory, device, particle_file, run_folder } = self.bytes;
        let mut text = format!("{} per rank, {} on a node", size(memory_per_rank), size(memory));
        if let Some(device) = device {
            write!(text, "; {} of each GPU", size(device))?;
        }
        line("memory", text)?;
        line(
            "disk",
            format!("{} for particles, {} for the run folder", size(particle_file), size(run_folder)),
        )?;
        self.assumptions.iter().try_for_each(|assumption| line("assumed", assumption.clone()))
    }
}

/// "1.2 GiB" or "35 MiB".
fn size(bytes: u64) -> String {
    if bytes < 1 << 30 {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    } else {
        format!("{:.1} GiB", gib(bytes))
    }
}

/// Epochs of a model of these `settings`, each counted by its Gaussians over those at the end: a step's time is about proportional.
pub(super) fn weighted_epochs(settings: &Settings, epochs: std::ops::Range<usize>) -> f64 {
    epochs.map(|epoch| settings.gaussians_in(epoch) as f64 / settings.gaussians.max(1) as f64).sum()
}

/// Seconds of the outputs of a run of up to `particles` particles in each model, on this node's `threads`. The diagnosis runs on those
/// of a rank.
pub(super) fn outputs(
    options: &RunOptions,
    settings: &Settings,
    (box_size, particles): (usize, usize),
    threads: usize,
) -> f64 {
    let voxel_particles = options.voxel_particles.min(particles);
    let (pixels, voxels) = ((box_size * box_size) as f64, (box_size as f64).powi(3));
    let inserted = (2 * voxel_particles * settings.symmetry.order()) as f64 * pixels;
    let diagnosed = options.diagnose && options.models == Models::Both;
    let diagnosis = if diagnosed { DIAGNOSIS * box_size.min(DIAGNOSIS_BOX).pow(2) as f64 } else { 0.0 };
    let of_threads = diagnosis / rayon::current_num_threads() as f64;
    OUTPUTS + PER_VOXEL * voxels + of_threads + PER_INSERTED_PIXEL * inserted / threads.max(1) as f64
}

/// Seconds of the rounds of refinement of all particles, where a training pass over all of them takes `pass`.
pub(super) fn refining(settings: &Settings, pass: f64) -> f64 {
    let rounds = (0..settings.epochs).filter(|&epoch| settings.refines_before(epoch)).count();
    rounds as f64 * REFINING_PASSES * pass
}

/// The estimate of a run that has begun, from its first steps. Only rank 0 speaks.
pub(super) struct Forecast {
    /// When the run started.
    started: Instant,
    /// Images left to this rank's models at the start, each counted by the Gaussians of its epoch.
    images: f64,
    /// Seconds beside the steps, after the training.
    rest: f64,
    /// Time spent on all refinement, over that on training.
    refining: f64,
    /// Memory and disk, for the log.
    bytes: Bytes,
    steps: u64,
    seen: u64,
    /// When the steps after the warm-up began, and the images before.
    from: Option<(Instant, u64)>,
    done: bool,
}

/// Steps that are not timed, and that are timed at least.
const WARM_UP: u64 = 2;
const TIMED: u64 = 4;
/// Share of the images that are timed, and the longest time.
const SHARE: f64 = 0.01;
const LONGEST: Duration = Duration::from_secs(5);

impl Forecast {
    /// For the models `mine` of `plan` on this rank. `speaks` is true on rank 0. `rest`: seconds of the outputs.
    pub fn new(
        speaks: bool,
        started: Instant,
        (plan, mine): (&Plan, &[usize]),
        rest: f64,
        bytes: Bytes,
    ) -> Self {
        let images = mine.iter().map(|&index| {
            let model = &plan.models[index];
            let epochs = weighted_epochs(&model.settings, plan.first_epoch..model.settings.epochs);
            epochs * model.subset.rows.len() as f64
        });
        let settings = &plan.models[0].settings;
        let refining = refining(settings, 1.0) / settings.epochs.max(1) as f64;
        Self {
            started,
            images: images.sum(),
            rest,
            refining,
            bytes,
            steps: 0,
            seen: 0,
            from: None,
            done: !speaks,
        }
    }

    /// Counts a step of `images` images; logs the estimate once enough are timed. `weight`: Gaussians of this epoch over those at the
    /// end.
    pub fn step(&mut self, images: u64, weight: f64) {
        if self.done {
            return;
        }
        self.steps += 1;
        self.seen += images;
        let Some((from, before)) = self.from else {
            if self.steps == WARM_UP {
                self.from = Some((Instant::now(), self.seen));
            }
            return;
        };
        let (time, timed) = (from.elapsed(), (self.seen - before) as f64);
        let enough = timed * weight >= SHARE * self.images || time >= LONGEST;
        if self.steps < WARM_UP + TIMED || !enough {
            return;
        }
        self.done = true;
        let rate = timed / time.as_secs_f64().max(1e-9);
        let training = self.images / (rate * weight);
        let total = (from - self.started).as_secs_f64() + training * (1.0 + self.refining) + self.rest;
        tracing::info!(
            "estimate: about {} in all, {} of it training at {rate:.0} images/s; memory {} on this node, run folder {}",
            duration(total),
            duration(training),
            size(self.bytes.memory),
            size(self.bytes.run_folder)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Choices, Recipe};

    #[test]
    fn the_parts_add_up_and_the_table_names_them() {
        let seconds =
            Seconds { preparing: 10.0, reading: 5.0, training: 3600.0, refining: 0.0, outputs: 25.0 };
        assert_eq!(seconds.total(), 3640.0);
        let estimate = Estimate {
            particles: vec![500, 501],
            box_size: 64,
            pixel_size: 3.0,
            gaussians: 1200,
            mixtures: 3,
            epochs: 40,
            batch: 8,
            ranks: 1,
            device: "CPU".into(),
            images_per_second: 12.0,
            seconds,
            bytes: Bytes { memory: 3 << 30, memory_per_rank: 100 << 20, ..Bytes::default() },
            assumptions: vec!["no network".into()],
        };
        let text = estimate.to_string();
        for fragment in [
            "500 and 501 of 64 pixels",
            "1200 in each of 3",
            "40040 images",
            "3.0 GiB on a node",
            "100 MiB per rank",
            "no network",
        ] {
            assert!(text.contains(fragment), "{fragment}: {text}");
        }
        assert!(!text.contains("refinement"), "{text}");
    }

    #[test]
    fn epochs_before_a_densification_count_by_their_gaussians() {
        let choices = Choices {
            gaussians: Some(4000),
            epochs: Some(8),
            mixtures: Some(1),
            densify: vec![2],
            ..Choices::default()
        };
        let settings = Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 1000, 32);
        assert_eq!(weighted_epochs(&settings, 0..8), 7.0);
        assert_eq!(weighted_epochs(&settings, 2..8), 6.0);
    }
}
