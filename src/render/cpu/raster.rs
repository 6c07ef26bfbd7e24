//! Splats to pixels, and pixels to moments (METHOD.md sections 3 and 5).
//!
//! A splat's support is walked in strips of eight columns, row by row. From one row to the next a Gaussian changes by a
//! factor that itself changes by a constant factor, so a strip costs two exponentials and then two multiplications a row:
//!   G(y+1) = G(y) U(y),   U(y+1) = U(y) exp(-c),   U(y) = exp(-(b dx + c dy + c/2)).
//! Both are evaluated anew at every eighth row of the support, which bounds the rounding error (below 3e-6
//! relative); a band of an image starts on its rows from the same places, so that values do not depend on the bands.

use std::ops::Range;

use super::project::Splat;
use crate::simd::{Isa, LANES, Vector, exp2, vectorize};

/// Rows of a support from one exact evaluation to the next.
const STRETCH: usize = 8;

/// An image whose rows can be read and written past their end by a whole strip.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// Rows of [`Canvas::stride`] values; those past the box are ignored (and kept zero in gradients).
    pub pixels: Vec<f32>,
    /// Box size in pixels.
    pub box_size: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

impl Canvas {
    /// A black image of `box_size` x `box_size` pixels.
    pub fn new(box_size: usize) -> Self {
        let stride = box_size + LANES;
        Self { pixels: vec![0.0; box_size * stride], box_size, stride }
    }

    /// Its rows, without what lies past the box.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.pixels.chunks_exact(self.stride).map(|row| &row[..self.box_size])
    }
}

vectorize! {
    /// Adds all splats to a band of an image: `band` are its rows from `first_row`, `stride` apart (`whitening`: see
    /// [`super::project::project`]).
    pub fn draw(splats: &[Splat], whitening: [&[f64]; 3], band: &mut [f32], first_row: usize, stride: usize) = draw_lanes
}

vectorize! {
    /// Sums over the support of each splat of g G times 1, p, q, p^2, p q, q^2, with `g` the gradient image and p, q the
    /// whitened distances from the centre (`whitening`: see [`super::project::project`]); all planes of the same length.
    pub fn moments(splats: &[Splat], whitening: [&[f64]; 3], g: &Canvas, out: [&mut [f32]; 6]) = moments_lanes
}

/// Eight columns of a splat.
#[derive(Clone, Copy)]
struct Strip<V> {
    /// Distances of the columns from the centre.
    dx: V,
    /// `form[0] dx`.
    u: V,
    shear: f32,
    fall: f32,
    /// What values are multiplied by; zero where a column lies outside the support.
    scale: V,
}

/// A row of a strip, while the strip is walked.
#[derive(Clone, Copy)]
struct Row<V> {
    value: V,
    ratio: V,
}

impl<V: Vector<Scalar = f32>> Row<V> {
    /// To the next row, whose ratio is smaller by `decay`.
    #[inline(always)]
    fn step(&mut self, decay: V) {
        self.value = self.value * self.ratio;
        self.ratio = self.ratio * decay;
    }
}

impl<V: Vector<Scalar = f32>> Strip<V> {
    #[inline(always)]
    fn new(splat: &Splat, strip: usize, scale: f32) -> Self {
        const COLUMNS: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        // Eight of these from the right place: ones up to the last column of the support, then zeros.
        const INSIDE: [f32; 2 * LANES] =
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let first = strip * LANES;
        let left = (usize::from(splat.width) - first).min(LANES);
        let dx = V::splat(splat.dx + first as f32) + V::from_array(&COLUMNS);
        let [form_x, shear, fall] = splat.form;
        Self {
            dx,
            u: dx * V::splat(form_x),
            shear,
            fall,
            scale: V::load(&INSIDE[LANES - left..]) * V::splat(scale),
        }
    }

    /// Strips `strip..strip + K`. (Loops, since closures are not compiled for the processor that their caller is.)
    #[inline(always)]
    fn side_by_side<const K: usize>(splat: &Splat, strip: usize, scale: f32) -> [Self; K] {
        let mut strips = [Self::new(splat, strip, scale); K];
        for (k, other) in strips.iter_mut().enumerate().skip(1) {
            *other = Self::new(splat, strip + k, scale);
        }
        strips
    }

