//! Moments to gradients (METHOD.md section 5).
//!
//! What the images of a batch say of a Gaussian adds up in the volume's own coordinates: the derivatives of the loss with
//! respect to its mean (3), its covariance (6) and its amplitude (1). Since Sigma2 = P Sigma P^T with P two rows of W,
//! dL/dSigma = P^T dL/dSigma2 P. Only the sum then goes through R, S, the quaternion and the softplus, once a step.

use super::activate::{gather, rotation};
use super::simd::{LANES, Lanes, softplus_sigmoid, vectorize};
use crate::gmm::{Gmm, S_MIN, Shape};
use crate::imaging::pose::Rotation;

/// Number of sums: mean x, y, z; covariance xx, xy, xz, yy, yz, zz; amplitude.
pub const SUMS: usize = 10;

/// What one image says: its view, and per Gaussian the conic (xx, xy, yy in pixels) and the six moments.
pub struct Contribution<'a> {
    /// The view's rotation.
    pub view: &'a Rotation,
    /// Conic planes, zero where a Gaussian is not seen.
    pub conic: [&'a [f32]; 3],
    /// Moment planes S0, S1x, S1y, S2xx, S2xy, S2yy.
    pub moments: [&'a [f32]; 6],
}

vectorize! {
    /// Adds one image's contribution to the sums of `amplitude.len()` Gaussians (all planes of that length).
    pub fn accumulate(image: &Contribution, box_size: usize, amplitude: &[f64], sums: &mut [&mut [f32]; SUMS])
        = accumulate_lanes
}

#[inline(always)]
fn load(plane: &[f32], at: usize) -> Lanes<f32> {
    if let Some(full) = plane.get(at..at + LANES) {
        Lanes::<f32>::load(full)
    } else {
        let mut lanes = [0.0; LANES];
        for (lane, &value) in lanes.iter_mut().zip(&plane[at..]) {
            *lane = value;
        }
        Lanes(lanes)
    }
}

#[inline(always)]
fn accumulate_lanes<const FMA: bool>(
    image: &Contribution,
    box_size: usize,
    amplitude: &[f64],
    sums: &mut [&mut [f32]; SUMS],
) {
    let d = box_size as f32;
    let constant = Lanes::<f32>::splat;
    let [p, q, _] = image.view.map(|row| row.map(|v| v as f32));
    // dL/dSigma_ij = P_0i P_0j gxx + (P_0i P_1j + P_1i P_0j) gxy + P_1i P_1j gyy; the off-diagonal g counts once each way.
    let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        .map(|(i, j)| [p[i] * p[j], p[i] * q[j] + q[i] * p[j], q[i] * q[j]]);
    let count = amplitude.len();
    for at in (0..count).step_by(LANES) {
        let [a, b, c] = image.conic.map(|plane| load(plane, at));
        let [s0, sx, sy, sxx, sxy, syy] = image.moments.map(|plane| load(plane, at));
        let mut weight = [0.0f32; LANES];
        for (lane, &value) in weight.iter_mut().zip(&amplitude[at..]) {
            *lane = value as f32;
        }
        let weight = Lanes(weight);
        // dL/dmu2 = A C S1; in box units, times D.
        let scale = weight * constant(d);
        let gx = scale * (a * sx + b * sy);
        let gy = scale * (b * sx + c * sy);
        // dL/dSigma2 = A/2 (C S2 C - S0 C); in box units, times D^2.
        let half = weight * constant(0.5 * d * d);
        let (ux, uy) = (a * sxx + b * sxy, a * sxy + b * syy);
        let (vx, vy) = (b * sxx + c * sxy, b * sxy + c * syy);
        let gxx = half * (ux * a + uy * b - s0 * a);
        let gxy = half * (ux * b + uy * c - s0 * b);
        let gyy = half * (vx * b + vy * c - s0 * c);
        let mut add = |plane: usize, value: Lanes<f32>| {
            let target = &mut sums[plane][at..count.min(at + LANES)];
            if target.len() == LANES {
                (Lanes::<f32>::load(target) + value).store(target);
            } else {
                target.iter_mut().zip(value.0).for_each(|(t, v)| *t += v);
            }
        };
        for axis in 0..3 {
            add(axis, gx.times_plus::<FMA>(constant(p[axis]), gy * constant(q[axis])));
        }
        for (k, [xx, xy, yy]) in pairs.into_iter().enumerate() {
            let value = gxx * constant(xx) + gxy * constant(xy) + gyy * constant(yy);
            add(3 + k, value);
        }
        add(9, s0);
    }
}

/// The gradient with respect to the raw parameters (`gradient`: as many planes as `gmm` has, each of its length).
///
/// # Panics
/// If the lengths disagree.
pub fn finish(gmm: &Gmm, sums: &[Vec<f32>; SUMS], gradient: &mut [f32]) {
    assert_eq!(gradient.len(), gmm.values().len());
    finish_vector(gmm, sums, gradient);
}

vectorize! { fn finish_vector(gmm: &Gmm, sums: &[Vec<f32>; SUMS], gradient: &mut [f32]) = finish_lanes }

#[inline(always)]
fn finish_lanes<const FMA: bool>(gmm: &Gmm, sums: &[Vec<f32>; SUMS], gradient: &mut [f32]) {
    let count = gmm.len();
    let amplitude_plane = gmm.shape().planes() - 1;
    let two = Lanes::<f64>::splat(2.0);
    for at in (0..count).step_by(LANES) {
        let raw = |plane: usize| gather(gmm.plane(plane), at);
        let sum = |plane: usize| gather(&sums[plane], at);
        let mut store = |plane: usize, value: Lanes<f64>| {
            let end = count.min(at + LANES);
            for (out, v) in gradient[plane * count + at..plane * count + end].iter_mut().zip(value.0) {
                *out = v as f32;
            }
        };
        for axis in 0..3 {
            store(axis, sum(axis));
        }
        store(amplitude_plane, sum(9) * softplus_sigmoid::<FMA>(raw(amplitude_plane)).1);
        let [xx, xy, xz, yy, yz, zz] = [sum(3), sum(4), sum(5), sum(6), sum(7), sum(8)];
        // Scale and its slope; below S_MIN the slope is zero.
        let scale = |plane: usize| {
            let (softplus, sigmoid) = softplus_sigmoid::<FMA>(raw(plane));
            let slope = softplus.zip(sigmoid, |s, slope| if s < S_MIN { 0.0 } else { slope });
            (softplus.map(|s| s.max(S_MIN)), slope)
        };
        match gmm.shape() {
            Shape::Isotropic => {
                let (s, slope) = scale(3);
                store(3, (xx + yy + zz) * two * s * slope);
            }
            Shape::Anisotropic => {
                // With M = R S and G = dL/dSigma (symmetric, each off-diagonal entry counted once in the sums' pairs):
                // dL/dM = 2 G M, dL/ds_j = sum_i (2 G M)_ij R_ij, dL/dR = 2 G M S = 2 G R S^2.
                let g = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]];
                let half = Lanes::<f64>::splat(0.5);
                let g: [[Lanes<f64>; 3]; 3] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| if i == j { g[i][j] } else { g[i][j] * half })
                });
                let (r, q, inverse_norm) = rotation([raw(6), raw(7), raw(8), raw(9)]);
                let gr: [[Lanes<f64>; 3]; 3] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| g[i][0] * r[0][j] + g[i][1] * r[1][j] + g[i][2] * r[2][j])
                });
                let mut dr = gr;
                for j in 0..3 {
                    let (s, slope) = scale(3 + j);
                    let along = gr[0][j] * r[0][j] + gr[1][j] * r[1][j] + gr[2][j] * r[2][j];
                    store(3 + j, two * s * along * slope);
                    for row in &mut dr {
                        row[j] = row[j] * two * s * s;
                    }
                }
                let [w, x, y, z] = q;
                let dw =
                    two * (x * (dr[2][1] - dr[1][2]) + y * (dr[0][2] - dr[2][0]) + z * (dr[1][0] - dr[0][1]));
                let dx = two
                    * (w * (dr[2][1] - dr[1][2]) + y * (dr[0][1] + dr[1][0]) + z * (dr[0][2] + dr[2][0])
                        - two * x * (dr[1][1] + dr[2][2]));
                let dy = two
                    * (w * (dr[0][2] - dr[2][0]) + x * (dr[0][1] + dr[1][0]) + z * (dr[1][2] + dr[2][1])
                        - two * y * (dr[0][0] + dr[2][2]));
                let dz = two
                    * (w * (dr[1][0] - dr[0][1]) + x * (dr[0][2] + dr[2][0]) + y * (dr[1][2] + dr[2][1])
                        - two * z * (dr[0][0] + dr[1][1]));
                // Through the normalisation: what points along q does nothing.
                let along = w * dw + x * dx + y * dy + z * dz;
                for (k, (unit, d)) in [(w, dw), (x, dx), (y, dy), (z, dz)].into_iter().enumerate() {
                    store(6 + k, (d - unit * along) * inverse_norm);
                }
            }
        }
    }
}
