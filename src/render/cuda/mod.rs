//! The CUDA device: the kernels of kernels/*.cu, compiled when the program starts, and their orchestration.
//!
//! A step is one graph (`device`): the stages of `pipeline` on the buffers of `buffer_plan`, the sum over the ranks, and the
//! optimiser. The host is up to 32 passes ahead and does not wait: `pass_queue` sends each pass, and outcomes come back later
//! through `outcome_ring`. `compile` and `kernels` compile, load and launch the kernels, whose arguments `interface` declares.

mod all_reduce;
pub mod buffer_plan;
mod buffers;
mod cache;
mod comparison;
mod compile;
mod device;
pub mod gpu;
mod interface;
pub mod inventory;
mod kernels;
pub mod libraries;
mod outcome_ring;
mod pass_queue;
mod pinned;
mod pipeline;
mod stage_timer;
mod transform;

use std::ffi::c_void;

pub use all_reduce::AllReduceBench;
pub use device::{CudaDevice, CudaOptions};

use crate::error::Result;

/// A sum over the ranks of a group in device memory.
pub trait DeviceSum {
    /// Enqueues into `stream` (a `CUstream`) the sum of `length` f32 values at device address `buffer` over the ranks, in place.
    /// Every rank receives the same bits. Can be captured in a graph.
    ///
    /// # Errors
    /// When the network refuses.
    ///
    /// # Safety
    /// `buffer` is memory of this rank's GPU for that many values, and `stream` is one of its streams.
    unsafe fn enqueue(&mut self, buffer: u64, length: usize, stream: *mut c_void) -> Result<()>;

    /// Checks whether a rank or the network has failed.
    ///
    /// # Errors
    /// When one has.
    fn check(&mut self) -> Result<()>;
}
