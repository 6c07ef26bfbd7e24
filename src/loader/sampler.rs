//! Which particle is seen when, and by which rank: a pure function of (seed, half, epoch, batch), and of how many rows of
//! which size the half has.
//!
//! The order is random, and yet files are read in large pieces, each once an epoch, and nothing in memory grows with the
//! number of particles:
//!
//! - The half's rows are cut into as many **slots** of consecutive rows as a batch has images. Step t takes the t-th row of
//!   every slot, in the slot's own order; so the images of a batch come from all over the half. The last step of an epoch
//!   takes what is left.
//! - A slot's rows are cut into **blocks** of consecutive rows, about 4 MiB each. In each epoch the blocks are put in a
//!   random order; each four that follow one another form a **window**, whose rows are shuffled. Two windows of each slot
//!   are in memory at a time, the one in use and the one that is read ahead: together at most 1 GiB and 32,768 rows over
//!   all ranks (more only where eight images of each slot alone are more).
//! - A rank owns a run of slots, so it sees the same rows in every epoch, its **shard**, which are consecutive too. The
//!   batches are the same however many ranks share them.
//!
//! Neighbours in a file are alike (one micrograph, one grid): within a slot they can come in steps that are close in time,
//! never in the same batch. Batches are as mixed as a half cut into equal parts is; windows and blocks change in every epoch.

use std::ops::Range;

use rand::seq::SliceRandom;

use crate::loader::permutation::Permutation;
use crate::particles::Subset;
use crate::random::{Purpose, Random, stream};

/// Blocks in a window.
pub const WINDOW: usize = 4;
/// Windows of a slot in memory: one in use, one that is read.
pub const WINDOWS: usize = 2;

/// A block's size where memory allows it: large enough that any disk reads at its full rate.
const BLOCK_BYTES: usize = 4 << 20;
/// Memory for the windows of all slots.
const MEMORY: usize = 1 << 30;
/// Rows whose windows are in memory at a time, of all slots: small images take less than what else is held of a particle.
const ROWS: usize = 1 << 15;

/// The order of one half.
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u64,
    subset: Subset,
    rows: Range<usize>,
    slots: usize,
    /// Rows in a block; the last one of a slot may have fewer.
    block: usize,
}

/// A window of a slot in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowId {
    /// The epoch, from 0.
    pub epoch: usize,
    /// The window in it, from 0.
    pub number: usize,
    /// The slot.
    pub slot: usize,
}

/// How a slot is gone through in an epoch.
struct Plan {
    rows: Range<usize>,
    block: usize,
    blocks: Permutation,
    /// The place of the slot's last block, which may be short, and the rows that it lacks.
    short: (usize, usize),
    random: Random,
}

impl Sampler {
    /// Of the rows `rows`, whose images take `image_bytes` in memory each, in batches of `batch`. `subset` separates
    /// the random streams of the two halves.
    ///
    /// # Panics
    /// If `batch` or `image_bytes` is 0.
    pub fn new(rows: Range<usize>, batch: usize, image_bytes: usize, seed: u64, subset: Subset) -> Self {
        assert!(batch > 0 && image_bytes > 0);
        let slots = batch.min(rows.len());
        let room = (MEMORY / image_bytes).min(ROWS) / (WINDOWS * WINDOW * slots.max(1));
        let block = room.clamp(1, (BLOCK_BYTES / image_bytes).max(1));
        Self { seed, subset, rows, slots, block }
    }

    /// Number of slots: the batch, or the number of particles where that is smaller.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Rows in a block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Steps in an epoch.
    pub fn steps(&self) -> usize {
        self.rows.len().div_ceil(self.slots.max(1))
    }

    /// Images of step `step` of any epoch, over all slots.
    pub fn images(&self, step: usize) -> usize {
        self.rows.len().saturating_sub(step.saturating_mul(self.slots)).min(self.slots)
    }

    /// The slots of rank `rank` of `ranks`.
    pub fn slots_of(&self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.slots / ranks..(rank + 1) * self.slots / ranks
    }

