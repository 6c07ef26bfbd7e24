//! The voxel baseline: CTF-weighted direct Fourier inversion of each half, over the same ranks as a training.
//!
//! By the projection theorem an image's transform is a plane of the map's, times its CTF. Data goes one way:
//! [`plane`] (an image as samples of the map's transform) ▶ [`sums`] (CTF F and CTF^2 on a grid, oversampled twofold, summed
//! over images, threads and ranks) ▶ [`wiener`] (what the half maps' FSC says of signal and noise) ▶ [`density`] (the weight
//! that each grid point deserves) ▶ [`inverse`] (the map). [`run`](run()) is all of it.

pub mod density;
pub mod inverse;
mod outputs;
pub mod plane;
pub mod run;
pub mod sums;
pub mod wiener;

pub use run::{BackprojectOptions, run};

/// Points of the grid per Fourier pixel of an image: the map's box is padded so many times.
pub const PADDING: usize = 2;
