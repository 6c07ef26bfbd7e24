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

/// A strip of a splat, on its way down the rows.
struct Strip {
    /// Distances of the columns from the centre.
    dx: Lanes<f32>,
    /// -a/2 dx^2 and -b dx of each column, and -c/2.
    quadratic: Lanes<f32>,
    mixed: Lanes<f32>,
    half_c: f32,
    /// Zero where a column lies outside the support.
    scale: Lanes<f32>,
    decay: Lanes<f32>,
    direct: bool,
    value: Lanes<f32>,
    ratio: Lanes<f32>,
}

impl Strip {
    #[inline(always)]
    fn new(splat: &Splat, strip: usize, scale: f32) -> Self {
        let first = strip * LANES;
        let left = usize::from(splat.width) - first;
        let (mut dx, mut inside) = ([0.0f32; LANES], [0.0f32; LANES]);
        for lane in 0..LANES {
            dx[lane] = splat.dx + (first + lane) as f32;
            inside[lane] = if lane < left { scale } else { 0.0 };
        }
        let dx = Lanes(dx);
        let [a, b, c] = splat.conic;
        Self {
            dx,
            quadratic: dx * dx * Lanes::<f32>::splat(-0.5 * a),
            mixed: dx * Lanes::<f32>::splat(-b),
            half_c: -0.5 * c,
            scale: Lanes(inside),
            decay: Lanes::<f32>::splat(splat.decay),
            direct: splat.direct,
            value: Lanes::<f32>::splat(0.0),
            ratio: Lanes::<f32>::splat(0.0),
        }
    }

    /// Goes to the row at distance `dy` of the centre: exactly where `exact`, else by a step from the row before.
    #[inline(always)]
    fn go<const FMA: bool>(&mut self, dy: f32, exact: bool) {
        if exact || self.direct {
            let y = Lanes::<f32>::splat(dy);
            let exponent =
                self.mixed.times_plus::<FMA>(y, self.quadratic) + Lanes::<f32>::splat(self.half_c * dy * dy);
            self.value = exp::<FMA>(exponent) * self.scale;
            if !self.direct {
                let next = Lanes::<f32>::splat(self.half_c * (2.0 * dy + 1.0));
                self.ratio = exp::<FMA>(self.mixed + next);
            }
        } else {
            self.value = self.value * self.ratio;
            self.ratio = self.ratio * self.decay;
        }
    }
}

#[inline(always)]
fn draw_lanes<const FMA: bool>(splats: &[Splat], band: &mut [f32], first_row: usize, stride: usize) {
    let last_row = first_row + band.len() / stride;
    for splat in splats {
        let y0 = usize::from(splat.y0);
        let from = y0.max(first_row);
        let to = (y0 + usize::from(splat.height)).min(last_row);
        if from >= to {
            continue;
        }
        for strip in 0..usize::from(splat.width).div_ceil(LANES) {
            let mut walk = Strip::new(splat, strip, splat.weight);
            let mut at = (from - first_row) * stride + usize::from(splat.x0) + strip * LANES;
            for row in from..to {
                walk.go::<FMA>(splat.dy + (row - y0) as f32, row == from || row % ANCHOR == 0);
                let pixels = &mut band[at..at + LANES];
                (Lanes::<f32>::load(pixels) + walk.value).store(pixels);
                at += stride;
            }
        }
    }
}

#[inline(always)]
fn moments_lanes<const FMA: bool>(splats: &[Splat], g: &Canvas, out: [&mut [f32]; 6]) {
    let zero = Lanes::<f32>::splat(0.0);
    for (i, splat) in splats.iter().enumerate() {
        // Per column, sums over the rows of w, w dy and w dy^2 with w = g G; then the columns' dx come in.
        let mut total = [zero; 6];
        let y0 = usize::from(splat.y0);
        for strip in 0..usize::from(splat.width).div_ceil(LANES) {
            let mut walk = Strip::new(splat, strip, 1.0);
            let mut at = y0 * g.stride + usize::from(splat.x0) + strip * LANES;
            let (mut r0, mut r1, mut r2) = (zero, zero, zero);
            for k in 0..usize::from(splat.height) {
                let dy = splat.dy + k as f32;
                walk.go::<FMA>(dy, k == 0 || (y0 + k).is_multiple_of(ANCHOR));
                let w = walk.value * Lanes::<f32>::load(&g.pixels[at..at + LANES]);
                let dy = Lanes::<f32>::splat(dy);
                r0 += w;
                let wy = w * dy;
                r1 += wy;
                r2 = wy.times_plus::<FMA>(dy, r2);
                at += g.stride;
            }
            let r0x = r0 * walk.dx;
            total[0] += r0;
            total[1] += r0x;
            total[2] += r1;
            total[3] = r0x.times_plus::<FMA>(walk.dx, total[3]);
            total[4] = r1.times_plus::<FMA>(walk.dx, total[4]);
            total[5] += r2;
        }
        for k in 0..6 {
            out[k][i] = total[k].sum() * splat.norm;
        }
    }
}
