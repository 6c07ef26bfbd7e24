//! Covariances to splats, once per image (docs/method.md, section 3). In f64, which the determinant of a thin Gaussian needs.

use std::f64::consts::{LOG2_E, TAU};

use super::activate::GaussianBlock;
use crate::imaging::pose::Rotation;
use crate::render::Geometry;
use crate::simd::{Isa, LANES, Vector, vectorize};

/// Largest number of columns and rows of a small support.
pub const SMALL: usize = 8;

/// How a splat is evaluated on its pixels: an integer, so that it can be a lane of a vector.
pub mod kind {
    /// Not at all: the support contains no pixel.
    pub const HIDDEN: i32 = 0;
    /// By the row recurrence, in a support of at most [`super::SMALL`] columns and rows, and at least two rows.
    pub const SMALL: i32 = 1;
    /// By the row recurrence, in strips.
    pub const STEPPED: i32 = 2;
    /// Pixel by pixel in f64: a thin splat at an angle to the axes, whose terms are large and cancel, or one whose rows differ too
    /// much for the recurrence.
    pub const FINE: i32 = 3;
}

/// SIMD block of 8 splats; lengths in pixels. The exponent of 2 at (x, y) from a splat's centre is
/// `-u^2 - fall y^2`, where u grows by `slope` from column to column and by half of `twice_shear` from row to row.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct SplatBlock {
    /// One of [`kind`].
    pub kind: [i32; LANES],
    /// First column of the support.
    pub x0: [i32; LANES],
    /// First row of the support.
    pub y0: [i32; LANES],
    /// Columns of the support.
    pub width: [i32; LANES],
    /// Rows of the support.
    pub height: [i32; LANES],
    /// First column of the support minus the centre.
    pub dx: [f32; LANES],
    /// The base row minus the centre: the first of the support where it is small, else the middle one, `height / 2`.
    pub dy: [f32; LANES],
    /// Low-order part of `dx` (double-single).
    pub low_x: [f32; LANES],
    /// Low-order part of `dy`.
    pub low_y: [f32; LANES],
    /// u in the first column of the base row.
    pub u: [f32; LANES],
    /// Increment of u per column.
    pub slope: [f32; LANES],
    /// Twice the increment of u per row.
    pub twice_shear: [f32; LANES],
    /// Coefficient of -y^2 in the exponent at constant u.
    pub fall: [f32; LANES],
    /// Coefficient of -y^2 in the exponent at constant x.
    pub curvature: [f32; LANES],
    /// The exponent in the base row at u = 0.
    pub peak: [f32; LANES],
    /// Exponent of the ratio of the next row to the base row at u = 0.
    pub growth: [f32; LANES],
    /// Factor of the ratio of consecutive rows, per row: 2^(-2 `curvature`).
    pub decay: [f32; LANES],
    /// The same for each row of a small support; 0 where the next row is outside.
    pub decays: [[f32; LANES]; SMALL],
    /// Normalisation 1 / (2 pi |Sigma2|^(1/2)), in box units.
    pub norm: [f32; LANES],
    /// Amplitude times normalisation.
    pub weight: [f32; LANES],
}

impl SplatBlock {
    /// Pixels in the supports of all block.
    pub fn pixels(&self) -> u64 {
        let view_moments = (0..LANES).filter(|&lane| self.kind[lane] != kind::HIDDEN);
        view_moments.map(|lane| self.width[lane] as u64 * self.height[lane] as u64).sum()
    }
}

/// SIMD block: what the gradient of 8 Gaussians needs from one image.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub struct ViewMoments {
    /// The whitening (w0, w1, w2): p = w0 x + w1 y and q = w2 y, where (x, y) is the distance from the centre in pixels, have
    /// unit variance. (The conic p^2 + q^2 is not stored: its terms are large and cancel for a thin splat.)
    pub whitening: [[f64; LANES]; 3],
    /// Sums over the support of a splat of g G times 1, p, q, p^2, p q, q^2, where g is the gradient image.
    pub moments: [[f32; LANES]; 6],
}

/// Largest terms of p for which f32 has an error below 5e-6 of the peak of a splat.
const LARGEST_COARSE: f64 = 32.0;

/// Largest exponent in a support for the row recurrence; f32 would underflow beyond.
const LARGEST_STEPPED_EXPONENT: f64 = 60.0;

