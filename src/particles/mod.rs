//! Particle sets: the particle file ([`store`]), import from other programs ([`import`], [`preprocess`]), export ([`export`])
//! and the halves ([`Subset`]).

pub(crate) mod export;
pub mod halves;
pub mod import;
pub mod noise;
pub(crate) mod population;
pub mod preprocess;
pub mod refinement;
pub mod selection;
pub(crate) mod sources;
pub(crate) mod statistics;
pub mod store;
mod subset;
pub(crate) mod views;

pub use subset::Subset;
