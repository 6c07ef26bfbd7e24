//! The order of particles: a pure function of (seed, half, epoch, step), and of the number and size of the half's images.
//!
//! The order is random, although files are read in large blocks, each once per epoch, and memory does not grow with the number
//! of particles:
//!
//! - The half's rows are divided into **slots** of consecutive rows, one per image of a batch. Step t takes the t-th row of
//!   every slot, in the slot's own order, so the images of a batch come from all parts of the half. The last step of an epoch
//!   may be short.
//! - A slot's rows are divided into **blocks** of consecutive rows, about 4 MiB each. In each epoch the blocks are put in a
//!   random order. Four consecutive blocks of that order form a **window**, whose rows are shuffled. Two windows per slot are in
//!   memory, the current one and the next: together at most 1 GiB and 32,768 rows over all ranks (more only if eight images
//!   per slot exceed that).
//! - A rank owns consecutive slots. Their rows, its **shard**, are consecutive too, and the same in every epoch. The batches do
//!   not depend on the number of ranks.
//!
//! Neighbouring rows of a file are similar (same micrograph, same grid). Within a slot they can come in steps close in time, but
//! never in the same batch. Windows and the order of blocks change in every epoch.

use std::ops::Range;

use rand::seq::SliceRandom;

use crate::loader::permutation::Permutation;
use crate::particles::Subset;
use crate::random::{Purpose, Random, stream};

/// Blocks per window.
pub const BLOCKS_PER_WINDOW: usize = 4;
/// Windows per slot in memory: the current one, and the next while it is read.
pub const WINDOWS_PER_SLOT: usize = 2;

/// Size of a block if memory allows it: large enough for the full bandwidth of a disk.
const BLOCK_BYTES: usize = 4 << 20;
/// Bytes of images in the windows of all slots, at most.
const MEMORY: usize = 1 << 30;
/// Rows in the windows of all slots, at most: for small images, poses and CTFs take more memory than pixels.
const ROWS: usize = 1 << 15;

/// The order of one half.
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u64,
    subset: Subset,
    rows: Range<usize>,
    slots: usize,
    /// Rows per block; the last block of a slot may have fewer.
    block: usize,
}

/// A window of a slot in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowId {
    /// The epoch, from 0.
    pub epoch: usize,
    /// The number of the window in the slot's epoch, from 0.
    pub number: usize,
    /// The slot.
    pub slot: usize,
}

/// The order of a slot's blocks in an epoch.
struct SlotOrder {
    rows: Range<usize>,
    block: usize,
    blocks: Permutation,
    /// Position of the slot's last block, and the number of rows by which it is short.
    short: (usize, usize),
    random: Random,
}

impl Sampler {
    /// The order of `rows`, whose images take `image_bytes` bytes each, in batches of `batch` images. `subset` selects the random
    /// stream, so that the halves are independent.
    ///
    /// # Panics
    /// If `batch` or `image_bytes` is 0.
    pub fn new(rows: Range<usize>, batch: usize, image_bytes: usize, seed: u64, subset: Subset) -> Self {
        assert!(batch > 0 && image_bytes > 0);
        let slots = batch.min(rows.len());
        let room = (MEMORY / image_bytes).min(ROWS) / (WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * slots.max(1));
        let block = room.clamp(1, (BLOCK_BYTES / image_bytes).max(1));
        Self { seed, subset, rows, slots, block }
    }

    /// Number of slots: the batch size, or the number of particles if that is smaller.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Rows per block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Steps per epoch.
    pub fn steps(&self) -> usize {
        self.rows.len().div_ceil(self.slots.max(1))
    }

    /// Number of images in step `step` of each epoch, over all slots.
    pub fn images(&self, step: usize) -> usize {
        self.rows.len().saturating_sub(step.saturating_mul(self.slots)).min(self.slots)
    }

    /// The slots of rank `rank` of `ranks`.
    pub fn slots_of(&self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.slots / ranks..(rank + 1) * self.slots / ranks
    }

    /// The rows of `slots`, the same in every epoch.
    pub fn shard(&self, slots: Range<usize>) -> Range<usize> {
        let start = |slot| self.rows.start + slot * self.rows.len() / self.slots.max(1);
        start(slots.start)..start(slots.end)
    }

    /// The rows of step `step` of `epoch`, one per slot of `slots` that has one, in the order of the slots. Recomputes the
    /// windows at each call; to iterate over steps use [`RowCursor`](crate::loader::windows::RowCursor).
    pub fn batch(&self, epoch: usize, step: usize, slots: Range<usize>) -> Vec<usize> {
        let rows = slots.filter_map(|slot| {
            let window = self.window_at(epoch, slot, step)?;
            Some(self.rows_of(window)[step - self.steps_of(window).start])
        });
        rows.collect()
    }

    /// The windows of `slots` from step `first_step` of epoch `first_epoch` to the end of epoch `epochs - 1`, in the order of
    /// their use; the windows of different slots begin within a few steps of each other.
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

    /// The window of `slot` with step `step` of `epoch`; `None` if the slot has no row in this step.
    pub fn window_at(&self, epoch: usize, slot: usize, step: usize) -> Option<WindowId> {
        if step >= self.shard(slot..slot + 1).len() {
            return None;
        }
        let first = WindowId { epoch, number: step / (BLOCKS_PER_WINDOW * self.block), slot };
        // After a short block, windows begin earlier, by less than a block.
        let next = WindowId { number: first.number + 1, ..first };
        let early = next.number < self.windows_in(slot) && self.steps_of(next).start <= step;
        Some(if early { next } else { first })
    }

