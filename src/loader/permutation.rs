//! A random permutation that is computed place by place and not stored, however large it is.
//!
//! A Feistel network permutes the numbers below the next power of four; what falls outside the range is permuted again until
//! it is inside, which keeps it a permutation of the range. Its keys are all there is in memory.

use rand::Rng;

use crate::random::Random;

/// Rounds of the network. Four make it random as a whole; more do so for the smallest ranges too.
const ROUNDS: usize = 8;

/// A permutation of `0..size`.
#[derive(Clone, Debug)]
pub struct Permutation {
    keys: [u64; ROUNDS],
    size: u64,
    /// Bits of each of the two parts of a number.
    bits: u32,
}

impl Permutation {
    /// Draws one.
    pub fn new(size: usize, random: &mut Random) -> Self {
        let size = size as u64;
        let wanted = u64::BITS - size.saturating_sub(1).leading_zeros();
        let keys = std::array::from_fn(|_| random.next_u64());
        Self { keys, size, bits: wanted.div_ceil(2).max(1) }
    }

    /// What stands at `place`.
    ///
    /// # Panics
    /// If `place` is outside of the range.
    pub fn at(&self, place: usize) -> usize {
        self.walk(place, |mut left, mut right, mask| {
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            (left, right)
        })
    }

    /// The place where `value` stands.
    ///
    /// # Panics
    /// If `value` is outside of the range.
    pub fn place(&self, value: usize) -> usize {
        self.walk(value, |mut left, mut right, mask| {
            for &key in self.keys.iter().rev() {
                (left, right) = (right ^ (mix(left ^ key) & mask), left);
            }
            (left, right)
        })
    }

    fn walk(&self, start: usize, rounds: impl Fn(u64, u64, u64) -> (u64, u64)) -> usize {
        let mut number = start as u64;
        assert!(number < self.size, "{number} of {}", self.size);
        let mask = (1 << self.bits) - 1;
        loop {
            let (left, right) = rounds(number >> self.bits, number & mask, mask);
            number = left << self.bits | right;
            if number < self.size {
                return number as usize;
            }
        }
    }
}

/// A number all of whose bits depend on all bits of `x`.
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
    fn every_number_stands_once_and_is_found_there() {
        for size in [1, 2, 3, 4, 5, 16, 17, 100, 1023, 1025] {
            let permutation = draw(size, 0);
            let mut seen: Vec<usize> = (0..size).map(|place| permutation.at(place)).collect();
            assert!(seen.iter().enumerate().all(|(place, &value)| permutation.place(value) == place));
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..size));
        }
    }

    #[test]
    fn every_number_stands_anywhere_equally_often_and_beside_any_other() {
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
