//! The images of a batch, and the sums over them.
//!
//! A sum depends on its order, and must not depend on who came first, nor on how many threads there are. So a batch is divided into
//! bundles of consecutive images in the same way for any number of threads; the sum of a bundle goes from its first image to its
//! last, and that of the batch from the first bundle to the last. A few threads take whole bundles, and keep to themselves what
//! they have found of each image; many take images, and then parts of the mixture.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activate::Activated;
use super::chain::{self, Contribution, SUMS};
use super::project::{Splats, project};
use super::raster::{self, Canvas};
use super::residual::Filter;
use super::tasks::{each_chunk, for_each, task_size};
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{Geometry, Observation, Target, View};
use crate::simd::LANES;

/// A bundle is this part of the images that are left.
const PART: usize = 4;

/// Most threads for which there are enough bundles; more of them share out images.
const FEW_THREADS: usize = PART;

/// Images that a thread sees before they are added up.
const SEEN_AT_ONCE: usize = 4;

/// The sums of the chain over some images.
type Sums = [Vec<f64>; SUMS];

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
struct Seen {
    whitening: [Vec<f64>; 3],
    moments: [Vec<f32>; 6],
    loss: f64,
}

impl Seen {
    fn new(count: usize) -> Self {
        Self {
            whitening: std::array::from_fn(|_| vec![0.0; count]),
            moments: std::array::from_fn(|_| vec![0.0; count]),
            loss: 0.0,
        }
    }

    /// Bytes of its buffers.
    fn bytes(&self) -> usize {
        planes_bytes(&self.whitening) + planes_bytes(&self.moments)
    }
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
            splats: Splats::room(count),
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
        gaussians: &Activated,
        view: &Rotation,
        geometry: &Geometry,
        whitening: &mut [Vec<f64>; 3],
        within: bool,
    ) {
        let size = task_size(whitening[0].len());
        let [w0, w1, w2] = whitening.each_mut().map(|plane| plane.chunks_mut(size));
        let chunks = self.splats.chunks_mut(size / LANES).zip(w0).zip(w1.zip(w2)).enumerate();
        let Canvas { pixels, stride, box_size } = &mut self.projection;
        let stride = *stride;
        if !within {
            // Splats are drawn while they are in the cache.
            pixels.fill(0.0);
            for (chunk, ((splats, w0), (w1, w2))) in chunks {
                project(gaussians, chunk * size, view, geometry, splats, [w0, w1, w2]);
                raster::draw(splats, [w0, w1, w2], pixels, 0, stride);
            }
            return;
        }
        for_each(true, chunks, |(chunk, ((splats, w0), (w1, w2)))| {
            project(gaussians, chunk * size, view, geometry, splats, [w0, w1, w2]);
        });
        let rows = box_size.div_ceil(rayon::current_num_threads());
        let (splats, whitening) = (&self.splats, whitening.each_ref().map(|plane| &plane[..]));
        for_each(true, pixels.chunks_mut(rows * stride).enumerate(), |(band, pixels)| {
            pixels.fill(0.0);
            raster::draw(splats, whitening, pixels, band * rows, stride);
        });
    }

    fn measure(&self, seen: &mut Seen, within: bool) {
        let (gradient, whitening) = (&self.gradient, &seen.whitening);
        let size = task_size(whitening[0].len());
        let [a, b, c, d, e, f] = seen.moments.each_mut().map(|plane| plane.chunks_mut(size));
        let tasks = self.splats.chunks(size / LANES).enumerate().zip(a.zip(b)).zip(c.zip(d)).zip(e.zip(f));
        for_each(within, tasks, |((((chunk, splats), (a, b)), (c, d)), (e, f))| {
            let range = chunk * size..chunk * size + a.len();
            let whitening = whitening.each_ref().map(|plane| &plane[range.clone()]);
            raster::moments(splats, whitening, gradient, [a, b, c, d, e, f]);
        });
    }

    /// Everything one image goes through, up to its moments.
    fn run(
        &mut self,
        gaussians: &Activated,
        observation: &Observation,
        geometry: &Geometry,
        seen: &mut Seen,
        within: bool,
    ) {
        let View { rotation, ctf } = &observation.view;
        self.draw(gaussians, rotation, geometry, &mut seen.whitening, within);
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
        seen.loss =
            self.filter.residual(ctf, &self.projection, target, observation.energy, &mut self.gradient);
        self.measure(seen, within);
    }
}