    /// Their row at distance `dy` of the centre.
    #[inline(always)]
    fn rows<const K: usize>(strips: &[Self; K], dy: f32) -> [Row<V>; K] {
        let mut rows = [Row { value: strips[0].value(dy), ratio: strips[0].ratio(dy) }; K];
        for k in 1..K {
            rows[k] = Row { value: strips[k].value(dy), ratio: strips[k].ratio(dy) };
        }
        rows
    }

    /// The Gaussian in the row at distance `dy` of the centre.
    #[inline(always)]
    fn value(&self, dy: f32) -> V {
        let u = self.u + V::splat(self.shear * dy);
        exp2((-u).times_plus(u, V::splat(-self.fall * dy * dy))) * self.scale
    }

    /// Its ratio from that row to the next: u grows by the shear.
    #[inline(always)]
    fn ratio(&self, dy: f32) -> V {
        let constant = -(self.shear * self.shear + self.fall) * (2.0 * dy + 1.0);
        exp2(self.u.times_plus(V::splat(-2.0 * self.shear), V::splat(constant)))
    }
}

#[inline(always)]
fn draw_lanes<I: Isa>(
    splats: &[Splat],
    whitening: [&[f64]; 3],
    band: &mut [f32],
    first_row: usize,
    stride: usize,
) {
    let last_row = first_row + band.len() / stride;
    for (index, splat) in splats.iter().enumerate() {
        let y0 = usize::from(splat.y0);
        // Rows of the support that lie in the band.
        let from = first_row.saturating_sub(y0);
        let to = usize::from(splat.height).min(last_row.saturating_sub(y0));
        if from >= to {
            continue;
        }
        if splat.fine {
            let rows = band[(y0 + from - first_row) * stride..].chunks_mut(stride).zip(from..to);
            draw_fine(splat, whitening.map(|plane| plane[index]), rows);
            continue;
        }
        let top = (y0 + from - first_row) * stride + usize::from(splat.x0);
        let strips = usize::from(splat.width).div_ceil(LANES);
        // Two strips side by side: what one waits for, the other computes.
        for strip in (0..strips - strips % 2).step_by(2) {
            draw_strips::<I, 2>(splat, strip, &mut band[top..], stride, from..to);
        }
        if strips % 2 > 0 {
            draw_strips::<I, 1>(splat, strips - 1, &mut band[top..], stride, from..to);
        }
    }
}

/// Adds strips `strip..strip + K` of a splat to `band`, which begins at its first column and the first of `rows`, the rows of
/// its support that are drawn.
#[inline(always)]
fn draw_strips<I: Isa, const K: usize>(
    splat: &Splat,
    strip: usize,
    band: &mut [f32],
    stride: usize,
    rows: Range<usize>,
) {
    let stretch = if splat.direct { 1 } else { STRETCH };
    let strips = Strip::<I::F32>::side_by_side::<K>(splat, strip, splat.weight);
    let decay = I::F32::splat(splat.decay);
    let mut at = strip * LANES;
    for start in (rows.start - rows.start % stretch..rows.end).step_by(stretch) {
        let dy = splat.dy + start as f32;
        let mut now = Strip::rows(&strips, dy);
        for _ in start..rows.start {
            for now in &mut now {
                now.step(decay);
            }
        }
        for _ in start.max(rows.start)..rows.end.min(start + stretch) {
            let pixels = &mut band[at..][..K * LANES];
            for k in 0..K {
                let pixels = &mut pixels[k * LANES..];
                (I::F32::load(pixels) + now[k].value).store(pixels);
                now[k].step(decay);
            }
            at += stride;
        }
    }
}

