//! Pixels to moments.

use super::Canvas;
use super::fine::whitened_moments;
use super::small::{Small, all_small, all_within, first_pixels, max_height};
use super::strip::{INDICES, SQUARES, Splat, Strip, group};
use crate::render::cpu::project::{SMALL, SplatBlock, ViewMoments, kind};
use crate::simd::{Isa, LANES, Vector, WIDE};

/// Moments of 1, x, k, x^2, x k, k^2 of a splat, a lane per column: x from the centre of the splat, k from its [`origin`].
type Raw<V> = [V; 6];

/// Middle of most small supports, in columns and rows from the first. Moments about it have small terms.
const MIDDLE: f32 = 2.5;

/// Columns and rows of small supports relative to [`MIDDLE`], and their squares.
const FROM_MIDDLE: [f32; SMALL] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5];
const FROM_MIDDLE_SQUARED: [f32; SMALL] = [6.25, 2.25, 0.25, 0.25, 2.25, 6.25, 12.25, 20.25];

/// The row of k = 0 relative to the centre of the splat.
#[inline(always)]
fn origin(splat: Splat) -> f32 {
    splat.dy() + if splat.kind() == kind::SMALL { MIDDLE } else { 0.0 }
}

/// [`super::moments()`].
#[inline(always)]
pub(super) fn moments<I: Isa>(splats: &[SplatBlock], g: &Canvas, view_moments: &mut [ViewMoments]) {
    assert_eq!(splats.len(), view_moments.len());
    for (block, view_moments) in splats.iter().zip(view_moments) {
        let small = all_small::<LANES>(block, 0) && all_within::<LANES>(block, 0, 0, g.box_size);
        let (origin, [s0, sx, sk, sxx, sxk, skk]) =
            if small { block_small::<I>(block, g) } else { block_any::<I>(block, g) };
        // From k to y.
        let sy = origin.mul_add(s0, sk);
        let sxy = origin.mul_add(sx, sxk);
        let syy = origin.mul_add(sk + sy, skk);
        // From raw to whitened moments.
        let ViewMoments { whitening, moments } = view_moments;
        let [w0, w1, w2] = whitening;
        let w0 = I::narrow(I::F64::load(w0));
        let w1 = I::narrow(I::F64::load(w1));
        let w2 = I::narrow(I::F64::load(w2));
        let (xp, yp) = (w0 * sxx + w1 * sxy, w0 * sxy + w1 * syy);
        s0.store(&mut moments[0]);
        (w0 * sx + w1 * sy).store(&mut moments[1]);
        (w2 * sy).store(&mut moments[2]);
        (w0 * xp + w1 * yp).store(&mut moments[3]);
        (w2 * yp).store(&mut moments[4]);
        (w2 * w2 * syy).store(&mut moments[5]);
        for lane in 0..LANES {
            let splat = Splat::new(block, lane);
            if splat.kind() == kind::FINE {
                let sums = whitened_moments(splat, g, whitening.map(|of| of[lane]));
                for k in 0..6 {
                    moments[k][lane] = sums[k];
                }
            }
        }
    }
}

/// Origins and moments of a block of small splats, a lane per splat.
#[inline(always)]
fn block_small<I: Isa>(block: &SplatBlock, g: &Canvas) -> (I::F32, Raw<I::F32>) {
    let mut rows = [[I::F32::splat(0.0); LANES]; 3];
    // As many splats side by side as the registers hold.
    if I::REGISTERS < 32 {
        for lane in (0..LANES).step_by(2) {
            small_rows::<I, 2>(block, lane, g, &mut rows);
        }
    } else {
        for lane in (0..LANES).step_by(4) {
            small_rows::<I, 4>(block, lane, g, &mut rows);
        }
    }
    // Sum over the columns, for all splats at once.
    let [r0, r1, r2] = [I::transpose(&rows[0]), I::transpose(&rows[1]), I::transpose(&rows[2])];
    let zero = I::F32::splat(0.0);
    let (mut s0, mut s1, mut s2) = (zero, zero, zero);
    let (mut sk, mut s1k, mut skk) = (zero, zero, zero);
    for i in 0..LANES {
        let (first, second) = (I::F32::splat(FROM_MIDDLE[i]), I::F32::splat(FROM_MIDDLE_SQUARED[i]));
        s0 += r0[i];
        s1 = r0[i].mul_add(first, s1);
        s2 = r0[i].mul_add(second, s2);
        sk += r1[i];
        s1k = r1[i].mul_add(first, s1k);
        skk += r2[i];
    }
    // To x, from the middle column.
    let x = I::F32::load(&block.dx) + I::F32::splat(MIDDLE);
    let sx = x.mul_add(s0, s1);
    let moments = [s0, sx, sk, x.mul_add(sx + s1, s2), x.mul_add(sk, s1k), skk];
    (I::F32::load(&block.dy) + I::F32::splat(MIDDLE), moments)
}

