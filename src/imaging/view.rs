//! The view of a particle (pose and CTF) and the energy of an image.

use super::ctf::Ctf;
use super::pose::Rotation;
use crate::simd::sum_of_squares;

/// Pose and CTF of a particle.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view. With an anisotropic magnification M, M^T times its first two rows take their place.
    pub rotation: Rotation,
    /// The CTF.
    pub ctf: Ctf,
    /// Where the image shows the specimen's origin, relative to pixel floor(D/2): (x, y) in pixels. 0 for centred images.
    pub offset: [f64; 2],
}

impl View {
    /// The view of a centred image.
    pub fn new(rotation: Rotation, ctf: Ctf) -> Self {
        Self { rotation, ctf, offset: [0.0; 2] }
    }
}

/// Sum of the squared pixels of an image. The order of summation is fixed, so the result has the same bits on every CPU.
pub fn energy(image: &[f32]) -> f64 {
    sum_of_squares(image)
}
