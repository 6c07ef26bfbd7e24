//! Covariances to splats, once an image (METHOD.md section 3), in f64: a thin Gaussian's determinant needs it.

use std::f64::consts::{LOG2_E, TAU};

use super::activate::Activated;
use crate::imaging::pose::Rotation;
use crate::simd::{Isa, LANES, Vector, exp2, vectorize};

/// One Gaussian seen in one image; lengths in pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splat {
    /// First column of the support minus the centre.
    pub dx: f32,
    /// First row of the support minus the centre.
    pub dy: f32,
    /// The exponent of 2 at (x, y) pixels from the centre is `-(form[0] x + form[1] y)^2 - form[2] y^2`.
    pub form: [f32; 3],
    /// By how much the ratio of two rows falls from row to row.
    pub decay: f32,
    /// Normalisation 1 / (2 pi |Sigma2|^(1/2)), in box units.
    pub norm: f32,
    /// Amplitude times normalisation.
    pub weight: f32,
    /// First column of the support.
    pub x0: u16,
    /// First row of the support.
    pub y0: u16,
    /// Columns of the support; 0 where it holds no pixel.
    pub width: u16,
    /// Rows of the support; 0 where it holds no pixel.
    pub height: u16,
    /// True where a row is too unlike its neighbour to be stepped to, and each is evaluated anew.
    pub direct: bool,
    /// True where single precision does not do at all: a thin splat across the axes, whose terms are large and cancel.
    pub fine: bool,
    /// What is missing of `dx` and `dy`, for those.
    pub low: [f32; 2],
}

/// Terms of p up to this size leave an error below 5e-6 in what they add up to, relative to a splat's peak.
const LARGEST_COARSE: f64 = 32.0;

/// Largest exponent over the support that rows are stepped through; beyond, f32 would underflow on the way.
const LARGEST_STEPPED_EXPONENT: f64 = 60.0;

/// Projects Gaussians `start..start + splats.len()` (`start` a multiple of eight) into a view of `box_size` pixels.
///
/// `whitening` are the three planes that the chain wants, of the length of `splats`: (w0, w1, w2) such that
/// p = w0 x + w1 y and q = w2 y have unit variance (the conic is their squares; it is not kept itself, since a thin
/// splat's has large terms that cancel). `cutoff` is in standard deviations, `blur` ([`crate::render::Sampling::blur`]) in pixels.
///
/// # Panics
/// If the planes are shorter than the range asks for, or the box has more than 65,535 pixels.
#[allow(clippy::too_many_arguments)]
pub fn project(
    gaussians: &Activated,
    start: usize,
    view: &Rotation,
    box_size: usize,
    cutoff: f64,
    blur: f64,
    splats: &mut [Splat],
    whitening: [&mut [f64]; 3],
) {
    assert!(box_size <= usize::from(u16::MAX) && start.is_multiple_of(LANES));
    let [w0, w1, w2] = whitening;
    project_vector(gaussians, start, view, box_size, cutoff, blur, splats, w0, w1, w2);
}

vectorize! {
    fn project_vector(
        gaussians: &Activated,
        start: usize,
        view: &Rotation,
        box_size: usize,
        cutoff: f64,
        blur: f64,
        splats: &mut [Splat],
        w0: &mut [f64],
        w1: &mut [f64],
        w2: &mut [f64],
    ) = project_lanes
}

