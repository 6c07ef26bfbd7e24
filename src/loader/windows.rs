//! The windows of a rank's slots: the rows of each step, and blocks of particles streamed ahead of the steps.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::loader::prefetch::{Prefetcher, ReadRequest, Traffic};
use crate::loader::sampler::{BLOCKS_PER_WINDOW, Sampler, WINDOWS_PER_SLOT, WindowId};
use crate::particles::store::{Block, Reader};

/// After the first epoch, one block in this many is compared with its checksums in each epoch: another one in each.
const VERIFIED_ONE_IN: usize = 8;

/// Finds the rows of steps, window by window.
#[derive(Debug)]
pub(crate) struct RowCursor {
    sampler: Sampler,
    slots: Range<usize>,
    /// The current window of each slot.
    windows: Vec<Option<WindowRows>>,
}

#[derive(Clone, Debug)]
struct WindowRows {
    epoch: usize,
    steps: Range<usize>,
    /// The row of each step.
    rows: Vec<usize>,
}

impl RowCursor {
    pub fn new(sampler: Sampler, slots: Range<usize>) -> Self {
        Self { windows: vec![None; slots.len()], sampler, slots }
    }

    /// The rows of step `step` of `epoch`, each with the index of its slot. Slots without a row in this step are omitted.
    pub fn step(&mut self, epoch: usize, step: usize) -> Vec<(usize, usize)> {
        let mut rows = Vec::with_capacity(self.slots.len());
        for (index, slot) in self.slots.clone().enumerate() {
            let window = &mut self.windows[index];
            let is_current = |window: &WindowRows| window.epoch == epoch && window.steps.contains(&step);
            if !window.as_ref().is_some_and(is_current) {
                *window = self.sampler.window_at(epoch, slot, step).map(|id| WindowRows {
                    epoch,
                    steps: self.sampler.steps_of(id),
                    rows: self.sampler.rows_of(id),
                });
            }
            if let Some(WindowRows { steps, rows: all, .. }) = window {
                rows.push((index, all[step - steps.start]));
            }
        }
        rows
    }
}

/// Blocks in memory: the current window of each slot, and the next one while it is read.
pub(crate) struct WindowBuffers {
    sampler: Sampler,
    first_slot: usize,
    prefetcher: Prefetcher,
    /// Windows not yet taken from the prefetcher, in the order of their blocks.
    upcoming: Box<dyn Iterator<Item = WindowId> + Send>,
    /// The windows of each slot that are in memory.
    loaded: Vec<VecDeque<Window>>,
}

struct Window {
    /// Its epoch, and the step after its last.
    end: (usize, usize),
    blocks: Vec<Block>,
}

impl WindowBuffers {
    /// Starts to read for `slots` from step `start` (epoch and step) to the end of epoch `epochs - 1`.
    ///
    /// All images are compared with their checksums up to the end of the first whole epoch. After that one block in eight is
    /// compared per epoch, so that damage during a run is found too.
    pub fn start(
        reader: Reader,
        sampler: &Sampler,
        slots: Range<usize>,
        start: (usize, usize),
        epochs: usize,
    ) -> Self {
        let windows = || sampler.clone().windows(slots.clone(), start, epochs);
        let requests = {
            let sampler = sampler.clone();
            let first_whole = start.0 + usize::from(start.1 > 0);
            windows().flat_map(move |window| {
                let epoch = window.epoch;
                let block = sampler.block();
                sampler.blocks_of(window).into_iter().map(move |rows| {
                    let selected = (rows.start / block + epoch).is_multiple_of(VERIFIED_ONE_IN);
                    ReadRequest { verify: epoch <= first_whole || selected, rows }
                })
            })
        };
        let blocks = WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * slots.len();
        Self {
            prefetcher: Prefetcher::start(reader, requests, blocks),
            upcoming: Box::new(windows()),
            loaded: slots.clone().map(|_| VecDeque::new()).collect(),
            first_slot: slots.start,
            sampler: sampler.clone(),
        }
    }

    /// Frees the windows that end before step `at` (epoch and step), and waits for those of the step. `rows` are from
    /// [`RowCursor::step`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn advance(&mut self, at: (usize, usize), rows: &[(usize, usize)]) -> Result<()> {
        for windows in &mut self.loaded {
            let finished = windows.iter().take_while(|window| window.end <= at).count();
            for window in windows.drain(..finished) {
                window.blocks.into_iter().for_each(|block| self.prefetcher.give_back(block));
            }
        }
        for &(slot, _) in rows {
            while self.loaded[slot].is_empty() {
                self.take_next()?;
            }
        }
        Ok(())
    }

    fn take_next(&mut self) -> Result<()> {
        let ended = || {
            Error::request("the prefetched particles ended early", "this is a bug in the program: report it")
        };
        let window = self.upcoming.next().ok_or_else(ended)?;
        let blocks = self.sampler.blocks_of(window).into_iter();
        let blocks = blocks.map(|_| self.prefetcher.take()?.ok_or_else(ended)).collect::<Result<_>>()?;
        let end = (window.epoch, self.sampler.steps_of(window).end);
        self.loaded[window.slot - self.first_slot].push_back(Window { end, blocks });
        Ok(())
    }

    /// The block with `row` of the slot with index `slot`, and the index of the row in it. Call [`WindowBuffers::advance`] to the
    /// step of the row first.
    pub fn find(&self, slot: usize, row: usize) -> (&Block, usize) {
        let blocks = self.loaded[slot].front().map_or(&[][..], |window| &window.blocks);
        let has_row = |block: &&Block| (block.first..block.first + block.particles.len()).contains(&row);
        let block = blocks.iter().find(has_row).expect("a window has the rows of its steps");
        (block, row - block.first)
    }

    /// Statistics since the last call.
    pub fn traffic(&mut self) -> Traffic {
        self.prefetcher.traffic()
    }
}
