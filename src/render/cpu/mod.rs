//! The CPU device: SIMD inner loops, rayon over the images of a batch ([`batch`]) and within an image.
//!
//! One step runs through the files of this folder in this order: [`activate`] (raw parameters to covariances),
//! [`project`] (covariances to splats), [`raster`] (splats to pixels, and pixels to moments), [`residual`] (CTF and loss),
//! [`chain`] (moments to gradients), [`adam`]. Results are the same to the bit for any number of threads: every sum
//! runs in an order that the data decide, never the schedule.

pub mod activate;
pub mod adam;
mod batch;
pub mod chain;
mod device;
pub mod project;
pub mod raster;
pub mod residual;
mod tasks;

pub use crate::simd::level as instructions;
pub use device::CpuDevice;

/// Room for something of each of `count` Gaussians, kept for eight of them side by side.
pub fn room<T: Clone + Default>(count: usize) -> Vec<T> {
    vec![T::default(); count.div_ceil(crate::simd::LANES)]
}
