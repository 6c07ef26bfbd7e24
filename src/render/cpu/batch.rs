//! Gradient and loss of a batch.
//!
//! Invariant: the order of additions depends on the batch alone, so that results have the same bits for any number of threads. A
//! batch is divided into bundles of consecutive images. Images are added within a bundle from first to last, then bundles from
//! first to last.
//!
//! Two schedules keep this order:
//! - [`BatchAccumulator::by_bundle`], 2 to 4 threads: a thread processes whole bundles. Its results stay in its own cache, and
//!   threads synchronise twice per batch.
//! - [`BatchAccumulator::by_image`], one thread, or more than there are bundles for: threads process images, then chunks of the
//!   mixture, whose accumulators stay in cache. On one thread it takes 2 to 10% less time than whole bundles at 5,120 to 30,000
//!   Gaussians, and the same at 2,048.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activate::GaussianBlock;
use super::allocate_blocks;
use super::chain::{self, GradientAccumulators, ViewContext};
use super::fit::Comparison;
use super::project::{SplatBlock, ViewMoments};
use super::raster::Canvas;
use super::residual::Filter;
use super::tasks::{blocks_per_task, for_each, task_chunks};
use super::workspace::{Image, Shared, Workspace};
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{Found, Geometry, ImageFit, ImageSums, Observation, OffsetGrid, Reference, View};
use crate::simd::LANES;

/// A bundle is this fraction of the remaining images.
const BUNDLE_DIVISOR: usize = 4;

/// Largest number of threads that bundles keep busy.
const MAX_BUNDLE_THREADS: usize = BUNDLE_DIVISOR;

/// Images per thread between two additions.
const IMAGES_PER_GROUP: usize = 4;

/// Largest number of SIMD blocks whose accumulators fit the cache.
const BLOCKS_PER_CHUNK: usize = 64;

/// Bundles of a batch, of decreasing size, so that threads finish at about the same time.
fn bundles(batch: usize) -> Vec<Range<usize>> {
    let mut bundles = Vec::new();
    let mut start = 0;
    while start < batch {
        let end = start + ((batch - start) / BUNDLE_DIVISOR).max(1);
        bundles.push(start..end);
        start = end;
    }
    bundles
}

/// Whether `threads` threads take a batch of `batch` images by [`BatchAccumulator::by_bundle`].
fn is_by_bundle(threads: usize, batch: usize) -> bool {
    threads > 1 && threads <= MAX_BUNDLE_THREADS && threads <= batch
}

/// Buffers of one thread.
struct Worker {
    /// The last thread that used it, whose cache may hold it.
    thread: Option<usize>,
    workspace: Workspace,
    images: Vec<Image>,
}

/// Locks a mutex. A panic elsewhere ends the program, so that poison does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workers of a device.
struct WorkerPool {
    shared: Shared,
    /// Idle workers.
    workers: Mutex<Vec<Worker>>,
}

impl WorkerPool {
    /// Runs `task` with an idle worker, preferably the one this thread used last.
    fn with_worker(&self, task: impl FnOnce(&mut Worker)) {
        let thread = rayon::current_thread_index();
        let idle = {
            let mut idle = lock(&self.workers);
            match idle.iter().position(|worker| worker.thread == thread) {
                Some(own) => Some(idle.swap_remove(own)),
                None => idle.pop(),
            }
        };
        let mut worker = idle.unwrap_or_else(|| Worker {
            thread,
            workspace: Workspace::new(&self.shared),
            images: Vec::new(),
        });
        worker.thread = thread;
        task(&mut worker);
        lock(&self.workers).push(worker);
    }

    /// Extends `images` to `count` at least.
    fn reserve_images(&self, images: &mut Vec<Image>, count: usize) {
        let image = || Image { view_moments: self.shared.allocate_views(), loss: 0.0 };
        images.resize_with(images.len().max(count), image);
    }

