//! Splats to pixels.

use std::ops::Range;

use super::fine::draw_fine;
use super::small::{Small, all_small, all_within, first_pixels, max_height};
use super::strip::{Splat, Strip, group};
use crate::render::cpu::project::{SplatBlock, ViewMoments, kind};
use crate::simd::{Isa, LANES, Vector};

/// Number of small splats that are drawn side by side.
const TOGETHER: usize = 4;

/// [`super::draw()`].
#[inline(always)]
pub(super) fn draw<I: Isa>(
    splats: &[SplatBlock],
    view_moments: &[ViewMoments],
    band: &mut [f32],
    first_row: usize,
    stride: usize,
) {
    assert_eq!(splats.len(), view_moments.len());
    let last_row = first_row + band.len() / stride;
    for (block, view_moments) in splats.iter().zip(view_moments) {
        for lane in (0..LANES).step_by(TOGETHER) {
            let group = group::<TOGETHER>(block, lane);
            // The grouping must not depend on the band: it determines the order of additions to a pixel.
            if all_small::<TOGETHER>(block, lane) {
                if all_within::<TOGETHER>(block, lane, first_row, last_row) {
                    draw_small::<I, TOGETHER>(&group, band, first_row, stride);
                } else {
                    draw_small_clipped::<I, TOGETHER>(&group, band, first_row, stride);
                }
                continue;
            }
            for (splat, lane) in group.into_iter().zip(lane..) {
                // Rows of the support in the band.
                let (y0, height) = (splat.y0(), splat.height());
                let rows = first_row.saturating_sub(y0)..height.min(last_row.saturating_sub(y0));
                if splat.kind() == kind::HIDDEN || rows.is_empty() {
                    continue;
                }
                let top = (y0 + rows.start - first_row) * stride + splat.x0();
                match splat.kind() {
                    kind::SMALL => draw_small_clipped::<I, 1>(&[splat], band, first_row, stride),
                    kind::STEPPED if rows.len() == height => {
                        draw_stepped::<I, true>(splat, &mut band[top..], stride, rows);
                    }
                    kind::STEPPED => draw_stepped::<I, false>(splat, &mut band[top..], stride, rows),
                    _ => {
                        let whitening = view_moments.whitening.map(|of| of[lane]);
                        draw_fine(splat, whitening, &mut band[top..], stride, rows);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn weights<const K: usize>(splats: &[Splat; K]) -> [f32; K] {
    let mut weights = [0.0; K];
    for k in 0..K {
        weights[k] = splats[k].weight();
    }
    weights
}

/// Adds small splats to a band. Rows below a support are read and written, but do not change.
#[inline(always)]
fn draw_small<I: Isa, const K: usize>(
    splats: &[Splat; K],
    band: &mut [f32],
    first_row: usize,
    stride: usize,
) {
    let at = first_pixels(splats, first_row, stride, band.len());
    let mut now = Small::<I::F32, K>::new(splats, weights(splats));
    let mut down = 0;
    for row in 0..max_height(splats) {
        for k in 0..K {
            // SAFETY: `first_pixels` checks that SMALL rows lie within the band, and there are no more.
            let pixels = unsafe { band.get_unchecked_mut(at[k] + down..at[k] + down + LANES) };
            (I::F32::load(pixels) + now.values[k]).store(pixels);
        }
        now.step(splats, row);
        down += stride;
    }
}

/// [`draw_small`] for supports that lie partly outside the band.
#[inline(always)]
fn draw_small_clipped<I: Isa, const K: usize>(
    splats: &[Splat; K],
    band: &mut [f32],
    first_row: usize,
    stride: usize,
) {
    let last_row = first_row + band.len() / stride;
    let mut now = Small::<I::F32, K>::new(splats, weights(splats));
    for row in 0..max_height(splats) {
        for (splat, value) in splats.iter().zip(now.values) {
            let image_row = splat.y0() + row;
            if row < splat.height() && (first_row..last_row).contains(&image_row) {
                let pixels = &mut band[(image_row - first_row) * stride + splat.x0()..];
                (I::F32::load(pixels) + value).store(pixels);
            }
        }
        now.step(splats, row);
    }
}

/// Adds `rows` of a splat to `pixels`, which start at the first column of its support and the first of these rows. `WHOLE`: all
/// rows of the support.
#[inline(always)]
fn draw_stepped<I: Isa, const WHOLE: bool>(
    splat: Splat,
    pixels: &mut [f32],
    stride: usize,
    rows: Range<usize>,
) {
    let width = splat.width();
    let mut column = 0;
    while column + LANES < width {
        draw_strip::<I::Wide, WHOLE>(splat, column, &mut pixels[column..], stride, &rows);
        column += 2 * LANES;
    }
    if column < width {
        draw_strip::<I::F32, WHOLE>(splat, column, &mut pixels[column..], stride, &rows);
    }
}

#[inline(always)]
fn draw_strip<V: Vector<Scalar = f32>, const WHOLE: bool>(
    splat: Splat,
    column: usize,
    pixels: &mut [f32],
    stride: usize,
    rows: &Range<usize>,
) {
    let strip = Strip::<V>::new(splat, column, splat.weight());
    // Checks the bounds once, for the last row.
    let end = (rows.len() - 1) * stride + V::LEN;
    let mut target = Target::<WHOLE> { pixels: &mut pixels[..end], stride, rows };
    let stretches = splat.stretches();
    for k in 0..stretches {
        let stretch = splat.stretch(k, stretches);
        let (value, mut recurrence) = strip.start(splat, &stretch);
        let middle = stretch.middle();
        target.add(middle, value);
        for k in 1..stretch.half {
            target.add(middle - k, recurrence.above);
            target.add(middle + k, recurrence.below);
            recurrence.step();
        }
        if stretch.half > 0 {
            target.add(stretch.first, recurrence.above);
            target.add(stretch.last(), recurrence.below * V::splat(stretch.odd as f32));
        }
    }
}

/// The pixels of a strip: from its first column and the first of `rows` on. `WHOLE`: all rows of the support.
struct Target<'a, const WHOLE: bool> {
    pixels: &'a mut [f32],
    stride: usize,
    rows: &'a Range<usize>,
}

impl<const WHOLE: bool> Target<'_, WHOLE> {
    /// Adds to a row of the support, if it is one of `rows`.
    #[inline(always)]
    fn add<V: Vector<Scalar = f32>>(&mut self, row: usize, value: V) {
        if WHOLE || self.rows.contains(&row) {
            let first = if WHOLE { 0 } else { self.rows.start };
            let pixels = &mut self.pixels[(row - first) * self.stride..][..V::LEN];
            (V::load(pixels) + value).store(pixels);
        }
    }
}
