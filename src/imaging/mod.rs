//! The physics and the files of images: CTF, poses, Fourier transforms, MRC. Knows nothing of Gaussians or MPI.

pub(crate) mod cif;
pub mod ctf;
pub mod fourier;
pub mod mrc;
pub mod pose;
pub mod resample;
pub mod stack_writer;
mod view;

pub use view::{View, energy};
