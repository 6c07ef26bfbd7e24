//! What a run takes: time, memory and disk, from the time of a step. `--dry-run` times steps before a run, and a run times its own
//! first steps. The parts beside the training are a model, whose constants are seconds on one machine (benches/results/estimate.md).

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::options::RunOptions;
use crate::diagnose::cost;
use crate::imaging::Symmetry;
use crate::particles::selection::Models;
use crate::progress::{duration, gib};
use crate::recipe::Settings;
use crate::voxels::insertions;

/// Seconds of the outputs of a training beside what follows: figures, report, tables.
const OUTPUTS: f64 = 0.4;
/// Seconds per voxel of the box, of maps, masks, FSCs and pictures, and for each Gaussian of all mixtures and symmetric poses.
const PER_VOXEL: f64 = 2.1e-6;
const PER_GAUSSIAN: f64 = 1.2e-4;
/// Seconds per pixel of an image that is inserted into the voxel maps of the cross-validation, half of them for each pose at which it is
/// inserted, and per voxel of the box of both maps.
const PER_INSERTED_PIXEL: f64 = 3.6e-8;
const PER_INVERTED_VOXEL: f64 = 5e-7;
/// A round of refinement, in steps of training over the same particles.
const REFINING_PASSES: f64 = 4.0;

/// Seconds of the parts of a run, estimated or measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds {
    /// Checks, pilot reconstruction, start of the devices.
    pub preparing: f64,
    /// Reading the particles.
    pub reading: f64,
    /// Steps of all mixtures.
    pub training: f64,
    /// Rounds of refinement.
    pub refining: f64,
    /// Voxel maps of both halves for the cross-validation.
    pub cross_validation: f64,
    /// Tests of the finished run.
    pub diagnosis: f64,
    /// Maps, FSC, masks, report.
    pub outputs: f64,
}

impl Seconds {
    /// The parts with their names, in the order of a run.
    pub fn parts(&self) -> [(&'static str, f64); 7] {
        [
            ("preparing", self.preparing),
            ("reading", self.reading),
            ("training", self.training),
            ("refining", self.refining),
            ("cross_validation", self.cross_validation),
            ("diagnosis", self.diagnosis),
            ("outputs", self.outputs),
        ]
    }

    /// Of the whole run.
    pub fn total(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }

    /// Of what follows the training.
    pub(super) fn after_training(&self) -> f64 {
        self.cross_validation + self.diagnosis + self.outputs
    }

    /// The split in words: training, refinement and diagnosis if there are any, the rest.
    pub(super) fn split(&self) -> String {
        let named =
            [("training", self.training), ("refinement", self.refining), ("diagnosis", self.diagnosis)];
        let rest = self.total() - named.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let named = named.iter().filter(|(_, seconds)| *seconds > 0.0);
        let named = named.map(|(name, seconds)| format!("{name} {}, ", duration(*seconds)));
        format!("{}the rest {}", named.collect::<String>(), duration(rest.max(0.0)))
    }
}

/// An object of the parts and their total.
impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.parts().into_iter().chain([("total", self.total())]))
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
        line("Gaussians", format!("{} {}", self.gaussians, of_mixtures(self.mixtures)))?;
        let seen: usize = self.particles.iter().sum::<usize>() * self.epochs;
        line("epochs", format!("{} per half, batch {}: {seen} images in all", self.epochs, self.batch))?;
        let ranks = if self.ranks == 1 { "1 rank".to_owned() } else { format!("{} ranks", self.ranks) };
        line("machine", format!("{ranks}; each: {}", self.device))?;
        line("speed", format!("{:.0} images/s", self.images_per_second))?;
        let Seconds { preparing, reading, cross_validation, outputs, .. } = self.seconds;
        line("time", format!("about {}: {}", duration(self.seconds.total()), self.seconds.split()))?;
        line(
            "the rest",
            format!(
                "preparation {}, reading {}, cross-validation {}, outputs {}",
                duration(preparing),
                duration(reading),
                duration(cross_validation),
                duration(outputs)
            ),
        )?;
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

/// "in each of 3 mixtures per half".
pub(crate) fn of_mixtures(count: usize) -> String {
    match count {
        1 => "in one mixture per half".into(),
        _ => format!("in each of {count} mixtures per half"),
    }
}

