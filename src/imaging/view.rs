//! How one particle was seen, and how much there was to see.

use super::ctf::Ctf;
use super::pose::Rotation;
use crate::simd::sum_of_squares;

/// How one particle was seen.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Its CTF.
    pub ctf: Ctf,
}

/// The sum of the squares of an observed image's pixels: the same bits on every processor.
pub fn energy(image: &[f32]) -> f64 {
    sum_of_squares(image)
}
