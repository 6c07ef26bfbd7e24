//! Random assignment of particles to the halves.

use rand::seq::SliceRandom;

use super::Subset;
use crate::random::{self, Purpose};

/// Assigns `n` particles to the halves at random, as evenly as possible. The result depends on `n` and `seed` alone.
pub fn draw(n: usize, seed: u64) -> Vec<Subset> {
    let mut halves: Vec<Subset> = (0..n).map(|i| Subset::HALVES[i % 2]).collect();
    halves.shuffle(&mut random::stream(seed, Purpose::Halves, 0, 0));
    halves
}

/// Assigns whole groups of particles to the halves at random. `sizes` has the number of particles of each group. Returns the
/// half of each group.
///
/// Groups of equal size are drawn as [`draw`] draws particles. Otherwise large groups are assigned first, in random order
/// within a size, each to the smaller half: the halves differ by at most the size of the smallest group, if that evens out.
pub(crate) fn draw_groups(sizes: &[u32], seed: u64) -> Vec<Subset> {
    if sizes.windows(2).all(|pair| pair[0] == pair[1]) {
        return draw(sizes.len(), seed);
    }
    let mut order: Vec<u32> = (0..sizes.len() as u32).collect();
    order.shuffle(&mut random::stream(seed, Purpose::Halves, 0, 0));
    // A stable sort: groups of equal size stay in random order.
    order.sort_by_key(|&group| std::cmp::Reverse(sizes[group as usize]));
    let mut halves = vec![Subset::Half1; sizes.len()];
    let mut counts = [0u64; 2];
    for group in order {
        let smaller = usize::from(counts[1] < counts[0]);
        counts[smaller] += u64::from(sizes[group as usize]);
        halves[group as usize] = Subset::HALVES[smaller];
    }
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

    #[test]
    fn groups_of_any_size_give_even_halves() {
        assert_eq!(draw_groups(&[3; 11], 7), draw(11, 7));
        assert_eq!(draw_groups(&[1; 11], 7), draw(11, 7));
        let sizes: Vec<u32> = (0..200).map(|i| if i % 10 == 0 { 7 } else { 1 + i % 3 }).collect();
        let halves = draw_groups(&sizes, 7);
        let of = |half| sizes.iter().zip(&halves).filter(|(_, h)| **h == half).map(|(s, _)| s).sum::<u32>();
        assert!(of(Subset::Half1).abs_diff(of(Subset::Half2)) <= 1);
        assert_eq!(halves, draw_groups(&sizes, 7));
        assert_ne!(halves, draw_groups(&sizes, 8));
    }
}
