//! Simulated particle sets with a known ground truth: from an atomic model, a map, or a built-in phantom.
//!
//! Stages: the true map ([`truth`], [`assembly`], [`density`], [`crate::imaging::resample`], [`phantom`]), pose and CTF
//! ([`geometry`]), exact central slice ([`crate::imaging::projection`]), noise-free image ([`microscope`]), noise ([`noise`]), defects
//! ([`defects`]), output files ([`set`], [`relion`]). The projector shares no code with the Gaussian renderer, so each can verify the
//! other.

pub(crate) mod assembly;
pub mod atoms;
pub(crate) mod defects;
pub mod density;
pub(crate) mod geometry;
mod microscope;
pub(crate) mod noise;
mod phantom;
mod relion;
pub(crate) mod set;
pub(crate) mod truth;
