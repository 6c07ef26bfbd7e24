//! The model: a mixture of anisotropic Gaussians (docs/method.md, section 2), its files and its map.

pub mod atoms;
pub(crate) mod convert;
mod covariance;
pub(crate) mod density;
pub mod files;
pub mod mixture;
mod parameters;
pub mod ply;
mod split;
pub(crate) mod statistics;
pub mod symmetric;
pub mod voxelize;

pub use parameters::{Gmm, S_MIN, START_MASS, START_SCALE, START_SPREAD, Shape, softplus, softplus_inverse};
pub use split::split;
