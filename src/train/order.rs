//! Which particle is seen when, and by which rank: a pure function of (seed, half, epoch, batch).
//!
//! A half's particles are shuffled once and dealt, like cards, to `batch` slots. In each epoch every slot shuffles its own
//! particles; step t takes the t-th of every slot. A rank owns a run of slots, so it sees the same particles in every
//! epoch (its shard), every particle is used exactly once an epoch, and the batches are the same however many ranks
//! share them. The last step of an epoch takes what is left.

use std::ops::Range;

use rand::seq::SliceRandom;

use crate::random::{Purpose, stream};

/// The order of one half.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    half: u8,
    slots: Vec<Vec<usize>>,
}

impl Order {
    /// Deals `particles` (any labels) to `batch` slots. `half` (1 or 2, 0 for a model of all) keeps halves apart.
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn new(particles: &[usize], batch: usize, seed: u64, half: u8) -> Self {
        assert!(batch > 0);
        let mut shuffled = particles.to_vec();
        shuffled.shuffle(&mut stream(seed, Purpose::Order, half, 0));
        let mut slots = vec![Vec::new(); batch.min(particles.len())];
        let count = slots.len();
        for (i, particle) in shuffled.into_iter().enumerate() {
            slots[i % count].push(particle);
        }
        Self { seed, half, slots }
    }

    /// Number of slots: the batch, or the number of particles where that is smaller.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Steps in an epoch.
    pub fn steps(&self) -> usize {
        self.slots.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Images of step `step` of any epoch, over all slots.
    pub fn images(&self, step: usize) -> usize {
        self.slots.iter().filter(|slot| slot.len() > step).count()
    }

    /// The slots of rank `rank` of `ranks`.
    pub fn slots_of(&self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.slots() / ranks..(rank + 1) * self.slots() / ranks
    }

    /// The particles that `slots` ever see.
    pub fn shard(&self, slots: Range<usize>) -> Vec<usize> {
        let mut shard: Vec<usize> = self.slots[slots].concat();
        shard.sort_unstable();
        shard
    }

    /// The batches of `slots` in `epoch` (from 0): one list a step, empty where the slots have run out.
    pub fn epoch(&self, epoch: usize, slots: Range<usize>) -> Vec<Vec<usize>> {
        let mut batches = vec![Vec::with_capacity(slots.len()); self.steps()];
        for slot in slots {
            let mut particles = self.slots[slot].clone();
            // One stream per (half, epoch, slot): 2^28 epochs of 2^20 slots, and index 0 was the deal.
            let index = ((epoch as u64 + 1) << 20) | slot as u64;
            particles.shuffle(&mut stream(self.seed, Purpose::Order, self.half, index));
            for (batch, particle) in batches.iter_mut().zip(particles) {
                batch.push(particle);
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn particles(n: usize) -> Vec<usize> {
        (0..n).map(|i| 3 * i + 1).collect()
    }

    #[test]
    fn every_particle_once_an_epoch_whatever_the_ranks() {
        for (n, batch) in [(101, 8), (100, 1), (5, 8), (64, 16)] {
            let order = Order::new(&particles(n), batch, 7, 1);
            for epoch in 0..3 {
                let whole = order.epoch(epoch, 0..order.slots());
                let mut seen = whole.concat();
                seen.sort_unstable();
                assert_eq!(seen, particles(n));
                assert_eq!(whole.len(), n.div_ceil(batch.min(n)));
                for (step, batch) in whole.iter().enumerate() {
                    assert_eq!(order.images(step), batch.len());
                }
                for ranks in 1..=order.slots().min(4) {
                    let parts: Vec<_> =
                        (0..ranks).map(|r| order.epoch(epoch, order.slots_of(r, ranks))).collect();
                    for (step, batch) in whole.iter().enumerate() {
                        let joined: Vec<usize> = parts.iter().flat_map(|p| p[step].iter().copied()).collect();
                        assert_eq!(&joined, batch, "the same batch in the same order");
                    }
                }
            }
        }
    }

    #[test]
    fn epochs_and_halves_differ_and_a_rank_keeps_its_shard() {
        let order = Order::new(&particles(101), 8, 7, 1);
        assert_ne!(order.epoch(0, 0..8), order.epoch(1, 0..8));
        assert_ne!(order.epoch(0, 0..8), Order::new(&particles(101), 8, 7, 2).epoch(0, 0..8));
        let slots = order.slots_of(1, 3);
        for epoch in 0..3 {
            let mut seen = order.epoch(epoch, slots.clone()).concat();
            seen.sort_unstable();
            assert_eq!(seen, order.shard(slots.clone()));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_sizes_use_each_particle_once_in_one_global_order(
            n in 1usize..300,
            batch in 1usize..80,
            ranks in 1usize..20,
            seed in 0u64..1000,
            epoch in 0usize..1000,
            half in 0u8..3,
        ) {
            let labels = particles(n);
            let order = Order::new(&labels, batch, seed, half);
            let whole = order.epoch(epoch, 0..order.slots());
            let mut seen = whole.concat();
            seen.sort_unstable();
            proptest::prop_assert_eq!(seen, labels);
            // All steps but the last are full, and none is empty.
            let full = batch.min(n);
            proptest::prop_assert!(whole[..whole.len() - 1].iter().all(|step| step.len() == full));
            proptest::prop_assert!((1..=full).contains(&whole[whole.len() - 1].len()));
            // More ranks than slots are refused before an order is asked for; even then nothing is lost.
            let parts: Vec<_> = (0..ranks).map(|r| order.epoch(epoch, order.slots_of(r, ranks))).collect();
            for (step, images) in whole.iter().enumerate() {
                let joined: Vec<usize> = parts.iter().flat_map(|p| p[step].iter().copied()).collect();
                proptest::prop_assert_eq!(&joined, images);
            }
            if ranks <= order.slots() {
                proptest::prop_assert!((0..ranks).all(|r| !order.slots_of(r, ranks).is_empty()));
            }
        }
    }
}