/// What one thread needs.
struct Worker {
    /// Whose it was last, and in whose cache it may be.
    thread: Option<usize>,
    workspace: Workspace,
    seen: Vec<Seen>,
}

/// Bytes of some planes.
fn planes_bytes<T>(planes: &[Vec<T>]) -> usize {
    planes.iter().map(|plane| size_of_val(&plane[..])).sum()
}

/// Adds to a plane.
fn add(plane: &mut [f64], more: &[f64]) {
    plane.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
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
            seen: Vec::new(),
        });
        worker.thread = thread;
        task(&mut worker);
        lock(&self.workers).push(worker);
    }

    /// Makes room for what is kept of `images` images, if there is less.
    fn make_room(&self, seen: &mut Vec<Seen>, images: usize) {
        seen.resize_with(seen.len().max(images), || Seen::new(self.count));
    }

    /// The sums over the images of a bundle, and, returned, that of their losses.
    fn sum(
        &self,
        worker: &mut Worker,
        gaussians: &Activated,
        images: &[Observation],
        sums: &mut Sums,
    ) -> f64 {
        let Worker { workspace, seen, .. } = worker;
        self.make_room(seen, images.len().min(SEEN_AT_ONCE));
        let mut loss = 0.0;
        for (number, images) in images.chunks(SEEN_AT_ONCE).enumerate() {
            for (seen, image) in seen.iter_mut().zip(images) {
                workspace.run(gaussians, image, &self.geometry, seen, false);
                loss += seen.loss;
            }
            let size = task_size(self.count);
            for start in (0..self.count).step_by(size) {
                let range = start..(start + size).min(self.count);
                let mut sums = sums.each_mut().map(|plane| &mut plane[range.clone()]);
                for (place, (seen, image)) in seen.iter().zip(images).enumerate() {
                    let first = number == 0 && place == 0;
                    self.contribute(gaussians, seen, image, first, range.clone(), &mut sums);
                }
            }
        }
        loss
    }

    /// Adds what was seen of one image to sums of the Gaussians in `range`, or, as the `first`, makes them that.
    fn contribute(
        &self,
        gaussians: &Activated,
        seen: &Seen,
        image: &Observation,
        first: bool,
        range: Range<usize>,
        sums: &mut [&mut [f64]; SUMS],
    ) {
        let contribution = Contribution {
            view: &image.view.rotation,
            normalized: self.geometry.heights.is_none(),
            whitening: seen.whitening.each_ref().map(|plane| &plane[range.clone()]),
            moments: seen.moments.each_ref().map(|plane| &plane[range.clone()]),
        };
        let amplitude = &gaussians.amplitude[range];
        chain::accumulate(&contribution, self.geometry.grid(), amplitude, first, sums);
    }
}

/// All that is needed to go through batches of images of a mixture of some size.
pub(super) struct BatchSums {
    crew: Crew,
    /// Where threads share out images.
    seen: Vec<Seen>,
    /// First that of the batch.
    sums: Vec<Sums>,
}

impl BatchSums {
    pub(super) fn new(count: usize, geometry: Geometry) -> Self {
        let filter = Filter::new(&geometry);
        let crew = Crew { geometry, count, filter, workers: Mutex::default() };
        let mut new = Self { crew, seen: Vec::new(), sums: Vec::new() };
        new.make_sums(1);
        new
    }

    /// What filters images of this geometry.
    pub(super) fn filter(&self) -> &Filter {
        &self.crew.filter
    }

