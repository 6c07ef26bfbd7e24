//! Readers of other programs' particle sets.
//!
//! [`relion`] says what the rows of a STAR file ([`star`]) mean, [`stacks`] finds and reads their images, and
//! [`pipeline`] takes everything through [`super::preprocess`] into a particle file.

mod columns;
mod optics;
pub mod pipeline;
pub mod relion;
pub mod stacks;
pub mod star;
