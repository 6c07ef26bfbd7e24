//! Splats to pixels, and pixels to moments (METHOD.md sections 3 and 5).
//!
//! A splat's support is walked in strips of eight columns, row by row. From one row to the next a Gaussian changes by a
//! factor that itself changes by a constant factor, so a strip costs two exponentials and then two multiplications a row:
//!   G(y+1) = G(y) U(y),   U(y+1) = U(y) exp(-c),   U(y) = exp(-(b dx + c dy + c/2)).
//! Both are evaluated anew at the support's first row and at every image row divisible by [`ANCHOR`], which bounds the
//! rounding error (below 3e-6 relative) and makes the values independent of how the image is cut into bands.

use super::project::Splat;
use super::simd::{LANES, Lanes, exp, vectorize};

/// Image rows between two exact evaluations.
pub const ANCHOR: usize = 8;

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
    /// Adds all splats to a band of an image: `band` are its rows from `first_row` (a multiple of [`ANCHOR`]), `stride` apart.
    pub fn draw(splats: &[Splat], band: &mut [f32], first_row: usize, stride: usize) = draw_lanes
}

vectorize! {
    /// The moments S0, S1x, S1y, S2xx, S2xy, S2yy of each splat over the gradient image `g` (distances in pixels).
    pub fn moments(splats: &[Splat], g: &Canvas, out: [&mut [f32]; 6]) = moments_lanes
}

/// The columns of a strip: their distances from the centre, and which of them belong to the support.
#[inline(always)]
fn strip_columns(splat: &Splat, strip: usize) -> (Lanes<f32>, Lanes<f32>) {
    let first = strip * LANES;
    let left = usize::from(splat.width) - first;
    let mut dx = [0.0f32; LANES];
    let mut inside = [0.0f32; LANES];
    for lane in 0..LANES {
        dx[lane] = splat.dx + (first + lane) as f32;
        inside[lane] = if lane < left { 1.0 } else { 0.0 };
    }
    (Lanes(dx), Lanes(inside))
}

/// The values of a strip in successive rows.
struct Walk {
    /// -a/2 dx^2 and -b dx of each column, and -c/2.
    quadratic: Lanes<f32>,
    mixed: Lanes<f32>,
    half_c: f32,
    scale: Lanes<f32>,
    decay: Lanes<f32>,
    value: Lanes<f32>,
    ratio: Lanes<f32>,
}

impl Walk {
    #[inline(always)]
    fn new(splat: &Splat, dx: Lanes<f32>, scale: Lanes<f32>) -> Self {
        let [a, b, c] = splat.conic;
        Self {
            quadratic: dx * dx * Lanes::<f32>::splat(-0.5 * a),
            mixed: dx * Lanes::<f32>::splat(-b),
            half_c: -0.5 * c,
            scale,
            decay: Lanes::<f32>::splat(splat.decay),
            value: Lanes::<f32>::splat(0.0),
            ratio: Lanes::<f32>::splat(0.0),
        }
    }

    /// Evaluates a row exactly.
    #[inline(always)]
    fn evaluate<const FMA: bool>(&mut self, dy: f32) {
        let y = Lanes::<f32>::splat(dy);
        let exponent =
            self.mixed.times_plus::<FMA>(y, self.quadratic) + Lanes::<f32>::splat(self.half_c * dy * dy);
        self.value = exp::<FMA>(exponent) * self.scale;
    }

    /// Evaluates a row exactly, and the ratio of the next row to it.
    #[inline(always)]
    fn anchor<const FMA: bool>(&mut self, dy: f32) {
        self.evaluate::<FMA>(dy);
        self.ratio = exp::<FMA>(self.mixed + Lanes::<f32>::splat(self.half_c * (2.0 * dy + 1.0)));
    }

    #[inline(always)]
    fn step(&mut self) {
        self.value = self.value * self.ratio;
        self.ratio = self.ratio * self.decay;
    }
}

/// Calls `visit(row, dy, values)` for the rows `from..to` of a strip, counted in the image.
#[inline(always)]
fn walk_rows<const FMA: bool>(
    splat: &Splat,
    strip: usize,
    scale: f32,
    from: usize,
    to: usize,
    mut visit: impl FnMut(usize, f32, Lanes<f32>),
) {
    let (dx, inside) = strip_columns(splat, strip);
    let mut walk = Walk::new(splat, dx, inside * Lanes::<f32>::splat(scale));
    let y0 = usize::from(splat.y0);
    if splat.direct {
        for row in from..to {
            let dy = splat.dy + (row - y0) as f32;
            walk.evaluate::<FMA>(dy);
            visit(row, dy, walk.value);
        }
        return;
    }
    let mut row = from;
    while row < to {
        let end = to.min((row / ANCHOR + 1) * ANCHOR);
        walk.anchor::<FMA>(splat.dy + (row - y0) as f32);
        while row < end {
            visit(row, splat.dy + (row - y0) as f32, walk.value);
            walk.step();
            row += 1;
        }
    }
}

#[inline(always)]
fn draw_lanes<const FMA: bool>(splats: &[Splat], band: &mut [f32], first_row: usize, stride: usize) {
    let last_row = first_row + band.len() / stride;
    for splat in splats {
        let from = usize::from(splat.y0).max(first_row);
        let to = (usize::from(splat.y0) + usize::from(splat.height)).min(last_row);
        if from >= to {
            continue;
        }
        for strip in 0..usize::from(splat.width).div_ceil(LANES) {
            let column = usize::from(splat.x0) + strip * LANES;
            walk_rows::<FMA>(splat, strip, splat.weight, from, to, |row, _, values| {
                let at = (row - first_row) * stride + column;
                let pixels = &mut band[at..at + LANES];
                (Lanes::<f32>::load(pixels) + values).store(pixels);
            });
        }
    }
}

#[inline(always)]
fn moments_lanes<const FMA: bool>(splats: &[Splat], g: &Canvas, out: [&mut [f32]; 6]) {
    for (i, splat) in splats.iter().enumerate() {
        let zero = Lanes::<f32>::splat(0.0);
        // Per column, sums over the rows of w, w dy and w dy^2 with w = g G; then the columns' dx come in.
        let mut total = [zero; 6];
        let from = usize::from(splat.y0);
        let to = from + usize::from(splat.height);
        for strip in 0..usize::from(splat.width).div_ceil(LANES) {
            let column = usize::from(splat.x0) + strip * LANES;
            let (mut r0, mut r1, mut r2) = (zero, zero, zero);
            let (dx, _) = strip_columns(splat, strip);
            walk_rows::<FMA>(splat, strip, 1.0, from, to, |row, dy, values| {
                let at = row * g.stride + column;
                let w = values * Lanes::<f32>::load(&g.pixels[at..at + LANES]);
                let dy = Lanes::<f32>::splat(dy);
                r0 += w;
                let wy = w * dy;
                r1 += wy;
                r2 = wy.times_plus::<FMA>(dy, r2);
            });
            let r0x = r0 * dx;
            total[0] += r0;
            total[1] += r0x;
            total[2] += r1;
            total[3] = r0x.times_plus::<FMA>(dx, total[3]);
            total[4] = r1.times_plus::<FMA>(dx, total[4]);
            total[5] += r2;
        }
        for k in 0..6 {
            out[k][i] = total[k].sum() * splat.norm;
        }
    }
}
