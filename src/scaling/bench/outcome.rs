//! The report of a bench: JSON with the members of run.json where the meaning is the same, and a table.

use serde::Serialize;

use super::BenchOptions;
use super::all_reduce::AllReduceTimes;
use super::reading::ReadRate;
use super::steps::Timing;
use crate::imaging::Symmetry;
use crate::parallel::World;
use crate::particles::store::{DataSetId, Store};
use crate::render::{Geometry, Sampling};
use crate::run_folder::metrics::Spread;
use crate::scaling::model::time;
use crate::scaling::record::{EpochRecord, ModelEpochs, ModelParticles, ParticleSetRecord};
use crate::scaling::table::rate;

/// Ranks, devices and particles of a bench.
pub struct RankSetup {
    /// Device of rank 0.
    pub device: String,
    /// Library of the all-reduce.
    pub collective: &'static str,
    /// Number of MPI ranks.
    pub ranks: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// The identity of the particle set; `None` for synthetic particles.
    pub set: Option<DataSetId>,
    /// Bytes of device memory per rank.
    pub device_memory: Option<Spread>,
}

/// All measurements.
pub struct Measurements {
    /// Steps of the group.
    pub together: Timing,
    /// Steps of each rank alone, if needed to derive the time of the all-reduce.
    pub alone: Option<Timing>,
    /// All-reduce alone.
    pub all_reduce: Option<AllReduceTimes>,
    /// Reading alone.
    pub reading: Option<ReadRate>,
    /// Peak host memory per rank in bytes.
    pub host_memory: Option<Spread>,
}

/// All numbers of a bench.
#[derive(Debug, Serialize)]
pub struct BenchReport {
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
    particles: ParticleSetRecord,
    images_per_second: f64,
    epochs: [ModelEpochs; 1],
    bench: Details,
}

#[derive(Debug, Serialize)]
struct Settings {
    /// Not a recipe of training, so that a study does not compare bench and training.
    recipe: &'static str,
    batch: usize,
    gaussians: usize,
    symmetry: Symmetry,
    isotropic: bool,
    cutoff: f64,
    sampling: Sampling,
    seed: u64,
}

/// Members that run.json does not have.
#[derive(Debug, Serialize)]
struct Details {
    pixel_size: f64,
    collective: &'static str,
    images_per_second_per_rank: f64,
    step_seconds: f64,
    /// Of each rank alone, without all-reduce.
    step_seconds_alone: Option<f64>,
    /// As timed by the device, or the difference to a step alone.
    all_reduce_in_step_seconds: Option<f64>,
    imbalance: Option<f64>,
    all_reduce: Option<AllReduceTimes>,
    reading: Option<ReadRate>,
    host_memory_bytes: Option<Spread>,
    device_memory_bytes: Option<Spread>,
}

