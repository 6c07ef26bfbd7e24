//! The trainer: recipe, order of particles, the loop of a half, the run of all, its outputs.
//!
//! Data goes one way: [`shard`] ▶ device (render, residual, moments, chain) ▶ sum over the ranks ▶ Adam, then the next batch.

pub mod checkpoint;
pub mod devices;
pub mod folder;
pub mod half;
pub mod order;
pub(crate) mod outputs;
pub mod recipe;
pub mod reduction;
pub mod run;
mod setup;
pub mod shard;

pub use recipe::{Recipe, Schedule, Settings};
pub use run::{Models, RunOptions, run};