/// Projects Gaussians into a view of pose `view`, with the origin `offset` (x, y) pixels from pixel floor(D/2): fills `splats` and the
/// whitening of `view_moments`.
///
/// # Panics
/// If the slices differ in length, or the grid has more than 65,535 points along an edge.
pub fn project(
    gaussians: &[GaussianBlock],
    view: &Rotation,
    offset: [f64; 2],
    geometry: &Geometry,
    splats: &mut [SplatBlock],
    view_moments: &mut [ViewMoments],
) {
    assert!(geometry.grid() <= usize::from(u16::MAX));
    assert!(gaussians.len() == splats.len() && gaussians.len() == view_moments.len());
    project_vector(gaussians, view, offset, geometry, splats, view_moments);
}

vectorize! {
    fn project_vector(
        gaussians: &[GaussianBlock],
        view: &Rotation,
        offset: [f64; 2],
        geometry: &Geometry,
        splats: &mut [SplatBlock],
        view_moments: &mut [ViewMoments],
    ) = project_lanes
}

/// Coefficients of Sigma (xx, xy, xz, yy, yz, zz) in entry (a, b) of P Sigma P^T, times `scale`. P is the first two rows of W.
fn coefficients(view: &Rotation, a: usize, b: usize, scale: f64) -> [f64; 6] {
    let (p, q) = (view[a], view[b]);
    [
        p[0] * q[0],
        p[0] * q[1] + p[1] * q[0],
        p[0] * q[2] + p[2] * q[0],
        p[1] * q[1],
        p[1] * q[2] + p[2] * q[1],
        p[2] * q[2],
    ]
    .map(|c| c * scale)
}

#[inline(always)]
fn dot<V: Vector<Scalar = f64>, const N: usize>(vectors: &[V; N], factors: &[f64; N], start: V) -> V {
    let mut sum = start;
    for k in 0..N {
        sum = vectors[k].mul_add(V::splat(factors[k]), sum);
    }
    sum
}

