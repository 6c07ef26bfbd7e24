//! Raw parameters to means, covariances and amplitudes, once per step (docs/method.md, section 2), in f64.

use super::allocate_blocks;
use super::tasks::{for_each, task_chunks};
use crate::gmm::{Gmm, S_MIN, Shape};
use crate::simd::{Isa, LANES, Vector, softplus_sigmoid, vectorize};

/// SIMD block of 8 Gaussians, activated: input of the projection, in box units.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct GaussianBlock {
    /// Means x, y, z.
    pub mean: [[f64; LANES]; 3],
    /// Covariances xx, xy, xz, yy, yz, zz.
    pub covariance: [[f64; LANES]; 6],
    /// Amplitudes.
    pub amplitude: [f64; LANES],
}

impl Default for GaussianBlock {
    /// Gaussians of amplitude zero, far outside the box.
    fn default() -> Self {
        let (zero, variance) = ([0.0; LANES], [1e-4; LANES]);
        Self {
            mean: [[1e3; LANES]; 3],
            covariance: [variance, zero, zero, variance, zero, variance],
            amplitude: zero,
        }
    }
}

impl GaussianBlock {
    fn planes(&mut self) -> impl Iterator<Item = &mut [f64; LANES]> {
        self.mean.iter_mut().chain(&mut self.covariance).chain([&mut self.amplitude])
    }

    /// Replaces the Gaussian of a lane by the default.
    fn clear_lane(&mut self, lane: usize) {
        let mut nowhere = Self::default();
        self.planes().zip(nowhere.planes()).for_each(|(plane, nowhere)| plane[lane] = nowhere[lane]);
    }
}

/// SIMD block of what the chain rule from covariances and amplitudes to raw parameters needs.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct Slopes {
    /// Scales in box units; of an isotropic Gaussian the first.
    pub scale: [[f64; LANES]; 3],
    /// Derivatives of the scales with respect to the raw scales.
    pub scale_slope: [[f64; LANES]; 3],
    /// Derivative of the amplitude with respect to the raw amplitude.
    pub amplitude_slope: [f64; LANES],
    /// Unit quaternions w, x, y, z.
    pub quaternion: [[f64; LANES]; 4],
    /// One over the norm of the raw quaternions.
    pub inverse_norm: [f64; LANES],
}

/// An activated mixture. Unused lanes of the last block hold Gaussians that no view shows.
#[derive(Clone, Debug)]
pub struct Activated {
    count: usize,
    blocks: Vec<GaussianBlock>,
    slopes: Vec<Slopes>,
}

impl Activated {
    /// Allocates blocks for `count` Gaussians.
    pub fn new(count: usize) -> Self {
        Self { count, blocks: allocate_blocks(count), slopes: allocate_blocks(count) }
    }

    /// Memory in bytes for `count` Gaussians.
    pub fn bytes_for(count: usize) -> u128 {
        (count.div_ceil(LANES) * (size_of::<GaussianBlock>() + size_of::<Slopes>())) as u128
    }

    /// The activated Gaussians.
    pub fn blocks(&self) -> &[GaussianBlock] {
        &self.blocks
    }

    /// Their derivatives.
    pub fn slopes(&self) -> &[Slopes] {
        &self.slopes
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.blocks[..]) + size_of_val(&self.slopes[..])
    }

    /// Activates the raw parameters of `gmm`.
    ///
    /// # Panics
    /// If `gmm` has another number of Gaussians.
    pub fn update(&mut self, gmm: &Gmm) {
        assert_eq!(gmm.len(), self.count);
        let parallel = rayon::current_num_threads() > 1;
        let tasks = task_chunks(&mut self.blocks).zip(task_chunks(&mut self.slopes));
        for_each(parallel, tasks, |((start, blocks), (_, slopes))| {
            update(blocks, slopes, gmm, start * LANES)
        });
        let padding = self.blocks.len() * LANES - self.count;
        if let Some(last) = self.blocks.last_mut() {
            (LANES - padding..LANES).for_each(|lane| last.clear_lane(lane));
        }
    }
}

vectorize! {
    /// Activates the Gaussians from `start` on.
    fn update(blocks: &mut [GaussianBlock], slopes: &mut [Slopes], gmm: &Gmm, start: usize) = update_lanes
}

/// Loads a plane from `at`; lanes past its end are 1.
#[inline(always)]
fn gather<I: Isa>(plane: &[f32], at: usize) -> I::F64 {
    I::widen(I::F32::load_padded(plane, at, 1.0))
}

/// Normalises quaternions (w, x, y, z). Returns also the inverse of their norms.
#[inline(always)]
fn normalized<V: Vector<Scalar = f64>>(q: [V; 4]) -> ([V; 4], V) {
    let norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    let inverse = V::splat(1.0) / norm2.sqrt();
    ([q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse], inverse)
}

/// Rotation matrices of unit quaternions (w, x, y, z).
#[inline(always)]
pub(super) fn rotation<V: Vector<Scalar = f64>>([w, x, y, z]: [V; 4]) -> [[V; 3]; 3] {
    let (one, two) = (V::splat(1.0), V::splat(2.0));
    [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ]
}

/// Stores the scale of a raw value and its derivative (zero below S_MIN). Returns the square of the scale.
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
fn update_lanes<I: Isa>(blocks: &mut [GaussianBlock], slopes: &mut [Slopes], gmm: &Gmm, start: usize) {
    // No closures here: one that is not inlined would be compiled without vector instructions.
    let amplitude_plane = gmm.shape().planes() - 1;
    for ((block, slopes), at) in blocks.iter_mut().zip(slopes).zip((start..).step_by(LANES)) {
        for (axis, mean) in block.mean.iter_mut().enumerate() {
            gather::<I>(gmm.plane(axis), at).store(mean);
        }
        let (amplitude, slope) = softplus_sigmoid(gather::<I>(gmm.plane(amplitude_plane), at));
        amplitude.store(&mut block.amplitude);
        slope.store(&mut slopes.amplitude_slope);
        let ([s0, s1, s2], [d0, d1, d2]) = (&mut slopes.scale, &mut slopes.scale_slope);
        let first = variance(gather::<I>(gmm.plane(3), at), s0, d0);
        match gmm.shape() {
            Shape::Isotropic => {
                for diagonal in [0, 3, 5] {
                    first.store(&mut block.covariance[diagonal]);
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
                    entry(&r, &v, i, j).store(&mut block.covariance[k]);
                }
            }
        }
    }
}
