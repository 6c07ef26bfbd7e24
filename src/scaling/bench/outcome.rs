//! What a bench came to: as JSON, whose members are those of run.json where they mean the same, and as a table.

use serde::Serialize;

use super::BenchOptions;
use super::all_reduce::AllReduce;
use super::reading::Reading;
use super::steps::Timing;
use crate::parallel::World;
use crate::particles::store::{DataSetId, Store};
use crate::render::{Geometry, Sampling};
use crate::run_folder::metrics::Spread;
use crate::scaling::model::time;
use crate::scaling::record::{Epoch, ModelEpochs, ModelParticles, Particles};
use crate::scaling::table::rate;

/// The ranks as they are.
pub struct Setup {
    /// What the first rank computes on.
    pub device: String,
    /// What adds up.
    pub collective: &'static str,
    /// MPI ranks.
    pub ranks: usize,
    /// Machines.
    pub nodes: usize,
    /// The identity of the particle set; `None` for synthetic particles.
    pub set: Option<DataSetId>,
    /// Bytes that a rank took of its device's own memory.
    pub device_memory: Option<Spread>,
}

/// All measurements.
pub struct Measured {
    /// Steps of the group.
    pub together: Timing,
    /// Steps of every rank alone, where they were needed to tell the all-reduce.
    pub alone: Option<Timing>,
    /// Sums alone.
    pub all_reduce: Option<AllReduce>,
    /// Reading alone.
    pub reading: Option<Reading>,
    /// The most bytes that a rank had of the host.
    pub host_memory: Option<Spread>,
}

/// A bench with all its numbers.
#[derive(Debug, Serialize)]
pub struct Outcome {
    state: &'static str,
    program: &'static str,
    version: &'static str,
    command: Vec<String>,
    host: String,
    ranks: usize,
    nodes: usize,
    cores: Option<usize>,
    threads_per_rank: usize,
    device: String,
    half: &'static str,
    settings: Settings,
    particles: Particles,
    images_per_second: f64,
    epochs: [ModelEpochs; 1],
    bench: Details,
}

#[derive(Debug, Serialize)]
struct Settings {
    /// A training has another, so that the two are not compared.
    recipe: &'static str,
    batch: usize,
    gaussians: usize,
    isotropic: bool,
    cutoff: f64,
    sampling: Sampling,
    seed: u64,
}

/// What run.json has not.
#[derive(Debug, Serialize)]
struct Details {
    pixel_size: f64,
    collective: &'static str,
    images_per_second_per_rank: f64,
    step_seconds: f64,
    /// Of every rank alone, with nobody to add up with.
    step_seconds_alone: Option<f64>,
    /// The sum in a step: as the device tells, or what a step takes more than alone.
    all_reduce_in_step_seconds: Option<f64>,
    imbalance: Option<f64>,
    all_reduce: Option<AllReduce>,
    reading: Option<Reading>,
    host_memory_bytes: Option<Spread>,
    device_memory_bytes: Option<Spread>,
}

impl Outcome {
    /// From what was measured.
    pub fn new(
        options: &BenchOptions,
        store: Option<&Store>,
        geometry: &Geometry,
        setup: Setup,
        measured: Measured,
    ) -> Self {
        let Measured { together, alone, all_reduce, reading, host_memory } = measured;
        let ranks = setup.ranks;
        let step = |timing: &Timing| timing.seconds / timing.steps as f64;
        let [compute, reduce, update] = together.stages.map_or([None; 3], |stages| stages.map(Some));
        let in_step = reduce
            .map(|reduce| reduce.mean / together.steps as f64)
            .or_else(|| alone.as_ref().map(|alone| (step(&together) - step(alone)).max(0.0)));
        let epoch = Epoch {
            images: Some(together.images),
            steps: Some(together.steps as u64),
            seconds: Some(together.seconds),
            ranks: Some(ranks),
            compute,
            reduce,
            update,
            wait: Some(together.wait),
            bytes_read: None,
        };
        let images_per_second = together.images as f64 / together.seconds;
        let count = store.map(|store| store.len() as u64);
        Self {
            state: "done",
            program: "cryosplat-mpi",
            version: env!("CARGO_PKG_VERSION"),
            command: options.command.clone(),
            host: World::host(),
            ranks,
            nodes: setup.nodes,
            cores: World::cores(),
            threads_per_rank: rayon::current_num_threads(),
            device: setup.device,
            half: "all",
            settings: Settings {
                recipe: "bench",
                batch: options.batch,
                gaussians: options.gaussians,
                isotropic: options.isotropic,
                cutoff: options.cutoff,
                sampling: options.sampling,
                seed: options.seed,
            },
            particles: Particles {
                identity: Some(setup.set.map_or_else(|| "synthetic".into(), |set| set.to_string())),
                box_size: Some(geometry.box_size),
                models: vec![ModelParticles { name: "map".into(), particles: count }],
            },
            images_per_second,
            epochs: [ModelEpochs { model: "map".into(), epochs: vec![epoch] }],
            bench: Details {
                pixel_size: geometry.pixel_size,
                collective: setup.collective,
                images_per_second_per_rank: images_per_second / ranks as f64,
                step_seconds: step(&together),
                step_seconds_alone: alone.as_ref().map(step),
                all_reduce_in_step_seconds: in_step,
                imbalance: compute.map(|compute| compute.max / compute.mean),
                all_reduce,
                reading,
                host_memory_bytes: host_memory,
                device_memory_bytes: setup.device_memory,
            },
        }
    }

