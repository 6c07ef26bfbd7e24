//! The floor under rasterise and moments: what their multiplications alone would take.
//!
//! A processor of 256-bit vectors multiplies eight numbers twice a cycle (with or without an addition), and whatever else an inner
//! loop does (additions, loads, stores, choosing what comes next) can at best go on beside that. So the floor is half a
//! cycle for each multiplication of eight numbers, at the clock that the processor had when it was measured. Those of 512 bits
//! may do better than this, where they have two units of that width.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cryosplat_mpi::render::cpu::project::{SplatBlock, kind};
use cryosplat_mpi::render::cpu::raster::STRETCH;

/// Multiplications of a power of two: eight of its polynomial, one by 2 to the integer.
const EXPONENTIAL: u64 = 9;

/// Columns that are multiplied at once.
const COLUMNS: u64 = 8;

/// Multiplications of eight numbers to draw some splats, and to take their moments.
pub fn multiplications(splats: &[SplatBlock]) -> [u64; 2] {
    let mut sums = [0, 0];
    for eight in splats {
        for (lane, kind) in eight.kind.into_iter().enumerate() {
            let (width, rows) = (eight.width[lane] as u64, eight.height[lane] as u64);
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

/// The time of so many multiplications at two a cycle.
pub fn time(multiplications: u64) -> Duration {
    Duration::from_secs_f64(multiplications as f64 / 2.0 / cycles_a_second())
}

/// The clock, from steps that each wait for the one before: a multiplication of integers takes three cycles, a rotation one.
fn cycles_a_second() -> f64 {
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
