//! Page-locked host memory, which the device copies from and to by itself, and waiting for it.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};

use super::card::Card;
use crate::error::{Error, Result};
use crate::render::Reduce;

/// Page-locked memory for `T`s without padding; the host writes it before a copy is enqueued, or reads it after one ended.
pub struct Pinned<T> {
    memory: PinnedHostSlice<u8>,
    length: usize,
    of: PhantomData<T>,
}

impl<T: Copy> Pinned<T> {
    /// Zeros. `T` is a number or a record of numbers: any bytes are one.
    ///
    /// # Errors
    /// When the system has no such memory left.
    pub fn zeros(card: &Card, length: usize) -> Result<Self> {
        let bytes = (length * size_of::<T>()).max(1);
        // SAFETY: set to zero below, before anything reads it.
        let mut memory = unsafe { card.context.alloc_pinned_with_flags::<u8>(bytes, 0) }
            .map_err(card.failed("lock host memory"))?;
        memory.as_mut_slice().map_err(card.failed("lock host memory"))?.fill(0);
        Ok(Self { memory, length, of: PhantomData })
    }

    /// To read what a copy that has ended left here.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn as_slice(&self, card: &Card) -> Result<&[T]> {
        let pointer = self.memory.as_ptr().map_err(card.failed("read host memory"))?;
        // SAFETY: `length` values from a page-aligned address, all bytes of which are set; no copy to it is under way, as
        // whoever calls this waited for its event.
        Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), self.length) })
    }

    /// To write what the next copy takes.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn as_mut_slice(&mut self, card: &Card) -> Result<&mut [T]> {
        let pointer = self.memory.as_mut_ptr().map_err(card.failed("write host memory"))?;
        // SAFETY: as above, and no copy from it is under way.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), self.length) })
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
        range: std::ops::Range<usize>,
        to: CUdeviceptr,
    ) -> Result<()> {
        let values = &self.as_slice(card)?[range];
        // SAFETY: the caller's word.
        unsafe { result::memcpy_htod_async(to, values, stream.cu_stream()) }
            .map_err(card.failed("copy to the device"))
    }

    /// Enqueues a copy from device address `from` into `range`.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Safety
    /// `from` is as much device memory, and the range is not read before the copy has ended.
    pub unsafe fn copy_from(
        &mut self,
        card: &Card,
        stream: &CudaStream,
        range: std::ops::Range<usize>,
        from: CUdeviceptr,
    ) -> Result<()> {
        let values = &mut self.as_mut_slice(card)?[range];
        // SAFETY: the caller's word.
        unsafe { result::memcpy_dtoh_async(values, from, stream.cu_stream()) }
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
                    sum.give_up();
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
