//! Sums over ranks in the memory of a GPU, without a step around them: for benches.

use super::DeviceSum;
use super::card::{Buffer, Card};
use super::feed::event;
use super::host::wait;
use crate::error::Result;
use crate::render::Reduce;

/// A buffer of zeros in a GPU's memory, to add up over ranks.
pub struct Sums {
    card: Card,
    buffer: Buffer,
}

impl Sums {
    /// Of up to `length` f32 values on GPU `ordinal`.
    ///
    /// # Errors
    /// When the device refuses, or has no room.
    pub fn new(ordinal: usize, length: usize) -> Result<Self> {
        let card = Card::open(ordinal)?;
        let buffer = card.allocate("sums", length * size_of::<f32>())?;
        Ok(Self { card, buffer })
    }

    /// Adds the first `length` values up over the ranks of `group` `times` times, and waits for the last.
    ///
    /// # Errors
    /// When the device or the group fails.
    ///
    /// # Panics
    /// If the buffer is shorter, or the group does not add up on devices.
    pub fn run(&mut self, group: &mut dyn Reduce, length: usize, times: usize) -> Result<()> {
        assert!(length * size_of::<f32>() <= self.buffer.bytes());
        for _ in 0..times {
            let sum: &mut dyn DeviceSum = group.on_device().expect("a group that adds up on devices");
            // SAFETY: the buffer is at least that long, and the stream is one of its GPU's.
            unsafe { sum.enqueue(self.buffer.address(), length, self.card.stream.cu_stream().cast())? };
        }
        let here = event(&self.card)?;
        here.record(&self.card.stream).map_err(self.card.failed("order its streams"))?;
        wait(&self.card, &here, group)
    }
}
