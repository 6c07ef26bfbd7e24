//! Raw parameters to means, covariances and amplitudes, once a step (METHOD.md section 2), in f64.

use super::simd::{LANES, Lanes, softplus_sigmoid, vectorize};
use crate::gmm::{Gmm, S_MIN, Shape};

/// A mixture as the projection wants it: planes of f64, padded to a multiple of [`LANES`] with Gaussians of
/// amplitude zero far outside.
#[derive(Clone, Debug, Default)]
pub struct Activated {
    /// Number of Gaussians, without the padding.
    pub count: usize,
    /// Means x, y, z in box units.
    pub mean: [Vec<f64>; 3],
    /// Covariances xx, xy, xz, yy, yz, zz in box units squared.
    pub covariance: [Vec<f64>; 6],
    /// Amplitudes.
    pub amplitude: Vec<f64>,
}

impl Activated {
    /// Room for `count` Gaussians.
    pub fn new(count: usize) -> Self {
        let padded = count.next_multiple_of(LANES);
        let mut activated = Self { count, ..Self::default() };
        activated.mean.iter_mut().for_each(|plane| plane.resize(padded, 1e3));
        activated.covariance.iter_mut().for_each(|plane| plane.resize(padded, 0.0));
        for diagonal in [0, 3, 5] {
            activated.covariance[diagonal].fill(1e-4);
        }
        activated.amplitude.resize(padded, 0.0);
        activated
    }

    /// Computes all planes from the raw parameters.
    ///
    /// # Panics
    /// If `gmm` has another number of Gaussians.
    pub fn update(&mut self, gmm: &Gmm) {
        assert_eq!(gmm.len(), self.count);
        update(self, gmm);
    }
}

vectorize! { fn update(out: &mut Activated, gmm: &Gmm) = update_lanes }

/// Eight values of a plane from `start`; past its end, the last value again.
#[inline(always)]
pub(super) fn gather(plane: &[f32], start: usize) -> Lanes<f64> {
    let mut lanes = [0.0; LANES];
    if let Some(full) = plane.get(start..start + LANES) {
        for (lane, &value) in lanes.iter_mut().zip(full) {
            *lane = f64::from(value);
        }
    } else {
        let last = plane.len() - 1;
        for (k, lane) in lanes.iter_mut().enumerate() {
            *lane = f64::from(plane[(start + k).min(last)]);
        }
    }
    Lanes(lanes)
}

/// Rotation matrix of eight quaternions (w, x, y, z), normalised here, with their lengths' inverses.
#[inline(always)]
pub(super) fn rotation(q: [Lanes<f64>; 4]) -> ([[Lanes<f64>; 3]; 3], [Lanes<f64>; 4], Lanes<f64>) {
    let norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    let inverse = norm2.map(|v| 1.0 / v.sqrt());
    let (w, x, y, z) = (q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse);
    let (one, two) = (Lanes::<f64>::splat(1.0), Lanes::<f64>::splat(2.0));
    let matrix = [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ];
    (matrix, [w, x, y, z], inverse)
}

/// Into a plane from `start`, as far as the plane goes.
#[inline(always)]
fn put(plane: &mut [f64], start: usize, count: usize, value: Lanes<f64>) {
    if start + LANES <= count {
        value.store(&mut plane[start..start + LANES]);
    } else {
        plane[start..count].copy_from_slice(&value.0[..count - start]);
    }
}

#[inline(always)]
fn variance<const FMA: bool>(raw: Lanes<f64>) -> Lanes<f64> {
    let s = softplus_sigmoid::<FMA>(raw).0.map(|v| v.max(S_MIN));
    s * s
}

/// Entry (i, j) of R diag(v) R^T.
#[inline(always)]
fn entry(r: &[[Lanes<f64>; 3]; 3], v: &[Lanes<f64>; 3], i: usize, j: usize) -> Lanes<f64> {
    r[i][0] * r[j][0] * v[0] + r[i][1] * r[j][1] * v[1] + r[i][2] * r[j][2] * v[2]
}

#[inline(always)]
fn update_lanes<const FMA: bool>(out: &mut Activated, gmm: &Gmm) {
    // Helpers are functions that are always inlined: a closure might not be, and would lose the vector instructions.
    let count = out.count;
    let amplitude_plane = gmm.shape().planes() - 1;
    for start in (0..count).step_by(LANES) {
        for axis in 0..3 {
            put(&mut out.mean[axis], start, count, gather(gmm.plane(axis), start));
        }
        let amplitude = softplus_sigmoid::<FMA>(gather(gmm.plane(amplitude_plane), start)).0;
        put(&mut out.amplitude, start, count, amplitude);
        match gmm.shape() {
            Shape::Isotropic => {
                let v = variance::<FMA>(gather(gmm.plane(3), start));
                for diagonal in [0, 3, 5] {
                    put(&mut out.covariance[diagonal], start, count, v);
                }
            }
            Shape::Anisotropic => {
                let v = [
                    variance::<FMA>(gather(gmm.plane(3), start)),
                    variance::<FMA>(gather(gmm.plane(4), start)),
                    variance::<FMA>(gather(gmm.plane(5), start)),
                ];
                let (r, _, _) = rotation([
                    gather(gmm.plane(6), start),
                    gather(gmm.plane(7), start),
                    gather(gmm.plane(8), start),
                    gather(gmm.plane(9), start),
                ]);
                put(&mut out.covariance[0], start, count, entry(&r, &v, 0, 0));
                put(&mut out.covariance[1], start, count, entry(&r, &v, 0, 1));
                put(&mut out.covariance[2], start, count, entry(&r, &v, 0, 2));
                put(&mut out.covariance[3], start, count, entry(&r, &v, 1, 1));
                put(&mut out.covariance[4], start, count, entry(&r, &v, 1, 2));
                put(&mut out.covariance[5], start, count, entry(&r, &v, 2, 2));
            }
        }
    }
}
