//! The images of a batch, and the sums over them.
//!
//! A sum depends on its order, and must not depend on who came first, nor on how many threads there are. So a batch is divided into
//! bundles of consecutive images in the same way for any number of threads; the sum of a bundle goes from its first image to its
//! last, and that of the batch from the first bundle to the last. A few threads take whole bundles, and keep to themselves what
//! they have found of each image; one alone, or many, take images, and then parts of the mixture, whose sums stay in the cache.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activate::Active;
use super::chain::{self, Showing, Sums};
use super::project::{Seen, Splats, project};
use super::raster::{self, Canvas};
use super::residual::Filter;
use super::room;
use super::tasks::{eights_of_task, for_each, parts};
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{Geometry, Observation, Target, View};

/// A bundle is this part of the images that are left.
const PART: usize = 4;

/// Most threads for which there are enough bundles; more of them share out images.
const FEW_THREADS: usize = PART;

/// Images that a thread sees before they are added up.
const SEEN_AT_ONCE: usize = 4;

/// Eights of Gaussians, at most, whose sums are taken while they are in the cache.
const SUMMED_AT_ONCE: usize = 64;

/// The bundles of a batch, smaller and smaller: at the end nobody waits for long.
fn bundles(batch: usize) -> Vec<Range<usize>> {
    let mut bundles = Vec::new();
    let mut start = 0;
    while start < batch {
        let end = start + ((batch - start) / PART).max(1);
        bundles.push(start..end);
        start = end;
    }
    bundles
}

/// What is kept of one image until it is added up.
struct Image {
    seen: Vec<Seen>,
    loss: f64,
}

/// What one image needs on its way, and the next one again: it stays in the cache of the thread.
struct Workspace {
    splats: Vec<Splats>,
    projection: Canvas,
    gradient: Canvas,
    /// An observed image on its way to a target.
    observed: Vec<f32>,
    filter: Filter,
}

impl Workspace {
    fn new(count: usize, geometry: &Geometry, filter: &Filter) -> Self {
        Self {
            splats: room(count),
            projection: Canvas::new(geometry.grid()),
            gradient: Canvas::new(geometry.grid()),
            observed: Vec::new(),
            filter: filter.clone(),
        }
    }

    /// Bytes of its buffers.
    fn bytes(&self) -> usize {
        let Self { splats, projection, gradient, observed, filter } = self;
        size_of_val(&splats[..])
            + size_of_val(&projection.pixels[..])
            + size_of_val(&gradient.pixels[..])
            + observed.capacity() * size_of::<f32>()
            + filter.bytes()
    }

    /// Draws the projection.
    fn draw(
        &mut self,
        gaussians: &[Active],
        view: &Rotation,
        geometry: &Geometry,
        seen: &mut [Seen],
        within: bool,
    ) {
        let Self { splats, projection: Canvas { pixels, stride, box_size }, .. } = self;
        let stride = *stride;
        let size = eights_of_task(gaussians.len());
        let tasks = gaussians.chunks(size).zip(splats.chunks_mut(size)).zip(seen.chunks_mut(size));
        if !within {
            // Splats are drawn while they are in the cache.
            pixels.fill(0.0);
            for ((gaussians, splats), seen) in tasks {
                project(gaussians, view, geometry, splats, seen);
                raster::draw(splats, seen, pixels, 0, stride);
            }
            return;
        }
        for_each(true, tasks, |((gaussians, splats), seen)| project(gaussians, view, geometry, splats, seen));
        let rows = box_size.div_ceil(rayon::current_num_threads());
        for_each(true, pixels.chunks_mut(rows * stride).enumerate(), |(band, pixels)| {
            pixels.fill(0.0);
            raster::draw(splats, seen, pixels, band * rows, stride);
        });
    }

    /// Takes the moments.
    fn measure(&self, seen: &mut [Seen], within: bool) {
        let size = eights_of_task(seen.len());
        let tasks = self.splats.chunks(size).zip(seen.chunks_mut(size));
        for_each(within, tasks, |(splats, seen)| raster::moments(splats, &self.gradient, seen));
    }