    /// As a table in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from("| What | Measured |\n|---|--:|\n");
        for (name, value) in self.rows() {
            text += &format!("| {name} | {value} |\n");
        }
        text
    }

    fn rows(&self) -> Vec<(String, String)> {
        let Details { step_seconds, all_reduce, reading, .. } = &self.bench;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let epoch = &self.epochs[0].epochs[0];
        let steps = epoch.steps.unwrap_or(1) as f64;
        let stage = |spread: Option<Spread>| {
            or_dash(spread.map(|s| {
                format!("{} ({} to {})", each(s.mean, steps), each(s.min, steps), each(s.max, steps))
            }))
        };
        let ranks = match (self.ranks, self.nodes) {
            (1, _) => "1 rank".to_owned(),
            (ranks, 1) => format!("{ranks} ranks on 1 node"),
            (ranks, nodes) => format!("{ranks} ranks on {nodes} nodes"),
        };
        let particles = match self.particles.models[0].particles {
            Some(count) => format!("{count} of a file"),
            None => "made in memory".into(),
        };
        let Settings { batch, gaussians, cutoff, .. } = self.settings;
        let box_size = self.particles.box_size.unwrap_or_default();
        let mut rows: Vec<(String, String)> = vec![
            ("ranks".into(), format!("{ranks}, each: {}", self.device)),
            ("particles".into(), format!("{particles}, {box_size} px of {} Å", self.bench.pixel_size)),
            ("Gaussians".into(), format!("{gaussians}, cutoff {cutoff}")),
            ("batch".into(), format!("{batch}, {steps} steps")),
            ("**images/s**".into(), format!("**{}**", rate(self.images_per_second))),
            ("images/s a rank".into(), rate(self.bench.images_per_second_per_rank)),
            ("a step".into(), time(*step_seconds)),
            ("compute, mean (least to most) over the ranks".into(), stage(epoch.compute)),
        ];
        match self.bench.step_seconds_alone {
            Some(alone) => {
                let difference = self.bench.all_reduce_in_step_seconds.map(time);
                rows.push(("a step of every rank alone".into(), time(alone)));
                rows.push(("all-reduce: the difference".into(), or_dash(difference)));
            }
            None => {
                rows.push(("all-reduce, waiting for the slowest rank included".into(), stage(epoch.reduce)))
            }
        }
        rows.push(("update".into(), stage(epoch.update)));
        rows.push(("waiting for particles".into(), stage(epoch.wait)));
        let imbalance = self.bench.imbalance.map(|i| format!("{i:.3}"));
        rows.push(("imbalance: slowest rank over mean compute".into(), or_dash(imbalance)));
        if let Some(sums) = all_reduce {
            let by = format!("all-reduce alone, by {}", self.bench.collective);
            let gradient = &sums.gradient;
            rows.push((
                format!("{by}, of the gradient ({})", bytes(gradient.bytes as f64)),
                time(gradient.seconds),
            ));
            for point in &sums.sweep {
                let flow = bytes(point.bytes as f64 / point.seconds);
                rows.push((
                    format!("{by}, of {}", bytes(point.bytes as f64)),
                    format!("{}, {flow}/s", time(point.seconds)),
                ));
            }
            let bandwidth = or_dash(sums.bandwidth.map(|b| format!("{}/s", bytes(b))));
            rows.push((
                "latency and bandwidth of these, fitted".into(),
                format!("{} and {bandwidth}, off by {:.0}% at most", time(sums.latency), 100.0 * sums.worst),
            ));
        }
        if let Some(reading) = reading {
            rows.push((
                "reading alone, page cache or disk as it comes".into(),
                format!("{}/s", bytes(reading.bytes_per_second)),
            ));
            rows.push(("images/s without a device".into(), rate(reading.images_per_second)));
        }
        let memory = |spread: Option<Spread>| {
            or_dash(spread.map(|s| format!("{}, {} at most", bytes(s.mean), bytes(s.max))))
        };
        rows.push(("host memory of a rank, mean of the peaks".into(), memory(self.bench.host_memory_bytes)));
        rows.push(("device memory of a rank, mean".into(), memory(self.bench.device_memory_bytes)));
        rows
    }
}

/// A step's share of what all steps took.
fn each(seconds: f64, steps: f64) -> String {
    time(seconds / steps)
}

/// Bytes in a unit that suits them.
fn bytes(count: f64) -> String {
    match count {
        c if c < 1024.0 => format!("{c:.0} B"),
        c if c < 1048576.0 => format!("{:.1} KiB", c / 1024.0),
        c if c < 1073741824.0 => format!("{:.1} MiB", c / 1048576.0),
        c => format!("{:.2} GiB", c / 1073741824.0),
    }
}
