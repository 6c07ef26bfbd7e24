//! How work is shared out to the threads of a rank. Results never depend on it: tasks write to places of their own.

use rayon::prelude::*;

/// Gaussians that one task takes at a time; a multiple of the lanes.
pub(super) const CHUNK: usize = 1024;

/// Runs `task` on every item, in parallel where `parallel`.
pub(super) fn for_each<I>(parallel: bool, items: I, task: impl Fn(I::Item) + Sync + Send)
where
    I: Iterator,
    I::Item: Send,
{
    if parallel {
        // The items are few and large; collecting them costs nothing.
        items.collect::<Vec<_>>().into_par_iter().for_each(task);
    } else {
        items.for_each(task);
    }
}

/// Runs `task` on every [`CHUNK`] Gaussians, with the number of the first and their part of each of `planes`.
pub(super) fn each_chunk<'a, T: Send + 'a>(
    planes: impl Iterator<Item = &'a mut [T]>,
    task: impl Fn(usize, &mut [&mut [T]]) + Sync + Send,
) {
    let mut planes: Vec<_> = planes.map(|plane| plane.chunks_mut(CHUNK)).collect();
    let chunks = std::iter::from_fn(|| planes.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>());
    let parallel = rayon::current_num_threads() > 1;
    for_each(parallel, chunks.enumerate(), |(chunk, mut planes)| task(chunk * CHUNK, &mut planes));
}
