//! Reading alone: how fast particles come from their file, without a device that they go to.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::particles::{Share, order};
use crate::error::Result;
use crate::parallel::Collective;
use crate::particles::store::{Dtype, Store};
use crate::progress::Progress;
use crate::render::Device;
use crate::train::shard::{Place, Shard};

/// What all ranks read, from the page cache or the disk as it comes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// Every rank streams its particles in the order of a training for about `time`.
pub fn measure(
    store: &Store,
    share: Share,
    seed: u64,
    device: &mut dyn Device,
    collective: &Collective,
    time: Duration,
) -> Result<Reading> {
    let order = order(store, share.batch, seed);
    let slots = order.slots_of(share.rank, share.ranks);
    let silent = Progress::silent();
    let mut shard = Shard::load(store.reader(), &order, slots, usize::MAX, Place::File, device, silent)?;
    let bytes = store.header().pixels()
        * match store.dtype() {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        };
    let mut images = 0;
    collective.barrier();
    let started = Instant::now();
    for epoch in 0.. {
        shard.each_batch(epoch, 0, |_, batch| {
            images += batch.rows.len();
            Ok(if started.elapsed() < time { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if started.elapsed() >= time {
            break;
        }
    }
    let rate = images as f64 / started.elapsed().as_secs_f64();
    let images_per_second: f64 = super::steps::gather(collective, rate).iter().sum();
    Ok(Reading { images_per_second, bytes_per_second: images_per_second * bytes as f64 })
}
