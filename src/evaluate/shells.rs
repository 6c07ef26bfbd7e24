//! Shells of Fourier space: all values whose radius |k| in cycles per box rounds to the same integer.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::imaging::fourier::frequency;

/// A shell with less than this part of a map's power holds rounding errors of the transform and nothing else:
/// they are about 1e-31 of the power, and the rounding of 32-bit values alone is 1e-15.
const EMPTY_SHELL: f64 = 1e-28;

/// The radius of the value at FFT index `[z, y, x]` of a cube of edge `n`, in cycles per box.
pub(super) fn radius(at: [usize; 3], n: usize) -> f64 {
    (at.map(|i| frequency(i, n) * frequency(i, n)).iter().sum::<isize>() as f64).sqrt()
}

/// Per shell: the sum of Re(A conj B), of |A|^2 and of |B|^2. All shells of a cube of edge `n`, to the corner; `at` gives
/// A and B at an FFT index `[z, y, x]`. The same for any number of threads.
pub(super) fn shell_sums(n: usize, at: impl Fn([usize; 3]) -> [Complex<f64>; 2] + Sync) -> Vec<[f64; 3]> {
    // The corner lies at sqrt(3) n/2.
    let count = n + 1;
    let planes: Vec<Vec<[f64; 3]>> = (0..n)
        .into_par_iter()
        .map(|z| {
            let mut sums = vec![[0.0; 3]; count];
            for y in 0..n {
                for x in 0..n {
                    let [a, b] = at([z, y, x]);
                    let sum = &mut sums[radius([z, y, x], n).round() as usize];
                    sum[0] += a.re * b.re + a.im * b.im;
                    sum[1] += a.norm_sqr();
                    sum[2] += b.norm_sqr();
                }
            }
            sums
        })
        .collect();
    let mut sums = vec![[0.0; 3]; count];
    for plane in planes {
        for (sum, part) in sums.iter_mut().zip(plane) {
            (0..3).for_each(|i| sum[i] += part[i]);
        }
    }
    sums
}

/// Values in each shell of a cube of edge `n`, to the corner; of a real map half of them are independent, of two numbers each.
pub(super) fn sizes(n: usize) -> Vec<f64> {
    let one = Complex::new(1.0, 0.0);
    shell_sums(n, |_| [one, one]).into_iter().map(|[size, _, _]| size).collect()
}

/// The correlations in shells 0 up to and without n/2, of the sums of all shells; 0 where a map has no power.
pub(super) fn correlations(sums: &[[f64; 3]], n: usize) -> Vec<f64> {
    let total = sums.iter().fold([0.0; 2], |t, s| [t[0] + s[1], t[1] + s[2]]);
    sums[..n / 2].iter().map(|&sum| correlation(sum, total).unwrap_or(0.0)).collect()
}

/// The correlation of [sum of Re(A conj B), of |A|^2, of |B|^2], where neither map is empty there; `total` is the power of
/// each.
pub(super) fn correlation([cross, a, b]: [f64; 3], total: [f64; 2]) -> Option<f64> {
    let empty = a <= EMPTY_SHELL * total[0] || b <= EMPTY_SHELL * total[1];
    // Two roots: the product of two powers can leave the range of f64 where the powers do not.
    (!empty).then(|| cross / a.sqrt() / b.sqrt())
}
