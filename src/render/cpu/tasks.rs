//! How work is shared out to the threads of a rank. Results never depend on it: tasks write to places of their own.

use rayon::prelude::*;

use crate::simd::LANES;

/// Gaussians of `count` that one task takes at a time, a multiple of the lanes: as many as caches like, but four tasks for each
/// of several threads.
pub(super) fn task_size(count: usize) -> usize {
    let tasks = match rayon::current_num_threads() {
        1 => 1,
        threads => 4 * threads,
    };
    count.div_ceil(tasks).next_multiple_of(LANES).clamp(16 * LANES, 1024)
}

/// The same in eights of Gaussians, of which there are `count`.
pub(super) fn eights_of_task(count: usize) -> usize {
    task_size(count * LANES) / LANES
}

/// What one task takes at a time of what lies in eights, each part with the number of its first.
pub(super) fn parts<T>(eights: &mut [T]) -> impl Iterator<Item = (usize, &mut [T])> {
    let size = eights_of_task(eights.len());
    (0..).step_by(size).zip(eights.chunks_mut(size))
}

/// Runs `task` on every item, in parallel where `parallel`.
pub(super) fn for_each<I>(parallel: bool, items: I, task: impl Fn(I::Item) + Sync + Send)
where
    I: Iterator,
    I::Item: Send,
{
    if parallel {
        // The items are few and large: collecting them costs nothing, and each can go to whoever is free.
        items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(task);
    } else {
        items.for_each(task);
    }
}

/// Runs `task` on every [`task_size`] of `count` Gaussians, with the number of the first and their part of each of `planes`.
pub(super) fn each_chunk<'a, T: Send + 'a>(
    count: usize,
    planes: impl Iterator<Item = &'a mut [T]>,
    task: impl Fn(usize, &mut [&mut [T]]) + Sync + Send,
) {
    let size = task_size(count);
    let mut planes: Vec<_> = planes.map(|plane| plane.chunks_mut(size)).collect();
    let chunks = std::iter::from_fn(|| planes.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>());
    let parallel = rayon::current_num_threads() > 1;
    for_each(parallel, chunks.enumerate(), |(chunk, mut planes)| task(chunk * size, &mut planes));
}
