//! Random numbers from one seed: independent, reproducible streams, equal on all platforms.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The random number generator of the program.
pub type Random = ChaCha8Rng;

/// Purpose of a random stream. Streams of different purposes do not overlap. Values are part of the results: do not change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Assignment of particles to halves.
    Halves = 1,
    /// Initial Gaussians of a half.
    Start = 2,
    /// Order of the particles in an epoch.
    Order = 3,
    /// Poses, defoci and shifts of simulated particles.
    Geometry = 4,
    /// Noise of simulated particles.
    Noise = 5,
    /// Phases for phase randomisation of half maps.
    Phases = 6,
    /// Initial positions of Gaussians drawn from a map.
    Placement = 7,
    /// Defects of simulated particles.
    Defects = 8,
    /// Particles that an import draws from its input, or that a page shows.
    Selection = 9,
}

/// The stream for `purpose`, `half` (1 or 2; 0 if not applicable) and `index` (epoch, particle, ...; below 2^48).
pub fn stream(seed: u64, purpose: Purpose, half: u8, index: u64) -> Random {
    debug_assert!(index < 1 << 48);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream((purpose as u64) << 56 | u64::from(half) << 48 | index);
    random
}

/// `count` of `rows` (all, if there are fewer): of each of as many equal parts one, drawn at random. Rows that repeat a pattern are
/// drawn from evenly; the same rows and count give the same choice.
pub fn spread(rows: Range<usize>, count: usize) -> Vec<usize> {
    let (all, count) = (rows.len(), count.min(rows.len()));
    let mut random = stream(0, Purpose::Selection, 0, rows.start as u64);
    (0..count)
        .map(|part| rows.start + random.random_range(part * all / count..(part + 1) * all / count))
        .collect()
}
