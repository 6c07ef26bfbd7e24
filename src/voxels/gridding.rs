//! What the sums at each point of the grid are to be multiplied by: the inverse of the density of samples there.
//!
//! Where the Wiener filter's constant keeps the weights from 0, that is the inverse of the weight ([`inverses`]). Without it a
//! point with few samples would be noise. Iterations after Pipe and Menon (Magn. Reson. Med. 41 (1999) 179), as RELION takes
//! them (Scheres, J. Struct. Biol. 180 (2012) 519), find factors whose product with the weights is one everywhere at the
//! resolution of the padded box ([`balanced`]): a point is then judged with its neighbours.

use rayon::prelude::*;

use crate::voxels::accumulator::inside;

/// Iterations.
const ITERATIONS: usize = 10;
/// Standard deviation of the kernel in grid points: with it the maps are closest to those of RELION's blob, which is no product
/// of three kernels.
const WIDTH: f64 = 0.96;
/// Weights up to this are none: their inverses would leave single precision.
const EMPTY: f32 = 1e-30;
/// Grid points on each side that the kernel reaches.
const REACH: usize = 4;

/// The inverses of `weights`; 0 where these are 0.
pub fn inverses(mut weights: Vec<f32>) -> Vec<f32> {
    weights.par_iter_mut().for_each(|w| *w = if *w > EMPTY { 1.0 / *w } else { 0.0 });
    weights
}

/// Factors for weights `[z][y][x]` as [`crate::voxels::accumulator::Sums`] holds them.
pub fn balanced(box_size: usize, weight: &[f32]) -> Vec<f32> {
    let side = 2 * box_size - 1;
    let taps = taps();
    let mut factors = vec![0.0f32; weight.len()];
    let lines = factors.par_chunks_exact_mut(box_size).zip(weight.par_chunks_exact(box_size));
    lines.enumerate().for_each(|(line, (factors, weight))| {
        let (z, y) = (line / side, line % side);
        for (x, (factor, &weight)) in factors.iter_mut().zip(weight).enumerate() {
            // Where there is no sample there is nothing to multiply, and a factor would grow without end.
            *factor = if inside(box_size, x, y, z) && weight > EMPTY { 1.0 } else { 0.0 };
        }
    });
    let (mut product, mut blurred) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
    for _ in 0..ITERATIONS {
        let all = product.par_iter_mut().zip(&factors).zip(weight);
        all.for_each(|((product, factor), weight)| *product = factor * weight);
        blur(box_size, &taps, &mut product, &mut blurred);
        factors.par_iter_mut().zip(&product).filter(|(factor, _)| **factor > 0.0).for_each(
            // A point's own weight is part of its density, which so is never 0.
            |(factor, density)| *factor /= density,
        );
    }
    factors
}

/// The kernel from its middle on; its sum over both sides is 1.
fn taps() -> [f32; REACH + 1] {
    let values: [f64; REACH + 1] = std::array::from_fn(|i| (-0.5 * (i as f64 / WIDTH).powi(2)).exp());
    let sum = values[0] + 2.0 * values[1..].iter().sum::<f64>();
    values.map(|value| (value / sum) as f32)
}

