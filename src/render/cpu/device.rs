//! The CPU's [`Device`]: what runs in parallel over what.

use std::time::Instant;

use rayon::prelude::*;

use super::activate::Activated;
use super::adam::Adam;
use super::chain::{self, Contribution, SUMS};
use super::project::{Splats, project};
use super::raster::{self, Canvas};
use super::residual::Filter;
use super::tasks::{CHUNK, for_each};
use crate::error::Result;
use crate::gmm::Gmm;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::outcome::OutcomeQueue;
use crate::render::{Device, DeviceState, Geometry, Observation, Outcome, Reduce, StageTimes, Step, Target};
use crate::simd::{LANES, sum_of_squares};

/// Images rendered side by side at most; their workspaces stay allocated.
const IMAGES_AT_ONCE: usize = 16;

/// What one image needs on its way.
struct Workspace {
    splats: Vec<Splats>,
    whitening: [Vec<f64>; 3],
    moments: [Vec<f32>; 6],
    projection: Canvas,
    gradient: Canvas,
    /// An observed image on its way to a target.
    observed: Vec<f32>,
    filter: Filter,
    loss: f64,
}

impl Workspace {
    fn new(count: usize, geometry: &Geometry) -> Self {
        Self {
            splats: Splats::room(count),
            whitening: std::array::from_fn(|_| vec![0.0; count]),
            moments: std::array::from_fn(|_| vec![0.0; count]),
            projection: Canvas::new(geometry.grid()),
            gradient: Canvas::new(geometry.grid()),
            observed: Vec::new(),
            filter: Filter::new(geometry),
            loss: 0.0,
        }
    }

    /// Bytes of its buffers.
    fn bytes(&self) -> usize {
        let Self { splats, whitening, moments, projection, gradient, observed, filter, loss: _ } = self;
        size_of_val(&splats[..])
            + planes_bytes(whitening)
            + planes_bytes(moments)
            + size_of_val(&projection.pixels[..])
            + size_of_val(&gradient.pixels[..])
            + observed.capacity() * size_of::<f32>()
            + filter.bytes()
    }

    /// Draws the projection.
    fn draw(&mut self, gaussians: &Activated, view: &Rotation, geometry: &Geometry, within: bool) {
        let [w0, w1, w2] = &mut self.whitening;
        let chunks = self
            .splats
            .chunks_mut(CHUNK / LANES)
            .zip(w0.chunks_mut(CHUNK))
            .zip(w1.chunks_mut(CHUNK).zip(w2.chunks_mut(CHUNK)))
            .enumerate();
        let Canvas { pixels, stride, box_size } = &mut self.projection;
        let stride = *stride;
        if !within {
            // Splats are drawn while they are in the cache.
            pixels.fill(0.0);
            for (chunk, ((splats, w0), (w1, w2))) in chunks {
                project(gaussians, chunk * CHUNK, view, geometry, splats, [w0, w1, w2]);
                raster::draw(splats, [w0, w1, w2], pixels, 0, stride);
            }
            return;
        }
        for_each(true, chunks, |(chunk, ((splats, w0), (w1, w2)))| {
            project(gaussians, chunk * CHUNK, view, geometry, splats, [w0, w1, w2]);
        });
        let rows = box_size.div_ceil(rayon::current_num_threads());
        let (splats, whitening) = (&self.splats, self.whitening.each_ref().map(|plane| &plane[..]));
        for_each(true, pixels.chunks_mut(rows * stride).enumerate(), |(band, pixels)| {
            pixels.fill(0.0);
            raster::draw(splats, whitening, pixels, band * rows, stride);
        });
    }

    fn measure(&mut self, within: bool) {
        let (gradient, whitening) = (&self.gradient, &self.whitening);
        let [a, b, c, d, e, f] = &mut self.moments;
        let tasks = self
            .splats
            .chunks(CHUNK / LANES)
            .enumerate()
            .zip(a.chunks_mut(CHUNK).zip(b.chunks_mut(CHUNK)))
            .zip(c.chunks_mut(CHUNK).zip(d.chunks_mut(CHUNK)))
            .zip(e.chunks_mut(CHUNK).zip(f.chunks_mut(CHUNK)));
        for_each(within, tasks, |((((chunk, splats), (a, b)), (c, d)), (e, f))| {
            let range = chunk * CHUNK..chunk * CHUNK + a.len();
            let whitening = whitening.each_ref().map(|plane| &plane[range.clone()]);
            raster::moments(splats, whitening, gradient, [a, b, c, d, e, f]);
        });
    }