    /// The rows that `slots` ever see.
    pub fn shard(&self, slots: Range<usize>) -> Range<usize> {
        let start = |slot| self.rows.start + slot * self.rows.len() / self.slots.max(1);
        start(slots.start)..start(slots.end)
    }

    /// The rows of step `step` of `epoch`, of those of `slots` that have one, in the order of the slots. Finds its place
    /// anew: whoever goes through an epoch keeps the windows.
    pub fn batch(&self, epoch: usize, step: usize, slots: Range<usize>) -> Vec<usize> {
        let rows = slots.filter_map(|slot| {
            let window = self.window_at(epoch, slot, step)?;
            Some(self.rows_of(window)[step - self.steps_of(window).start])
        });
        rows.collect()
    }

    /// The windows of `slots` from step `first_step` of epoch `first_epoch` on, as long as there are epochs below `epochs`:
    /// in the order in which they are needed, but for the few steps by which slots are apart.
    pub fn windows(
        self,
        slots: Range<usize>,
        (first_epoch, first_step): (usize, usize),
        epochs: usize,
    ) -> impl Iterator<Item = WindowId> + Send + 'static {
        let most = slots.clone().map(|slot| self.windows_in(slot)).max().unwrap_or(0);
        (first_epoch..epochs)
            .flat_map(move |epoch| {
                let slots = slots.clone();
                (0..most)
                    .flat_map(move |number| slots.clone().map(move |slot| WindowId { epoch, number, slot }))
            })
            .filter(move |&window| {
                window.number < self.windows_in(window.slot)
                    && (window.epoch > first_epoch || self.steps_of(window).end > first_step)
            })
    }

    /// The window of `slot` that step `step` of `epoch` falls into; `None` where the slot has run out.
    pub fn window_at(&self, epoch: usize, slot: usize, step: usize) -> Option<WindowId> {
        if step >= self.shard(slot..slot + 1).len() {
            return None;
        }
        let first = WindowId { epoch, number: step / (WINDOW * self.block), slot };
        // A short block before it lets a window begin earlier, by less than a block.
        let next = WindowId { number: first.number + 1, ..first };
        let early = next.number < self.windows_in(slot) && self.steps_of(next).start <= step;
        Some(if early { next } else { first })
    }

    /// The steps of its epoch that a window serves: one for each of its rows.
    pub fn steps_of(&self, window: WindowId) -> Range<usize> {
        let plan = self.plan(window);
        plan.first_step(window.number)..plan.first_step(window.number + 1)
    }

    /// The blocks of a window, in the order in which they are read.
    pub fn blocks_of(&self, window: WindowId) -> Vec<Range<usize>> {
        let plan = self.plan(window);
        plan.places(window.number).map(|place| plan.block(plan.blocks.at(place))).collect()
    }

    /// The rows of a window, in the order of its steps.
    pub fn rows_of(&self, window: WindowId) -> Vec<usize> {
        let mut rows: Vec<usize> = self.blocks_of(window).into_iter().flatten().collect();
        let mut random = self.plan(window).random;
        // Each window has words of its own in the stream of (half, epoch, slot), behind the keys of the permutation: more
        // than the rows of any window need.
        random.set_word_pos((window.number as u128 + 1) << 24);
        rows.shuffle(&mut random);
        rows
    }

    fn windows_in(&self, slot: usize) -> usize {
        self.shard(slot..slot + 1).len().div_ceil(self.block).div_ceil(WINDOW)
    }

    fn plan(&self, WindowId { epoch, slot, .. }: WindowId) -> Plan {
        let rows = self.shard(slot..slot + 1);
        let count = rows.len().div_ceil(self.block);
        // 2^28 epochs of 2^20 slots.
        let index = ((epoch as u64) << 20) | slot as u64;
        let mut random = stream(self.seed, Purpose::Order, self.subset.seed_index(), index);
        let blocks = Permutation::new(count, &mut random);
        let short = (blocks.place(count - 1), count * self.block - rows.len());
        Plan { rows, block: self.block, blocks, short, random }
    }
}

impl Plan {
    /// The places of window `number` in the order of blocks.
    fn places(&self, number: usize) -> Range<usize> {
        let count = self.rows.len().div_ceil(self.block);
        (number * WINDOW).min(count)..((number + 1) * WINDOW).min(count)
    }

