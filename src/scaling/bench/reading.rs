//! Reading alone: how fast particles come from their file, without a device that they go to.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::particles::{Share, order};
use crate::error::Result;
use crate::parallel::Collective;
use crate::particles::store::{Dtype, Store};
use crate::particles::stream::ImageReader;

/// What all ranks read, from the page cache or the disk as it comes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// Every rank reads its particles in the order of a training for about `time`.
pub fn measure(
    store: &Store,
    share: Share,
    seed: u64,
    collective: &Collective,
    time: Duration,
) -> Result<Reading> {
    let order = order(store, share.batch, seed);
    let slots = order.slots_of(share.rank, share.ranks);
    let pixels = store.metadata().box_size.pow(2);
    let bytes = pixels
        * match store.dtype() {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        };
    let mut reader = ImageReader::open(store)?;
    let mut image = vec![0.0f32; pixels];
    let mut images = 0u64;
    collective.barrier();
    let started = Instant::now();
    'reading: for epoch in 0.. {
        for index in order.epoch(epoch, slots.clone()).into_iter().flatten() {
            reader.read(index, &mut image)?;
            images += 1;
            if started.elapsed() > time {
                break 'reading;
            }
        }
    }
    let rate = images as f64 / started.elapsed().as_secs_f64();
    let images_per_second: f64 = super::steps::gather(collective, rate).iter().sum();
    Ok(Reading { images_per_second, bytes_per_second: images_per_second * bytes as f64 })
}
