//! The spectrum of a map as a [`Reference`].

use std::f64::consts::PI;

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::render::Reference;
use crate::render::reference::{REFERENCE_MARGIN, REFERENCE_PADDING};

/// Limit of searches, in cycles per box.
pub(crate) const SEARCH_LIMIT: usize = 8;

/// Side of a map for frequencies below `limit` in images of `box_size` pixels: its Nyquist frequency is beyond all points of
/// the reference.
pub(crate) fn map_size(limit: usize, box_size: usize) -> usize {
    (2 * (limit + REFERENCE_MARGIN)).next_multiple_of(4).max(16).min(box_size.max(16))
}

/// The reference for frequencies below `limit` of the map of the whole box, `[z][y][x]` of n voxels a side whose origin is voxel n/2:
/// a density over the box size D of the particles ([`Grid`](crate::gmm::voxelize::Grid)). `factors`: of each shell, 0 to `limit`
/// or beyond.
pub(crate) fn reference_of(map: &Array3<f32>, box_size: usize, limit: usize, factors: &[f64]) -> Reference {
    let n = map.dim().0;
    let mut reference = Reference { limit, search_limit: limit.min(SEARCH_LIMIT), values: Vec::new() };
    let (reach, side, width) = (reference.reach(), reference.side(), reference.width());
    // The spline's own transform is divided out.
    let padded = (REFERENCE_PADDING * n) as f64;
    let spline: Vec<f64> = (0..n).map(|i| sinc((i as f64 - (n / 2) as f64) / padded).powi(-4)).collect();
    let points = Points { before_origin: REFERENCE_MARGIN, width, reach };
    let spectrum = points.spectrum(map, &spline);
    let scale = (box_size as f64 / n as f64).powi(3);
    reference.values = vec![0.0; 2 * side * side * width];
    reference.values.par_chunks_exact_mut(2 * side * width).enumerate().for_each(|(z, plane)| {
        for (y, row) in plane.chunks_exact_mut(2 * width).enumerate() {
            for (x, value) in row.chunks_exact_mut(2).enumerate() {
                let offset = |i: usize, origin: usize| (i as f64 - origin as f64) / REFERENCE_PADDING as f64;
                let (kx, ky, kz) = (offset(x, REFERENCE_MARGIN), offset(y, reach), offset(z, reach));
                let factor = (scale * at_radius(factors, (kx * kx + ky * ky + kz * kz).sqrt())) as f32;
                let found = spectrum[(y * side + z) * width + x] * factor;
                (value[0], value[1]) = (found.re, found.im);
            }
        }
    });
    reference
}

/// Points of a Fourier grid of [`REFERENCE_PADDING`] points per cycle per box: along x `width` points from `before_origin` points before
/// the origin on, along y and z from -`reach` to `reach`.
pub(crate) struct Points {
    pub before_origin: usize,
    pub width: usize,
    pub reach: usize,
}

impl Points {
    /// Points along y, and along z.
    pub fn side(&self) -> usize {
        2 * self.reach + 1
    }

    /// The transform of a map about its origin, unnormalised, `[y][z][x]`. `profile`: factors of the map along each axis.
    pub fn spectrum(&self, map: &Array3<f32>, profile: &[f64]) -> Vec<Complex<f32>> {
        let n = map.dim().0;
        let &Self { before_origin, width, reach } = self;
        let side = self.side();
        let padded = REFERENCE_PADDING * n;
        let plan = FftPlanner::new().plan_fft_forward(padded);
        let map = map.as_slice().expect("a map in standard layout");
        let along = Axis { plan: &*plan, n, padded };
        // Along x, then y: [z][y][x] with y and x of the points.
        let mut planes = vec![Complex::default(); n * side * width];
        planes.par_chunks_exact_mut(side * width).enumerate().for_each_init(
            || along.buffers(),
            |(line, scratch), (z, plane)| {
                let mut rows = vec![Complex::default(); n * width];
                for (y, row) in rows.chunks_exact_mut(width).enumerate() {
                    let values = &map[(z * n + y) * n..][..n];
                    let factor = |x: usize| (profile[z] * profile[y] * profile[x]) as f32;
                    let value = |x: usize| Complex::new(values[x] * factor(x), 0.0);
                    along.transform(value, before_origin, row.iter_mut(), line, scratch);
                }
                for x in 0..width {
                    let column = plane.iter_mut().skip(x).step_by(width);
                    along.transform(|y| rows[y * width + x], reach, column, line, scratch);
                }
            },
        );
        let mut turned = vec![Complex::default(); side * side * width];
        turned.par_chunks_exact_mut(side * width).enumerate().for_each_init(
            || along.buffers(),
            |(line, scratch), (y, plane)| {
                for x in 0..width {
                    let column = plane.iter_mut().skip(x).step_by(width);
                    along.transform(|z| planes[(z * side + y) * width + x], reach, column, line, scratch);
                }
            },
        );
        turned
    }
}

