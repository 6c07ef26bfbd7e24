//! Initial Gaussians: random, placed by a pilot reconstruction, or read from a file.

mod density;
pub mod from_file;
pub mod pilot;
pub mod starts;
