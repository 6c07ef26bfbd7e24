//! Gridding: the factor of each grid point, the reciprocal of the local density of samples.
//!
//! With the Wiener filter, whose constant bounds the weights away from 0, the factor is the reciprocal of the weight
//! ([`reciprocals`]). Without it, reciprocals would amplify the noise of points with few samples. The iterations of Pipe and Menon
//! (Magn. Reson. Med. 41 (1999) 179), as RELION uses them (Scheres, J. Struct. Biol. 180 (2012) 519), find factors whose product
//! with the weights, convolved with a kernel, is one everywhere ([`density_compensation`]): neighbouring points are weighted
//! together.

use rayon::prelude::*;

use crate::voxels::sums::is_within_nyquist;

const ITERATIONS: usize = 10;
/// Standard deviation of the Gaussian kernel in grid points: fitted to the maps that RELION's blob kernel gives, which is not
/// separable.
const WIDTH: f64 = 0.96;
/// Weights up to this are taken as 0: their reciprocals would overflow single precision.
const EMPTY: f32 = 1e-30;
/// Radius of the kernel in grid points.
const RADIUS: usize = 4;

/// The reciprocals of `weights`; 0 where a weight is 0.
pub(crate) fn reciprocals(mut weights: Vec<f32>) -> Vec<f32> {
    weights.par_iter_mut().for_each(|w| *w = if *w > EMPTY { 1.0 / *w } else { 0.0 });
    weights
}

/// Density compensation factors for the weights `[z][y][x]` of [`FourierSums`](crate::voxels::sums::FourierSums).
pub(crate) fn density_compensation(box_size: usize, weight: &[f32]) -> Vec<f32> {
    let side = 2 * box_size - 1;
    let taps = taps();
    let mut factors = vec![0.0f32; weight.len()];
    let lines = factors.par_chunks_exact_mut(box_size).zip(weight.par_chunks_exact(box_size));
    lines.enumerate().for_each(|(line, (factors, weight))| {
        let (z, y) = (line / side, line % side);
        for (x, (factor, &weight)) in factors.iter_mut().zip(weight).enumerate() {
            // Points without samples have factor 0: in the iterations it would diverge.
            *factor = if is_within_nyquist(box_size, x, y, z) && weight > EMPTY { 1.0 } else { 0.0 };
        }
    });
    let (mut product, mut blurred) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
    for _ in 0..ITERATIONS {
        let all = product.par_iter_mut().zip(&factors).zip(weight);
        all.for_each(|((product, factor), weight)| *product = factor * weight);
        blur(box_size, &taps, &mut product, &mut blurred);
        factors.par_iter_mut().zip(&product).filter(|(factor, _)| **factor > 0.0).for_each(
            // The density includes the point's own weight, so it is not 0.
            |(factor, density)| *factor /= density,
        );
    }
    factors
}

/// The kernel from its centre to its radius; normalised to a sum of 1 over both sides.
fn taps() -> [f32; RADIUS + 1] {
    let values: [f64; RADIUS + 1] = std::array::from_fn(|i| (-0.5 * (i as f64 / WIDTH).powi(2)).exp());
    let sum = values[0] + 2.0 * values[1..].iter().sum::<f64>();
    values.map(|value| (value / sum) as f32)
}

/// Convolves `values` with the kernel along all axes. `work` is working memory of the same length.
fn blur(box_size: usize, taps: &[f32; RADIUS + 1], values: &mut [f32], work: &mut [f32]) {
    let (n, side) = (box_size, 2 * box_size - 1);
    let plane = side * n;
    let input = &*values;
    work.par_chunks_exact_mut(plane).enumerate().for_each_init(
        || (vec![0.0; plane], vec![0.0; n + 2 * RADIUS]),
        |(along_x, line), (z, output)| {
            for (y, blurred) in along_x.chunks_exact_mut(n).enumerate() {
                let start = (z * side + y) * n;
                // Values at x < 0 are those of the Friedel mates.
                let mirrored = ((side - 1 - z) * side + side - 1 - y) * n;
                for i in 1..=RADIUS {
                    line[RADIUS - i] = input[mirrored + i];
                }
                line[RADIUS..RADIUS + n].copy_from_slice(&input[start..start + n]);
                blurred.iter_mut().for_each(|value| *value = 0.0);
                for offset in 0..=2 * RADIUS {
                    add_times(blurred, &line[offset..offset + n], taps[offset.abs_diff(RADIUS)]);
                }
            }
            for (y, output) in output.chunks_exact_mut(n).enumerate() {
                output.iter_mut().for_each(|value| *value = 0.0);
                for near in y.saturating_sub(RADIUS)..=(y + RADIUS).min(side - 1) {
                    add_times(output, &along_x[near * n..(near + 1) * n], taps[near.abs_diff(y)]);
                }
            }
        },
    );
    let input = &*work;
    values.par_chunks_exact_mut(plane).enumerate().for_each(|(z, output)| {
        output.iter_mut().for_each(|value| *value = 0.0);
        for near in z.saturating_sub(RADIUS)..=(z + RADIUS).min(side - 1) {
            add_times(output, &input[near * plane..(near + 1) * plane], taps[near.abs_diff(z)]);
        }
    });
}