#[inline(always)]
fn moments_lanes<I: Isa>(splats: &[Splat], whitening: [&[f64]; 3], g: &Canvas, out: [&mut [f32]; 6]) {
    let zero = I::F32::splat(0.0);
    for (splats, at) in splats.chunks(LANES).zip((0..).step_by(LANES)) {
        let mut totals = [[zero; LANES]; 6];
        for (lane, splat) in splats.iter().enumerate() {
            let sums = raw_moments::<I>(splat, g);
            for k in 0..6 {
                totals[k][lane] = sums[k];
            }
        }
        // Of 1, x, y, x^2, x y, y^2; then of the whitened distances.
        let [s0, sx, sy] = [I::sums(totals[0]), I::sums(totals[1]), I::sums(totals[2])];
        let [sxx, sxy, syy] = [I::sums(totals[3]), I::sums(totals[4]), I::sums(totals[5])];
        let w0 = I::narrow(I::F64::load_padded(whitening[0], at, 0.0));
        let w1 = I::narrow(I::F64::load_padded(whitening[1], at, 0.0));
        let w2 = I::narrow(I::F64::load_padded(whitening[2], at, 0.0));
        let (xp, yp) = (w0 * sxx + w1 * sxy, w0 * sxy + w1 * syy);
        s0.store_cut(out[0], at);
        (w0 * sx + w1 * sy).store_cut(out[1], at);
        (w2 * sy).store_cut(out[2], at);
        (w0 * xp + w1 * yp).store_cut(out[3], at);
        (w2 * yp).store_cut(out[4], at);
        (w2 * w2 * syy).store_cut(out[5], at);
        for (lane, splat) in splats.iter().enumerate() {
            if splat.direct {
                let sums = whitened_moments(splat, g, whitening.map(|plane| plane[at + lane]));
                for k in 0..6 {
                    out[k][at + lane] = sums[k];
                }
            }
        }
    }
}

/// Per column, the moments of 1, x, y, x^2, x y, y^2 of a splat, in lanes; zero where it is `direct`.
#[inline(always)]
fn raw_moments<I: Isa>(splat: &Splat, g: &Canvas) -> [I::F32; 6] {
    let mut sums = [I::F32::splat(0.0); 6];
    if splat.direct {
        return sums;
    }
    let strips = usize::from(splat.width).div_ceil(LANES);
    for strip in (0..strips - strips % 2).step_by(2) {
        add_moments::<I, 2>(splat, strip, g, &mut sums);
    }
    if strips % 2 > 0 {
        add_moments::<I, 1>(splat, strips - 1, g, &mut sums);
    }
    sums
}

/// Adds those of strips `strip..strip + K`.
#[inline(always)]
fn add_moments<I: Isa, const K: usize>(splat: &Splat, strip: usize, g: &Canvas, sums: &mut [I::F32; 6]) {
    let zero = [I::F32::splat(0.0); K];
    let strips = Strip::<I::F32>::side_by_side::<K>(splat, strip, splat.norm);
    let decay = I::F32::splat(splat.decay);
    let height = usize::from(splat.height);
    let mut at = usize::from(splat.y0) * g.stride + usize::from(splat.x0) + strip * LANES;
    // Over the rows first, of 1, y and y^2; then the columns' x come in.
    let (mut r0, mut r1, mut r2) = (zero, zero, zero);
    for start in (0..height).step_by(STRETCH) {
        let dy = splat.dy + start as f32;
        let mut now = Strip::rows(&strips, dy);
        for row in start..height.min(start + STRETCH) {
            let dy = I::F32::splat(splat.dy + row as f32);
            let pixels = &g.pixels[at..][..K * LANES];
            for k in 0..K {
                let w = now[k].value * I::F32::load(&pixels[k * LANES..]);
                let wy = w * dy;
                r0[k] += w;
                r1[k] += wy;
                r2[k] = wy.times_plus(dy, r2[k]);
                now[k].step(decay);
            }
            at += g.stride;
        }
    }
    let [s0, sx, sy, sxx, sxy, syy] = sums;
    for k in 0..K {
        let dx = strips[k].dx;
        let r0x = r0[k] * dx;
        *s0 += r0[k];
        *sx += r0x;
        *sy += r1[k];
        *sxx = r0x.times_plus(dx, *sxx);
        *sxy = r1[k].times_plus(dx, *sxy);
        *syy += r2[k];
    }
}

