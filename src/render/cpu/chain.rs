//! Moments to gradients (docs/method.md, section 5).
//!
//! The images of a batch are accumulated in the coordinates of the volume: the derivatives of the loss with respect to the mean
//! (3), the covariance (6) and the amplitude (1) of each Gaussian. Since Sigma2 = P Sigma P^T, where P is the first two rows of W,
//! dL/dSigma = P^T dL/dSigma2 P. The chain rule through R, S, the quaternion and the softplus is applied once per step, to the sum.

use super::activate::{GaussianBlock, Slopes, rotation};
use super::project::ViewMoments;
use super::tasks::each_chunk;
use crate::gmm::Shape;
use crate::imaging::pose::Rotation;
use crate::simd::{Isa, LANES, Vector, vectorize};

/// SIMD block: sums over images of the derivatives of the loss with respect to mean x, y, z; covariance xx, xy, xz, yy, yz, zz;
/// amplitude.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct GradientAccumulators([[f64; LANES]; 10]);

/// Adds `more` to `sums`.
///
/// # Panics
/// If the slices differ in length.
pub fn add(sums: &mut [GradientAccumulators], more: &[GradientAccumulators]) {
    assert_eq!(sums.len(), more.len());
    for (sums, more) in sums.iter_mut().zip(more) {
        let numbers = sums.0.as_flattened_mut().iter_mut().zip(more.0.as_flattened());
        numbers.for_each(|(sum, more)| *sum += more);
    }
}

/// The view that accumulated moments belong to.
#[derive(Clone, Copy, Debug)]
pub struct ViewContext<'a> {
    /// Rotation of the view.
    pub view: &'a Rotation,
    /// Points along an edge of the grid on which splats are sampled.
    pub box_size: usize,
}

vectorize! {
    /// Adds the gradient of one image to the accumulators of `gaussians`; the `first` image overwrites them.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn accumulate(
        image: &ViewContext<'_>,
        gaussians: &[GaussianBlock],
        view_moments: &[ViewMoments],
        first: bool,
        sums: &mut [GradientAccumulators],
    ) = accumulate_lanes
}

#[inline(always)]
fn accumulate_lanes<I: Isa>(
    image: &ViewContext,
    gaussians: &[GaussianBlock],
    view_moments: &[ViewMoments],
    first: bool,
    sums: &mut [GradientAccumulators],
) {
    assert_eq!([gaussians.len(), view_moments.len()], [sums.len(); 2]);
    let d = image.box_size as f64;
    let constant = I::F64::splat;
    let [p, q, _] = *image.view;
    // dL/dSigma_ij = P_0i P_0j gxx + (P_0i P_1j + P_1i P_0j) gxy + P_1i P_1j gyy.
    let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        .map(|(i, j)| [p[i] * p[j], p[i] * q[j] + q[i] * p[j], q[i] * q[j]]);
    for ((gaussians, view_moments), GradientAccumulators(sums)) in
        gaussians.iter().zip(view_moments).zip(sums)
    {
        let [w0, w1, w2] = &view_moments.whitening;
        let (w0, w1, w2) = (I::F64::load(w0), I::F64::load(w1), I::F64::load(w2));
        let [s0, sp, sq, spp, spq, sqq] = &view_moments.moments;
        let (s0, sp, sq) = (widen::<I>(s0), widen::<I>(sp), widen::<I>(sq));
        let (spp, spq, sqq) = (widen::<I>(spp), widen::<I>(spq), widen::<I>(sqq));
        let weight = I::F64::load(&gaussians.amplitude);
        // With B = [w0, w1; 0, w2] the conic is C = B^T B, and the moments are those of B d.
        // dL/dmu2 = A C S1 = A B^T (B S1); in box units, times D.
        let scale = weight * constant(d);
        let gx = scale * (w0 * sp);
        let gy = scale * (w1 * sp + w2 * sq);
        // dL/dSigma2 = A/2 (C S2 C - S0 C) = A/2 B^T (B S2 B^T - S0) B; in box units, times D^2. The term S0 is from the normalisation.
        let half = weight * constant(0.5 * d * d);
        let (npp, npq, nqq) = (spp - s0, spq, sqq - s0);
        let (up, uq) = (w1 * npp + w2 * npq, w1 * npq + w2 * nqq);
        let gxx = half * (w0 * w0 * npp);
        let gxy = half * (w0 * up);
        let gyy = half * (w1 * up + w2 * uq);
        for axis in 0..3 {
            add_to(&mut sums[axis], first, gx.mul_add(constant(p[axis]), gy * constant(q[axis])));
        }
        for k in 0..6 {
            let [xx, xy, yy] = pairs[k];
            add_to(&mut sums[3 + k], first, gxx * constant(xx) + gxy * constant(xy) + gyy * constant(yy));
        }
        add_to(&mut sums[9], first, s0);
    }
}

#[inline(always)]
fn widen<I: Isa>(values: &[f32; LANES]) -> I::F64 {
    I::widen(I::F32::load(values))
}

/// Adds to an accumulator, or overwrites it if `first`.
#[inline(always)]
fn add_to<V: Vector<Scalar = f64>>(sum: &mut [f64; LANES], first: bool, value: V) {
    if first { value } else { V::load(sum) + value }.store(sum);
}

