//! Refinement of particles against a model: pose, shift and defocus of each by Gauss-Newton in Fourier space (docs/method.md,
//! section 15).

pub(crate) mod confirmed;
pub(crate) mod frame;
pub(crate) mod grid;
pub(crate) mod linear;
pub(crate) mod newton;
pub(crate) mod prior;
pub(crate) mod search;
pub(crate) mod spectrum;

/// Numbers of a particle that are refined: rotation vector, offset, defocus, in the order and units of
/// [`PARAMETERS`](crate::render::reference::PARAMETERS) without the contrast.
pub(crate) const REFINED: usize = 6;
