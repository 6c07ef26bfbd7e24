//! Small splats, several side by side, which hides the latency of each.

use super::strip::{INDICES, LANE_MASKS, Splat};
use crate::render::cpu::project::{SMALL, SplatBlock, kind};
use crate::simd::{LANES, Vector, WIDE};

/// Whether splats `first..first + K` of a block are all small.
#[inline(always)]
pub(super) fn all_small<const K: usize>(block: &SplatBlock, first: usize) -> bool {
    let mut all = true;
    for k in 0..K {
        all &= block.kind[(first + k) % LANES] == kind::SMALL;
    }
    all
}

/// Whether the [`SMALL`] rows from the first of each of these splats lie in `first_row..last_row`.
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

/// Current row of the recurrence of `K` small splats.
#[derive(Clone, Copy)]
pub(super) struct Small<V, const K: usize> {
    /// Values of the splats in the row.
    pub values: [V; K],
    /// Ratios of the next row to this one.
    ratios: [V; K],
}

impl<V: Vector<Scalar = f32>, const K: usize> Small<V, K> {
    /// The first rows of the splats, multiplied by `scales`.
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

    /// Proceeds from `row` to the next. Values below a support are zero.
    #[inline(always)]
    pub fn step(&mut self, splats: &[Splat; K], row: usize) {
        for k in 0..K {
            self.values[k] = self.values[k] * self.ratios[k];
            self.ratios[k] = self.ratios[k] * V::splat(splats[k].decay_from(row));
        }
    }
}

/// Height of the highest splat.
#[inline(always)]
pub(super) fn max_height<const K: usize>(splats: &[Splat; K]) -> usize {
    let mut most = 0;
    for splat in splats {
        most = splat.height().max(most);
    }
    most.min(SMALL)
}

/// Index of the first pixel of each support in rows from `first_row` on, `stride` values apart.
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
    let needed = (SMALL - 1) * stride + LANES;
    assert!(
        length.checked_sub(needed).is_some_and(|most| last <= most),
        "a small splat lies outside the image"
    );
    at
}
