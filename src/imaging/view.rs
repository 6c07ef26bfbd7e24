//! The view of a particle (pose and CTF) and the energy of an image.

use super::ctf::Ctf;
use super::pose::Rotation;
use crate::simd::sum_of_squares;

/// Pose and CTF of a particle.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// The CTF.
    pub ctf: Ctf,
}

/// Sum of the squared pixels of an image. The order of summation is fixed, so the result has the same bits on every CPU.
pub fn energy(image: &[f32]) -> f64 {
    sum_of_squares(image)
}
