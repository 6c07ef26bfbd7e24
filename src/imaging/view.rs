//! How one particle was seen, and how much there was to see.

use super::ctf::Ctf;
use super::pose::Rotation;

/// How one particle was seen.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Its CTF.
    pub ctf: Ctf,
}

/// The sum of the squares of an observed image's pixels.
pub fn energy(image: &[f32]) -> f64 {
    // Sums of their own for neighbours, which the processor can add side by side.
    let mut sums = [0.0f64; 8];
    for pixels in image.chunks(sums.len()) {
        for (sum, &y) in sums.iter_mut().zip(pixels) {
            *sum += f64::from(y) * f64::from(y);
        }
    }
    sums.iter().sum()
}
