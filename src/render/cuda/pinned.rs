//! Pinned (page-locked) host memory for asynchronous copies, and waiting for events.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, sys};

use super::gpu::Gpu;
use crate::error::{Error, Result};
use crate::render::Reduce;

/// Pinned memory for `T`s. Parts of it may take part in a copy while the host uses other parts: each method touches its range
/// only.
pub(super) struct Pinned<T> {
    memory: PinnedHostSlice<u8>,
    start: *mut T,
    length: usize,
}

impl<T: Pod> Pinned<T> {
    /// Allocates zeros.
    ///
    /// # Errors
    /// When the system cannot pin that much memory.
    pub fn zeros(gpu: &Gpu, length: usize) -> Result<Self> {
        let bytes = (length * size_of::<T>()).max(1);
        // SAFETY: zeroed below, before anything reads it.
        let mut memory = unsafe { gpu.context.alloc_pinned_with_flags::<u8>(bytes, 0) }
            .map_err(gpu.failed("pin host memory"))?;
        let start = memory.as_mut_ptr().map_err(gpu.failed("pin host memory"))?;
        // SAFETY: the allocation has that many bytes, and starts at a page.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { memory, start: start.cast(), length })
    }

    fn place(&self, range: &Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.length && !self.memory.is_empty());
        // SAFETY: within the allocation, as asserted above.
        unsafe { self.start.add(range.start) }
    }

    /// The values of `range`, to be read.
    ///
    /// # Safety
    /// No copy into the range is under way.
    pub unsafe fn read(&self, range: Range<usize>) -> &[T] {
        // SAFETY: initialised and aligned; the caller promises that nothing writes to them.
        unsafe { std::slice::from_raw_parts(self.place(&range), range.len()) }
    }

    /// The values of `range`, to be written.
    ///
    /// # Safety
    /// No copy from or into the range is under way.
    pub unsafe fn write(&mut self, range: Range<usize>) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.place(&range), range.len()) }
    }

    /// Enqueues a copy of `range` to device address `to`.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Safety
    /// `to` is device memory for it, and the range is not written before the copy has ended.
    pub unsafe fn copy_to(&self, gpu: &Gpu, stream: &CudaStream, range: Range<usize>, to: u64) -> Result<()> {
        let bytes = range.len() * size_of::<T>();
        // SAFETY: the caller promises the destination; the source is within the allocation.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.place(&range).cast(), bytes, stream.cu_stream()) }
            .result()
            .map_err(gpu.failed("copy to the device"))
    }

    /// Enqueues a copy from device address `from` into `range`.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Safety
    /// `from` is device memory for it, and the range is neither read nor written before the copy has ended.
    pub unsafe fn copy_from(
        &mut self,
        gpu: &Gpu,
        stream: &CudaStream,
        range: Range<usize>,
        from: u64,
    ) -> Result<()> {
        let bytes = range.len() * size_of::<T>();
        // SAFETY: the caller promises the source; the destination is within the allocation.
        unsafe { sys::cuMemcpyDtoHAsync_v2(self.place(&range).cast(), from, bytes, stream.cu_stream()) }
            .result()
            .map_err(gpu.failed("copy from the device"))
    }
}

/// Waits for `event`, and checks the group meanwhile: if another rank fails, the event may never come.
///
/// # Errors
/// When the device or the group fails, or the group's timeout passes.
pub(super) fn wait(gpu: &Gpu, event: &CudaEvent, group: &mut dyn Reduce) -> Result<()> {
    let started = Instant::now();
    let mut checked = started;
    loop {
        if event.try_is_complete().map_err(gpu.failed("compute"))? {
            return Ok(());
        }
        let waited = started.elapsed();
        if checked.elapsed() > Duration::from_millis(20) {
            checked = Instant::now();
            if let Some(sum) = group.on_device() {
                sum.check()?;
                if waited > sum.timeout() {
                    return Err(Error::Device {
                        device: gpu.name().to_owned(),
                        action: "continue".into(),
                        reason: format!(
                            "a step has not ended within {:.0} s: another rank has stopped, or the network between them",
                            waited.as_secs_f64()
                        ),
                        remedy: "check the logs of all ranks' machines; try --collective mpi, or a longer --timeout"
                            .into(),
                    });
                }
            }
        }
        // A step takes tens of microseconds to milliseconds: spin first, then yield the core.
        if waited < Duration::from_micros(200) {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}
