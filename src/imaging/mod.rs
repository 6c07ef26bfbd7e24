//! Image formation and image files: CTF, poses, Fourier transforms, MRC. Independent of Gaussians and MPI.

pub(crate) mod aberration;
pub(crate) mod cif;
pub mod ctf;
pub mod fourier;
pub mod mrc;
pub mod pose;
pub(crate) mod projection;
pub(crate) mod resample;
pub(crate) mod sampling;
pub(crate) mod stack_writer;
pub(crate) mod statistics;
pub mod symmetry;
mod view;

pub use symmetry::Symmetry;
pub use view::{View, energy};
