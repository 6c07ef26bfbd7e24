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
    let [w, x, y, z] = q.map(|c| c * inverse);
    let (one, two) = (Lanes::<f64>::splat(1.0), Lanes::<f64>::splat(2.0));
    let matrix = [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ];
    (matrix, [w, x, y, z], inverse)
}

#[inline(always)]
fn update_lanes<const FMA: bool>(out: &mut Activated, gmm: &Gmm) {
    for start in (0..out.count).step_by(LANES) {
        let load = |plane: usize| gather(gmm.plane(plane), start);
        let store = |plane: &mut [f64], value: Lanes<f64>| {
            let end = (start + LANES).min(out.count);
            plane[start..end].copy_from_slice(&value.0[..end - start]);
        };
        for axis in 0..3 {
            store(&mut out.mean[axis], load(axis));
        }
        let amplitude_plane = gmm.shape().planes() - 1;
        store(&mut out.amplitude, softplus_sigmoid::<FMA>(load(amplitude_plane)).0);
        let variance = |plane: usize| {
            let s = softplus_sigmoid::<FMA>(load(plane)).0.map(|v| v.max(S_MIN));
            s * s
        };
        match gmm.shape() {
            Shape::Isotropic => {
                let v = variance(3);
                for diagonal in [0, 3, 5] {
                    store(&mut out.covariance[diagonal], v);
                }
            }
            Shape::Anisotropic => {
                let v = [variance(3), variance(4), variance(5)];
                let (r, _, _) = rotation([load(6), load(7), load(8), load(9)]);
                let entry = |i: usize, j: usize| {
                    r[i][0] * r[j][0] * v[0] + r[i][1] * r[j][1] * v[1] + r[i][2] * r[j][2] * v[2]
                };
                for (plane, (i, j)) in
                    [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)].into_iter().enumerate()
                {
                    store(&mut out.covariance[plane], entry(i, j));
                }
            }
        }
    }
}
