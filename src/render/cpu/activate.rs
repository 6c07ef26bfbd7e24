//! Raw parameters to means, covariances and amplitudes, once a step (METHOD.md section 2), in f64.

use super::tasks::each_chunk;
use crate::gmm::{Gmm, S_MIN, Shape};
use crate::simd::{Isa, LANES, Vector, softplus_sigmoid, vectorize};

/// A mixture as the projection wants it: planes of f64, padded to a multiple of eight with Gaussians of
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

    /// Bytes of all planes.
    pub fn bytes(&self) -> usize {
        let planes = self.mean.iter().chain(&self.covariance).chain([&self.amplitude]);
        planes.map(|plane| size_of_val(&plane[..])).sum()
    }

    /// Computes all planes from the raw parameters.
    ///
    /// # Panics
    /// If `gmm` has another number of Gaussians.
    pub fn update(&mut self, gmm: &Gmm) {
        assert_eq!(gmm.len(), self.count);
        let planes = self.mean.iter_mut().chain(&mut self.covariance).chain([&mut self.amplitude]);
        let planes = planes.map(|plane| &mut plane[..gmm.len()]);
        each_chunk(gmm.len(), planes, |start, planes| update(planes, gmm, start));
    }
}

vectorize! {
    /// Means, covariances and amplitudes, from Gaussian `start` on, as many as the planes have.
    fn update(out: &mut [&mut [f64]], gmm: &Gmm, start: usize) = update_lanes
}

/// Eight values of a plane from `at`, as far as it goes; what lies past its end means nothing.
#[inline(always)]
pub(super) fn gather<I: Isa>(plane: &[f32], at: usize) -> I::F64 {
    I::widen(I::F32::load_padded(plane, at, 1.0))
}

/// Rotation matrix of eight quaternions (w, x, y, z), normalised here, with their lengths' inverses.
#[inline(always)]
pub(super) fn rotation<V: Vector<Scalar = f64>>(q: [V; 4]) -> ([[V; 3]; 3], [V; 4], V) {
    let norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    let (one, two) = (V::splat(1.0), V::splat(2.0));
    let inverse = one / norm2.sqrt();
    let (w, x, y, z) = (q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse);
    let matrix = [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ];
    (matrix, [w, x, y, z], inverse)
}

#[inline(always)]
fn variance<V: Vector<Scalar = f64>>(raw: V) -> V {
    let s = softplus_sigmoid(raw).0.max(V::splat(S_MIN));
    s * s
}

/// Entry (i, j) of R diag(v) R^T.
#[inline(always)]
fn entry<V: Vector>(r: &[[V; 3]; 3], v: &[V; 3], i: usize, j: usize) -> V {
    r[i][0] * r[j][0] * v[0] + r[i][1] * r[j][1] * v[1] + r[i][2] * r[j][2] * v[2]
}

#[inline(always)]
fn update_lanes<I: Isa>(out: &mut [&mut [f64]], gmm: &Gmm, start: usize) {
    // Helpers are functions that are always inlined: a closure might not be, and would lose the vector instructions.
    let [mean, covariance, amplitudes] = out.get_disjoint_mut([0..3, 3..9, 9..10]).expect("ten planes");
    let amplitude_plane = gmm.shape().planes() - 1;
    for to in (0..amplitudes[0].len()).step_by(LANES) {
        let at = start + to;
        for (axis, plane) in mean.iter_mut().enumerate() {
            gather::<I>(gmm.plane(axis), at).store_cut(plane, to);
        }
        let amplitude = softplus_sigmoid(gather::<I>(gmm.plane(amplitude_plane), at)).0;
        amplitude.store_cut(amplitudes[0], to);
        match gmm.shape() {
            Shape::Isotropic => {
                let v = variance(gather::<I>(gmm.plane(3), at));
                for diagonal in [0, 3, 5] {
                    v.store_cut(covariance[diagonal], to);
                }
            }
            Shape::Anisotropic => {
                let v = [
                    variance(gather::<I>(gmm.plane(3), at)),
                    variance(gather::<I>(gmm.plane(4), at)),
                    variance(gather::<I>(gmm.plane(5), at)),
                ];
                let (r, _, _) = rotation([
                    gather::<I>(gmm.plane(6), at),
                    gather::<I>(gmm.plane(7), at),
                    gather::<I>(gmm.plane(8), at),
                    gather::<I>(gmm.plane(9), at),
                ]);
                for (k, (i, j)) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)].into_iter().enumerate() {
                    entry(&r, &v, i, j).store_cut(covariance[k], to);
                }
            }
        }
    }
}
