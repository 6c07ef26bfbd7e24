//! The sums over frequencies that devices compute of an image and a slice, and the fit that follows from them (docs/method.md,
//! section 15).
//!
//! For each frequency there are [`VECTORS`] complex numbers. Sums are of the real parts of conj(u) v: for the lower triangle of the
//! vectors, weighted by H^2 w; of each and Y, by H w; of each and S, by H dH w; then |S|^2 by dH^2 w, and conj(S) Y by dH w. dH is
//! the derivative of H with respect to the defocus. For images that are multiplied by their CTF, 1 takes the place of H in the sums
//! with Y, and dH is 0.

use super::ImageFit;
use super::reference::{CONTRAST, DEFOCUS, ENTRIES, PARAMETERS};

/// Complex numbers of a frequency: S, its derivatives with respect to the rotation vector, and with respect to the offset.
pub(super) const VECTORS: usize = 6;
/// Pairs of them.
const PAIRS: usize = VECTORS * (VECTORS + 1) / 2;
/// First sum with the image.
pub(super) const WITH_IMAGE: usize = PAIRS;
/// First sum with the derivative of H.
pub(super) const WITH_SLOPE: usize = WITH_IMAGE + VECTORS;
/// The sum with the square of the derivative of H.
pub(super) const SLOPE_POWER: usize = WITH_SLOPE + VECTORS;
/// The sum of S and the image with the derivative of H.
pub(super) const SLOPE_IMAGE: usize = SLOPE_POWER + 1;
/// Number of sums.
pub(super) const SUMS: usize = SLOPE_IMAGE + 1;

/// The fit at `contrast` from sums over one frequency of each Friedel pair, of unnormalised slices and unitary targets.
pub(super) fn fit_of(sums: &[f64; SUMS], contrast: f64, box_size: usize) -> ImageFit {
    // Both frequencies of a Friedel pair count.
    let (count, unitary) = (2.0, 1.0 / box_size as f64);
    let (square, single) = (count * unitary * unitary, count * unitary);
    let pair = |p: usize, q: usize| square * sums[ImageFit::entry(p, q)];
    let image = |p: usize| single * sums[WITH_IMAGE + p];
    let with_slope = |p: usize| square * sums[WITH_SLOPE + p];
    // The vector of a parameter, and the factor of the contrast in its derivative.
    let vector = |p: usize| if p == CONTRAST { 0 } else { 1 + p };
    let factor = |p: usize| if p == CONTRAST { 1.0 } else { contrast };
    let mut gradient = [0.0; PARAMETERS];
    let mut curvature = [0.0; ENTRIES];
    for p in 0..PARAMETERS {
        gradient[p] = factor(p)
            * if p == DEFOCUS {
                single * sums[SLOPE_IMAGE] - contrast * with_slope(0)
            } else {
                image(vector(p)) - contrast * pair(vector(p), 0)
            };
        for q in 0..=p {
            let value = match (p == DEFOCUS, q == DEFOCUS) {
                (true, true) => square * sums[SLOPE_POWER],
                (true, false) => with_slope(vector(q)),
                (false, true) => with_slope(vector(p)),
                (false, false) => pair(vector(p), vector(q)),
            };
            curvature[ImageFit::entry(p, q)] = factor(p) * factor(q) * value;
        }
    }
    ImageFit { power: contrast * contrast * pair(0, 0), overlap: contrast * image(0), gradient, curvature }
}