    /// Everything one image goes through, up to its moments.
    fn run(&mut self, gaussians: &Activated, seen: &Observation, geometry: &Geometry, within: bool) {
        self.draw(gaussians, &seen.view.rotation, geometry, within);
        let target = match seen.target {
            Target::Prepared(target) => target,
            Target::Observed(image) => {
                self.observed.clear();
                self.observed.extend_from_slice(image);
                self.filter.prepare(&seen.view.ctf, &mut self.observed);
                &self.observed
            }
            Target::Kept(_) => unreachable!("nothing is kept by this device"),
        };
        self.loss =
            self.filter.residual(&seen.view.ctf, &self.projection, target, seen.energy, &mut self.gradient);
        self.measure(within);
    }
}

/// Bytes of some planes.
fn planes_bytes<T>(planes: &[Vec<T>]) -> usize {
    planes.iter().map(|plane| size_of_val(&plane[..])).sum()
}

/// The CPU device. Runs on the rayon pool it is called from.
pub struct CpuDevice {
    geometry: Geometry,
    gmm: Gmm,
    adam: Adam,
    activated: Activated,
    /// True where `activated` no longer follows `gmm`.
    stale: bool,
    workspaces: Vec<Workspace>,
    sums: [Vec<f64>; SUMS],
    /// Gradient planes, then the loss.
    buffer: Vec<f32>,
    loss: f64,
    filter: Filter,
    outcomes: OutcomeQueue,
    /// A step was not finite: those after it have no effect.
    broken: bool,
    times: StageTimes,
}

impl CpuDevice {
    /// A device that holds `gmm`, with an optimiser at rest.
    pub fn new(gmm: Gmm, geometry: Geometry) -> Self {
        let (count, values) = (gmm.len(), gmm.values().len());
        Self {
            geometry,
            adam: Adam::new(values),
            activated: Activated::new(count),
            stale: true,
            workspaces: Vec::new(),
            sums: std::array::from_fn(|_| vec![0.0; count]),
            buffer: vec![0.0; values + 1],
            loss: 0.0,
            filter: Filter::new(&geometry),
            outcomes: OutcomeQueue::default(),
            broken: false,
            times: StageTimes::default(),
            gmm,
        }
    }

    /// The mixture as it stands.
    pub fn gmm(&self) -> &Gmm {
        &self.gmm
    }

    /// The mean gradient and loss of `batch`, without a step: for tests and benches.
    pub fn gradient(&mut self, batch: &[Observation]) -> (Vec<f32>, f64) {
        self.accumulate(batch);
        self.gather();
        let values = self.gmm.values().len();
        let count = batch.len() as f32;
        let gradient = self.buffer[..values].iter().map(|g| g / count).collect();
        let loss = self.loss / batch.len() as f64;
        (gradient, loss)
    }

    /// Renders one view without a CTF, `[y][x]`: for tests, benches and pictures.
    pub fn render(&mut self, view: &Rotation) -> Vec<f32> {
        self.activate();
        let mut workspace = Workspace::new(self.gmm.len(), &self.geometry);
        workspace.draw(&self.activated, view, &self.geometry, true);
        let mut image = vec![0.0; self.geometry.box_size.pow(2)];
        let Canvas { pixels, stride, .. } = &workspace.projection;
        self.filter.image(&Ctf::identity(), pixels, *stride, &mut image);
        image
    }

    fn activate(&mut self) {
        if self.stale {
            self.activated.update(&self.gmm);
            self.stale = false;
        }
    }

    /// Brings the sums into the buffer that the reduction adds up.
    fn gather(&mut self) {
        let values = self.gmm.values().len();
        chain::finish(&self.gmm, &self.sums, &mut self.buffer[..values]);
        self.buffer[values] = self.loss as f32;
    }

