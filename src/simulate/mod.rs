//! Particle sets with a known truth, from an atomic model, a map, or a phantom made here.
//!
//! The way of a particle: a true map ([`density`], [`crate::imaging::resample`], [`phantom`]), a pose and a CTF ([`geometry`]), an exact
//! central slice ([`projection`]), the image made of it ([`microscope`]), noise, and the files ([`set`], [`relion`]). The projector shares no code with the
//! Gaussian renderer, so that one can judge the other.

pub mod atoms;
mod cif;
pub mod density;
pub mod geometry;
pub mod microscope;
pub mod phantom;
pub mod projection;
pub mod relion;
pub mod set;