    /// Everything one image goes through, up to its moments.
    fn run(
        &mut self,
        gaussians: &[Active],
        observation: &Observation,
        geometry: &Geometry,
        image: &mut Image,
        within: bool,
    ) {
        let View { rotation, ctf } = &observation.view;
        self.draw(gaussians, rotation, geometry, &mut image.seen, within);
        let target = match observation.target {
            Target::Prepared(target) => target,
            Target::Observed(image) => {
                self.observed.clear();
                self.observed.extend_from_slice(image);
                self.filter.prepare(ctf, &mut self.observed);
                &self.observed
            }
            Target::Kept(_) => unreachable!("nothing is kept by this device"),
        };
        image.loss =
            self.filter.residual(ctf, &self.projection, target, observation.energy, &mut self.gradient);
        self.measure(&mut image.seen, within);
    }
}

/// What one thread needs.
struct Worker {
    /// Whose it was last, and in whose cache it may be.
    thread: Option<usize>,
    workspace: Workspace,
    images: Vec<Image>,
}

/// What nobody else holds for long.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What threads go through images with, of a mixture of `count` Gaussians.
struct Crew {
    geometry: Geometry,
    count: usize,
    filter: Filter,
    /// Those that no thread is using.
    workers: Mutex<Vec<Worker>>,
}

impl Crew {
    /// Runs `task` with a worker, if there is one that of this thread.
    fn work(&self, task: impl FnOnce(&mut Worker)) {
        let thread = rayon::current_thread_index();
        let free = {
            let mut free = lock(&self.workers);
            match free.iter().position(|worker| worker.thread == thread) {
                Some(own) => Some(free.swap_remove(own)),
                None => free.pop(),
            }
        };
        let mut worker = free.unwrap_or_else(|| Worker {
            thread,
            workspace: Workspace::new(self.count, &self.geometry, &self.filter),
            images: Vec::new(),
        });
        worker.thread = thread;
        task(&mut worker);
        lock(&self.workers).push(worker);
    }

    /// Makes room for what is kept of `count` images, if there is less.
    fn make_room(&self, images: &mut Vec<Image>, count: usize) {
        let image = || Image { seen: room(self.count), loss: 0.0 };
        images.resize_with(images.len().max(count), image);
    }

    /// The sums over the images of a bundle, and, returned, that of their losses.
    fn sum(
        &self,
        worker: &mut Worker,
        gaussians: &[Active],
        bundle: &[Observation],
        sums: &mut [Sums],
    ) -> f64 {
        let Worker { workspace, images, .. } = worker;
        self.make_room(images, bundle.len().min(SEEN_AT_ONCE));
        let mut loss = 0.0;
        for (number, observations) in bundle.chunks(SEEN_AT_ONCE).enumerate() {
            for (image, observation) in images.iter_mut().zip(observations) {
                workspace.run(gaussians, observation, &self.geometry, image, false);
                loss += image.loss;
            }
            for (start, sums) in parts(sums) {
                for (place, (image, observation)) in images.iter().zip(observations).enumerate() {
                    let first = number == 0 && place == 0;
                    self.contribute(gaussians, image, observation, first, start, sums);
                }
            }
        }
        loss
    }

    /// Adds what was seen of one image to sums of the Gaussians from eight `start` on, or, as the `first`, makes them that.
    fn contribute(
        &self,
        gaussians: &[Active],
        image: &Image,
        observation: &Observation,
        first: bool,
        start: usize,
        sums: &mut [Sums],
    ) {
        let showing = Showing { view: &observation.view.rotation, box_size: self.geometry.grid() };
        let eights = start..start + sums.len();
        chain::accumulate(&showing, &gaussians[eights.clone()], &image.seen[eights], first, sums);
    }
}

/// All that is needed to go through batches of images of a mixture of some size.
pub(super) struct BatchSums {
    crew: Crew,
    /// Where threads share out images.
    images: Vec<Image>,
    /// First those of the batch.
    sums: Vec<Vec<Sums>>,
}

impl BatchSums {
    pub(super) fn new(count: usize, geometry: Geometry) -> Self {
        let filter = Filter::new(&geometry);
        let crew = Crew { geometry, count, filter, workers: Mutex::default() };
        let mut new = Self { crew, images: Vec::new(), sums: Vec::new() };
        new.make_sums(1);
        new
    }

    /// What filters images of this geometry.
    pub(super) fn filter(&self) -> &Filter {
        &self.crew.filter
    }

