//! Pinned (page-locked) host memory for asynchronous copies, and waiting for events.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, sys};

use super::DeviceSum;
use super::gpu::Gpu;
use crate::error::{Error, Result};
use crate::render::Reduce;

/// Time between two looks at the group during a wait.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for work that takes seconds, in a group without a deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

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
/// When the device or the group fails, or after ten minutes without a deadline of the group.
pub(super) fn wait(gpu: &Gpu, event: &CudaEvent, group: &mut dyn Reduce) -> Result<()> {
    let started = Instant::now();
    let mut checked = started;
    let mut watched = None;
    let outcome = loop {
        match event.try_is_complete().map_err(gpu.failed("compute")) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
        let waited = started.elapsed();
        if checked.elapsed() > CHECK_INTERVAL {
            checked = Instant::now();
            let has_deadline = *watched.get_or_insert_with(|| group.waits(Some("its GPU")));
            if let Some(Err(error)) = group.on_device().map(DeviceSum::check) {
                break Err(error);
            }
            if !has_deadline && waited > LONGEST_WAIT {
                break Err(Error::Device {
                    device: gpu.name().to_owned(),
                    action: "continue".into(),
                    reason: format!("it has not finished within {:.0} s", waited.as_secs_f64()),
                    remedy: "check the GPU with nvidia-smi and the system's log, or use another one".into(),
                });
            }
        }
        // A step takes tens of microseconds to milliseconds: spin first, then yield the core.
        if waited < Duration::from_micros(200) {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_micros(20));
        }
    };
    if watched.is_some() {
        group.waits(None);
    }
    outcome
}