/// Convolves `values` with the kernel along all axes; `other` has the same length.
fn blur(box_size: usize, taps: &[f32; REACH + 1], values: &mut [f32], other: &mut [f32]) {
    let (n, side) = (box_size, 2 * box_size - 1);
    let plane = side * n;
    let input = &*values;
    other.par_chunks_exact_mut(plane).enumerate().for_each_init(
        || (vec![0.0; plane], vec![0.0; n + 2 * REACH]),
        |(along_x, line), (z, output)| {
            for (y, blurred) in along_x.chunks_exact_mut(n).enumerate() {
                let start = (z * side + y) * n;
                // Values left of x = 0 are those of the mirror image.
                let mirrored = ((side - 1 - z) * side + side - 1 - y) * n;
                for i in 1..=REACH {
                    line[REACH - i] = input[mirrored + i];
                }
                line[REACH..REACH + n].copy_from_slice(&input[start..start + n]);
                blurred.iter_mut().for_each(|value| *value = 0.0);
                for offset in 0..=2 * REACH {
                    add_times(blurred, &line[offset..offset + n], taps[offset.abs_diff(REACH)]);
                }
            }
            for (y, output) in output.chunks_exact_mut(n).enumerate() {
                output.iter_mut().for_each(|value| *value = 0.0);
                for near in y.saturating_sub(REACH)..=(y + REACH).min(side - 1) {
                    add_times(output, &along_x[near * n..(near + 1) * n], taps[near.abs_diff(y)]);
                }
            }
        },
    );
    let input = &*other;
    values.par_chunks_exact_mut(plane).enumerate().for_each(|(z, output)| {
        output.iter_mut().for_each(|value| *value = 0.0);
        for near in z.saturating_sub(REACH)..=(z + REACH).min(side - 1) {
            add_times(output, &input[near * plane..(near + 1) * plane], taps[near.abs_diff(z)]);
        }
    });
}

fn add_times(sums: &mut [f32], values: &[f32], factor: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

#[cfg(test)]
mod tests {
    use crate::voxels::accumulator::square;
    use crate::voxels::gridding::*;

    #[test]
    fn even_weights_give_their_inverse_and_the_kernel_keeps_a_constant() {
        let n = 12;
        let side = 2 * n - 1;
        let weight = vec![4.0f32; side * side * n];
        let mut blurred = weight.clone();
        blur(n, &taps(), &mut blurred, &mut weight.clone());
        let factors = balanced(n, &weight);
        // As far from the ends as the kernel reaches, over and over.
        for (z, y, x) in [(n - 1, n - 1, 0), (n, n - 2, 1)] {
            let at = (z * side + y) * n + x;
            assert!((blurred[at] - 4.0).abs() < 1e-5, "{}", blurred[at]);
            assert!((factors[at] - 0.25).abs() < 0.02, "{}", factors[at]);
        }
    }

    #[test]
    fn uneven_weights_times_their_factors_are_one_about_every_point() {
        let n = 12;
        let side = 2 * n - 1;
        let mut weight = vec![0.0f32; side * side * n];
        for (i, weight) in weight.iter_mut().enumerate() {
            let (x, y, z) = (i % n, i / n % side, i / n / side);
            if inside(n, x, y, z) {
                // Dense at the origin, as planes through it are.
                *weight = 100.0 / (1.0 + (square(n, x, y, z) as f32).sqrt()) + ((x + y + z) % 3) as f32;
            }
        }
        let mut density: Vec<f32> = balanced(n, &weight).iter().zip(&weight).map(|(f, w)| f * w).collect();
        blur(n, &taps(), &mut density, &mut weight.clone());
        for (i, density) in density.iter().enumerate() {
            let square = square(n, i % n, i / n % side, i / n / side);
            // Ten iterations come to 0.11 at the edge, where the kernel reaches beyond; one to 0.28.
            assert!(square >= n * n || (density - 1.0).abs() < 0.15, "{density} at {square}");
        }
    }

    #[test]
    fn few_samples_give_finite_factors_and_none_give_none() {
        let n = 12;
        let side = 2 * n - 1;
        let mut weight = vec![0.0f32; side * side * n];
        let (first, second) = (((n + 2) * side + n) * n + 2, ((n - 7) * side + n + 3) * n + 1);
        (weight[first], weight[second]) = (1e-20, 3.0);
        let factors = balanced(n, &weight);
        assert!(factors[first].is_finite() && factors[first] > 0.0 && factors[second] > 0.0);
        assert_eq!(factors.iter().filter(|&&factor| factor != 0.0).count(), 2);
    }

    #[test]
    fn the_half_space_is_blurred_as_the_whole_would_be() {
        let n = 7;
        let side = 2 * n - 1;
        // A point at (x, y, z) = (1, 2, -3), and so its mirror image at (-1, -2, 3).
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