    /// The sums of the last batch.
    pub(super) fn total(&self) -> &[Sums] {
        &self.sums[0]
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> usize {
        let workers = lock(&self.crew.workers);
        let images = workers.iter().flat_map(|worker| &worker.images).chain(&self.images);
        self.crew.filter.bytes()
            + self.sums.iter().map(|sums| size_of_val(&sums[..])).sum::<usize>()
            + images.map(|image| size_of_val(&image.seen[..])).sum::<usize>()
            + workers.iter().map(|worker| worker.workspace.bytes()).sum::<usize>()
    }

    /// Renders one view without a CTF, `[y][x]`.
    pub(super) fn render(&mut self, gaussians: &[Active], view: &Rotation) -> Vec<f32> {
        let Crew { geometry, count, filter, .. } = &mut self.crew;
        let mut workspace = Workspace::new(*count, geometry, filter);
        let mut seen: Vec<Seen> = room(*count);
        workspace.draw(gaussians, view, geometry, &mut seen, true);
        let mut image = vec![0.0; geometry.box_size.pow(2)];
        let Canvas { pixels, stride, .. } = &workspace.projection;
        filter.image(&Ctf::identity(), pixels, *stride, &mut image);
        image
    }

    /// Goes through `batch`, makes [`BatchSums::total`] its sums, and returns that of the losses.
    pub(super) fn accumulate(&mut self, gaussians: &[Active], batch: &[Observation]) -> f64 {
        if batch.is_empty() {
            self.sums[0].fill(Sums::default());
            return 0.0;
        }
        let threads = rayon::current_num_threads();
        if threads > 1 && threads <= FEW_THREADS && threads <= batch.len() {
            self.by_bundle(gaussians, batch, threads)
        } else {
            self.by_image(gaussians, batch, threads)
        }
    }

    /// Makes `count` sums, if there are fewer.
    fn make_sums(&mut self, count: usize) {
        self.sums.resize_with(self.sums.len().max(count), || room(self.crew.count));
    }

    /// Each of several threads takes the next bundle.
    fn by_bundle(&mut self, gaussians: &[Active], batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        self.make_sums(bundles.len());
        let (crew, sums) = (&self.crew, &mut self.sums[..bundles.len()]);
        let next = AtomicUsize::new(0);
        let places: Vec<_> = sums.iter_mut().map(|sums| Mutex::new((sums, 0.0))).collect();
        for_each(true, 0..threads.min(bundles.len()), |_| {
            crew.work(|worker| {
                loop {
                    let bundle = next.fetch_add(1, Ordering::Relaxed);
                    let Some(range) = bundles.get(bundle) else { break };
                    let (sums, loss) = &mut *lock(&places[bundle]);
                    *loss = crew.sum(worker, gaussians, &batch[range.clone()], sums);
                }
            });
        });
        let loss = places.iter().map(|place| lock(place).1).sum();
        drop(places);
        let (total, others) = sums.split_first_mut().expect("a bundle");
        for_each(true, parts(total), |(start, total)| {
            for more in &*others {
                chain::add(total, &more[start..start + total.len()]);
            }
        });
        loss
    }

    /// Threads, or the only one, go through images, and then through Gaussians.
    fn by_image(&mut self, gaussians: &[Active], batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        let at_once = SEEN_AT_ONCE * threads;
        let size = eights_of_task(gaussians.len()).min(SUMMED_AT_ONCE);
        // Those of a bundle beside those of all before it.
        self.make_sums(2);
        let Self { crew, images, sums } = self;
        crew.make_room(images, batch.len().min(at_once));
        let [total, part, ..] = &mut sums[..] else { unreachable!("they were made") };
        let mut losses = Vec::with_capacity(batch.len());
        for (number, group) in batch.chunks(at_once).enumerate() {
            // With fewer images than threads the work within an image is shared too.
            let within = group.len() < threads;
            for_each(threads > 1, images.iter_mut().zip(group), |(image, observation)| {
                crew.work(|worker| {
                    worker.workspace.run(gaussians, observation, &crew.geometry, image, within);
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
                    crew.contribute(gaussians, image, observation, place == first, start, sums);
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
    fn bundles_are_the_batch_in_order_and_end_small() {
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