impl BenchReport {
    /// Assembles the report.
    pub fn new(
        options: &BenchOptions,
        store: Option<&Store>,
        geometry: &Geometry,
        setup: RankSetup,
        measured: Measurements,
    ) -> Self {
        let Measurements { together, alone, all_reduce, reading, host_memory } = measured;
        let ranks = setup.ranks;
        let step = |timing: &Timing| timing.seconds / timing.steps as f64;
        let [compute, reduce, update] = together.stages.map_or([None; 3], |stages| stages.map(Some));
        let in_step = reduce
            .map(|reduce| reduce.mean / together.steps as f64)
            .or_else(|| alone.as_ref().map(|alone| (step(&together) - step(alone)).max(0.0)));
        let epoch = EpochRecord {
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
                symmetry: options.symmetry,
                isotropic: options.isotropic,
                cutoff: options.cutoff,
                sampling: options.sampling,
                seed: options.seed,
            },
            particles: ParticleSetRecord {
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

    /// The report as a Markdown table.
    pub fn table(&self) -> String {
        let mut text = String::from("| What | Measured |\n|---|--:|\n");
        for (name, value) in self.rows() {
            text += &format!("| {name} | {value} |\n");
        }
        text
    }

    fn rows(&self) -> Vec<(String, String)> {
        let Details { step_seconds, reading, .. } = &self.bench;
        let epoch = &self.epochs[0].epochs[0];
        let steps = epoch.steps.unwrap_or(1) as f64;
        let stage = |spread: Option<Spread>| {
            or_dash(spread.map(|s| {
                format!(
                    "{} ({} to {})",
                    per_step(s.mean, steps),
                    per_step(s.min, steps),
                    per_step(s.max, steps)
                )
            }))
        };
        let ranks = match (self.ranks, self.nodes) {
            (1, _) => "1 rank".to_owned(),
            (ranks, 1) => format!("{ranks} ranks on 1 node"),
            (ranks, nodes) => format!("{ranks} ranks on {nodes} nodes"),
        };
        let particles = match self.particles.models[0].particles {
            Some(count) => format!("{count} from a file"),
            None => "synthetic".into(),
        };
        let Settings { batch, gaussians, symmetry, cutoff, .. } = self.settings;
        let count = match symmetry {
            Symmetry::C1 => gaussians.to_string(),
            _ => format!("{gaussians} of the asymmetric unit, symmetry {symmetry}"),
        };
        let box_size = self.particles.box_size.unwrap_or_default();
        let mut rows: Vec<(String, String)> = vec![
            ("ranks".into(), format!("{ranks}, each: {}", self.device)),
            ("particles".into(), format!("{particles}, {box_size} px of {} Å", self.bench.pixel_size)),
            ("Gaussians".into(), format!("{count}, cutoff {cutoff}")),
            ("batch".into(), format!("{batch}, {steps} steps")),
            ("**images/s**".into(), format!("**{}**", rate(self.images_per_second))),
            ("images/s per rank".into(), rate(self.bench.images_per_second_per_rank)),
            ("time per step".into(), time(*step_seconds)),
            ("compute, mean (minimum to maximum) over the ranks".into(), stage(epoch.compute)),
        ];
        match self.bench.step_seconds_alone {
            Some(alone) => {
                let difference = self.bench.all_reduce_in_step_seconds.map(time);
                rows.push(("time per step of each rank alone".into(), time(alone)));
                rows.push(("all-reduce: difference to a step alone".into(), or_dash(difference)));
            }
            None => {
                rows.push(("all-reduce, including waiting for the slowest rank".into(), stage(epoch.reduce)))
            }
        }
        rows.push(("update".into(), stage(epoch.update)));
        rows.push(("waiting for particles".into(), stage(epoch.wait)));
        let imbalance = self.bench.imbalance.map(|i| format!("{i:.3}"));
        rows.push(("imbalance: compute of the slowest rank over the mean".into(), or_dash(imbalance)));
        rows.extend(self.all_reduce_rows());
        if let Some(reading) = reading {
            rows.push((
                "reading alone, from page cache or disk".into(),
                format!("{}/s", bytes(reading.bytes_per_second)),
            ));
            rows.push(("images/s of reading alone".into(), rate(reading.images_per_second)));
        }
        let memory = |spread: Option<Spread>| {
            or_dash(spread.map(|s| format!("{}, at most {}", bytes(s.mean), bytes(s.max))))
        };
        rows.push(("peak host memory per rank, mean".into(), memory(self.bench.host_memory_bytes)));
        rows.push(("device memory per rank, mean".into(), memory(self.bench.device_memory_bytes)));
        rows
    }

    fn all_reduce_rows(&self) -> Vec<(String, String)> {
        let Some(times) = &self.bench.all_reduce else { return Vec::new() };
        let mut rows = Vec::new();
        let label = format!("all-reduce alone, with {}", self.bench.collective);
        let gradient = &times.gradient;
        rows.push((
            format!("{label}, of the gradient ({})", bytes(gradient.bytes as f64)),
            time(gradient.seconds),
        ));
        for point in &times.sweep {
            let flow = bytes(point.bytes as f64 / point.seconds);
            rows.push((
                format!("{label}, of {}", bytes(point.bytes as f64)),
                format!("{}, {flow}/s", time(point.seconds)),
            ));
        }
        let bandwidth = or_dash(times.bandwidth.map(|b| format!("{}/s", bytes(b))));
        rows.push((
            "latency and bandwidth of the all-reduce, fitted".into(),
            format!("{} and {bandwidth}, error at most {:.0}%", time(times.latency), 100.0 * times.worst),
        ));
        rows
    }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

/// Formats the time per step.
fn per_step(seconds: f64, steps: f64) -> String {
    time(seconds / steps)
}

/// Formats bytes with a suitable unit.
fn bytes(count: f64) -> String {
    match count {
        c if c < 1024.0 => format!("{c:.0} B"),
        c if c < 1048576.0 => format!("{:.1} KiB", c / 1024.0),
        c if c < 1073741824.0 => format!("{:.1} MiB", c / 1048576.0),
        c => format!("{:.2} GiB", c / 1073741824.0),
    }
}
