//! Time of each stage of a step on one thread: `cargo bench --bench stages`.
//!
//! After a whole run it writes the table benches/results/stages.md.

mod all_reduce;
#[path = "../../tests/common/mod.rs"]
mod common;
mod floor;
mod table;

use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, Optics};
use cryosplat_mpi::imaging::pose::rotation_from_quaternion;
use cryosplat_mpi::particles::store::{Block, Store};
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::render::cpu::activate::Activated;
use cryosplat_mpi::render::cpu::adam::Adam;
use cryosplat_mpi::render::cpu::chain::{self, GradientAccumulators, ViewContext};
use cryosplat_mpi::render::cpu::project::{SplatBlock, ViewMoments, project};
use cryosplat_mpi::render::cpu::raster::{self, Canvas};
use cryosplat_mpi::render::cpu::residual::{Filter, GroupWeights};
use cryosplat_mpi::render::cpu::{CpuDevice, allocate_blocks};
use cryosplat_mpi::render::{
    AdamStep, Alone, Device, Geometry, Observation, Sampling, Step, Symmetry, Target, View, Weights,
};

/// Box size, number of Gaussians, and their standard deviation in pixels: after training, at the published start, and at the start
/// of the default recipe.
const CASES: [(usize, usize, f64); 5] =
    [(64, 2_048, 0.75), (64, 16_384, 0.6), (128, 5_120, 0.96), (256, 30_000, 1.92), (256, 30_000, 0.96)];

const GEOMETRY: Geometry = Geometry {
    box_size: 64,
    pixel_size: 6.0,
    cutoff: 3.0,
    sampling: Sampling::BandLimited,
    weights: Weights::UNIFORM,
    symmetry: Symmetry::C1,
};

/// Number of particles in the file that is read.
const PARTICLES: usize = 256;

const STEP: AdamStep = AdamStep { rate: 1e-3, ..AdamStep::IDLE };

