//! Single-particle cryo-EM reconstruction by Gaussian splatting, data-parallel over MPI.
//!
//! The map of the house. Arrows between rooms go down this list only:
//! [`cli`] ▶ [`scaling`], [`backproject`] ▶ [`train`], [`figures`] ▶ [`evaluate`], [`simulate`] ▶ [`render`], [`parallel`], [`particles`] ▶ [`gmm`], [`imaging`] ▶ `simd`.
//!
//! "METHOD.md" in the documentation of items names the project's reference of the mathematics; its sections
//! follow the cryoSplat paper (Chen and Ling, ICLR 2026, arXiv 2508.04929).

pub mod backproject;
pub mod cli;
mod containers;
pub mod error;
pub mod evaluate;
pub mod figures;
pub mod files;
pub mod gmm;
pub mod imaging;
pub mod parallel;
pub mod particles;
pub mod progress;
pub mod random;
pub mod render;
pub mod scaling;
mod simd;
pub mod simulate;
pub mod train;
