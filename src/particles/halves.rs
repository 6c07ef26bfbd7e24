//! Random assignment of particles to the halves, for metadata that does not give them.

use rand::seq::SliceRandom;

use super::Subset;
use crate::random::{self, Purpose};

/// Assigns `n` particles to the halves at random, as evenly as possible. The result depends on `n` and `seed` alone.
pub fn draw(n: usize, seed: u64) -> Vec<Subset> {
    let mut halves: Vec<Subset> = (0..n).map(|i| Subset::HALVES[i % 2]).collect();
    halves.shuffle(&mut random::stream(seed, Purpose::Halves, 0, 0));
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_even_and_repeatable() {
        let a = draw(101, 7);
        assert_eq!(a.iter().filter(|&&half| half == Subset::Half2).count(), 50);
        assert_eq!(a, draw(101, 7));
        assert_ne!(a, draw(101, 8));
    }
}