/// "1.2 GiB" or "35 MiB".
pub(super) fn size(bytes: u64) -> String {
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

/// A run whose parts after the training are estimated.
pub(super) struct Ending {
    /// Whether it is one of both halves: only those are cross-validated and diagnosed.
    pub both: bool,
    /// Particles of each half in the voxel maps.
    pub voxel_particles: usize,
    /// Whether the run is diagnosed.
    pub diagnose: bool,
    pub symmetry: Symmetry,
    pub box_size: usize,
    /// Particles of the largest model.
    pub particles: usize,
    /// Gaussians of all mixtures of a half, of the asymmetric unit.
    pub gaussians: usize,
    /// Ranks of a node, which share the insertions into the voxel maps.
    pub ranks: usize,
    /// The time of work on this node over that on the machine of the constants.
    pub slowness: f64,
}

impl Ending {
    /// Of a run with these options on `ranks` ranks of a node, whose largest model has `particles` particles of `box_size` pixels.
    pub fn of(
        options: &RunOptions,
        settings: &Settings,
        (box_size, particles): (usize, usize),
        (ranks, slowness): (usize, f64),
    ) -> Self {
        Self {
            both: options.models == Models::Both,
            voxel_particles: options.voxel_particles,
            diagnose: options.diagnose,
            symmetry: settings.symmetry,
            box_size,
            particles,
            gaussians: settings.gaussians * settings.mixtures,
            ranks,
            slowness,
        }
    }

    /// `around` with the parts after the training, of which only the insertions are shared by the ranks.
    pub fn follow(&self, around: Seconds) -> Seconds {
        let Self { both, symmetry, box_size, particles, slowness, .. } = *self;
        let (pixels, voxels) = ((box_size * box_size) as f64, (box_size as f64).powi(3));
        let [poses, _] = insertions(symmetry);
        let inserted = (self.voxel_particles.min(particles) * (1 + poses)) as f64;
        let gaussians = (self.gaussians * symmetry.order()) as f64;
        let maps =
            PER_INVERTED_VOXEL * voxels + PER_INSERTED_PIXEL * inserted * pixels / self.ranks.max(1) as f64;
        let diagnosis = cost::seconds(particles, box_size, symmetry);
        Seconds {
            cross_validation: if both && inserted > 0.0 { slowness * maps } else { 0.0 },
            diagnosis: if both && self.diagnose { slowness * diagnosis } else { 0.0 },
            outputs: slowness * (OUTPUTS + PER_VOXEL * voxels + PER_GAUSSIAN * gaussians),
            ..around
        }
    }
}

/// Number of rounds of refinement from epoch `first` on.
pub(super) fn rounds(settings: &Settings, first: usize) -> usize {
    (first..settings.epochs).filter(|&epoch| settings.refines_before(epoch)).count()
}

/// Seconds of the rounds of refinement of all particles from epoch `first` on, where a training pass over all of them takes `pass`.
pub(super) fn refining(settings: &Settings, first: usize, pass: f64) -> f64 {
    rounds(settings, first) as f64 * REFINING_PASSES * pass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Choices, Recipe};

    #[test]
    fn the_parts_add_up_and_the_table_names_them() {
        let seconds = Seconds {
            preparing: 10.0,
            reading: 5.0,
            training: 3600.0,
            refining: 0.0,
            cross_validation: 7.0,
            diagnosis: 30.0,
            outputs: 25.0,
        };
        assert_eq!(seconds.total(), 3677.0);
        let json = serde_json::to_value(seconds).unwrap();
        assert_eq!(json["total"], 3677.0);
        assert_eq!(
            json.as_object().unwrap().values().filter_map(|value| value.as_f64()).sum::<f64>(),
            2.0 * 3677.0
        );
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
            "about 1 h 1 min: training 1 h 0 min, diagnosis 30.0 s, the rest 47.0 s",
            "cross-validation 7.0 s",
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

    #[test]
    fn parts_that_a_run_leaves_out_take_no_time() {
        let ending = || Ending {
            both: true,
            voxel_particles: 1000,
            diagnose: true,
            symmetry: Symmetry::C1,
            box_size: 64,
            particles: 500,
            gaussians: 1000,
            ranks: 1,
            slowness: 1.0,
        };
        let before = Seconds { preparing: 1.0, training: 20.0, ..Seconds::default() };
        let whole = ending().follow(before);
        assert_eq!((whole.preparing, whole.training), (1.0, 20.0));
        assert!(whole.diagnosis > 0.0 && whole.cross_validation > 0.0 && whole.outputs > 0.0);
        let undiagnosed = Ending { diagnose: false, ..ending() }.follow(before);
        assert_eq!(undiagnosed, Seconds { diagnosis: 0.0, ..whole });
        assert!(!undiagnosed.split().contains("diagnosis") && whole.split().contains("diagnosis"));
        let one_half = Ending { both: false, ..ending() }.follow(before);
        assert_eq!(one_half, Seconds { diagnosis: 0.0, cross_validation: 0.0, ..whole });
        let slow = Ending { slowness: 2.0, ..ending() }.follow(before);
        assert!((slow.diagnosis / whole.diagnosis - 2.0).abs() < 1e-12);
        let shared = Ending { ranks: 2, ..ending() }.follow(before);
        assert!(shared.cross_validation < whole.cross_validation && shared.diagnosis == whole.diagnosis);
    }

    #[test]
    fn twice_the_epochs_train_twice_as_long() {
        let settings = |epochs| {
            let choices = Choices { epochs: Some(epochs), mixtures: Some(1), ..Choices::default() };
            Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 1000, 32)
        };
        assert_eq!(weighted_epochs(&settings(16), 0..16), 2.0 * weighted_epochs(&settings(8), 0..8));
        assert_eq!(refining(&settings(8), 0, 1.0), 0.0, "without --refine");
    }
}
