//! All-reduce in the memory of a GPU, without a step around it: for benches.

use super::DeviceSum;
use super::gpu::{Buffer, Gpu};
use super::pinned::wait;
use crate::error::Result;
use crate::render::Reduce;

/// A buffer of zeros in GPU memory that is summed over the ranks of a group.
pub struct AllReduceBench {
    gpu: Gpu,
    buffer: Buffer,
}

impl AllReduceBench {
    /// Allocates `length` f32 values on GPU `ordinal`.
    ///
    /// # Errors
    /// When the driver refuses, or memory does not suffice.
    pub fn new(ordinal: usize, length: usize) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let buffer = gpu.allocate("sums", length * size_of::<f32>())?;
        Ok(Self { gpu, buffer })
    }

    /// Sums the first `length` values over the ranks of `group` `times` times, and waits for the last sum.
    ///
    /// # Errors
    /// When the device or the group fails.
    ///
    /// # Panics
    /// If the buffer is shorter, or the group does not sum in device memory.
    pub fn run(&mut self, group: &mut dyn Reduce, length: usize, times: usize) -> Result<()> {
        assert!(length * size_of::<f32>() <= self.buffer.bytes());
        for _ in 0..times {
            let sum: &mut dyn DeviceSum = group.on_device().expect("a group that sums in device memory");
            // SAFETY: the buffer is at least that long, and the stream belongs to its GPU.
            unsafe { sum.enqueue(self.buffer.address(), length, self.gpu.stream.cu_stream().cast())? };
        }
        let here = self.gpu.event()?;
        self.gpu.record(&here, &self.gpu.stream)?;
        wait(&self.gpu, &here, group)
    }
}
