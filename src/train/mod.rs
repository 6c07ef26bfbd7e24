//! The trainer: recipe, order of particles, the loop of a half, the run of all, its outputs.
//!
//! Data goes one way: [`shard`] ▶ device (render, residual, moments, chain) ▶ sum over the ranks ▶ Adam, then the next batch.

pub mod cache;
pub mod checkpoint;
mod density;
pub mod devices;
pub mod done;
pub mod folder;
pub mod half;
pub mod init;
pub mod judge;
mod kept;
pub mod left_out;
pub mod memory;
pub mod metrics;
mod mixtures;
pub mod order;
mod outputs;
mod permutation;
pub mod recipe;
pub mod reduction;
pub mod report;
pub mod run;
mod saver;
pub mod scratch;
pub mod setup;
pub mod shard;
pub mod starts;
mod survey;
mod voxels;
mod watch;
mod windows;

pub use recipe::{Recipe, Schedule, Settings, Start};
pub use run::{Ending, Models, RunOptions, run};
