//! The CPU's [`Device`]: what runs in parallel over what.

use std::sync::Mutex;

use rayon::prelude::*;

use super::activate::Activated;
use super::adam::Adam;
use super::chain::{self, Contribution, SUMS};
use super::project::{Splat, project};
use super::raster::{self, Canvas};
use super::residual::Filter;
use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{AdamStep, Device, DeviceState, Geometry, Observation, StepOutcome};

/// Gaussians that one task takes at a time; a multiple of the lanes.
const CHUNK: usize = 1024;

/// Images rendered side by side at most; their workspaces stay allocated.
const IMAGES_AT_ONCE: usize = 16;

/// What one image needs on its way.
struct Workspace {
    splats: Vec<Splat>,
    whitening: [Vec<f64>; 3],
    moments: [Vec<f32>; 6],
    projection: Canvas,
    gradient: Canvas,
    filter: Filter,
    loss: f64,
}

impl Workspace {
    fn new(count: usize, geometry: &Geometry) -> Self {
        Self {
            splats: vec![Splat::default(); count],
            whitening: std::array::from_fn(|_| vec![0.0; count]),
            moments: std::array::from_fn(|_| vec![0.0; count]),
            projection: Canvas::new(geometry.box_size),
            gradient: Canvas::new(geometry.box_size),
            filter: Filter::new(geometry.box_size, geometry.pixel_size),
            loss: 0.0,
        }
    }

    fn project(&mut self, gaussians: &Activated, view: &Rotation, geometry: &Geometry, within: bool) {
        let [w0, w1, w2] = &mut self.whitening;
        let tasks = self
            .splats
            .chunks_mut(CHUNK)
            .zip(w0.chunks_mut(CHUNK))
            .zip(w1.chunks_mut(CHUNK).zip(w2.chunks_mut(CHUNK)))
            .enumerate();
        for_each(within, tasks, |(chunk, ((splats, w0), (w1, w2)))| {
            let start = chunk * CHUNK;
            project(gaussians, start, view, geometry.box_size, geometry.cutoff, splats, [w0, w1, w2]);
        });
    }

    fn draw(&mut self, within: bool) {
        let stride = self.projection.stride;
        let bands = if within { rayon::current_num_threads() } else { 1 };
        let rows = self.projection.box_size.div_ceil(bands);
        let splats = &self.splats;
        let bands = self.projection.pixels.chunks_mut(rows * stride).enumerate();
        for_each(within, bands, |(band, pixels)| {
            pixels.fill(0.0);
            raster::draw(splats, pixels, band * rows, stride);
        });
    }

    fn measure(&mut self, within: bool) {
        let (gradient, whitening) = (&self.gradient, &self.whitening);
        let [a, b, c, d, e, f] = &mut self.moments;
        let tasks = self
            .splats
            .chunks(CHUNK)
            .enumerate()
            .zip(a.chunks_mut(CHUNK).zip(b.chunks_mut(CHUNK)))
            .zip(c.chunks_mut(CHUNK).zip(d.chunks_mut(CHUNK)))
            .zip(e.chunks_mut(CHUNK).zip(f.chunks_mut(CHUNK)));
        for_each(within, tasks, |((((chunk, splats), (a, b)), (c, d)), (e, f))| {
            let range = chunk * CHUNK..chunk * CHUNK + splats.len();
            let whitening = whitening.each_ref().map(|plane| &plane[range.clone()]);
            raster::moments(splats, whitening, gradient, [a, b, c, d, e, f]);
        });
    }

    /// Everything one image goes through, up to its moments.
    fn run(&mut self, gaussians: &Activated, seen: &Observation, geometry: &Geometry, within: bool) {
        self.project(gaussians, &seen.view.rotation, geometry, within);
        self.draw(within);
        self.loss = self.filter.residual(
            &seen.view.ctf,
            &self.projection,
            seen.target,
            seen.energy,
            &mut self.gradient,
        );
        self.measure(within);
    }
}

