//! Direct Fourier inversion: CTF-weighted voxel maps of particles.
//!
//! By the projection-slice theorem an image's Fourier transform is a central slice of the map's, times its CTF. Data flows one
//! way: [`mod@slice`] (an image as samples of the map's transform) ▶ [`accumulator`] (sums of CTF F and CTF² on a grid oversampled
//! twofold, over images, their symmetric poses, threads and ranks) ▶ [`wiener`] (signal and noise from the half maps' FSC) ▶ [`gridding`] (the factor of
//! each grid point) ▶ [`inversion`] (the map). [`half_sums`] runs the first two over the ranks of a job, [`sample`] over a
//! few downsampled particles, [`reconstruction`] the others. [`detection`] compares maps with their rotated copies.

pub mod accumulator;
pub mod detection;
pub mod gridding;
pub mod half_sums;
pub mod inversion;
pub mod reconstruction;
#[cfg(test)]
mod refined_tests;
pub mod sample;
pub mod slice;
pub(crate) mod small_images;
pub mod sums;
mod symmetry;
pub mod wiener;

pub(crate) use symmetry::insertions;

/// Oversampling of the Fourier grid: padding factor of the map's box.
pub const PADDING: usize = 2;
