//! Which FSC half a particle belongs to, where its metadata does not say.

use rand::seq::SliceRandom;

use crate::random::{self, Purpose};

/// Draws halves 0 and 1 for `n` particles: as many of each as can be, in a random order that `seed` decides.
pub fn draw(n: usize, seed: u64) -> Vec<u8> {
    let mut halves: Vec<u8> = (0..n).map(|i| (i % 2) as u8).collect();
    halves.shuffle(&mut random::stream(seed, Purpose::Halves, 0, 0));
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_even_and_repeatable() {
        let a = draw(101, 7);
        assert_eq!(a.iter().filter(|&&h| h == 1).count(), 50);
        assert_eq!(a, draw(101, 7));
        assert_ne!(a, draw(101, 8));
    }
}
