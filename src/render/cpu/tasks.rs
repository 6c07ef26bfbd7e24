//! Division of work among the threads of a rank. Results do not depend on it: tasks write to disjoint places.

use rayon::prelude::*;

use crate::simd::LANES;

/// Gaussians per task, a multiple of [`LANES`]: at most what fits a cache, and at least four tasks per thread.
pub(super) fn gaussians_per_task(count: usize) -> usize {
    let tasks = match rayon::current_num_threads() {
        1 => 1,
        threads => 4 * threads,
    };
    count.div_ceil(tasks).next_multiple_of(LANES).clamp(16 * LANES, 1024)
}

/// SIMD blocks per task, of `count` blocks.
pub(super) fn blocks_per_task(count: usize) -> usize {
    gaussians_per_task(count * LANES) / LANES
}

/// The blocks of each task, with the index of the first.
pub(super) fn task_chunks<T>(blocks: &mut [T]) -> impl Iterator<Item = (usize, &mut [T])> {
    let size = blocks_per_task(blocks.len());
    (0..).step_by(size).zip(blocks.chunks_mut(size))
}

/// Runs `task` on every item, in parallel if `parallel`.
pub(super) fn for_each<I>(parallel: bool, items: I, task: impl Fn(I::Item) + Sync + Send)
where
    I: Iterator,
    I::Item: Send,
{
    if parallel {
        // Items are few and large: collecting them is cheap, and any idle thread can take each.
        items.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(task);
    } else {
        items.for_each(task);
    }
}

/// Runs `task` on chunks of [`gaussians_per_task`] of `count` Gaussians, with the index of the first and the chunk of each plane.
pub(super) fn each_chunk<'a, T: Send + 'a>(
    count: usize,
    planes: impl Iterator<Item = &'a mut [T]>,
    task: impl Fn(usize, &mut [&mut [T]]) + Sync + Send,
) {
    let size = gaussians_per_task(count);
    let mut planes: Vec<_> = planes.map(|plane| plane.chunks_mut(size)).collect();
    let chunks = std::iter::from_fn(|| planes.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>());
    let parallel = rayon::current_num_threads() > 1;
    for_each(parallel, chunks.enumerate(), |(chunk, mut planes)| task(chunk * size, &mut planes));
}
