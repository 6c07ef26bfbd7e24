//! Sum of squares in double precision.

use super::{Isa, vectorize};

vectorize! {
    /// The sum of the squares of `values`, in f64: finite if and only if all values are. The same bits at every SIMD level.
    pub fn sum_of_squares(values: &[f32]) -> f64 = lanes
}

// The same scalar operations at every level; the compiler vectorises them.
#[inline(always)]
fn lanes<I: Isa>(values: &[f32]) -> f64 {
    // 16 independent sums, which fill vector registers.
    let mut sums = [0.0f64; 16];
    let (groups, rest) = values.as_chunks::<16>();
    for group in groups {
        for (sum, &value) in sums.iter_mut().zip(group) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value) * f64::from(value);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn the_sum_has_the_bits_of_the_portable_level() {
        for length in [0, 1, 15, 16, 17, 1000] {
            let values: Vec<f32> = (0..length).map(|i| (i as f32 * 0.7).sin()).collect();
            let portable = lanes::<Portable>(&values);
            assert_eq!(sum_of_squares(&values).to_bits(), portable.to_bits());
            let plain: f64 = values.iter().map(|&y| f64::from(y).powi(2)).sum();
            assert!((plain - portable).abs() <= 1e-12 * plain);
        }
    }

    #[test]
    fn the_sum_is_finite_where_all_values_are() {
        for length in [0usize, 1, 7, 8, 31, 32, 33, 1000] {
            let mut values: Vec<f32> = (0..length).map(|k| (k as f32 * 0.7).sin()).collect();
            let want: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!((sum_of_squares(&values) - want).abs() <= 1e-14 * want, "{length}");
            // The square of the largest finite value overflows f32, but not f64.
            for (value, finite) in [(f32::MAX, true), (f32::NAN, false), (f32::NEG_INFINITY, false)] {
                for at in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|&at| at < length) {
                    let before = std::mem::replace(&mut values[at], value);
                    assert_eq!(sum_of_squares(&values).is_finite(), finite, "{length} {at} {value}");
                    values[at] = before;
                }
            }
        }
    }
}
