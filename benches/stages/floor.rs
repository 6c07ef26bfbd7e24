//! Lower bound of the time of rasterise and moments: their multiplications alone.
//!
//! A CPU with two 256-bit units multiplies (and adds) 16 numbers per cycle. Everything else in an inner loop (additions, loads,
//! stores, branches) overlaps with that at best. The bound is half a cycle per multiplication of 8 numbers, at the clock measured
//! during the bench. A CPU with two 512-bit units can be faster.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cryosplat_mpi::render::cpu::project::{SplatBlock, kind};
use cryosplat_mpi::render::cpu::raster::STRETCH;

/// Multiplications of `exp2`: eight for the polynomial, one for the power of two.
const EXPONENTIAL: u64 = 9;

/// Columns per multiplication.
const COLUMNS: u64 = 8;

/// Number of multiplications of 8 numbers to draw splats, and to compute their moments.
pub fn multiplications(splats: &[SplatBlock]) -> [u64; 2] {
    let mut sums = [0, 0];
    for block in splats {
        for (lane, kind) in block.kind.into_iter().enumerate() {
            let (width, rows) = (block.width[lane] as u64, block.height[lane] as u64);
            // Before the first row: distances, two exponents, two exponentials, the weight and the support. Then a row: value and
            // ratio; with the gradient, times k and times k^2.
            let (strips, start, draw, moments) = match kind {
                kind::SMALL => (1, 3 + 2 * EXPONENTIAL + 2, 2, 5),
                // Both ways from the middle of each stretch: a third exponential, and rows in pairs that share their factors.
                kind::STEPPED => {
                    let stretches = rows.div_ceil(STRETCH as u64);
                    (width.div_ceil(COLUMNS), 2 + stretches * (2 + 3 * EXPONENTIAL + 3), 2, 4)
                }
                _ => continue,
            };
            sums[0] += strips * (start + rows * draw);
            sums[1] += strips * (start + rows * moments);
        }
    }
    sums
}

/// Time of this number of multiplications at two per cycle.
pub fn time(multiplications: u64) -> Duration {
    Duration::from_secs_f64(multiplications as f64 / 2.0 / cycles_per_second())
}

/// Clock frequency, from a chain of dependent operations: integer multiplication takes three cycles, rotation one.
fn cycles_per_second() -> f64 {
    const STEPS: u32 = 100_000;
    let fastest = (0..200).map(|_| {
        let (mut value, factor) = (black_box(3u64), black_box(0x9e37_79b9_7f4a_7c15));
        let start = Instant::now();
        for _ in 0..STEPS {
            value = value.wrapping_mul(factor).rotate_left(7);
        }
        black_box(value);
        start.elapsed()
    });
    f64::from(4 * STEPS) / fastest.min().expect("200 of them").as_secs_f64()
}
