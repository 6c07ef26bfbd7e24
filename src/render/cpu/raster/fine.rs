//! Splats for which the row recurrence is not accurate: pixel by pixel in f64.

use std::ops::Range;

use super::Canvas;
use super::strip::Splat;

/// Adds `rows` of a splat to `pixels`, which start at the first column of its support and the first of these rows.
pub(super) fn draw_fine(
    splat: Splat,
    [w0, w1, w2]: [f64; 3],
    pixels: &mut [f32],
    stride: usize,
    rows: Range<usize>,
) {
    let (dx, dy) = offsets(splat);
    for (row, k) in pixels.chunks_mut(stride).zip(rows) {
        let y = dy + k as f64;
        let q = w2 * y;
        for (pixel, k) in row[..splat.width()].iter_mut().zip(0u16..) {
            let p = w0 * (dx + f64::from(k)) + w1 * y;
            *pixel += (f64::from(splat.weight()) * (-0.5 * (p * p + q * q)).exp()) as f32;
        }
    }
}

/// First column and row of the support minus the centre, in f64.
fn offsets(splat: Splat) -> (f64, f64) {
    let middle = (splat.height() / 2) as f64;
    (
        f64::from(splat.dx()) + f64::from(splat.low_x()),
        f64::from(splat.dy()) + f64::from(splat.low_y()) - middle,
    )
}

/// Whitened moments of a splat. Raw moments would lose the short axis to rounding.
pub(super) fn whitened_moments(splat: Splat, g: &Canvas, [w0, w1, w2]: [f64; 3]) -> [f32; 6] {
    let mut sums = [0.0f64; 6];
    let (dx, dy) = offsets(splat);
    let rows = g.pixels.chunks_exact(g.stride).skip(splat.y0()).take(splat.height());
    for (row, k) in rows.zip(0u16..) {
        let y = dy + f64::from(k);
        let q = w2 * y;
        for (&value, k) in row[splat.x0()..][..splat.width()].iter().zip(0u16..) {
            let p = w0 * (dx + f64::from(k)) + w1 * y;
            let w = f64::from(value) * (-0.5 * (p * p + q * q)).exp();
            for (sum, power) in sums.iter_mut().zip([1.0, p, q, p * p, p * q, q * q]) {
                *sum += w * power;
            }
        }
    }
    sums.map(|sum| (sum * f64::from(splat.norm())) as f32)
}