// Longer than 80 lines: the parts share so many values in registers that helpers would have to return a dozen each.
#[inline(always)]
fn project_lanes<I: Isa>(
    gaussians: &[GaussianBlock],
    view: &Rotation,
    offset: [f64; 2],
    geometry: &Geometry,
    splats: &mut [SplatBlock],
    view_moments: &mut [ViewMoments],
) {
    let &Geometry { cutoff, sampling, .. } = geometry;
    let (d, blur) = (geometry.grid() as f64, sampling.blur());
    let widening = I::F64::splat(blur * blur);
    let (zero, one) = (I::F64::splat(0.0), I::F64::splat(1.0));
    let centre = offset.map(|pixels| {
        I::F64::splat(geometry.origin() + pixels * (geometry.grid() as f64 / geometry.box_size as f64))
    });
    let last = I::F64::splat(d - 1.0);
    let reach = I::F64::splat(cutoff);
    // Over the support the exponent is at most cutoff^2 / (1 - |rho|).
    let largest_correlation = I::F64::splat(1.0 - cutoff * cutoff / LARGEST_STEPPED_EXPONENT);
    let scaled = [view[0].map(|w| w * d), view[1].map(|w| w * d)];
    let cxx = coefficients(view, 0, 0, d * d);
    let cxy = coefficients(view, 0, 1, d * d);
    let cyy = coefficients(view, 1, 1, d * d);

    for ((gaussians, splats), view_moments) in gaussians.iter().zip(splats).zip(view_moments) {
        let [mx, my, mz] = &gaussians.mean;
        let mean = [I::F64::load(mx), I::F64::load(my), I::F64::load(mz)];
        let [xx, xy, xz, yy, yz, zz] = &gaussians.covariance;
        let covariance = [
            I::F64::load(xx),
            I::F64::load(xy),
            I::F64::load(xz),
            I::F64::load(yy),
            I::F64::load(yz),
            I::F64::load(zz),
        ];
        let amplitude = I::F64::load(&gaussians.amplitude);
        let u = dot(&mean, &scaled[0], centre[0]);
        let v = dot(&mean, &scaled[1], centre[1]);
        let sxx = dot(&covariance, &cxx, widening);
        let sxy = dot(&covariance, &cxy, zero);
        let syy = dot(&covariance, &cyy, widening);
        let determinant = sxx * syy - sxy * sxy;
        let inverse = one / determinant;
        // 1 / sqrt(|Sigma2|)
        let inverse_root = inverse * determinant.sqrt();
        let norm = I::F64::splat(d * d / TAU) * inverse_root;
        let (deviation_x, deviation_y) = (sxx.sqrt(), syy.sqrt());
        let (half_width, half_height) = (reach * deviation_x, reach * deviation_y);
        let x0 = (u - half_width).ceil().max(zero);
        let y0 = (v - half_height).ceil().max(zero);
        let width = (u + half_width).floor().min(last) - x0 + one;
        let height = (v + half_height).floor().min(last) - y0 + one;
        // Positive where |rho| = |sxy| / sqrt(sxx syy) is too large.
        let too_steep = sxy.abs() - largest_correlation * deviation_x * deviation_y;

        // Factorise into the density of y, variance syy, and of x given y, variance |Sigma2| / syy and mean sxy/syy y.
        let unit_y = one / deviation_y;
        let unit_x = deviation_y * inverse_root;
        let shear = -(unit_x * sxy * unit_y * unit_y);
        let [w0, w1, w2] = &mut view_moments.whitening;
        unit_x.store(w0);
        shear.store(w1);
        unit_y.store(w2);
        // Bound of the terms of p over the support.
        let largest = (unit_x * half_width + shear.abs() * half_height) * I::F64::splat(2.0);
        let too_large = largest - I::F64::splat(LARGEST_COARSE);
        let fits = width.max(height) - I::F64::splat(SMALL as f64 + 0.5);
        let stepped = fits.select_positive(constant::<I>(kind::STEPPED), constant::<I>(kind::SMALL));
        let stepped = (height - I::F64::splat(1.5)).select_positive(stepped, constant::<I>(kind::STEPPED));
        let kind = too_steep.max(too_large).select_positive(constant::<I>(kind::FINE), stepped);
        // None of these is NaN. Only hidden splats can lie outside the box.
        let kind = width.min(height).select_positive(kind, constant::<I>(kind::HIDDEN));
        splats.kind = I::truncate_to_i32(I::narrow(kind));
        splats.x0 = I::truncate_to_i32(I::narrow(x0));
        splats.y0 = I::truncate_to_i32(I::narrow(y0));
        splats.width = I::truncate_to_i32(I::narrow(width));
        splats.height = I::truncate_to_i32(I::narrow(height));

        let is_stepped = kind - constant::<I>(kind::SMALL);
        let base = is_stepped.select_positive((height * I::F64::splat(0.5)).floor(), zero);
        let (dx, dy) = (x0 - u, y0 + base - v);
        let (rounded_x, rounded_y) = (I::narrow(dx), I::narrow(dy));
        rounded_x.store(&mut splats.dx);
        rounded_y.store(&mut splats.dy);
        I::narrow(dx - I::widen(rounded_x)).store(&mut splats.low_x);
        I::narrow(dy - I::widen(rounded_y)).store(&mut splats.low_y);
        // From exp(-t^2 / 2) to 2^(-u^2).
        let binary = I::F64::splat((0.5 * LOG2_E).sqrt());
        let (slope, shear) = (unit_x * binary, shear * binary);
        let fall = unit_y * unit_y * I::F64::splat(0.5 * LOG2_E);
        let curvature = sxx * inverse * I::F64::splat(0.5 * LOG2_E);
        I::narrow(slope * dx + shear * dy).store(&mut splats.u);
        I::narrow(slope).store(&mut splats.slope);
        I::narrow(shear + shear).store(&mut splats.twice_shear);
        I::narrow(fall).store(&mut splats.fall);
        I::narrow(curvature).store(&mut splats.curvature);
        I::narrow(-(fall * dy * dy)).store(&mut splats.peak);
        I::narrow(-(fall * (dy + dy) + curvature)).store(&mut splats.growth);
        let decay = I::narrow(-(curvature + curvature)).exp2();
        decay.store(&mut splats.decay);
        let (rows, zero) = (I::narrow(height), I::F32::splat(0.0));
        for (row, decays) in splats.decays.iter_mut().enumerate() {
            (rows - I::F32::splat(row as f32 + 2.0)).select_positive(decay, zero).store(decays);
        }
        I::narrow(norm).store(&mut splats.norm);
        I::narrow(amplitude * norm).store(&mut splats.weight);
    }
}

#[inline(always)]
fn constant<I: Isa>(value: i32) -> I::F64 {
    I::F64::splat(f64::from(value))
}
