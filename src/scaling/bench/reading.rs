//! Reading alone: how fast particles come from their file, without a device that they go to.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::particles::{Share, Source};
use crate::error::Result;
use crate::parallel::Collective;
use crate::particles::store::Block;

/// What all ranks read, from the page cache or the disk as it comes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// Every rank reads its particles, a block after the other as large as those of a training, for about `time`.
pub fn measure(
    source: &Source,
    share: Share,
    collective: &Collective,
    time: Duration,
) -> Result<Option<Reading>> {
    let Source::File { reader, order, .. } = source else { return Ok(None) };
    let rows = order.shard(order.slots_of(share.rank, share.ranks));
    let mut block = Block::default();
    let (mut images, mut bytes, mut first) = (0, 0, rows.start);
    collective.barrier();
    let started = Instant::now();
    while started.elapsed() < time {
        let some = first..(first + order.block()).min(rows.end);
        reader.read(some.clone(), &mut block)?;
        images += some.len();
        let stored = reader.bytes_of(some.clone());
        bytes += stored.end - stored.start;
        first = if some.end == rows.end { rows.start } else { some.end };
    }
    let seconds = started.elapsed().as_secs_f64();
    let total = |count: f64| collective.all_gather_f64(count / seconds).iter().sum();
    Ok(Some(Reading { bytes_per_second: total(bytes as f64), images_per_second: total(images as f64) }))
}
