//! The voxel baseline as a command: half maps and map by direct Fourier inversion ([`voxels`](crate::voxels)), over the same ranks as a training.

mod outputs;
pub mod run;

pub use run::{BackprojectOptions, run};
