//! The trainer: fits one or more mixtures of Gaussians to the particles of each half.
//!
//! Rank 0 makes the [`plan`] ([`planner`]), and every rank follows it: [`run`](run()) opens the devices, loads the shards, trains
//! the epochs and writes the outputs of a [`session`]. One step of a [`model`]: [`shard`](crate::loader::shard) ▶ device (render,
//! residual, moments, chain rule) ▶ all-reduce ▶ Adam.

mod agreement;
mod appraise;
mod cross_validation;
mod densify;
mod dry_run;
mod ensemble;
mod estimate;
mod extension;
mod forecast;
mod foretold;
pub mod init;
mod logs;
pub mod model;
mod options;
mod outputs;
mod pace;
mod particle_outputs;
mod plan;
mod planner;
mod refined_model;
mod refiner;
pub mod replicas;
mod rounds;
mod run;
mod session;
mod timing;
mod writes;

pub use dry_run::{DryRun, dry_run};
pub use estimate::Estimate;
pub(crate) use estimate::of_mixtures;
pub use options::{Maps, RunOptions};
pub use run::run;
pub use session::Ending;