/// The value of a curve by shell at a radius in shells, linear between them; the last value beyond.
pub(crate) fn at_radius(factors: &[f64], radius: f64) -> f64 {
    let last = factors.len() - 1;
    let shell = (radius as usize).min(last);
    let fraction = if shell == last { 0.0 } else { radius - shell as f64 };
    factors[shell] * (1.0 - fraction) + factors[(shell + 1).min(last)] * fraction
}

fn sinc(u: f64) -> f64 {
    if u == 0.0 { 1.0 } else { (PI * u).sin() / (PI * u) }
}

/// Transforms of lines of `n` values about the origin n/2, padded with zeros.
struct Axis<'a> {
    plan: &'a dyn Fft<f32>,
    n: usize,
    padded: usize,
}

impl Axis<'_> {
    fn buffers(&self) -> (Vec<Complex<f32>>, Vec<Complex<f32>>) {
        let zero = Complex::default();
        (vec![zero; self.padded], vec![zero; self.plan.get_inplace_scratch_len()])
    }

    /// Writes the transform at the points from -`below` on to `out`.
    fn transform<'o>(
        &self,
        value: impl Fn(usize) -> Complex<f32>,
        below: usize,
        out: impl Iterator<Item = &'o mut Complex<f32>>,
        line: &mut [Complex<f32>],
        scratch: &mut [Complex<f32>],
    ) {
        let Self { n, padded, .. } = *self;
        line.fill(Complex::default());
        for i in 0..n {
            line[(i + padded - n / 2) % padded] = value(i);
        }
        self.plan.process_with_scratch(line, scratch);
        for (point, out) in out.enumerate() {
            *out = line[(point + padded - below % padded) % padded];
        }
    }
}

/// Value of a reference at k in cycles per box by direct summation of its splines, in f64.
pub(crate) fn value_at(reference: &Reference, k: [f64; 3]) -> Complex<f64> {
    let cubic = |t: f64| match t.abs() {
        t if t < 1.0 => 2.0 / 3.0 - t * t + 0.5 * t * t * t,
        t if t < 2.0 => (2.0 - t).powi(3) / 6.0,
        _ => 0.0,
    };
    let sign = if k[0] < 0.0 { -1.0 } else { 1.0 };
    let place = k.map(|v| sign * v * REFERENCE_PADDING as f64);
    let (width, side, reach) = (reference.width(), reference.side(), reference.reach() as isize);
    let mut sum = Complex::default();
    let range = |v: f64| v.floor() as isize - 1..=v.floor() as isize + 2;
    for z in range(place[2]) {
        for y in range(place[1]) {
            for x in range(place[0]) {
                let at = ((z + reach) as usize * side + (y + reach) as usize) * width
                    + (x + REFERENCE_MARGIN as isize) as usize;
                let weight =
                    cubic(place[0] - x as f64) * cubic(place[1] - y as f64) * cubic(place[2] - z as f64);
                let [re, im] = [reference.values[2 * at], reference.values[2 * at + 1]].map(f64::from);
                sum += Complex::new(re, im) * weight;
            }
        }
    }
    if sign < 0.0 { sum.conj() } else { sum }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// The transform of a map of `n` voxels about its origin.
    fn direct(map: &Array3<f32>, k: [f64; 3]) -> Complex<f64> {
        let n = map.dim().0;
        let place = |i: usize| (i as f64 - (n / 2) as f64) / n as f64;
        map.indexed_iter()
            .map(|((z, y, x), &value)| {
                let turns = k[0] * place(x) + k[1] * place(y) + k[2] * place(z);
                Complex::from_polar(f64::from(value), -TAU * turns)
            })
            .sum()
    }

    #[test]
    fn splines_reproduce_the_transform_of_a_map() {
        for n in [16, 18] {
            // A specimen within 0.35 of the box.
            let inside = |i: usize| i.abs_diff(n / 2) as f64 <= 0.35 * n as f64;
            let map = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
                let value = ((x * 7 + y * 13 + z * 29) % 17) as f32 - 4.0;
                if inside(x) && inside(y) && inside(z) { value } else { 0.0 }
            });
            let reference = reference_of(&map, n, 5, &[1.0]);
            let largest = direct(&map, [0.0; 3]).norm();
            for k in
                [[0.0, 0.0, 0.0], [1.0, 2.0, -3.0], [-2.3, 0.7, 1.9], [0.25, -4.1, 1.3], [4.4, 0.0, -2.2]]
            {
                let error = (value_at(&reference, k) - direct(&map, k)).norm() / largest;
                assert!(error < 2e-3, "{n} {k:?}: {error}");
            }
            let half = reference_of(&map, 2 * n, 5, &[0.5]);
            let ratio = value_at(&half, [1.0, 2.0, -3.0]) / value_at(&reference, [1.0, 2.0, -3.0]);
            assert!((ratio - 4.0).norm() < 1e-5, "half of the factor 8 of twice the box");
        }
    }

    #[test]
    fn curves_are_linear_between_shells() {
        let curve = [1.0, 0.5, 0.25];
        assert_eq!(
            [0.0, 0.5, 1.0, 1.5, 2.0, 9.0].map(|r| at_radius(&curve, r)),
            [1.0, 0.75, 0.5, 0.375, 0.25, 0.25]
        );
    }
}
