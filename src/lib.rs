//! Single-particle cryo-EM reconstruction by Gaussian splatting, data-parallel over MPI.
//!
//! Rooms, from the top down; a room uses only those below it:
//! [`cli`], [`scaling`], [`train`], [`backproject`], [`run_folder`], [`recipe`], [`voxels`], [`loader`], [`resources`], [`figures`], [`evaluate`], [`simulate`],
//! [`render`], [`particles`], [`gmm`], [`imaging`], [`parallel`], `simd`.
//!
//! "METHOD.md" in the documentation of items names the project's reference of the mathematics; its sections
//! follow the cryoSplat paper (Chen and Ling, ICLR 2026, arXiv 2508.04929).

pub mod backproject;
pub mod cli;
pub mod error;
pub mod evaluate;
pub mod figures;
pub mod files;
pub mod gmm;
mod hdf5;
pub mod imaging;
pub mod loader;
pub mod parallel;
pub mod particles;
pub mod progress;
pub mod random;
pub mod recipe;
pub mod render;
pub mod resources;
pub mod run_folder;
pub mod scaling;
mod simd;
pub mod simulate;
pub mod train;
pub mod voxels;
