//! Readers of other programs' particle sets.
//!
//! [`mod@format`] tells which program's a file is. [`relion`] says what the rows of a STAR file ([`star`]) mean, [`cryosparc`] those
//! of a `.cs` file ([`npy`]), and [`cryodrgn`] the arrays in its pickles ([`pickle`]); each gives a [`set`]. [`stacks`] finds
//! and reads their images, and [`pipeline`] takes everything through [`super::preprocess`] into a particle file.

mod columns;
pub mod cryodrgn;
pub mod cryosparc;
pub mod format;
pub mod npy;
mod number;
mod optics;
pub mod pickle;
pub mod pipeline;
pub mod relion;
pub mod set;
pub mod stack_names;
pub mod stacks;
pub mod star;