    /// The sums of the last batch.
    pub(super) fn total(&self) -> &Sums {
        &self.sums[0]
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> usize {
        let workers = lock(&self.crew.workers);
        let seen = workers.iter().flat_map(|worker| &worker.seen).chain(&self.seen);
        self.crew.filter.bytes()
            + self.sums.iter().map(|sums| planes_bytes(sums)).sum::<usize>()
            + seen.map(Seen::bytes).sum::<usize>()
            + workers.iter().map(|worker| worker.workspace.bytes()).sum::<usize>()
    }

    /// Renders one view without a CTF, `[y][x]`.
    pub(super) fn render(&mut self, gaussians: &Activated, view: &Rotation) -> Vec<f32> {
        let Crew { geometry, count, filter, .. } = &mut self.crew;
        let mut workspace = Workspace::new(*count, geometry, filter);
        let mut seen = Seen::new(*count);
        workspace.draw(gaussians, view, geometry, &mut seen.whitening, true);
        let mut image = vec![0.0; geometry.box_size.pow(2)];
        let Canvas { pixels, stride, .. } = &workspace.projection;
        filter.image(&Ctf::identity(), pixels, *stride, &mut image);
        image
    }

    /// Goes through `batch`, makes [`BatchSums::total`] its sums, and returns that of the losses.
    pub(super) fn accumulate(&mut self, gaussians: &Activated, batch: &[Observation]) -> f64 {
        if batch.is_empty() {
            self.sums[0].iter_mut().for_each(|plane| plane.fill(0.0));
            return 0.0;
        }
        let threads = rayon::current_num_threads();
        if threads == 1 || (threads <= FEW_THREADS && threads <= batch.len()) {
            self.by_bundle(gaussians, batch, threads)
        } else {
            self.by_image(gaussians, batch, threads)
        }
    }

    /// Makes `count` sums, if there are fewer.
    fn make_sums(&mut self, count: usize) {
        let planes = || std::array::from_fn(|_| vec![0.0; self.crew.count]);
        self.sums.resize_with(self.sums.len().max(count), planes);
    }

    /// Each thread takes the next bundle.
    fn by_bundle(&mut self, gaussians: &Activated, batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        self.make_sums(bundles.len());
        let (crew, sums) = (&self.crew, &mut self.sums[..bundles.len()]);
        let next = AtomicUsize::new(0);
        let places: Vec<_> = sums.iter_mut().map(|sums| Mutex::new((sums, 0.0))).collect();
        for_each(threads > 1, 0..threads.min(bundles.len()), |_| {
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
        each_chunk(crew.count, total.iter_mut().map(|plane| &mut plane[..]), |start, planes| {
            for sums in &*others {
                for (plane, more) in planes.iter_mut().zip(sums) {
                    add(plane, &more[start..]);
                }
            }
        });
        loss
    }

    /// Threads share out images, and then Gaussians.
    fn by_image(&mut self, gaussians: &Activated, batch: &[Observation], threads: usize) -> f64 {
        let bundles = bundles(batch.len());
        let at_once = SEEN_AT_ONCE * threads;
        // Those of a bundle beside those of all before it.
        self.make_sums(2);
        let Self { crew, seen, sums } = self;
        crew.make_room(seen, batch.len().min(at_once));
        let [totals, parts, ..] = &mut sums[..] else { unreachable!("they were made") };
        let mut losses = Vec::with_capacity(batch.len());
        for (number, group) in batch.chunks(at_once).enumerate() {
            // With fewer images than threads the work within an image is shared too.
            let within = group.len() < threads;
            for_each(threads > 1, seen.iter_mut().zip(group), |(seen, image)| {
                crew.work(|worker| worker.workspace.run(gaussians, image, &crew.geometry, seen, within));
            });
            losses.extend(seen.iter().zip(group).map(|(seen, _)| seen.loss));
            let planes = totals.iter_mut().chain(parts.iter_mut()).map(|plane| &mut plane[..]);
            each_chunk(crew.count, planes, |start, planes| {
                let (total, part) = planes.split_at_mut(SUMS);
                let part: &mut [_; SUMS] = part.try_into().expect("as many planes again");
                let range = start..start + part[0].len();
                for (place, (seen, image)) in seen.iter().zip(group).enumerate() {
                    let place = number * at_once + place;
                    let bundle = bundles.partition_point(|bundle| bundle.end <= place);
                    let Range { start: first, end } = bundles[bundle].clone();
                    crew.contribute(gaussians, seen, image, place == first, range.clone(), part);
                    if place + 1 == end {
                        for (total, part) in total.iter_mut().zip(part.iter()) {
                            if bundle == 0 {
                                total.copy_from_slice(part);
                            } else {
                                add(total, part);
                            }
                        }
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