/// Runs `task` on every item, in parallel where `parallel`.
fn for_each<I>(parallel: bool, items: I, task: impl Fn(I::Item) + Sync + Send)
where
    I: Iterator + Send,
    I::Item: Send,
{
    if parallel {
        // The items are few and large; collecting them costs nothing.
        items.collect::<Vec<_>>().into_par_iter().for_each(task);
    } else {
        items.for_each(task);
    }
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
    /// Gradient planes, then the loss and the count.
    buffer: Vec<f32>,
    loss: f64,
    images: u64,
    preparers: Mutex<Vec<Filter>>,
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
            buffer: vec![0.0; values + 2],
            loss: 0.0,
            images: 0,
            preparers: Mutex::new(Vec::new()),
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
        let count = self.images as f32;
        let gradient = self.buffer[..values].iter().map(|g| g / count).collect();
        let loss = self.loss / self.images as f64;
        self.clear();
        (gradient, loss)
    }

    /// Renders one view without a CTF, `[y][x]`: for tests, benches and pictures.
    pub fn render(&mut self, view: &Rotation) -> Vec<f32> {
        self.activate();
        let mut workspace = Workspace::new(self.gmm.len(), &self.geometry);
        workspace.project(&self.activated, view, &self.geometry, true);
        workspace.draw(true);
        workspace.projection.rows().flatten().copied().collect()
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
        self.buffer[values + 1] = self.images as f32;
    }

    fn clear(&mut self) {
        self.sums.iter_mut().for_each(|plane| plane.fill(0.0));
        self.loss = 0.0;
        self.images = 0;
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        match rayon::current_num_threads() {
            1 => "CPU, 1 thread".into(),
            threads => format!("CPU, {threads} threads"),
        }
    }

    fn prepare(&self, ctf: &Ctf, image: &mut [f32]) -> f64 {
        let spare = || self.preparers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let filter = spare().pop();
        let mut filter =
            filter.unwrap_or_else(|| Filter::new(self.geometry.box_size, self.geometry.pixel_size));
        let energy = filter.prepare(ctf, image);
        spare().push(filter);
        energy
    }

    fn accumulate(&mut self, batch: &[Observation]) {
        self.activate();
        let threads = rayon::current_num_threads();
        for group in batch.chunks(IMAGES_AT_ONCE.max(threads)) {
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
            self.images += group.len() as u64;
            let workspaces = &self.workspaces[..group.len()];
            let mut planes = self.sums.each_mut().map(|plane| plane.chunks_mut(CHUNK));
            let tasks = (0..self.gmm.len().div_ceil(CHUNK)).map(|chunk| {
                let sums = planes.each_mut().map(|p| p.next().expect("as many chunks as tasks"));
                (chunk * CHUNK, sums)
            });
            for_each(threads > 1, tasks, |(start, mut sums)| {
                let range = start..start + sums[0].len();
                for (workspace, seen) in workspaces.iter().zip(group) {
                    let image = Contribution {
                        view: &seen.view.rotation,
                        whitening: workspace.whitening.each_ref().map(|p| &p[range.clone()]),
                        moments: workspace.moments.each_ref().map(|p| &p[range.clone()]),
                    };
                    chain::accumulate(
                        &image,
                        geometry.box_size,
                        &gaussians.amplitude[range.clone()],
                        &mut sums,
                    );
                }
            });
        }
    }

    fn reduce(&mut self, sum: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        self.gather();
        sum(&mut self.buffer)
    }

    fn step(&mut self, adam: &mut dyn FnMut(u64) -> AdamStep) -> Result<StepOutcome> {
        let values = self.gmm.values().len();
        let (gradient, tail) = self.buffer.split_at(values);
        let (loss, images) = (f64::from(tail[0]), tail[1] as u64);
        let outcome = StepOutcome { loss: loss / images as f64, images };
        // A sum is finite only if all its terms are (two infinities of opposite sign give NaN).
        let finite = loss.is_finite() && gradient.iter().map(|&g| f64::from(g)).sum::<f64>().is_finite();
        if !finite || images == 0 {
            return Err(Error::Numeric {
                problem: format!(
                    "the loss or the gradient of a step over {images} images is not finite (loss {})",
                    outcome.loss
                ),
                remedy: "lower --learning-rate, and check the particles with `cryosplat-mpi info --verify`"
                    .into(),
            });
        }
        let step = adam(images);
        self.adam.step(self.gmm.values_mut(), gradient, (1.0 / images as f64) as f32, &step);
        self.stale = true;
        self.clear();
        Ok(outcome)
    }

    fn state(&self) -> DeviceState {
        DeviceState {
            gmm: self.gmm.clone(),
            first: self.adam.first.clone(),
            second: self.adam.second.clone(),
        }
    }

    fn restore(&mut self, state: DeviceState) {
        self.adam = Adam { first: state.first, second: state.second };
        self.gmm = state.gmm;
        self.stale = true;
        self.clear();
    }
}
