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
        let (a, b, c) = (load(image.conic[0], at), load(image.conic[1], at), load(image.conic[2], at));
        let [s0, sx, sy, sxx, sxy, syy] = [
            load(image.moments[0], at),
            load(image.moments[1], at),
            load(image.moments[2], at),
            load(image.moments[3], at),
            load(image.moments[4], at),
            load(image.moments[5], at),
        ];
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
        for axis in 0..3 {
            add(sums[axis], at, gx.times_plus::<FMA>(constant(p[axis]), gy * constant(q[axis])));
        }
        for k in 0..6 {
            let [xx, xy, yy] = pairs[k];
            add(sums[3 + k], at, gxx * constant(xx) + gxy * constant(xy) + gyy * constant(yy));
        }
        add(sums[9], at, s0);
    }
}

/// Adds to a plane from `at`, as far as the plane goes.
#[inline(always)]
fn add(plane: &mut [f32], at: usize, value: Lanes<f32>) {
    if let Some(full) = plane.get_mut(at..at + LANES) {
        (Lanes::<f32>::load(full) + value).store(full);
    } else {
        plane[at..].iter_mut().zip(value.0).for_each(|(t, v)| *t += v);
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

/// Into a plane of `count` values of the gradient, as far as it goes.
#[inline(always)]
fn put(gradient: &mut [f32], count: usize, plane: usize, at: usize, value: Lanes<f64>) {
    let end = count.min(at + LANES);
    for (out, v) in gradient[plane * count + at..plane * count + end].iter_mut().zip(value.0) {
        *out = v as f32;
    }
}

/// The scale of a raw value and its slope; below S_MIN the slope is zero.
#[inline(always)]
fn scale<const FMA: bool>(raw: Lanes<f64>) -> (Lanes<f64>, Lanes<f64>) {
    let (softplus, sigmoid) = softplus_sigmoid::<FMA>(raw);
    let slope = softplus.zip(sigmoid, |s, slope| if s < S_MIN { 0.0 } else { slope });
    (softplus.map(|s| s.max(S_MIN)), slope)
}

#[inline(always)]
fn finish_lanes<const FMA: bool>(gmm: &Gmm, sums: &[Vec<f32>; SUMS], gradient: &mut [f32]) {
    let count = gmm.len();
    let last = gmm.shape().planes() - 1;
    let two = Lanes::<f64>::splat(2.0);
    for at in (0..count).step_by(LANES) {
        for axis in 0..3 {
            put(gradient, count, axis, at, gather(&sums[axis], at));
        }
        let slope = softplus_sigmoid::<FMA>(gather(gmm.plane(last), at)).1;
        put(gradient, count, last, at, gather(&sums[9], at) * slope);
        let (xx, xy, xz) = (gather(&sums[3], at), gather(&sums[4], at), gather(&sums[5], at));
        let (yy, yz, zz) = (gather(&sums[6], at), gather(&sums[7], at), gather(&sums[8], at));
        match gmm.shape() {
            Shape::Isotropic => {
                let (s, slope) = scale::<FMA>(gather(gmm.plane(3), at));
                put(gradient, count, 3, at, (xx + yy + zz) * two * s * slope);
            }
            Shape::Anisotropic => {
                // With M = R S and G = dL/dSigma, symmetric (the sums hold each off-diagonal pair together, so half each):
                // dL/dM = 2 G M, dL/ds_j = sum_i (2 G M)_ij R_ij, dL/dR = 2 G M S = 2 G R S^2.
                let half = Lanes::<f64>::splat(0.5);
                let (xy, xz, yz) = (xy * half, xz * half, yz * half);
                let (r, q, inverse_norm) = rotation([
                    gather(gmm.plane(6), at),
                    gather(gmm.plane(7), at),
                    gather(gmm.plane(8), at),
                    gather(gmm.plane(9), at),
                ]);
                let mut dr = [[Lanes::<f64>::splat(0.0); 3]; 3];
                for j in 0..3 {
                    let column = [
                        xx * r[0][j] + xy * r[1][j] + xz * r[2][j],
                        xy * r[0][j] + yy * r[1][j] + yz * r[2][j],
                        xz * r[0][j] + yz * r[1][j] + zz * r[2][j],
                    ];
                    let (s, slope) = scale::<FMA>(gather(gmm.plane(3 + j), at));
                    let along = column[0] * r[0][j] + column[1] * r[1][j] + column[2] * r[2][j];
                    put(gradient, count, 3 + j, at, two * s * along * slope);
                    let weight = two * s * s;
                    for i in 0..3 {
                        dr[i][j] = column[i] * weight;
                    }
                }
                let (w, x, y, z) = (q[0], q[1], q[2], q[3]);
                let (rx, ry, rz) = (dr[2][1] - dr[1][2], dr[0][2] - dr[2][0], dr[1][0] - dr[0][1]);
                let (pxy, pxz, pyz) = (dr[0][1] + dr[1][0], dr[0][2] + dr[2][0], dr[1][2] + dr[2][1]);
                let dw = two * (x * rx + y * ry + z * rz);
                let dx = two * (w * rx + y * pxy + z * pxz - two * x * (dr[1][1] + dr[2][2]));
                let dy = two * (w * ry + x * pxy + z * pyz - two * y * (dr[0][0] + dr[2][2]));
                let dz = two * (w * rz + x * pxz + y * pyz - two * z * (dr[0][0] + dr[1][1]));
                // Through the normalisation: what points along q does nothing.
                let along = w * dw + x * dx + y * dy + z * dz;
                put(gradient, count, 6, at, (dw - w * along) * inverse_norm);
                put(gradient, count, 7, at, (dx - x * along) * inverse_norm);
                put(gradient, count, 8, at, (dy - y * along) * inverse_norm);
                put(gradient, count, 9, at, (dz - z * along) * inverse_norm);
            }
        }
    }
}