    /// Renders `batch`, and makes the step's sums its gradient and loss.
    fn accumulate(&mut self, batch: &[Observation]) {
        self.activate();
        self.loss = 0.0;
        if batch.is_empty() {
            self.sums.iter_mut().for_each(|plane| plane.fill(0.0));
        }
        let threads = rayon::current_num_threads();
        let grid = self.geometry.grid();
        for (number, group) in batch.chunks(IMAGES_AT_ONCE.max(threads)).enumerate() {
            while self.workspaces.len() < group.len() {
                self.workspaces.push(Workspace::new(self.gmm.len(), &self.geometry));
            }
            let workspaces = &mut self.workspaces[..group.len()];
            let (gaussians, geometry) = (&self.activated, &self.geometry);
            // With fewer images than threads the work within an image is shared too.
            let within = group.len() < threads;
            let tasks = workspaces.iter_mut().zip(group);
            for_each(threads > 1, tasks, |(workspace, seen)| {
                workspace.run(gaussians, seen, geometry, within);
            });
            // In the order of the images, whatever the schedule was.
            self.loss += workspaces.iter().map(|w| w.loss).sum::<f64>();
            let workspaces = &self.workspaces[..group.len()];
            let mut planes = self.sums.each_mut().map(|plane| plane.chunks_mut(CHUNK));
            let tasks = (0..self.gmm.len().div_ceil(CHUNK)).map(|chunk| {
                let sums = planes.each_mut().map(|p| p.next().expect("as many chunks as tasks"));
                (chunk * CHUNK, sums)
            });
            for_each(threads > 1, tasks, |(start, mut sums)| {
                let range = start..start + sums[0].len();
                for (place, (workspace, seen)) in workspaces.iter().zip(group).enumerate() {
                    let first = number == 0 && place == 0;
                    let image = Contribution {
                        view: &seen.view.rotation,
                        normalized: geometry.heights.is_none(),
                        whitening: workspace.whitening.each_ref().map(|p| &p[range.clone()]),
                        moments: workspace.moments.each_ref().map(|p| &p[range.clone()]),
                    };
                    chain::accumulate(&image, grid, &gaussians.amplitude[range.clone()], first, &mut sums);
                }
            });
        }
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        let instructions = super::instructions();
        match rayon::current_num_threads() {
            1 => format!("CPU, 1 thread, {instructions}"),
            threads => format!("CPU, {threads} threads, {instructions}"),
        }
    }

    fn join(&mut self, _: &mut dyn Reduce) -> Result<()> {
        Ok(())
    }

    fn prepare(&mut self, ctfs: &[Ctf], images: &mut [f32]) -> Result<()> {
        let filter = &self.filter;
        let pixels = self.geometry.box_size.pow(2);
        ctfs.par_iter()
            .zip(images.par_chunks_exact_mut(pixels))
            .for_each_init(|| filter.clone(), |filter, (ctf, image)| filter.prepare(ctf, image));
        Ok(())
    }

    fn keep(&mut self, _: usize) -> Result<bool> {
        Ok(false)
    }

    fn store(&mut self, _: usize, _: &[Ctf], _: &mut [f32]) -> Result<()> {
        unreachable!("there is no room in this device")
    }

    fn step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        let start = Instant::now();
        self.accumulate(batch);
        self.gather();
        let computed = Instant::now();
        group.sum(&mut self.buffer)?;
        let reduced = Instant::now();

        let values = self.gmm.values().len();
        let (gradient, loss) = self.buffer.split_at(values);
        let images = step.images as f64;
        let mut outcome = Outcome {
            loss: f64::from(loss[0]) / images,
            gradient_norm: sum_of_squares(gradient).sqrt() / images,
            applied: false,
        };
        self.broken |= !outcome.is_finite();
        if !self.broken {
            self.adam.step(&mut self.gmm, gradient, (1.0 / images) as f32, &step.adam);
            self.stale = true;
            outcome.applied = true;
        }
        self.outcomes.push(outcome);
        self.times.compute += computed - start;
        self.times.reduce += reduced - computed;
        self.times.update += reduced.elapsed();
        Ok(())
    }

    fn outcomes(&mut self, _: bool, _: &mut dyn Reduce) -> Result<Vec<Outcome>> {
        Ok(self.outcomes.take())
    }

    fn mend(&mut self) -> Result<()> {
        self.broken = false;
        self.outcomes.mend(self.outcomes.steps());
        Ok(())
    }

    fn times(&mut self) -> Option<StageTimes> {
        Some(std::mem::take(&mut self.times))
    }

    fn memory(&self) -> u64 {
        let values = [self.gmm.values(), &self.adam.first[..], &self.adam.second[..], &self.buffer[..]];
        let bytes = values.map(size_of_val).iter().sum::<usize>()
            + self.activated.bytes()
            + planes_bytes(&self.sums)
            + self.filter.bytes()
            + self.workspaces.iter().map(Workspace::bytes).sum::<usize>();
        bytes as u64
    }

    fn checksum(&mut self, _: &mut dyn Reduce) -> Result<u64> {
        Ok(u64::from(self.gmm.checksum()))
    }

    fn state(&self) -> Result<DeviceState> {
        Ok(DeviceState {
            gmm: self.gmm.clone(),
            first: self.adam.first.clone(),
            second: self.adam.second.clone(),
        })
    }

    fn restore(&mut self, state: DeviceState) -> Result<()> {
        self.adam = Adam { first: state.first, second: state.second };
        self.gmm = state.gmm;
        self.stale = true;
        self.mend()
    }
}