    /// Accumulates the images of a bundle in `sums`. Returns the sum of their losses.
    fn sum(
        &self,
        worker: &mut Worker,
        gaussians: &[GaussianBlock],
        bundle: &[Observation],
        sums: &mut [GradientAccumulators],
    ) -> f64 {
        let Worker { workspace, images, .. } = worker;
        self.reserve_images(images, bundle.len().min(IMAGES_PER_GROUP));
        let mut loss = 0.0;
        for (number, observations) in bundle.chunks(IMAGES_PER_GROUP).enumerate() {
            for (image, observation) in images.iter_mut().zip(observations) {
                workspace.run(&self.shared, gaussians, observation, image, false);
                loss += image.loss;
            }
            for (start, sums) in task_chunks(sums) {
                for (place, (image, observation)) in images.iter().zip(observations).enumerate() {
                    let first = number == 0 && place == 0;
                    self.add_image(gaussians, image, observation, first, start, sums);
                }
            }
        }
        loss
    }

    /// Adds one image to the accumulators of the blocks from `start` on; the `first` image overwrites them.
    fn add_image(
        &self,
        gaussians: &[GaussianBlock],
        image: &Image,
        observation: &Observation,
        first: bool,
        start: usize,
        sums: &mut [GradientAccumulators],
    ) {
        let blocks = start..start + sums.len();
        let (box_size, gaussians) = (self.shared.geometry.grid(), &gaussians[blocks.clone()]);
        let of_views = self.shared.of_views(&image.view_moments);
        let views = self.shared.views(&observation.view.rotation);
        for (number, (view, view_moments)) in views.zip(of_views).enumerate() {
            let showing = ViewContext { view: &view, box_size };
            let first = first && number == 0;
            chain::accumulate(&showing, gaussians, &view_moments[blocks.clone()], first, sums);
        }
    }
}

/// Accumulates batches of images.
pub(super) struct BatchAccumulator {
    pool: WorkerPool,
    /// Results of images, for [`BatchAccumulator::by_image`].
    images: Vec<Image>,
    /// First the accumulators of the batch, then those of bundles.
    sums: Vec<Vec<GradientAccumulators>>,
}

impl BatchAccumulator {
    pub(super) fn new(count: usize, geometry: Geometry) -> Self {
        let pool = WorkerPool { shared: Shared::new(count, geometry), workers: Mutex::default() };
        let mut new = Self { pool, images: Vec::new(), sums: Vec::new() };
        new.reserve_accumulators(1);
        new
    }

    /// Sets the noise weights, `[group][shell]`.
    pub(super) fn set_noise_weights(&mut self, groups: &[Vec<f32>]) {
        self.pool.shared.set_noise_weights(groups);
    }

    /// Memory in bytes for batches of `batch` images of a mixture of `count` Gaussians with `views` views each, without the pixels.
    pub(super) fn bytes_for([count, views]: [usize; 2], batch: usize) -> u128 {
        let threads = rayon::current_num_threads();
        let (sums, images) = if is_by_bundle(threads, batch) {
            (bundles(batch).len(), threads * batch.min(IMAGES_PER_GROUP))
        } else {
            (2, batch.min(threads * IMAGES_PER_GROUP))
        };
        let of_views = images * size_of::<ViewMoments>() + threads * size_of::<SplatBlock>();
        let of_block = sums * size_of::<GradientAccumulators>() + views * of_views;
        count.div_ceil(LANES) as u128 * of_block as u128
    }

    /// Changes the number of Gaussians of the mixture.
    pub(super) fn resize(&mut self, count: usize) {
        self.pool.shared.count = count;
        lock(&self.pool.workers).clear();
        self.images.clear();
        self.sums.clear();
        self.reserve_accumulators(1);
    }

    /// The filter of images of this geometry.
    pub(super) fn filter(&self) -> &Filter {
        &self.pool.shared.filter
    }

    /// The accumulators of the last batch.
    pub(super) fn total(&self) -> &[GradientAccumulators] {
        &self.sums[0]
    }

