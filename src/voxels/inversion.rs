//! Inverse Fourier transform of the oversampled grid, cropped to the box of the map.
//!
//! The grid transforms to a map of twice the box, of which only the centre is used: each axis is cropped before the next one is
//! transformed. The map is divided by the transform of the trilinear kernel, a squared sinc per axis.

use std::f64::consts::PI;

use ndarray::Array3;
use rayon::prelude::*;
use realfft::RealFftPlanner;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use crate::voxels::PADDING;
use crate::voxels::sums::FourierSums;

/// The map of `sums` times `factors`, `[z][y][x]` of D voxels each, with the origin on voxel floor(D/2). Sums along lines of sight
/// are projections.
pub(crate) fn map(sums: &FourierSums, factors: &[f32]) -> Array3<f32> {
    let (n, side) = (sums.box_size, sums.side());
    let padded = PADDING * n;
    let zero = Complex::new(0.0f32, 0.0);
    let plan = FftPlanner::new().plan_fft_inverse(padded);
    let last = RealFftPlanner::new().plan_fft_inverse(padded);
    // Index in a padded line of frequency i - (D - 1), and of voxel i of the box.
    let from = |i: usize| (i + padded - (n - 1)) % padded;
    let to = |i: usize| (i + padded - n / 2) % padded;

    // Along z: [y][z][x], cropped along z.
    let mut transposed = vec![zero; side * n * n];
    let buffers = || (vec![zero; n * padded], vec![zero; plan.get_inplace_scratch_len()]);
    transposed.par_chunks_exact_mut(n * n).enumerate().for_each_init(
        buffers,
        |(lines, scratch), (y, output)| {
            lines.iter_mut().for_each(|value| *value = zero);
            for z in 0..side {
                let start = (z * side + y) * n;
                let values = sums.data[start..start + n].iter().zip(&factors[start..start + n]);
                for (x, (value, factor)) in values.enumerate() {
                    lines[x * padded + from(z)] = value * factor;
                }
            }
            plan.process_with_scratch(lines, scratch);
            for (z, output) in output.chunks_exact_mut(n).enumerate() {
                for (x, value) in output.iter_mut().enumerate() {
                    *value = lines[x * padded + to(z)];
                }
            }
        },
    );

    // Along y and x, plane by plane.
    let kernel: Vec<f64> =
        (0..n).map(|i| sinc((i as f64 - (n / 2) as f64) / padded as f64).powi(2)).collect();
    let scale = (padded as f64).powi(-3);
    let mut map = Array3::zeros((n, n, n));
    let planes = map.as_slice_mut().expect("made in standard layout").par_chunks_exact_mut(n * n);
    let buffers = || {
        let scratch = vec![zero; plan.get_inplace_scratch_len().max(last.get_scratch_len())];
        (vec![zero; n * padded], last.make_input_vec(), last.make_output_vec(), scratch)
    };
    planes.enumerate().for_each_init(buffers, |(lines, half, line, scratch), (z, output)| {
        lines.iter_mut().for_each(|value| *value = zero);
        for y in 0..side {
            let start = (y * n + z) * n;
            for (x, &value) in transposed[start..start + n].iter().enumerate() {
                lines[x * padded + from(y)] = value;
            }
        }
        plan.process_with_scratch(lines, &mut scratch[..plan.get_inplace_scratch_len()]);
        for (y, output) in output.chunks_exact_mut(n).enumerate() {
            for (x, value) in half[..n].iter_mut().enumerate() {
                *value = lines[x * padded + to(y)];
            }
            // A real map has a real mean; the sums have no value at the grid's Nyquist frequency.
            half[0].im = 0.0;
            half[n] = zero;
            last.process_with_scratch(half, line, scratch)
                .expect("the plan and the buffers have the same length");
            for (x, value) in output.iter_mut().enumerate() {
                let kernel = kernel[z] * kernel[y] * kernel[x];
                *value = (f64::from(line[to(x)]) * scale / kernel) as f32;
            }
        }
    });
    map
}

/// `sin(pi u) / (pi u)`.
fn sinc(u: f64) -> f64 {
    if u == 0.0 { 1.0 } else { (PI * u).sin() / (PI * u) }
}

#[cfg(test)]
mod tests {
    use crate::voxels::inversion::*;
    use std::f64::consts::TAU;

    #[test]
    fn waves_are_transformed_about_the_origin_and_divided_by_the_kernel() {
        for n in [6, 7] {
            let (side, middle) = (2 * n - 1, (n / 2) as f64);
            let mut sums = FourierSums::zero(n);
            let at = |k: [isize; 3]| {
                let [x, y, z] = [k[0], k[1] + n as isize - 1, k[2] + n as isize - 1].map(|v| v as usize);
                (z * side + y) * n + x
            };
            // A real map: in the plane x = 0 both points of a Friedel pair are stored, elsewhere one.
            let waves = [
                ([0, 0, 0], Complex::new(2.0, 0.0)),
                ([0, 2, -3], Complex::new(0.5, 0.25)),
                ([1, 0, 3], Complex::new(-1.0, 2.0)),
                ([3, -2, 1], Complex::new(0.75, 1.0)),
            ];
            for (k, value) in waves {
                sums.data[at(k)] = value;
                if k[0] == 0 {
                    sums.data[at(k.map(|v: isize| -v))] = value.conj();
                }
            }
            let found = map(&sums, &vec![0.5; sums.data.len()]);
            for ((z, y, x), &found) in found.indexed_iter() {
                let place = [x, y, z].map(|v| v as f64 - middle);
                let mut expected = 0.0;
                for (k, value) in waves {
                    let turns = k.iter().zip(place).map(|(&k, v)| k as f64 * v).sum::<f64>() / (2 * n) as f64;
                    let wave = Complex::<f64>::new(value.re.into(), value.im.into())
                        * Complex::from_polar(0.5, TAU * turns);
                    expected += wave.re * if k == [0, 0, 0] { 1.0 } else { 2.0 };
                }
                let kernel: f64 = place.iter().map(|v| sinc(v / (2 * n) as f64).powi(2)).product();
                let expected = expected / kernel / (8 * n * n * n) as f64;
                assert!((f64::from(found) - expected).abs() < 1e-7, "{n}: {found} {expected}");
            }
        }
    }
}
