//! The CUDA device: kernels/*.cu, compiled when the program starts, and what drives them.
//!
//! A step is one graph ([`device`]): the stages of [`pipeline`] on the buffers of [`plan`], the sum over the ranks, the
//! optimiser. The host is up to 32 passes ahead and waits for nothing; [`feed`] sends what a step needs, and what it came to
//! comes back later ([`outcomes`]). [`compile`] makes machine code of the kernels, [`card`] is the opened GPU.

mod buffers;
pub mod card;
pub mod compile;
mod device;
mod feed;
mod host;
pub mod libraries;
mod outcomes;
pub mod pipeline;
pub mod plan;
mod records;
mod sums;
mod timing;
mod transform;

use std::ffi::c_void;
use std::time::Duration;

pub use device::{CudaDevice, CudaOptions};
pub use sums::Sums;

use crate::error::Result;

/// Adds up a buffer in device memory over the ranks of a group, in a stream's order.
pub trait DeviceSum {
    /// Puts the sum of `length` f32 values at device address `buffer` into `stream` (a `CUstream`), in place; every rank
    /// receives the same bits. Can be captured.
    ///
    /// # Errors
    /// When the network refuses.
    ///
    /// # Safety
    /// The buffer is that much memory of this rank's GPU, and the stream is one of its streams.
    unsafe fn enqueue(&mut self, buffer: u64, length: usize, stream: *mut c_void) -> Result<()>;

    /// Looks whether a rank or the network has failed.
    ///
    /// # Errors
    /// When one has.
    fn check(&mut self) -> Result<()>;

    /// How long a step may take before something must be wrong.
    fn patience(&self) -> Duration;
}
