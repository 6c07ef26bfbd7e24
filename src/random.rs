//! Random numbers from one seed: independent, named, repeatable streams on every platform.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The generator that the whole program uses.
pub type Random = ChaCha8Rng;

/// What a stream of random numbers is for. Streams of different purposes never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Which half a particle belongs to.
    Halves = 1,
    /// The starting Gaussians of a half.
    Start = 2,
    /// The order of particles in an epoch.
    Order = 3,
    /// Poses, defoci and shifts of simulated particles.
    Geometry = 4,
    /// The noise of simulated particles.
    Noise = 5,
    /// The phases that take the place of a half map's own.
    Phases = 6,
    /// Where in a map the starting Gaussians of a half lie.
    Placement = 7,
}

/// The stream for `purpose`, `half` (0 where there is none, else 1 or 2) and `index` (epoch, particle, ...; below 2^48).
pub fn stream(seed: u64, purpose: Purpose, half: u8, index: u64) -> Random {
    debug_assert!(index < 1 << 48);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream((purpose as u64) << 56 | u64::from(half) << 48 | index);
    random
}
