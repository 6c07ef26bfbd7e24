//! Shells of Fourier space. A shell is the set of values whose radius |k| in cycles per box rounds to the same integer.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::imaging::fourier::frequency;

/// A shell with less than this fraction of a map's power holds only rounding errors of the transform, which are about 1e-31 of the
/// power; rounding to 32 bits alone is 1e-15.
const EMPTY_SHELL: f64 = 1e-28;

/// The radius of the value at FFT index `[z, y, x]` of a cube of edge `n`, in cycles per box.
pub(super) fn radius(at: [usize; 3], n: usize) -> f64 {
    (at.map(|i| frequency(i, n) * frequency(i, n)).iter().sum::<isize>() as f64).sqrt()
}

/// Per shell, the sums of Re(A conj B), |A|^2 and |B|^2, for all shells of a cube of edge `n` up to its corners; `at` returns A and B
/// at an FFT index `[z, y, x]`. The result does not depend on the number of threads.
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

/// Number of values in each shell of a cube of edge `n` up to its corners. In the spectrum of a real map, half of them are independent
/// complex numbers.
pub(super) fn sizes(n: usize) -> Vec<f64> {
    let one = Complex::new(1.0, 0.0);
    shell_sums(n, |_| [one, one]).into_iter().map(|[size, _, _]| size).collect()
}

/// The correlations in shells 0 to floor(n/2) - 1 from the sums of all shells; 0 where a map has no power.
pub(super) fn correlations(sums: &[[f64; 3]], n: usize) -> Vec<f64> {
    let total = sums.iter().fold([0.0; 2], |t, s| [t[0] + s[1], t[1] + s[2]]);
    sums[..n / 2].iter().map(|&sum| correlation(sum, total).unwrap_or(0.0)).collect()
}

/// The correlation from the sums of Re(A conj B), |A|^2 and |B|^2 of a shell; `None` if a map has no power there. `total` is the power
/// of each map over all shells.
pub(super) fn correlation([cross, a, b]: [f64; 3], total: [f64; 2]) -> Option<f64> {
    let empty = a <= EMPTY_SHELL * total[0] || b <= EMPTY_SHELL * total[1];
    // Two roots, since the product of two powers can overflow.
    (!empty).then(|| cross / a.sqrt() / b.sqrt())
}