/// Moments of 1, k and k^2 over the rows of the small splats `lane..lane + K`, a lane per column.
#[inline(always)]
fn small_rows<I: Isa, const K: usize>(
    block: &SplatBlock,
    lane: usize,
    g: &Canvas,
    rows: &mut [[I::F32; LANES]; 3],
) {
    let splats = group::<K>(block, lane);
    let at = first_pixels(&splats, 0, g.stride, g.pixels.len());
    let mut norms = [0.0; K];
    for k in 0..K {
        norms[k] = splats[k].norm();
    }
    let mut now = Small::<I::F32, K>::new(&splats, norms);
    let zero = [I::F32::splat(0.0); K];
    let (mut r0, mut r1, mut r2) = (zero, zero, zero);
    let mut down = 0;
    for row in 0..max_height(&splats) {
        for k in 0..K {
            // SAFETY: `first_pixels` checks that SMALL rows lie within the image, and there are no more.
            let pixels = unsafe { g.pixels.get_unchecked(at[k] + down..at[k] + down + LANES) };
            add_row(now.values[k] * I::F32::load(pixels), row, [&mut r0[k], &mut r1[k], &mut r2[k]]);
        }
        now.step(&splats, row);
        down += g.stride;
    }
    for k in 0..K {
        let lane = (lane + k) % LANES;
        (rows[0][lane], rows[1][lane], rows[2][lane]) = (r0[k], r1[k], r2[k]);
    }
}

/// Origins and moments of a block of splats, a lane per splat; zero for splats without the row recurrence.
#[inline(always)]
fn block_any<I: Isa>(block: &SplatBlock, g: &Canvas) -> (I::F32, Raw<I::F32>) {
    let zero = I::F32::splat(0.0);
    let mut origins = [0.0; LANES];
    let mut totals = [[zero; LANES]; 6];
    for lane in 0..LANES {
        let splat = Splat::new(block, lane);
        let mut sums = [zero; 6];
        origins[lane] = origin(splat);
        match splat.kind() {
            kind::SMALL => small_moments::<I>(splat, g, &mut sums),
            kind::STEPPED => stepped_moments::<I>(splat, g, &mut sums),
            _ => {}
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            total[lane] = sum;
        }
    }
    let [s0, sx, sk] = [I::row_sums(&totals[0]), I::row_sums(&totals[1]), I::row_sums(&totals[2])];
    let [sxx, sxk, skk] = [I::row_sums(&totals[3]), I::row_sums(&totals[4]), I::row_sums(&totals[5])];
    (I::F32::load(&origins), [s0, sx, sk, sxx, sxk, skk])
}

/// Adds the moments of a small splat.
#[inline(always)]
fn small_moments<I: Isa>(splat: Splat, g: &Canvas, sums: &mut Raw<I::F32>) {
    let mut now = Small::<I::F32, 1>::new(&[splat], [splat.norm()]);
    let zero = I::F32::splat(0.0);
    let (mut r0, mut r1, mut r2) = (zero, zero, zero);
    for row in 0..splat.height() {
        let pixels = &g.pixels[(splat.y0() + row) * g.stride + splat.x0()..];
        add_row(now.values[0] * I::F32::load(pixels), row, [&mut r0, &mut r1, &mut r2]);
        now.step(&[splat], row);
    }
    add_columns::<I>(splat, 0, [r0, r1, r2], sums);
}

