//! The trainer: what a run does is decided in [`plan`], and done in [`run`](run()).
//!
//! Data goes one way: [`shard`](crate::loader::shard) ▶ device (render, residual, moments, chain rule) ▶ all-reduce ▶ Adam, then the next batch.

mod cross_validation;
mod ensemble;
pub mod init;
pub mod model;
mod outputs;
pub mod plan;
pub mod run;
mod watch;

pub use run::{Ending, RunOptions, run};
