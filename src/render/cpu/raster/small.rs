//! Small splats, several side by side: what one waits for, the others compute.

use super::strip::{INDICES, LANE_MASKS, Splat};
use crate::render::cpu::project::{SMALL, SplatBlock, kind};
use crate::simd::{LANES, Vector, WIDE};

/// SplatBlock `first..first + K` of block, where all of them are small.
#[inline(always)]
pub(super) fn all_small<const K: usize>(block: &SplatBlock, first: usize) -> bool {
    let mut all = true;
    for k in 0..K {
        all &= block.kind[(first + k) % LANES] == kind::SMALL;
    }
    all
}

/// True where the rows that they are walked over, of which those below a support count for nothing, lie between two rows of an
/// image.
#[inline(always)]
pub(super) fn all_within<const K: usize>(
    block: &SplatBlock,
    first: usize,
    first_row: usize,
    last_row: usize,
) -> bool {
    let mut all = true;
    for k in 0..K {
        let y0 = block.y0[(first + k) % LANES] as usize;
        all &= (y0 >= first_row) & (y0 + SMALL <= last_row);
    }
    all
}

/// Where a walk of several small splats stands, row by row from their first.
#[derive(Clone, Copy)]
pub(super) struct Small<V, const K: usize> {
    /// The Gaussians' values in the row.
    pub values: [V; K],
    /// From them to those of the next row.
    ratios: [V; K],
}

impl<V: Vector<Scalar = f32>, const K: usize> Small<V, K> {
    /// In their first rows; values are multiplied by `scales`.
    #[inline(always)]
    pub fn new(splats: &[Splat; K], scales: [f32; K]) -> Self {
        let zero = [V::splat(0.0); K];
        let (mut values, mut ratios) = (zero, zero);
        for k in 0..K {
            let splat = splats[k];
            let u = V::load(&INDICES).mul_add(V::splat(splat.slope()), V::splat(splat.u()));
            values[k] = (-u).mul_add(u, V::splat(splat.peak()));
            ratios[k] = (-u).mul_add(V::splat(splat.twice_shear()), V::splat(splat.growth()));
        }
        for k in 0..K {
            values[k] = values[k].exp2();
        }
        for k in 0..K {
            ratios[k] = ratios[k].exp2();
            let inside = V::load(&LANE_MASKS[WIDE - splats[k].width() % WIDE..]);
            values[k] = values[k] * (inside * V::splat(scales[k]));
        }
        Self { values, ratios }
    }

    /// From `row` to the next; beyond a support's last row values are zero.
    #[inline(always)]
    pub fn step(&mut self, splats: &[Splat; K], row: usize) {
        for k in 0..K {
            self.values[k] = self.values[k] * self.ratios[k];
            self.ratios[k] = self.ratios[k] * V::splat(splats[k].decay_from(row));
        }
    }
}

/// Rows of the highest of some small splats.
#[inline(always)]
pub(super) fn max_height<const K: usize>(splats: &[Splat; K]) -> usize {
    let mut most = 0;
    for splat in splats {
        most = splat.height().max(most);
    }
    most.min(SMALL)
}

/// Where the supports of some splats begin in rows of pixels that are `stride` apart, the first of them row `first_row`.
///
/// # Panics
/// If a small support does not lie within `length` pixels.
#[inline(always)]
pub(super) fn first_pixels<const K: usize>(
    splats: &[Splat; K],
    first_row: usize,
    stride: usize,
    length: usize,
) -> [usize; K] {
    let mut at = [0; K];
    let mut last = 0;
    for k in 0..K {
        at[k] = (splats[k].y0() - first_row) * stride + splats[k].x0();
        last = at[k].max(last);
    }
    let walked = (SMALL - 1) * stride + LANES;
    assert!(
        length.checked_sub(walked).is_some_and(|most| last <= most),
        "small splats outside of their pixels"
    );
    at
}