    /// Size of all buffers in bytes.
    pub(super) fn bytes(&self) -> usize {
        let workers = lock(&self.pool.workers);
        let images = workers.iter().flat_map(|worker| &worker.images).chain(&self.images);
        self.pool.shared.bytes()
            + self.sums.iter().map(|sums| size_of_val(&sums[..])).sum::<usize>()
            + images.map(|image| size_of_val(&image.view_moments[..])).sum::<usize>()
            + workers.iter().map(|worker| worker.workspace.bytes()).sum::<usize>()
    }

    /// Renders the model at a pose without a CTF, `[y][x]`.
    pub(super) fn render(&mut self, gaussians: &[GaussianBlock], view: &Rotation) -> Vec<f32> {
        let shared = &mut self.pool.shared;
        let mut workspace = Workspace::new(shared);
        let mut view_moments: Vec<ViewMoments> = shared.allocate_views();
        workspace.draw(shared, gaussians, &View::new(*view, Ctf::identity()), &mut view_moments, true);
        let mut image = vec![0.0; shared.geometry.box_size.pow(2)];
        let Canvas { pixels, stride, .. } = &workspace.projection;
        shared.filter.image(&Ctf::identity(), pixels, *stride, &mut image);
        image
    }

    /// Compares the model with each image of `batch`.
    pub(super) fn compare(&self, gaussians: &[GaussianBlock], batch: &[Observation]) -> Vec<ImageSums> {
        let mut sums = vec![ImageSums { power: 0.0, overlap: 0.0 }; batch.len()];
        for_each(rayon::current_num_threads() > 1, sums.iter_mut().zip(batch), |(sums, observation)| {
            self.pool.with_worker(|Worker { workspace, images, .. }| {
                self.pool.reserve_images(images, 1);
                *sums = workspace.compare(&self.pool.shared, gaussians, observation, &mut images[0]);
            });
        });
        sums
    }

    /// Sets what images are fitted to.
    pub(super) fn set_reference(&mut self, reference: Reference) {
        let shared = &mut self.pool.shared;
        shared.comparison = Some(Comparison::new(reference, shared.geometry.box_size));
    }

    /// Fits each image of `batch`.
    pub(super) fn fit(&self, batch: &[Observation]) -> Vec<ImageFit> {
        self.of_images(batch, |workspace, observation| workspace.fit(&self.pool.shared, observation))
    }

    /// The best of many poses and offsets of each image of `batch`.
    pub(super) fn search(
        &self,
        batch: &[Observation],
        rotations: (&[Rotation], &[f64]),
        offsets: (&OffsetGrid, f64),
    ) -> Vec<Found> {
        self.of_images(batch, |workspace, observation| {
            workspace.search(&self.pool.shared, observation, rotations, offsets)
        })
    }

    /// Results of `task` of each image of `batch`.
    fn of_images<T: Send>(
        &self,
        batch: &[Observation],
        task: impl Fn(&mut Workspace, &Observation) -> T + Sync + Send,
    ) -> Vec<T> {
        let mut results: Vec<Option<T>> = batch.iter().map(|_| None).collect();
        for_each(rayon::current_num_threads() > 1, results.iter_mut().zip(batch), |(result, observation)| {
            self.pool.with_worker(|worker| *result = Some(task(&mut worker.workspace, observation)));
        });
        results.into_iter().map(|result| result.expect("every image was processed")).collect()
    }

    /// Accumulates `batch` in [`BatchAccumulator::total`]. Returns the sum of its losses.
    pub(super) fn accumulate(&mut self, gaussians: &[GaussianBlock], batch: &[Observation]) -> f64 {
        if batch.is_empty() {
            self.sums[0].fill(GradientAccumulators::default());
            return 0.0;
        }
        let threads = rayon::current_num_threads();
        if is_by_bundle(threads, batch.len()) {
            self.by_bundle(gaussians, batch, threads)
        } else {
            self.by_image(gaussians, batch, threads)
        }
    }

