//! Single-particle cryo-EM reconstruction by Gaussian splatting, data-parallel over MPI.
//!
//! The source is divided into rooms, listed from the top down; a room uses only those below it (`docs/architecture.md`):
//! [`cli`], [`scaling`], [`train`], [`diagnose`], [`backproject`], [`run_folder`], [`recipe`], [`voxels`], [`check`], [`loader`], [`resources`],
//! [`figures`], [`evaluate`], [`simulate`], [`render`], [`particles`], [`gmm`], [`imaging`], [`parallel`], `simd`.
//!
//! The mathematics and the conventions are in `docs/method.md`, which items name with its sections. The method is cryoSplat (Chen
//! and Ling, ICLR 2026, arXiv 2508.04929).

pub mod backproject;
pub mod check;
pub mod cli;
pub mod diagnose;
mod disk;
pub mod error;
pub mod evaluate;
pub mod figures;
pub mod files;
pub mod gmm;
mod hdf5;
pub mod imaging;
pub mod loader;
mod memory;
pub mod parallel;
pub mod particles;
pub mod progress;
pub mod random;
pub mod recipe;
mod refine;
pub mod render;
pub mod resources;
pub mod run_folder;
pub mod scaling;
mod simd;
pub mod simulate;
pub mod train;
pub mod voxels;
