//! Raw parameters to means, covariances and amplitudes, once a step (METHOD.md section 2), in f64.

use super::room;
use super::tasks::{for_each, parts};
use crate::gmm::{Gmm, S_MIN, Shape};
use crate::simd::{Isa, LANES, Vector, softplus_sigmoid, vectorize};

/// Eight Gaussians as the projection wants them, a lane each, in box units.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Active {
    /// Means x, y, z.
    pub mean: [[f64; LANES]; 3],
    /// Covariances xx, xy, xz, yy, yz, zz.
    pub covariance: [[f64; LANES]; 6],
    /// Amplitudes.
    pub amplitude: [f64; LANES],
}

impl Default for Active {
    /// Eight of amplitude zero, far outside.
    fn default() -> Self {
        let (zero, variance) = ([0.0; LANES], [1e-4; LANES]);
        Self {
            mean: [[1e3; LANES]; 3],
            covariance: [variance, zero, zero, variance, zero, variance],
            amplitude: zero,
        }
    }
}

impl Active {
    fn planes(&mut self) -> impl Iterator<Item = &mut [f64; LANES]> {
        self.mean.iter_mut().chain(&mut self.covariance).chain([&mut self.amplitude])
    }

    /// Leaves no Gaussian in a lane.
    fn hide(&mut self, lane: usize) {
        let mut nowhere = Self::default();
        self.planes().zip(nowhere.planes()).for_each(|(plane, nowhere)| plane[lane] = nowhere[lane]);
    }
}

/// What the way back to the raw parameters of eight Gaussians takes, a lane each.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct Slopes {
    /// Scales in box units; where there is one, it is the first.
    pub scale: [[f64; LANES]; 3],
    /// Their derivatives with respect to the raw ones.
    pub scale_slope: [[f64; LANES]; 3],
    /// That of the amplitude.
    pub amplitude_slope: [f64; LANES],
    /// Quaternions w, x, y, z of length 1.
    pub quaternion: [[f64; LANES]; 4],
    /// One over the length of the raw ones.
    pub inverse_norm: [f64; LANES],
}

/// A mixture as the projection wants it, and as the chain does: Gaussians in eights, the last of them filled up with such as are seen
/// nowhere.
#[derive(Clone, Debug)]
pub struct Activated {
    count: usize,
    eights: Vec<Active>,
    slopes: Vec<Slopes>,
}

impl Activated {
    /// Room for `count` Gaussians.
    pub fn new(count: usize) -> Self {
        Self { count, eights: room(count), slopes: room(count) }
    }

    /// The Gaussians.
    pub fn eights(&self) -> &[Active] {
        &self.eights
    }

    /// Their slopes.
    pub fn slopes(&self) -> &[Slopes] {
        &self.slopes
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.eights[..]) + size_of_val(&self.slopes[..])
    }

    /// Computes them from the raw parameters.
    ///
    /// # Panics
    /// If `gmm` has another number of Gaussians.
    pub fn update(&mut self, gmm: &Gmm) {
        assert_eq!(gmm.len(), self.count);
        let parallel = rayon::current_num_threads() > 1;
        let tasks = parts(&mut self.eights).zip(parts(&mut self.slopes));
        for_each(parallel, tasks, |((start, eights), (_, slopes))| {
            update(eights, slopes, gmm, start * LANES)
        });
        let padding = self.eights.len() * LANES - self.count;
        if let Some(last) = self.eights.last_mut() {
            (LANES - padding..LANES).for_each(|lane| last.hide(lane));
        }
    }
}

vectorize! {
    /// Those from Gaussian `start` on.
    fn update(eights: &mut [Active], slopes: &mut [Slopes], gmm: &Gmm, start: usize) = update_lanes
}

/// Eight values of a plane from `at`, as far as it goes; what lies past its end means nothing.
#[inline(always)]
fn gather<I: Isa>(plane: &[f32], at: usize) -> I::F64 {
    I::widen(I::F32::load_padded(plane, at, 1.0))
}

/// Eight quaternions (w, x, y, z) of length 1, and the inverses of the lengths that they had.
#[inline(always)]
fn normalized<V: Vector<Scalar = f64>>(q: [V; 4]) -> ([V; 4], V) {
    let norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    let inverse = V::splat(1.0) / norm2.sqrt();
    ([q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse], inverse)
}

/// Rotation matrices of eight quaternions (w, x, y, z) of length 1.
#[inline(always)]
pub(super) fn rotation<V: Vector<Scalar = f64>>([w, x, y, z]: [V; 4]) -> [[V; 3]; 3] {
    let (one, two) = (V::splat(1.0), V::splat(2.0));
    [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ]
}

/// The scale of a raw value and its slope, kept; returned, its square. Below S_MIN the slope is zero.
#[inline(always)]
fn variance<V: Vector<Scalar = f64>>(raw: V, scale: &mut [f64; LANES], slope: &mut [f64; LANES]) -> V {
    let (softplus, sigmoid) = softplus_sigmoid(raw);
    let smallest = V::splat(S_MIN);
    let s = softplus.max(smallest);
    s.store(scale);
    (smallest - softplus).select_positive(V::splat(0.0), sigmoid).store(slope);
    s * s
}

/// Entry (i, j) of R diag(v) R^T.
#[inline(always)]
fn entry<V: Vector>(r: &[[V; 3]; 3], v: &[V; 3], i: usize, j: usize) -> V {
    r[i][0] * r[j][0] * v[0] + r[i][1] * r[j][1] * v[1] + r[i][2] * r[j][2] * v[2]
}

#[inline(always)]
fn update_lanes<I: Isa>(eights: &mut [Active], slopes: &mut [Slopes], gmm: &Gmm, start: usize) {
    // Helpers are functions that are always inlined: a closure might not be, and would lose the vector instructions.
    let amplitude_plane = gmm.shape().planes() - 1;
    for ((eight, slopes), at) in eights.iter_mut().zip(slopes).zip((start..).step_by(LANES)) {
        for (axis, mean) in eight.mean.iter_mut().enumerate() {
            gather::<I>(gmm.plane(axis), at).store(mean);
        }
        let (amplitude, slope) = softplus_sigmoid(gather::<I>(gmm.plane(amplitude_plane), at));
        amplitude.store(&mut eight.amplitude);
        slope.store(&mut slopes.amplitude_slope);
        let ([s0, s1, s2], [d0, d1, d2]) = (&mut slopes.scale, &mut slopes.scale_slope);
        let first = variance(gather::<I>(gmm.plane(3), at), s0, d0);
        match gmm.shape() {
            Shape::Isotropic => {
                for diagonal in [0, 3, 5] {
                    first.store(&mut eight.covariance[diagonal]);
                }
            }
            Shape::Anisotropic => {
                let second = variance(gather::<I>(gmm.plane(4), at), s1, d1);
                let third = variance(gather::<I>(gmm.plane(5), at), s2, d2);
                let (q, inverse) = normalized([
                    gather::<I>(gmm.plane(6), at),
                    gather::<I>(gmm.plane(7), at),
                    gather::<I>(gmm.plane(8), at),
                    gather::<I>(gmm.plane(9), at),
                ]);
                inverse.store(&mut slopes.inverse_norm);
                for (place, q) in slopes.quaternion.iter_mut().zip(q) {
                    q.store(place);
                }
                let (r, v) = (rotation(q), [first, second, third]);
                for (k, (i, j)) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)].into_iter().enumerate() {
                    entry(&r, &v, i, j).store(&mut eight.covariance[k]);
                }
            }
        }
    }
}