    /// Extends the accumulators to `count` sets at least.
    fn reserve_accumulators(&mut self, count: usize) {
        self.sums.resize_with(self.sums.len().max(count), || allocate_blocks(self.pool.shared.count));
    }

    /// Threads take the next bundle each.
    fn by_bundle(&mut self, gaussians: &[GaussianBlock], batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        self.reserve_accumulators(bundles.len());
        let (pool, sums) = (&self.pool, &mut self.sums[..bundles.len()]);
        let next = AtomicUsize::new(0);
        let places: Vec<_> = sums.iter_mut().map(|sums| Mutex::new((sums, 0.0))).collect();
        for_each(true, 0..threads.min(bundles.len()), |_| {
            pool.with_worker(|worker| {
                loop {
                    let bundle = next.fetch_add(1, Ordering::Relaxed);
                    let Some(range) = bundles.get(bundle) else { break };
                    let (sums, loss) = &mut *lock(&places[bundle]);
                    *loss = pool.sum(worker, gaussians, &batch[range.clone()], sums);
                }
            });
        });
        let loss = places.iter().map(|place| lock(place).1).sum();
        drop(places);
        let (total, others) = sums.split_first_mut().expect("a batch has a bundle");
        for_each(true, task_chunks(total), |(start, total)| {
            for more in &*others {
                chain::add(total, &more[start..start + total.len()]);
            }
        });
        loss
    }

    /// Threads take images, then chunks of the mixture.
    fn by_image(&mut self, gaussians: &[GaussianBlock], batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        let at_once = IMAGES_PER_GROUP * threads;
        let size = blocks_per_task(gaussians.len()).min(BLOCKS_PER_CHUNK);
        // The total of all earlier bundles, and the current bundle.
        self.reserve_accumulators(2);
        let Self { pool, images, sums } = self;
        pool.reserve_images(images, batch.len().min(at_once));
        let [total, part, ..] = &mut sums[..] else { unreachable!("two sets are reserved") };
        let mut losses = Vec::with_capacity(batch.len());
        for (number, group) in batch.chunks(at_once).enumerate() {
            // With fewer images than threads, also work in parallel within an image.
            let split_image = group.len() < threads;
            for_each(threads > 1, images.iter_mut().zip(group), |(image, observation)| {
                pool.with_worker(|worker| {
                    worker.workspace.run(&pool.shared, gaussians, observation, image, split_image);
                });
            });
            losses.extend(images.iter().zip(group).map(|(image, _)| image.loss));
            let chunks = (0..).step_by(size).zip(total.chunks_mut(size).zip(part.chunks_mut(size)));
            for_each(threads > 1, chunks, |(start, (total, part))| {
                for (place, (image, observation)) in images.iter().zip(group).enumerate() {
                    let place = number * at_once + place;
                    let bundle = bundles.partition_point(|bundle| bundle.end <= place);
                    let Range { start: first, end } = bundles[bundle].clone();
                    let sums = if bundle == 0 { &mut *total } else { &mut *part };
                    pool.add_image(gaussians, image, observation, place == first, start, sums);
                    if bundle > 0 && place + 1 == end {
                        chain::add(total, part);
                    }
                }
            });
        }
        bundles.iter().map(|bundle| losses[bundle.clone()].iter().sum::<f64>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_cover_the_batch_in_order_and_end_small() {
        for batch in [0, 1, 3, 4, 8, 64, 513] {
            let bundles = bundles(batch);
            let images: Vec<usize> = bundles.iter().cloned().flatten().collect();
            assert_eq!(images, (0..batch).collect::<Vec<_>>());
            assert!(bundles.is_sorted_by(|a, b| a.len() >= b.len()));
            assert!(bundles.last().is_none_or(|last| last.len() == 1));
        }
        assert_eq!(bundles(64)[0], 0..16);
    }
}
