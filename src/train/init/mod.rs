//! Initial Gaussians: random, placed by a pilot reconstruction, or read from a file.

pub mod from_file;
pub(crate) mod pilot;
pub mod random;
pub(crate) mod starts;