fn add_times(sums: &mut [f32], values: &[f32], factor: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

#[cfg(test)]
mod tests {
    use crate::voxels::gridding::*;
    use crate::voxels::sums::squared_radius;

    #[test]
    fn constant_weights_give_their_reciprocal_and_blur_preserves_a_constant() {
        let n = 12;
        let side = 2 * n - 1;
        let weight = vec![4.0f32; side * side * n];
        let mut blurred = weight.clone();
        blur(n, &taps(), &mut blurred, &mut weight.clone());
        let factors = density_compensation(n, &weight);
        // Points far from the edges of the grid.
        for (z, y, x) in [(n - 1, n - 1, 0), (n, n - 2, 1)] {
            let at = (z * side + y) * n + x;
            assert!((blurred[at] - 4.0).abs() < 1e-5, "{}", blurred[at]);
            assert!((factors[at] - 0.25).abs() < 0.02, "{}", factors[at]);
        }
    }

    #[test]
    fn factors_times_weights_have_unit_density() {
        let n = 12;
        let side = 2 * n - 1;
        let mut weight = vec![0.0f32; side * side * n];
        for (i, weight) in weight.iter_mut().enumerate() {
            let (x, y, z) = (i % n, i / n % side, i / n / side);
            if is_within_nyquist(n, x, y, z) {
                // Dense at the origin, as for central slices.
                *weight =
                    100.0 / (1.0 + (squared_radius(n, x, y, z) as f32).sqrt()) + ((x + y + z) % 3) as f32;
            }
        }
        let mut density: Vec<f32> =
            density_compensation(n, &weight).iter().zip(&weight).map(|(f, w)| f * w).collect();
        blur(n, &taps(), &mut density, &mut weight.clone());
        for (i, density) in density.iter().enumerate() {
            let square = squared_radius(n, i % n, i / n % side, i / n / side);
            // Measured at the edge, where the kernel extends beyond Nyquist: 0.11 after ten iterations, 0.28 after one.
            assert!(square >= n * n || (density - 1.0).abs() < 0.15, "{density} at {square}");
        }
    }

    #[test]
    fn factors_are_finite_for_small_weights_and_zero_without_samples() {
        let n = 12;
        let side = 2 * n - 1;
        let mut weight = vec![0.0f32; side * side * n];
        let (first, second) = (((n + 2) * side + n) * n + 2, ((n - 7) * side + n + 3) * n + 1);
        (weight[first], weight[second]) = (1e-20, 3.0);
        let factors = density_compensation(n, &weight);
        assert!(factors[first].is_finite() && factors[first] > 0.0 && factors[second] > 0.0);
        assert_eq!(factors.iter().filter(|&&factor| factor != 0.0).count(), 2);
    }

    #[test]
    fn blur_of_the_half_space_equals_blur_of_the_whole_space() {
        let n = 7;
        let side = 2 * n - 1;
        // A point at (x, y, z) = (1, 2, -3) implies its Friedel mate at (-1, -2, 3).
        let mut values = vec![0.0f32; side * side * n];
        let at = |x: usize, y: isize, z: isize| {
            let index = |v: isize| (v + n as isize - 1) as usize;
            (index(z) * side + index(y)) * n + x
        };
        values[at(1, 2, -3)] = 1.0;
        let mut other = values.clone();
        let taps = taps();
        blur(n, &taps, &mut values, &mut other);
        assert!((values[at(2, 2, -2)] - taps[1] * taps[0] * taps[1]).abs() < 1e-7);
        assert!((values[at(0, -2, 2)] - taps[1] * taps[0] * taps[1]).abs() < 1e-7);
        assert!((values[at(1, -2, 3)] - taps[2] * taps[0] * taps[0]).abs() < 1e-7);
    }
}
