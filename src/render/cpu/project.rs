//! Covariances to splats, once an image (METHOD.md section 3), in f64: a thin Gaussian's determinant needs it.

use std::f64::consts::TAU;

use super::activate::Activated;
use super::simd::{LANES, Lanes, exp, vectorize};
use crate::imaging::pose::Rotation;

/// One Gaussian seen in one image; lengths in pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splat {
    /// First column of the support minus the centre.
    pub dx: f32,
    /// First row of the support minus the centre.
    pub dy: f32,
    /// Conic, the inverse of the projected covariance: xx, xy, yy per pixel squared.
    pub conic: [f32; 3],
    /// exp(-conic yy): by how much the ratio of two rows falls from row to row.
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
}

/// Largest exponent over the support that rows are stepped through; beyond, f32 would underflow on the way.
const LARGEST_STEPPED_EXPONENT: f64 = 60.0;

/// Projects Gaussians `start..start + splats.len()` (`start` a multiple of [`LANES`]) into a view of `box_size` pixels.
///
/// `conic` are the three planes that the chain wants, of the length of `splats`; `cutoff` is in standard deviations.
///
/// # Panics
/// If the planes are shorter than the range asks for, or the box has more than 65,535 pixels.
pub fn project(
    gaussians: &Activated,
    start: usize,
    view: &Rotation,
    box_size: usize,
    cutoff: f64,
    splats: &mut [Splat],
    conic: [&mut [f32]; 3],
) {
    assert!(box_size <= usize::from(u16::MAX) && start.is_multiple_of(LANES));
    let [xx, xy, yy] = conic;
    project_vector(gaussians, start, view, box_size, cutoff, splats, xx, xy, yy);
}

vectorize! {
    fn project_vector(
        gaussians: &Activated,
        start: usize,
        view: &Rotation,
        box_size: usize,
        cutoff: f64,
        splats: &mut [Splat],
        conic_xx: &mut [f32],
        conic_xy: &mut [f32],
        conic_yy: &mut [f32],
    ) = project_lanes
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn project_lanes<const FMA: bool>(
    gaussians: &Activated,
    start: usize,
    view: &Rotation,
    box_size: usize,
    cutoff: f64,
    splats: &mut [Splat],
    conic_xx: &mut [f32],
    conic_xy: &mut [f32],
    conic_yy: &mut [f32],
) {
    let d = box_size as f64;
    let constant = Lanes::<f64>::splat;
    let centre = constant((box_size / 2) as f64);
    let last = constant(d - 1.0);
    // Sigma2 = P Sigma P^T with P the first two rows of W: coefficients of the six entries of Sigma, in pixels.
    let coefficient = |a: usize, b: usize| {
        let (p, q) = (view[a], view[b]);
        [
            p[0] * q[0],
            p[0] * q[1] + p[1] * q[0],
            p[0] * q[2] + p[2] * q[0],
            p[1] * q[1],
            p[1] * q[2] + p[2] * q[1],
            p[2] * q[2],
        ]
        .map(|c| c * d * d)
    };
    let (cxx, cxy, cyy) = (coefficient(0, 0), coefficient(0, 1), coefficient(1, 1));

    for (chunk, first) in (start..start + splats.len()).step_by(LANES).enumerate() {
        let mean: [Lanes<f64>; 3] = std::array::from_fn(|k| Lanes::<f64>::load(&gaussians.mean[k][first..]));
        let covariance: [Lanes<f64>; 6] =
            std::array::from_fn(|k| Lanes::<f64>::load(&gaussians.covariance[k][first..]));
        let amplitude = Lanes::<f64>::load(&gaussians.amplitude[first..]);
        let position = |row: [f64; 3]| {
            let sum = mean[0] * constant(row[0] * d) + mean[1] * constant(row[1] * d);
            mean[2].times_plus::<FMA>(constant(row[2] * d), sum) + centre
        };
        let (u, v) = (position(view[0]), position(view[1]));
        let entry = |c: &[f64; 6]| {
            let mut sum = covariance[0] * constant(c[0]);
            for k in 1..6 {
                sum = covariance[k].times_plus::<FMA>(constant(c[k]), sum);
            }
            sum
        };
        let (sxx, sxy, syy) = (entry(&cxx), entry(&cxy), entry(&cyy));
        let determinant = sxx * syy - sxy * sxy;
        let inverse = constant(1.0) / determinant;
        let (a, b, c) = (syy * inverse, -(sxy * inverse), sxx * inverse);
        let norm = determinant.map(|v| d * d / (TAU * v.sqrt()));
        let weight = amplitude * norm;
        let half_width = sxx.map(|s| cutoff * s.sqrt());
        let half_height = syy.map(|s| cutoff * s.sqrt());
        let zero = constant(0.0);
        let x0 = (u - half_width).map(f64::ceil).zip(zero, f64::max);
        let x1 = (u + half_width).map(f64::floor).zip(last, f64::min);
        let y0 = (v - half_height).map(f64::ceil).zip(zero, f64::max);
        let y1 = (v + half_height).map(f64::floor).zip(last, f64::min);
        let (dx, dy) = (x0 - u, y0 - v);
        // Over the support the exponent is at most cutoff^2 / (1 - |rho|).
        let correlation = sxy.map(f64::abs) / (sxx * syy).map(f64::sqrt);
        let steppable = constant(1.0) - correlation - constant(cutoff * cutoff / LARGEST_STEPPED_EXPONENT);

        let narrow = |lanes: Lanes<f64>| Lanes::<f32>(lanes.0.map(|v| v as f32));
        let (a, b, c) = (narrow(a), narrow(b), narrow(c));
        let decay = exp::<FMA>(-c);
        let at = chunk * LANES;
        let count = LANES.min(splats.len() - at);
        conic_xx[at..at + count].copy_from_slice(&a.0[..count]);
        conic_xy[at..at + count].copy_from_slice(&b.0[..count]);
        conic_yy[at..at + count].copy_from_slice(&c.0[..count]);
        for (lane, splat) in splats[at..at + count].iter_mut().enumerate() {
            // A NaN (a parameter that overflowed) fails both comparisons and draws nothing here; the trainer finds it.
            let visible = x1.0[lane] >= x0.0[lane] && y1.0[lane] >= y0.0[lane];
            *splat = if visible {
                Splat {
                    dx: dx.0[lane] as f32,
                    dy: dy.0[lane] as f32,
                    conic: [a.0[lane], b.0[lane], c.0[lane]],
                    decay: decay.0[lane],
                    norm: norm.0[lane] as f32,
                    weight: weight.0[lane] as f32,
                    x0: x0.0[lane] as u16,
                    y0: y0.0[lane] as u16,
                    width: (x1.0[lane] - x0.0[lane]) as u16 + 1,
                    height: (y1.0[lane] - y0.0[lane]) as u16 + 1,
                    direct: steppable.0[lane] <= 0.0,
                }
            } else {
                Splat::default()
            };
        }
    }
}
