//! A random permutation in constant memory, for ranges of any size.
//!
//! A Feistel network permutes the numbers below the next power of four. A result outside the range is permuted again until it
//! is inside, which makes the whole a permutation of the range (cycle walking). Only the keys are stored.

use rand::Rng;

use crate::random::Random;

/// Rounds of the network. Four suffice for large ranges; the smallest need more.
const ROUNDS: usize = 8;

/// A permutation of `0..size`.
#[derive(Clone, Debug)]
pub(crate) struct Permutation {
    keys: [u64; ROUNDS],
    size: u64,
    /// Bits of each half of a number.
    half_bits: u32,
}

impl Permutation {
    /// Draws a permutation of `0..size`.
    pub fn new(size: usize, random: &mut Random) -> Self {
        let size = size as u64;
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        let keys = std::array::from_fn(|_| random.next_u64());
        Self { keys, size, half_bits: bits.div_ceil(2).max(1) }
    }

    /// The value at `position`.
    ///
    /// # Panics
    /// If `position` is outside the range.
    pub fn at(&self, position: usize) -> usize {
        self.cycle_walk(position, |mut left, mut right, mask| {
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            (left, right)
        })
    }

    /// The position of `value`: the inverse of [`Permutation::at`].
    ///
    /// # Panics
    /// If `value` is outside the range.
    pub fn position_of(&self, value: usize) -> usize {
        self.cycle_walk(value, |mut left, mut right, mask| {
            for &key in self.keys.iter().rev() {
                (left, right) = (right ^ (mix(left ^ key) & mask), left);
            }
            (left, right)
        })
    }

    /// Applies `rounds` to the two halves of a number, starting at `start`, until the number is in the range.
    fn cycle_walk(&self, start: usize, rounds: impl Fn(u64, u64, u64) -> (u64, u64)) -> usize {
        let mut number = start as u64;
        assert!(number < self.size, "{number} of {}", self.size);
        let mask = (1 << self.half_bits) - 1;
        loop {
            let (left, right) = rounds(number >> self.half_bits, number & mask, mask);
            number = left << self.half_bits | right;
            if number < self.size {
                return number as usize;
            }
        }
    }
}

/// Hash of `x`: each bit depends on all bits of `x`.
fn mix(x: u64) -> u64 {
    let folded = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let folded = (folded ^ (folded >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    folded ^ (folded >> 32)
}

#[cfg(test)]
mod tests {
    use crate::loader::permutation::*;
    use crate::random::{Purpose, stream};

    fn draw(size: usize, index: u64) -> Permutation {
        Permutation::new(size, &mut stream(5, Purpose::Order, 1, index))
    }

    #[test]
    fn at_is_a_bijection_and_position_of_its_inverse() {
        for size in [1, 2, 3, 4, 5, 16, 17, 100, 1023, 1025] {
            let permutation = draw(size, 0);
            let mut values: Vec<usize> = (0..size).map(|position| permutation.at(position)).collect();
            let inverted = values.iter().enumerate().all(|(at, &value)| permutation.position_of(value) == at);
            assert!(inverted);
            values.sort_unstable();
            assert!(values.into_iter().eq(0..size));
        }
    }

    #[test]
    fn positions_and_neighbours_are_uniformly_distributed() {
        const DRAWS: u64 = 6000;
        for size in [3usize, 5, 12] {
            let (mut first, mut follows) = (vec![0u32; size], vec![0u32; size * size]);
            for index in 0..DRAWS {
                let permutation = draw(size, index);
                first[permutation.at(0)] += 1;
                follows[permutation.at(0) * size + permutation.at(1)] += 1;
            }
            // Five standard deviations of a binomial.
            let fair = |count: u32, cells: usize| {
                let mean = DRAWS as f64 / cells as f64;
                assert!((f64::from(count) - mean).abs() < 5.0 * mean.sqrt(), "{count} of {mean} of {size}");
            };
            first.iter().for_each(|&count| fair(count, size));
            let pairs = (0..size * size).filter(|pair| pair / size != pair % size);
            pairs.for_each(|pair| fair(follows[pair], size * (size - 1)));
        }
    }
}