// Longer than 80 lines: the stages use the results of those before them.
fn stages(criterion: &mut Criterion) {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().ok();
    for case in CASES {
        let (box_size, count, deviation) = case;
        let mut group = criterion.benchmark_group(table::group(case));
        group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(1));
        let geometry = Geometry { box_size, pixel_size: 384.0 / box_size as f64, ..GEOMETRY };
        let mut gmm = Gmm::random(count, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        // Spread the means over half the box.
        let scale = cryosplat_mpi::gmm::softplus_inverse(deviation / box_size as f64) as f32;
        gmm.values_mut()[3 * count..6 * count].fill(scale);
        gmm.values_mut()[..3 * count].iter_mut().for_each(|v| *v *= 1.6);
        let optics = Optics::new(300.0, 2.7, 0.1);
        let particle = CtfParameters { defocus_u: 18_000.0, defocus_v: 17_500.0, ..CtfParameters::default() };
        let rotation = rotation_from_quaternion([0.3, -0.5, 0.7, 0.2]);
        let view = View::new(rotation, Ctf::new(&optics, &particle));
        let target: Vec<f32> = (0..box_size * box_size).map(|i| (i as f32 * 0.37).sin()).collect();

        let folder = tempfile::tempdir().expect("a temporary folder");
        let reader = particles(folder.path(), box_size).reader();
        let mut block = Block::default();
        let mut index = 0;
        group.bench_function(BenchmarkId::from_parameter("read"), |b| {
            b.iter(|| {
                reader.read(index..index + 1, &mut block).expect("just written");
                index = (index + 1) % PARTICLES;
            });
        });
        group.bench_function(BenchmarkId::from_parameter("prepare"), |b| {
            let mut filter = Filter::new(&geometry);
            let mut copy = block.images.clone();
            b.iter(|| {
                copy.copy_from_slice(&block.images);
                filter.prepare(&mut copy)
            });
        });

        let mut activated = Activated::new(count);
        group.bench_function(BenchmarkId::from_parameter("activate"), |b| {
            b.iter(|| activated.update(&gmm));
        });
        let (mut splats, mut view_moments) =
            (allocate_blocks::<SplatBlock>(count), allocate_blocks::<ViewMoments>(count));
        group.bench_function(BenchmarkId::from_parameter("project"), |b| {
            b.iter(|| {
                let (blocks, rotation) = (activated.blocks(), &view.rotation);
                project(blocks, rotation, view.offset, &geometry, &mut splats, &mut view_moments)
            });
        });
        let [draw_floor, moments_floor] = floor::multiplications(&splats).map(floor::time);
        table::store(case, table::DRAW_FLOOR, draw_floor);
        table::store(case, table::MOMENTS_FLOOR, moments_floor);
        let mut canvas = Canvas::new(geometry.grid());
        let stride = canvas.stride;
        group.bench_function(BenchmarkId::from_parameter("rasterise"), |b| {
            b.iter(|| {
                canvas.pixels.fill(0.0);
                raster::draw(&splats, &view_moments, &mut canvas.pixels, 0, stride);
            });
        });
        let mut gradient = Canvas::new(geometry.grid());
        let mut filter = Filter::new(&geometry);
        let weights = GroupWeights::new(&geometry, &[1.0]);
        let seen = Observation::new(view, Target::Prepared(&target), 1.0);
        group.bench_function(BenchmarkId::from_parameter("FFT, CTF and residual"), |b| {
            b.iter(|| filter.residual(&seen, &weights, &canvas, &target, &mut gradient));
        });
        group.bench_function(BenchmarkId::from_parameter("moments"), |b| {
            b.iter(|| raster::moments(&splats, &gradient, &mut view_moments));
        });
        let mut sums = allocate_blocks::<GradientAccumulators>(count);
        group.bench_function(BenchmarkId::from_parameter("chain, image"), |b| {
            let image = ViewContext { view: &view.rotation, box_size: geometry.grid() };
            b.iter(|| chain::accumulate(&image, activated.blocks(), &view_moments, false, &mut sums));
        });
        let mut full = vec![0.0f32; gmm.values().len()];
        group.bench_function(BenchmarkId::from_parameter("chain, step"), |b| {
            b.iter(|| chain::finish(gmm.shape(), activated.slopes(), &sums, &mut full));
        });
        let mut adam = Adam::new(full.len());
        let mut moving = gmm.clone();
        group.bench_function(BenchmarkId::from_parameter("Adam"), |b| {
            b.iter(|| adam.step(&mut moving, &full, 1e-6, &STEP));
        });

        let mut device = CpuDevice::new(gmm.clone(), geometry);
        for batch in table::BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            let images = vec![seen; batch];
            group.bench_function(BenchmarkId::from_parameter(table::step(batch)), |b| {
                b.iter(|| {
                    let step = Step { images: batch as u64, adam: AdamStep::IDLE };
                    device.step(&images, &step, &mut Alone).expect("finite")
                });
            });
        }
        group.throughput(Throughput::Elements(1));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(1));
        group.bench_function(BenchmarkId::from_parameter("all-reduce"), |b| {
            b.iter_custom(|iterations| all_reduce::measure(gmm.values().len() + 2, iterations));
        });
        group.finish();
    }
}

/// Simulates a particle set of the phantom.
fn particles(folder: &Path, box_size: usize) -> Store {
    let file = folder.join("particles.h5");
    let (path, size, count) = (file.display().to_string(), box_size.to_string(), PARTICLES.to_string());
    common::succeed(&[
        "simulate",
        "--phantom",
        "--pixel-size",
        "4",
        "-o",
        &path,
        "--box",
        &size,
        "--particles",
        &count,
    ]);
    Store::open(&file).expect("just written")
}

fn main() {
    if all_reduce::is_rank() {
        return all_reduce::run();
    }
    let mut criterion = Criterion::default().configure_from_args();
    stages(&mut criterion);
    criterion.final_summary();
    // Write the table only after a complete run with default settings.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        table::write();
    }
}
