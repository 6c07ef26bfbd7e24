//! Page-locked host memory, which the device copies from and to by itself, and waiting for it.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, sys};

use super::card::Card;
use crate::error::{Error, Result};
use crate::render::Reduce;

/// Page-locked memory for `T`s. Parts of it may be on their way to or from the device while others are used: each method
/// touches no more than its range.
pub struct Pinned<T> {
    memory: PinnedHostSlice<u8>,
    start: *mut T,
    length: usize,
}

impl<T: Pod> Pinned<T> {
    /// Zeros.
    ///
    /// # Errors
    /// When the system has no such memory left.
    pub fn zeros(card: &Card, length: usize) -> Result<Self> {
        let bytes = (length * size_of::<T>()).max(1);
        // SAFETY: set to zero below, before anything reads it.
        let mut memory = unsafe { card.context.alloc_pinned_with_flags::<u8>(bytes, 0) }
            .map_err(card.failed("lock host memory"))?;
        let start = memory.as_mut_ptr().map_err(card.failed("lock host memory"))?;
        // SAFETY: as many bytes as were allocated, at the start of a page.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { memory, start: start.cast(), length })
    }

    fn place(&self, range: &Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.length && !self.memory.is_empty());
        // SAFETY: within the allocation, by the line above.
        unsafe { self.start.add(range.start) }
    }

    /// To read what a copy left here.
    ///
    /// # Safety
    /// No copy into the range is under way.
    pub unsafe fn read(&self, range: Range<usize>) -> &[T] {
        // SAFETY: `T`s from an aligned address, which nothing writes, by the caller's word.
        unsafe { std::slice::from_raw_parts(self.place(&range), range.len()) }
    }

    /// To write what a copy takes.
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
    pub unsafe fn copy_to(
        &self,
        card: &Card,
        stream: &CudaStream,
        range: Range<usize>,
        to: u64,
    ) -> Result<()> {
        let bytes = range.len() * size_of::<T>();
        // SAFETY: the caller's word; the source is within the allocation.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.place(&range).cast(), bytes, stream.cu_stream()) }
            .result()
            .map_err(card.failed("copy to the device"))
    }

    /// Enqueues a copy from device address `from` into `range`.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Safety
    /// `from` is as much device memory, and the range is neither read nor written before the copy has ended.
    pub unsafe fn copy_from(
        &mut self,
        card: &Card,
        stream: &CudaStream,
        range: Range<usize>,
        from: u64,
    ) -> Result<()> {
        let bytes = range.len() * size_of::<T>();
        // SAFETY: the caller's word; the destination is within the allocation.
        unsafe { sys::cuMemcpyDtoHAsync_v2(self.place(&range).cast(), from, bytes, stream.cu_stream()) }
            .result()
            .map_err(card.failed("copy from the device"))
    }
}

/// Waits until `event` has happened. Looks at the group meanwhile: another rank that fails would let this one wait for ever.
///
/// # Errors
/// When the device or the group fails, or the group's patience ends.
pub fn wait(card: &Card, event: &CudaEvent, group: &mut dyn Reduce) -> Result<()> {
    let started = Instant::now();
    let mut looked = started;
    loop {
        if event.try_is_complete().map_err(card.failed("compute"))? {
            return Ok(());
        }
        let waited = started.elapsed();
        if looked.elapsed() > Duration::from_millis(20) {
            looked = Instant::now();
            if let Some(sum) = group.on_device() {
                sum.check()?;
                if waited > sum.patience() {
                    return Err(Error::Device {
                        device: card.name().to_owned(),
                        action: "go on".into(),
                        reason: format!(
                            "a step has not ended within {:.0} s: another rank has stopped, or the network between them",
                            waited.as_secs_f64()
                        ),
                        remedy: "look at the logs of all ranks' machines; try --collective mpi, or a longer --timeout"
                            .into(),
                    });
                }
            }
        }
        // A step takes tens of microseconds to milliseconds: spin first, then let others run.
        if waited < Duration::from_micros(200) {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}
