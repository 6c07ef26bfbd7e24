//! Rate of reading particles from their file, without a device.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::particles::{ParticleSource, RankShare};
use crate::error::Result;
use crate::parallel::Collective;
use crate::particles::store::Block;

/// Total rate of all ranks, from the page cache or the disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReadRate {
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Images per second.
    pub images_per_second: f64,
}

/// Every rank reads the blocks of its shard, repeatedly, for about `time`. `None` for synthetic particles.
pub fn measure(
    source: &ParticleSource,
    share: RankShare,
    collective: &Collective,
    time: Duration,
) -> Result<Option<ReadRate>> {
    let ParticleSource::File { reader, order, .. } = source else { return Ok(None) };
    let rows = order.shard(order.slots_of(share.rank, share.ranks));
    let mut block = Block::default();
    let (mut images, mut bytes, mut first) = (0, 0, rows.start);
    collective.barrier();
    let started = Instant::now();
    while started.elapsed() < time {
        let block_rows = first..(first + order.block()).min(rows.end);
        reader.read(block_rows.clone(), &mut block)?;
        images += block_rows.len();
        let stored = reader.bytes_of(block_rows.clone());
        bytes += stored.end - stored.start;
        first = if block_rows.end == rows.end { rows.start } else { block_rows.end };
    }
    let seconds = started.elapsed().as_secs_f64();
    let total = |count: f64| collective.all_gather_f64(count / seconds).iter().sum();
    Ok(Some(ReadRate { bytes_per_second: total(bytes as f64), images_per_second: total(images as f64) }))
}
