//! Direct Fourier inversion: the voxel map of a set of particles, CTF-weighted.
//!
//! By the projection theorem an image's Fourier transform is a central slice of the map's, times its CTF. Data flows one way:
//! [`slice`] (an image as samples of the map's transform) ▶ [`accumulator`] (CTF F and CTF² on a grid, oversampled twofold,
//! summed over images, threads and ranks) ▶ [`wiener`] (signal and noise from the half maps' FSC) ▶ [`gridding`] (the weight of
//! each grid point) ▶ [`inversion`] (the map). [`reconstruction`] joins them.

pub mod accumulator;
pub mod gridding;
pub mod half_sums;
pub mod inversion;
pub mod reconstruction;
pub mod slice;
pub mod wiener;

/// Oversampling of the Fourier grid: the map's box is padded by this factor.
pub const PADDING: usize = 2;
