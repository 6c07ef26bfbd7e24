//! The covariance of a Gaussian from its raw parameters, and back.

use super::{Gmm, S_MIN, Shape, softplus};
use crate::imaging::pose::{Rotation, rotation_from_quaternion};

/// Entries xx, yy, zz, xy, xz, yz of a symmetric 3 x 3 matrix.
pub type Symmetric = [f64; 6];

/// Row and column of each entry of a [`Symmetric`].
const ENTRIES: [(usize, usize); 6] = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)];

/// Covariance R S S^T R^T of Gaussian `i` in square box units (docs/method.md, section 2).
pub fn covariance(gmm: &Gmm, i: usize) -> Symmetric {
    let scale = |plane: usize| softplus(f64::from(gmm.plane(plane)[i])).max(S_MIN);
    match gmm.shape() {
        Shape::Isotropic => {
            let variance = scale(3).powi(2);
            [variance, variance, variance, 0.0, 0.0, 0.0]
        }
        Shape::Anisotropic => {
            let variance = [3, 4, 5].map(|plane| scale(plane).powi(2));
            let r = rotation_from_quaternion([6, 7, 8, 9].map(|plane| f64::from(gmm.plane(plane)[i])));
            ENTRIES.map(|(a, b)| (0..3).map(|k| r[a][k] * r[b][k] * variance[k]).sum())
        }
    }
}

/// Standard deviations along the principal axes of a covariance, at least [`S_MIN`] (box units), and the quaternion (w, x, y, z) of
/// the rotation R whose columns are these axes.
pub fn axes(covariance: &Symmetric) -> ([f64; 3], [f64; 4]) {
    let (values, mut r) = eigen(covariance);
    let determinant = (0..3)
        .map(|k| r[0][k] * (r[1][(k + 1) % 3] * r[2][(k + 2) % 3] - r[1][(k + 2) % 3] * r[2][(k + 1) % 3]))
        .sum::<f64>();
    if determinant < 0.0 {
        r.iter_mut().for_each(|row| row[2] = -row[2]);
    }
    (values.map(|value| value.max(0.0).sqrt().max(S_MIN)), quaternion(&r))
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns, by the cyclic Jacobi method.
fn eigen(matrix: &Symmetric) -> ([f64; 3], Rotation) {
    /// Convergence is quadratic: each sweep squares the off-diagonal entries.
    const SWEEPS: usize = 12;
    let mut a = [[0.0; 3]; 3];
    for ((i, j), &value) in ENTRIES.into_iter().zip(matrix) {
        (a[i][j], a[j][i]) = (value, value);
    }
    let mut vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for (p, q) in [(0, 1), (0, 2), (1, 2)].into_iter().cycle().take(3 * SWEEPS) {
        if a[p][q] == 0.0 {
            continue;
        }
        // The smaller of the two angles that zero entry (p, q).
        let ratio = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
        let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
        let cos = 1.0 / tangent.hypot(1.0);
        let sin = tangent * cos;
        let rotate = |row: &mut [f64; 3]| {
            (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
        };
        a.iter_mut().for_each(rotate);
        vectors.iter_mut().for_each(rotate);
        let (first, second) = (a[p], a[q]);
        a[p] = std::array::from_fn(|k| cos * first[k] - sin * second[k]);
        a[q] = std::array::from_fn(|k| sin * first[k] + cos * second[k]);
    }
    ([a[0][0], a[1][1], a[2][2]], vectors)
}

/// The quaternion (w, x, y, z) of a rotation, from its largest component to avoid cancellation.
pub(super) fn quaternion(r: &Rotation) -> [f64; 4] {
    let [x, y, z] = [r[0][0], r[1][1], r[2][2]];
    // Four times the square of each component.
    let squares = [1.0 + x + y + z, 1.0 + x - y - z, 1.0 - x + y - z, 1.0 - x - y + z];
    let largest = (0..4).max_by(|&a, &b| squares[a].total_cmp(&squares[b])).unwrap_or(0);
    let twice = squares[largest].max(0.0).sqrt();
    let products = [
        [twice * twice, r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]],
        [r[2][1] - r[1][2], twice * twice, r[0][1] + r[1][0], r[0][2] + r[2][0]],
        [r[0][2] - r[2][0], r[0][1] + r[1][0], twice * twice, r[1][2] + r[2][1]],
        [r[1][0] - r[0][1], r[0][2] + r[2][0], r[1][2] + r[2][1], twice * twice],
    ];
    products[largest].map(|product| product / (2.0 * twice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::softplus_inverse;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    fn gaussian(scales: [f64; 3], q: [f64; 4]) -> Gmm {
        let s = scales.map(|s| softplus_inverse(s) as f32);
        let q = q.map(|q| q as f32);
        Gmm::from_values(Shape::Anisotropic, 1, [&[0.0; 3], &s[..], &q[..], &[-11.0]].concat())
    }

    #[test]
    fn the_quaternion_rotates_the_long_axis() {
        // A rotation by 90 degrees about z maps x to y.
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let sigma = covariance(&gaussian([0.03, 0.01, 0.02], [half, 0.0, 0.0, half]), 0);
        let expected = [1e-4, 9e-4, 4e-4, 0.0, 0.0, 0.0];
        assert!(sigma.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{sigma:?}");
    }

    #[test]
    fn axes_reproduce_the_covariance() {
        let random = &mut stream(1, Purpose::Start, 0, 0);
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        for i in 0..500 {
            let mut scales = [(); 3].map(|()| 0.02 * (0.7 * normal()).exp());
            if i % 5 == 0 {
                // Equal axes: their directions are not unique.
                scales[1] = scales[0];
            }
            if i % 10 == 0 {
                scales[2] = scales[0];
            }
            let sigma = covariance(&gaussian(scales, [(); 4].map(|()| normal())), 0);
            let (found, q) = axes(&sigma);
            let again = covariance(&gaussian(found, q), 0);
            let size = sigma[0] + sigma[1] + sigma[2];
            // The raw parameters are single precision.
            assert!(sigma.iter().zip(again).all(|(a, b)| (a - b).abs() < 3e-6 * size), "{sigma:?} {again:?}");
        }
        // Rotations by 180 degrees, where w is zero.
        for q in [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]] {
            let r = rotation_from_quaternion(q);
            assert_eq!(rotation_from_quaternion(quaternion(&r)), r);
        }
    }

    #[test]
    fn axes_are_at_least_the_minimum() {
        let (scales, _) = axes(&[1e-4, -1e-9, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(scales, [1e-2, S_MIN, S_MIN]);
    }
}
