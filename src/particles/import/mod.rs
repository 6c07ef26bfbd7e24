//! Import of particle sets from other programs.
//!
//! [`mod@format`] recognises the file format. [`relion`] interprets STAR files ([`star`]), [`cryosparc`] interprets `.cs` files
//! ([`npy`]), and [`cryodrgn`] interprets pickled arrays ([`pickle`]); each implements [`set::ParticleSet`]. [`stacks`] finds and
//! reads the raw images, and [`pipeline`] runs the import: read, preprocess ([`super::preprocess`]), write.

pub mod choice;
mod columns;
pub(crate) mod copies;
pub mod cryodrgn;
pub mod cryosparc;
pub mod filter;
pub mod format;
mod grid;
pub mod half_sets;
pub(crate) mod npy;
pub(in crate::particles) mod number;
mod optics;
pub(crate) mod options;
pub mod pickle;
pub(crate) mod pipeline;
pub(crate) mod relion;
pub mod row;
pub mod selected;
pub mod set;
pub(crate) mod stack_names;
pub(crate) mod stacks;
pub mod star;
pub mod summary;
mod units;