/// Gradient with respect to the raw parameters, `gradient[parameter][gaussian]`, from the accumulators and the derivatives of the
/// activation.
///
/// # Panics
/// If the numbers of Gaussians differ.
pub fn finish(shape: Shape, slopes: &[Slopes], sums: &[GradientAccumulators], gradient: &mut [f32]) {
    let count = gradient.len() / shape.planes();
    assert_eq!(gradient.len(), count * shape.planes());
    assert_eq!([slopes.len(), sums.len()], [count.div_ceil(LANES); 2]);
    each_chunk(count, gradient.chunks_exact_mut(count.max(1)), |start, planes| {
        finish_vector(shape, &slopes[start / LANES..], &sums[start / LANES..], planes);
    });
}

vectorize! {
    /// [`finish`] for the Gaussians of these planes.
    fn finish_vector(shape: Shape, slopes: &[Slopes], sums: &[GradientAccumulators], gradient: &mut [&mut [f32]]) = finish_lanes
}

/// Stores to a plane of the gradient.
#[inline(always)]
fn put<I: Isa>(gradient: &mut [&mut [f32]], plane: usize, at: usize, value: I::F64) {
    I::narrow(value).store_partial(gradient[plane], at);
}

#[inline(always)]
fn finish_lanes<I: Isa>(
    shape: Shape,
    slopes: &[Slopes],
    sums: &[GradientAccumulators],
    gradient: &mut [&mut [f32]],
) {
    let last = shape.planes() - 1;
    let two = I::F64::splat(2.0);
    let starts = (0..gradient[last].len()).step_by(LANES);
    for ((at, slopes), GradientAccumulators(sums)) in starts.zip(slopes).zip(sums) {
        let [mx, my, mz, xx, xy, xz, yy, yz, zz, amplitude] = sums;
        for (axis, sum) in [mx, my, mz].into_iter().enumerate() {
            put::<I>(gradient, axis, at, I::F64::load(sum));
        }
        put::<I>(gradient, last, at, I::F64::load(amplitude) * I::F64::load(&slopes.amplitude_slope));
        let (xx, xy, xz) = (I::F64::load(xx), I::F64::load(xy), I::F64::load(xz));
        let (yy, yz, zz) = (I::F64::load(yy), I::F64::load(yz), I::F64::load(zz));
        match shape {
            Shape::Isotropic => {
                let (s, slope) = (I::F64::load(&slopes.scale[0]), I::F64::load(&slopes.scale_slope[0]));
                put::<I>(gradient, 3, at, (xx + yy + zz) * two * s * slope);
            }
            Shape::Anisotropic => {
                // With M = R S and G = dL/dSigma, symmetric:
                // dL/dM = 2 G M, dL/ds_j = sum_i (2 G M)_ij R_ij, dL/dR = 2 G M S = 2 G R S^2.
                let [w, x, y, z] = &slopes.quaternion;
                let (w, x) = (I::F64::load(w), I::F64::load(x));
                let (y, z) = (I::F64::load(y), I::F64::load(z));
                let r = rotation([w, x, y, z]);
                let mut dr = [[I::F64::splat(0.0); 3]; 3];
                for j in 0..3 {
                    let column = [
                        xx * r[0][j] + xy * r[1][j] + xz * r[2][j],
                        xy * r[0][j] + yy * r[1][j] + yz * r[2][j],
                        xz * r[0][j] + yz * r[1][j] + zz * r[2][j],
                    ];
                    let (s, slope) = (I::F64::load(&slopes.scale[j]), I::F64::load(&slopes.scale_slope[j]));
                    let along = column[0] * r[0][j] + column[1] * r[1][j] + column[2] * r[2][j];
                    put::<I>(gradient, 3 + j, at, two * s * along * slope);
                    let weight = two * s * s;
                    for i in 0..3 {
                        dr[i][j] = column[i] * weight;
                    }
                }
                let (rx, ry, rz) = (dr[2][1] - dr[1][2], dr[0][2] - dr[2][0], dr[1][0] - dr[0][1]);
                let (pxy, pxz, pyz) = (dr[0][1] + dr[1][0], dr[0][2] + dr[2][0], dr[1][2] + dr[2][1]);
                let dw = two * (x * rx + y * ry + z * rz);
                let dx = two * (w * rx + y * pxy + z * pxz - two * x * (dr[1][1] + dr[2][2]));
                let dy = two * (w * ry + x * pxy + z * pyz - two * y * (dr[0][0] + dr[2][2]));
                let dz = two * (w * rz + x * pxz + y * pyz - two * z * (dr[0][0] + dr[1][1]));
                // Through the normalisation: the component along q vanishes.
                let along = w * dw + x * dx + y * dy + z * dz;
                let inverse_norm = I::F64::load(&slopes.inverse_norm);
                put::<I>(gradient, 6, at, (dw - w * along) * inverse_norm);
                put::<I>(gradient, 7, at, (dx - x * along) * inverse_norm);
                put::<I>(gradient, 8, at, (dy - y * along) * inverse_norm);
                put::<I>(gradient, 9, at, (dz - z * along) * inverse_norm);
            }
        }
    }
}