    /// The steps of a window in its epoch: one per row.
    pub fn steps_of(&self, window: WindowId) -> Range<usize> {
        let order = self.slot_order(window);
        order.first_step(window.number)..order.first_step(window.number + 1)
    }

    /// The blocks of a window, in the order in which they are read.
    pub fn blocks_of(&self, window: WindowId) -> Vec<Range<usize>> {
        let order = self.slot_order(window);
        order.positions(window.number).map(|position| order.block(order.blocks.at(position))).collect()
    }

    /// The rows of a window, in the order of its steps.
    pub fn rows_of(&self, window: WindowId) -> Vec<usize> {
        let mut rows: Vec<usize> = self.blocks_of(window).into_iter().flatten().collect();
        let mut random = self.slot_order(window).random;
        // Each window has its own 2^24 words in the stream of (half, epoch, slot), after the keys of the permutation: more than
        // a shuffle of its rows needs.
        random.set_word_pos((window.number as u128 + 1) << 24);
        rows.shuffle(&mut random);
        rows
    }

    fn windows_in(&self, slot: usize) -> usize {
        self.shard(slot..slot + 1).len().div_ceil(self.block).div_ceil(BLOCKS_PER_WINDOW)
    }

    fn slot_order(&self, WindowId { epoch, slot, .. }: WindowId) -> SlotOrder {
        let rows = self.shard(slot..slot + 1);
        let count = rows.len().div_ceil(self.block);
        // 2^28 epochs of 2^20 slots.
        let index = ((epoch as u64) << 20) | slot as u64;
        let mut random = stream(self.seed, Purpose::Order, self.subset.seed_index(), index);
        let blocks = Permutation::new(count, &mut random);
        let short = (blocks.position_of(count - 1), count * self.block - rows.len());
        SlotOrder { rows, block: self.block, blocks, short, random }
    }
}

impl SlotOrder {
    /// The positions of window `number` in the order of blocks.
    fn positions(&self, number: usize) -> Range<usize> {
        let count = self.rows.len().div_ceil(self.block);
        (number * BLOCKS_PER_WINDOW).min(count)..((number + 1) * BLOCKS_PER_WINDOW).min(count)
    }

    /// The first step of window `number`: the number of rows before it.
    fn first_step(&self, number: usize) -> usize {
        let before = self.positions(number).start;
        let (position, missing) = self.short;
        before * self.block - if position < before { missing } else { 0 }
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

    /// Bytes of an image, with 8 images per block.
    const EIGHTH: usize = BLOCK_BYTES / 8;

    fn epoch(order: &Sampler, epoch: usize, slots: Range<usize>) -> Vec<Vec<usize>> {
        (0..order.steps()).map(|step| order.batch(epoch, step, slots.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_row_comes_once_per_epoch_in_an_order_independent_of_the_ranks(
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
            // The program refuses more ranks than slots; the order is complete even then.
            let slots: Vec<_> = (0..ranks).map(|rank| order.slots_of(rank, ranks)).collect();
            let parts: Vec<_> = slots.iter().map(|slots| epoch(&order, number, slots.clone())).collect();
            for (step, rows) in whole.iter().enumerate() {
                let joined: Vec<usize> = parts.iter().flat_map(|part| part[step].iter().copied()).collect();
                prop_assert_eq!(&joined, rows);
            }
            // Shards are consecutive, and each rank stays in its own.
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
        fn windows_from_any_step_have_the_rows_of_the_batches(
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
                prop_assert!(rows.len() <= BLOCKS_PER_WINDOW * order.block());
                let blocks = order.blocks_of(window);
                prop_assert!(blocks.len() <= BLOCKS_PER_WINDOW);
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
        fn the_windows_of_all_slots_fit_the_memory_limit(
            batch in 1usize..5000,
            box_size in 4usize..1025,
        ) {
            let image = box_size * box_size * 4;
            let order = Sampler::new(0..10_000_000, batch, image, 0, Subset::Half1);
            let bytes = WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * batch * order.block() * image;
            prop_assert!(bytes <= MEMORY || order.block() == 1);
            prop_assert!(order.block() * image <= BLOCK_BYTES || order.block() == 1);
        }
    }

    #[test]
    fn the_sampler_takes_constant_memory() {
        // It owns no heap memory, and a batch in the middle of ten billion rows takes no time.
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
        // Two epochs have rows and pairs of consecutive rows in common only by chance.
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
        // In a window of four blocks, the next row is in another block with probability 3/4. Consecutive blocks are random ones of
        // a slot of 16,000 rows, 7/8 of which are more than 1,000 rows away.
        assert!(4 * apart > 3 * pairs - pairs / 10, "{apart} of {pairs} in another block");
        assert!(10 * far > 6 * pairs, "{far} of {pairs} far away");
        // A window is four random blocks of its slot, and another four in the next epoch.
        let window = |epoch, number| {
            let blocks = order.blocks_of(WindowId { epoch, number, slot: 0 });
            blocks.into_iter().map(|block| block.start).collect::<HashSet<_>>()
        };
        let common: usize =
            (0..500).map(|number| window(0, number).intersection(&window(1, number)).count()).sum();
        assert!(common < 20, "{common} of 2000 blocks in the same window");
    }
}
