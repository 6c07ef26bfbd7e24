//! The CPU device: SIMD kernels, and rayon over the images of a batch and within an image ([`batch`]).
//!
//! A step runs the files of this folder in this order: [`activate`] (raw parameters to covariances), [`project`] (covariances to
//! splats), [`raster`] (splats to pixels), [`residual`] (CTF and loss), [`raster`] again (pixels to moments), [`chain`] (moments
//! to gradients), [`adam`].
//!
//! Data are in SIMD blocks of 8 Gaussians, an array per quantity with a lane per Gaussian (AoSoA).
//!
//! Invariant: results have the same bits for any number of threads. The data determine the order of every sum.

pub mod activate;
pub mod adam;
mod batch;
pub mod chain;
mod device;
mod fit;
pub mod project;
pub mod raster;
pub mod residual;
mod tasks;
mod workspace;

pub use crate::simd::level as instructions;
pub use device::CpuDevice;

/// Default values of as many SIMD blocks as `count` Gaussians need.
pub fn allocate_blocks<T: Clone + Default>(count: usize) -> Vec<T> {
    vec![T::default(); count.div_ceil(crate::simd::LANES)]
}