/// Adds row `row` of a small support.
#[inline(always)]
fn add_row<V: Vector<Scalar = f32>>(w: V, row: usize, [r0, r1, r2]: [&mut V; 3]) {
    *r0 += w;
    *r1 = w.mul_add(V::splat(FROM_MIDDLE[row % SMALL]), *r1);
    *r2 = w.mul_add(V::splat(FROM_MIDDLE_SQUARED[row % SMALL]), *r2);
}

/// Adds the moments of a splat of any size.
#[inline(always)]
fn stepped_moments<I: Isa>(splat: Splat, g: &Canvas, sums: &mut Raw<I::F32>) {
    let width = splat.width();
    let pixels = &g.pixels[splat.y0() * g.stride + splat.x0()..];
    let mut column = 0;
    while column + LANES < width {
        let [r0, r1, r2] = strip_moments::<I::Wide>(splat, column, &pixels[column..], g.stride).map(I::split);
        add_columns::<I>(splat, column, [r0[0], r1[0], r2[0]], sums);
        add_columns::<I>(splat, column + LANES, [r0[1], r1[1], r2[1]], sums);
        column += 2 * LANES;
    }
    if column < width {
        let rows = strip_moments::<I::F32>(splat, column, &pixels[column..], g.stride);
        add_columns::<I>(splat, column, rows, sums);
    }
}

/// Moments of 1, k and k^2 over the rows of the strip at column `column`, where `pixels` start.
#[inline(always)]
fn strip_moments<V: Vector<Scalar = f32>>(
    splat: Splat,
    column: usize,
    pixels: &[f32],
    stride: usize,
) -> [V; 3] {
    let strip = Strip::<V>::new(splat, column, splat.norm());
    let mut sums = [V::splat(0.0); 3];
    let stretches = splat.stretches();
    for k in 0..stretches {
        let stretch = splat.stretch(k, stretches);
        let (value, mut recurrence) = strip.start(splat, &stretch);
        let middle = stretch.middle();
        let mut own = [value * row(pixels, stride, middle), V::splat(0.0), V::splat(0.0)];
        for k in 1..stretch.half {
            let above = recurrence.above * row(pixels, stride, middle - k);
            let below = recurrence.below * row(pixels, stride, middle + k);
            add_rows(above, below, k, &mut own);
            recurrence.step();
        }
        if stretch.half > 0 {
            let above = recurrence.above * row(pixels, stride, stretch.first);
            let below = recurrence.below * row(pixels, stride, stretch.last()) * V::splat(stretch.odd as f32);
            add_rows(above, below, stretch.half, &mut own);
        }
        if stretches == 1 {
            return own;
        }
        let off = V::splat(stretch.off);
        let [r0, r1, r2] = own;
        let first = off.mul_add(r0, r1);
        sums[0] += r0;
        sums[1] += first;
        sums[2] += off.mul_add(r1 + first, r2);
    }
    sums
}

/// A row of pixels.
#[inline(always)]
fn row<V: Vector<Scalar = f32>>(pixels: &[f32], stride: usize, row: usize) -> V {
    V::load(&pixels[row * stride..][..V::LEN])
}

/// Adds the rows `k` above the middle and below it.
#[inline(always)]
fn add_rows<V: Vector<Scalar = f32>>(above: V, below: V, k: usize, [r0, r1, r2]: &mut [V; 3]) {
    let both = above + below;
    *r0 += both;
    *r1 = (below - above).mul_add(V::splat(INDICES[k % WIDE]), *r1);
    *r2 = both.mul_add(V::splat(SQUARES[k % WIDE]), *r2);
}

/// Adds the moments of columns from `column` on.
#[inline(always)]
fn add_columns<I: Isa>(splat: Splat, column: usize, [r0, r1, r2]: [I::F32; 3], sums: &mut Raw<I::F32>) {
    let [s0, sx, sk, sxx, sxk, skk] = sums;
    let dx = I::F32::load(&INDICES) + I::F32::splat(splat.dx() + column as f32);
    let r0x = r0 * dx;
    *s0 += r0;
    *sx += r0x;
    *sk += r1;
    *sxx = r0x.mul_add(dx, *sxx);
    *sxk = r1.mul_add(dx, *sxk);
    *skk += r2;
}