    /// The rows before window `number`.
    fn first_step(&self, number: usize) -> usize {
        let before = self.places(number).start;
        let (place, missing) = self.short;
        before * self.block - if place < before { missing } else { 0 }
    }

    fn block(&self, number: usize) -> Range<usize> {
        let start = self.rows.start + number * self.block;
        start..(start + self.block).min(self.rows.end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use crate::loader::sampler::*;

    /// Bytes of an image of which 8 are a block.
    const EIGHTH: usize = BLOCK_BYTES / 8;

    fn epoch(order: &Sampler, epoch: usize, slots: Range<usize>) -> Vec<Vec<usize>> {
        (0..order.steps()).map(|step| order.batch(epoch, step, slots.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_sizes_use_each_row_once_in_one_global_order(
            first in 0usize..50,
            n in 1usize..600,
            batch in 1usize..40,
            block in 1usize..20,
            ranks in 1usize..12,
            seed in 0u64..1000,
            number in 0usize..1000,
            subset in 0usize..3,
        ) {
            let order = Sampler::new(first..first + n, batch, BLOCK_BYTES / block, seed, Subset::ALL[subset]);
            let whole = epoch(&order, number, 0..order.slots());
            let mut seen = whole.concat();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(first..first + n));
            // All steps but the last are full, and none is empty.
            let full = batch.min(n);
            prop_assert_eq!(whole.len(), n.div_ceil(full));
            prop_assert!(whole[..whole.len() - 1].iter().all(|step| step.len() == full));
            prop_assert!((1..=full).contains(&whole[whole.len() - 1].len()));
            prop_assert!(whole.iter().enumerate().all(|(step, rows)| order.images(step) == rows.len()));
            prop_assert_eq!(order.images(whole.len()), 0);
            // More ranks than slots are refused before an order is asked for; even then nothing is lost.
            let slots: Vec<_> = (0..ranks).map(|rank| order.slots_of(rank, ranks)).collect();
            let parts: Vec<_> = slots.iter().map(|slots| epoch(&order, number, slots.clone())).collect();
            for (step, rows) in whole.iter().enumerate() {
                let joined: Vec<usize> = parts.iter().flat_map(|part| part[step].iter().copied()).collect();
                prop_assert_eq!(&joined, rows);
            }
            // Shards are consecutive, one behind the other, and a rank never leaves its own.
            let mut end = first;
            for (slots, part) in slots.iter().zip(&parts) {
                let shard = order.shard(slots.clone());
                prop_assert_eq!(shard.start, end);
                end = shard.end;
                prop_assert!(part.iter().flatten().all(|row| shard.contains(row)));
                prop_assert!(ranks > order.slots() || !slots.is_empty());
            }
            prop_assert_eq!(end, first + n);
        }

        #[test]
        fn windows_walked_from_any_step_are_what_single_steps_find(
            n in 1usize..600,
            batch in 1usize..20,
            block in 1usize..20,
            seed in 0u64..1000,
            from in 0usize..600,
        ) {
            let order = Sampler::new(7..7 + n, batch, BLOCK_BYTES / block, seed, Subset::Half1);
            let start = (3, from % order.steps());
            let mut walked = vec![vec![Vec::new(); order.steps()]; 2];
            for window in order.clone().windows(0..order.slots(), start, 5) {
                let (steps, rows) = (order.steps_of(window), order.rows_of(window));
                prop_assert_eq!(steps.len(), rows.len());
                prop_assert!(rows.len() <= WINDOW * order.block());
                let blocks = order.blocks_of(window);
                prop_assert!(blocks.len() <= WINDOW);
                prop_assert!(rows.iter().all(|row| blocks.iter().any(|block| block.contains(row))));
                for (step, row) in steps.zip(rows) {
                    prop_assert_eq!(order.window_at(window.epoch, window.slot, step), Some(window));
                    walked[window.epoch - 3][step].push((window.slot, row));
                }
            }
            for (number, steps) in walked.iter_mut().enumerate() {
                for (step, rows) in steps.iter_mut().enumerate() {
                    if (number + 3, step) >= start {
                        rows.sort_unstable();
                        let rows: Vec<usize> = rows.iter().map(|&(_, row)| row).collect();
                        prop_assert_eq!(rows, order.batch(number + 3, step, 0..order.slots()));
                    }
                }
            }
        }

        #[test]
        fn two_windows_of_all_slots_stay_within_the_memory(
            batch in 1usize..5000,
            box_size in 4usize..1025,
        ) {
            let image = box_size * box_size * 4;
            let order = Sampler::new(0..10_000_000, batch, image, 0, Subset::Half1);
            let held = WINDOWS * WINDOW * batch * order.block() * image;
            prop_assert!(held <= MEMORY || order.block() == 1);
            prop_assert!(order.block() * image <= BLOCK_BYTES || order.block() == 1);
        }
    }

    #[test]
    fn an_order_is_as_large_for_any_number_of_particles() {
        // Nothing in it is on the heap, and the middle of ten thousand million rows is found at once.
        let order = Sampler::new(0..10_000_000_000, 64, 65_536, 3, Subset::Half1);
        assert!(size_of::<Sampler>() <= 64 && !std::mem::needs_drop::<Sampler>());
        assert_eq!(order.batch(5, order.steps() / 2, 0..64).len(), 64);
    }

    #[test]
    fn epochs_halves_seeds_and_slots_differ() {
        let order = |seed, subset| Sampler::new(0..2000, 4, EIGHTH, seed, subset);
        let all = |order: &Sampler, number| epoch(order, number, 0..4);
        let first = all(&order(1, Subset::Half1), 0);
        assert_eq!(first, all(&order(1, Subset::Half1), 0));
        assert_ne!(first, all(&order(1, Subset::Half1), 1));
        assert_ne!(first, all(&order(1, Subset::Half2), 0));
        assert_ne!(first, all(&order(2, Subset::Half1), 0));
        // Two epochs have neither steps nor pairs of neighbours in common, but for chance.
        let second = all(&order(1, Subset::Half1), 1);
        let same = first.concat().iter().zip(second.concat()).filter(|&(&a, b)| a == b).count();
        assert!(same < 30, "{same} of 2000 in the same place");
        let pairs = |steps: &[Vec<usize>]| -> HashSet<(usize, usize)> {
            (0..4).flat_map(|slot| steps.windows(2).map(move |two| (two[0][slot], two[1][slot]))).collect()
        };
        let common = pairs(&first).intersection(&pairs(&second)).count();
        assert!(common < 90, "{common} of 1996 pairs");
        let within =
            |slot: usize| -> Vec<usize> { first.iter().map(|step| step[slot] - 500 * slot).collect() };
        assert_ne!(within(0), within(1));
    }

    #[test]
    fn rows_of_consecutive_steps_come_from_different_blocks() {
        let order = Sampler::new(0..64_000, 4, EIGHTH, 9, Subset::Half1);
        assert_eq!(order.block(), 8);
        let steps = epoch(&order, 0, 0..4);
        let block = |row: usize| row / 8;
        let (mut apart, mut far, mut pairs) = (0, 0, 0);
        for two in steps.windows(2) {
            for (&a, &b) in two[0].iter().zip(&two[1]) {
                pairs += 1;
                apart += usize::from(block(a) != block(b));
                far += usize::from(a.abs_diff(b) > 1000);
            }
        }
        // Of a window of four blocks three in four are another one; blocks that follow one another are random ones of a
        // slot of 16,000 rows, where seven in eight are more than 1,000 rows away.
        assert!(4 * apart > 3 * pairs - pairs / 10, "{apart} of {pairs} in another block");
        assert!(10 * far > 6 * pairs, "{far} of {pairs} far away");
        // A window is four random blocks of its slot, and another four in the next epoch.
        let window = |epoch, number| {
            let blocks = order.blocks_of(WindowId { epoch, number, slot: 0 });
            blocks.into_iter().map(|block| block.start).collect::<HashSet<_>>()
        };
        let kept: usize =
            (0..500).map(|number| window(0, number).intersection(&window(1, number)).count()).sum();
        assert!(kept < 20, "{kept} of 2000 blocks in the same window");
    }
}