/// Adds a thin splat to the given rows of its support, pixel by pixel in f64.
fn draw_fine<'a>(splat: &Splat, [w0, w1, w2]: [f64; 3], rows: impl Iterator<Item = (&'a mut [f32], usize)>) {
    let [dx, dy] = offsets(splat);
    for (row, k) in rows {
        let y = dy + k as f64;
        let q = w2 * y;
        let columns = &mut row[usize::from(splat.x0)..][..usize::from(splat.width)];
        for (pixel, k) in columns.iter_mut().zip(0u16..) {
            let p = w0 * (dx + f64::from(k)) + w1 * y;
            *pixel += (f64::from(splat.weight) * (-0.5 * (p * p + q * q)).exp()) as f32;
        }
    }
}

/// First column and row of the support minus the centre, in f64.
fn offsets(splat: &Splat) -> [f64; 2] {
    [f64::from(splat.dx) + f64::from(splat.low[0]), f64::from(splat.dy) + f64::from(splat.low[1])]
}

/// The whitened moments of a thin splat, pixel by pixel in f64: from its raw moments the small axis would be lost.
fn whitened_moments(splat: &Splat, g: &Canvas, [w0, w1, w2]: [f64; 3]) -> [f32; 6] {
    let mut sums = [0.0f64; 6];
    let [dx, dy] = offsets(splat);
    let rows = g.pixels.chunks_exact(g.stride).skip(usize::from(splat.y0)).take(usize::from(splat.height));
    for (row, k) in rows.zip(0u16..) {
        let y = dy + f64::from(k);
        let q = w2 * y;
        let columns = &row[usize::from(splat.x0)..][..usize::from(splat.width)];
        for (&value, k) in columns.iter().zip(0u16..) {
            let p = w0 * (dx + f64::from(k)) + w1 * y;
            let w = f64::from(value) * (-0.5 * (p * p + q * q)).exp();
            for (sum, power) in sums.iter_mut().zip([1.0, p, q, p * p, p * q, q * q]) {
                *sum += w * power;
            }
        }
    }
    sums.map(|sum| (sum * f64::from(splat.norm)) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::{Gmm, Shape};
    use crate::imaging::pose::rotation_from_quaternion;
    use crate::random::{Purpose, stream};
    use crate::render::cpu::activate::Activated;
    use crate::render::cpu::project::project;
    use crate::simd::Portable;

    fn assert_close(a: &[f32], b: &[f32]) {
        let size = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        assert!(size > 0.0);
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 2e-6 * size, "{a} {b}");
        }
    }

    #[test]
    fn every_set_of_instructions_draws_and_measures_the_same() {
        let (box_size, count) = (40, 203);
        let gmm = Gmm::random(count, Shape::Anisotropic, &mut stream(3, Purpose::Start, 1, 0));
        let mut gaussians = Activated::new(count);
        gaussians.update(&gmm);
        // Wide enough for two strips and two stretches.
        gaussians.covariance[0].iter_mut().for_each(|v| *v += 0.004);
        gaussians.covariance[3].iter_mut().for_each(|v| *v += 0.002);
        let mut splats = vec![Splat::default(); count];
        let mut whitening: [Vec<f64>; 3] = std::array::from_fn(|_| vec![0.0; count]);
        let [w0, w1, w2] = &mut whitening;
        let view = rotation_from_quaternion([0.3, -0.5, 0.7, 0.2]);
        project(&gaussians, 0, &view, box_size, 3.0, 0.0, &mut splats, [w0, w1, w2]);

        let (mut best, mut portable) = (Canvas::new(box_size), Canvas::new(box_size));
        let stride = best.stride;
        let planes = whitening.each_ref().map(|p| &p[..]);
        draw(&splats, planes, &mut best.pixels, 0, stride);
        draw_lanes::<Portable>(&splats, planes, &mut portable.pixels, 0, stride);
        assert_close(&best.pixels, &portable.pixels);

        let measure = |moments: &dyn Fn([&mut [f32]; 6])| {
            let mut planes: [Vec<f32>; 6] = std::array::from_fn(|_| vec![0.0; count]);
            moments(planes.each_mut().map(|p| &mut p[..]));
            planes
        };
        let whitening = whitening.each_ref().map(|p| &p[..]);
        let fast = measure(&|out| moments(&splats, whitening, &best, out));
        let plain = measure(&|out| moments_lanes::<Portable>(&splats, whitening, &best, out));
        for (fast, plain) in fast.iter().zip(&plain) {
            assert_close(fast, plain);
        }
    }
}
