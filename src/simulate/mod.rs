//! Simulated particle sets with a known ground truth: from an atomic model, a map, or a built-in phantom.
//!
//! Stages: the true map ([`density`], [`crate::imaging::resample`], [`phantom`]), pose and CTF ([`geometry`]), exact central slice
//! ([`projection`]), noise-free image ([`microscope`]), noise and output files ([`set`], [`relion`]). The projector shares no code
//! with the Gaussian renderer, so each can verify the other.

pub mod atoms;
pub mod density;
pub(crate) mod geometry;
mod microscope;
mod phantom;
mod projection;
mod relion;
pub(crate) mod set;