/// (xx, xy, xz, yy, yz, zz) coefficients of entry (a, b) of P Sigma P^T, P the first two rows of W, times `scale`.
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
        sum = vectors[k].times_plus(V::splat(factors[k]), sum);
    }
    sum
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn project_lanes<I: Isa>(
    gaussians: &Activated,
    start: usize,
    view: &Rotation,
    box_size: usize,
    cutoff: f64,
    blur: f64,
    splats: &mut [Splat],
    w0: &mut [f64],
    w1: &mut [f64],
    w2: &mut [f64],
) {
    let d = box_size as f64;
    let widening = I::F64::splat(blur * blur);
    let (zero, one) = (I::F64::splat(0.0), I::F64::splat(1.0));
    let centre = I::F64::splat((box_size / 2) as f64);
    let last = I::F64::splat(d - 1.0);
    let reach = I::F64::splat(cutoff);
    // Over the support the exponent is at most cutoff^2 / (1 - |rho|).
    let largest_correlation = I::F64::splat(1.0 - cutoff * cutoff / LARGEST_STEPPED_EXPONENT);
    let scaled = [view[0].map(|w| w * d), view[1].map(|w| w * d)];
    let cxx = coefficients(view, 0, 0, d * d);
    let cxy = coefficients(view, 0, 1, d * d);
    let cyy = coefficients(view, 1, 1, d * d);

    for (splats, at) in splats.chunks_mut(LANES).zip((0..).step_by(LANES)) {
        let first = start + at;
        let mean = [
            I::F64::load(&gaussians.mean[0][first..]),
            I::F64::load(&gaussians.mean[1][first..]),
            I::F64::load(&gaussians.mean[2][first..]),
        ];
        let covariance = [
            I::F64::load(&gaussians.covariance[0][first..]),
            I::F64::load(&gaussians.covariance[1][first..]),
            I::F64::load(&gaussians.covariance[2][first..]),
            I::F64::load(&gaussians.covariance[3][first..]),
            I::F64::load(&gaussians.covariance[4][first..]),
            I::F64::load(&gaussians.covariance[5][first..]),
        ];
        let amplitude = I::F64::load(&gaussians.amplitude[first..]);
        let u = dot(&mean, &scaled[0], centre);
        let v = dot(&mean, &scaled[1], centre);
        let sxx = dot(&covariance, &cxx, widening);
        let sxy = dot(&covariance, &cxy, zero);
        let syy = dot(&covariance, &cyy, widening);
        let determinant = sxx * syy - sxy * sxy;
        let inverse = one / determinant;
        // 1 / sqrt(|Sigma2|)
        let inverse_root = inverse * determinant.sqrt();
        let norm = I::F64::splat(d * d / TAU) * inverse_root;
        let weight = amplitude * norm;
        let (deviation_x, deviation_y) = (sxx.sqrt(), syy.sqrt());
        let (half_width, half_height) = (reach * deviation_x, reach * deviation_y);
        let x0 = (u - half_width).ceil().max(zero);
        let x1 = (u + half_width).floor().min(last);
        let y0 = (v - half_height).ceil().max(zero);
        let y1 = (v + half_height).floor().min(last);
        // Positive where |rho| = |sxy| / sqrt(sxx syy) is beyond the largest.
        let too_steep = sxy.abs() - largest_correlation * deviation_x * deviation_y;

        // The distribution of y, and of x given y: variances syy and |Sigma2| / syy, the latter about sxy/syy y.
        let unit_y = one / deviation_y;
        let unit_x = deviation_y * inverse_root;
        let shear = -(unit_x * sxy * unit_y * unit_y);
        unit_x.store_cut(w0, at);
        shear.store_cut(w1, at);
        unit_y.store_cut(w2, at);
        // From exp(-t^2 / 2) to 2^(-u^2).
        let binary = I::F64::splat((0.5 * LOG2_E).sqrt());
        let form = [
            I::narrow(unit_x * binary).to_array(),
            I::narrow(shear * binary).to_array(),
            I::narrow(unit_y * unit_y * (binary * binary)).to_array(),
        ];
        // How large the terms of p get over the support.
        let largest = (unit_x * reach * deviation_x + shear.abs() * reach * deviation_y) * I::F64::splat(2.0);
        let too_large = (largest - I::F64::splat(LARGEST_COARSE)).to_array();
        let decay = exp2(I::narrow(sxx * inverse * I::F64::splat(-LOG2_E))).to_array();
        let exact = [x0 - u, y0 - v];
        let rounded = exact.map(I::narrow);
        let low = [0, 1].map(|axis| I::narrow(exact[axis] - I::widen(rounded[axis])).to_array());
        let [dx, dy] = rounded.map(|d| d.to_array());
        let (norm, weight) = (I::narrow(norm).to_array(), I::narrow(weight).to_array());
        let (width, height) = (I::narrow(x1 - x0 + one).to_array(), I::narrow(y1 - y0 + one).to_array());
        let (x0, y0) = (I::narrow(x0).to_array(), I::narrow(y0).to_array());
        let too_steep = too_steep.to_array();
        for (lane, splat) in splats.iter_mut().enumerate() {
            *splat = if width[lane] >= 1.0 && height[lane] >= 1.0 {
                Splat {
                    dx: dx[lane],
                    dy: dy[lane],
                    form: [form[0][lane], form[1][lane], form[2][lane]],
                    decay: decay[lane],
                    norm: norm[lane],
                    weight: weight[lane],
                    // All below 65,536, which the caller has checked, and not NaN.
                    x0: x0[lane] as u16,
                    y0: y0[lane] as u16,
                    width: width[lane] as u16,
                    height: height[lane] as u16,
                    direct: too_steep[lane] >= 0.0 || too_large[lane] > 0.0,
                    fine: too_large[lane] > 0.0,
                    low: [low[0][lane], low[1][lane]],
                }
            } else {
                Splat::default()
            };
        }
    }
}
