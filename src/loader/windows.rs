//! The windows of a rank's slots: which rows they give, and their blocks in memory, read ahead of the steps.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::loader::prefetch::{ReadAhead, Traffic, Wanted};
use crate::loader::sampler::{Sampler, WINDOW, WINDOWS, WindowId};
use crate::particles::store::{Block, Reader};

/// Of so many blocks one is compared with its checksums in an epoch after the first, another one each time.
const CHECKED_ONE_IN: usize = 8;

/// Finds the rows of steps, window by window.
#[derive(Debug)]
pub struct Walk {
    order: Sampler,
    slots: Range<usize>,
    /// The window that each slot is in.
    windows: Vec<Option<Current>>,
}

#[derive(Clone, Debug)]
struct Current {
    epoch: usize,
    steps: Range<usize>,
    rows: Vec<usize>,
}

impl Walk {
    /// Of `slots` of `order`.
    pub fn new(order: Sampler, slots: Range<usize>) -> Self {
        Self { windows: vec![None; slots.len()], order, slots }
    }

    /// The rows of step `step` of `epoch`, each with its slot's place among the slots, for those that have one.
    pub fn step(&mut self, epoch: usize, step: usize) -> Vec<(usize, usize)> {
        let mut rows = Vec::with_capacity(self.slots.len());
        for (place, slot) in self.slots.clone().enumerate() {
            let window = &mut self.windows[place];
            let current = |window: &Current| window.epoch == epoch && window.steps.contains(&step);
            if !window.as_ref().is_some_and(current) {
                *window = self.order.window_at(epoch, slot, step).map(|id| Current {
                    epoch,
                    steps: self.order.steps_of(id),
                    rows: self.order.rows_of(id),
                });
            }
            if let Some(Current { steps, rows: all, .. }) = window {
                rows.push((place, all[step - steps.start]));
            }
        }
        rows
    }
}

/// Blocks in memory: of each slot the window in use, and the next one as it comes.
pub struct Windows {
    order: Sampler,
    first_slot: usize,
    ahead: ReadAhead,
    /// Windows in the order in which their blocks come.
    coming: Box<dyn Iterator<Item = WindowId> + Send>,
    /// Of each slot, the windows that are there.
    here: Vec<VecDeque<Window>>,
}

struct Window {
    /// Its epoch, and the step behind its last.
    end: (usize, usize),
    blocks: Vec<Block>,
}

impl Windows {
    /// Begins to read for step `start` (epoch and step) of `slots`, and for what follows in epochs below `epochs`.
    ///
    /// Images are compared with their checksums in the first whole epoch, and in what there is of one before it. Later on,
    /// one block in eight is, so that what is damaged while a run goes on is found in time too.
    pub fn start(
        reader: Reader,
        order: &Sampler,
        slots: Range<usize>,
        start: (usize, usize),
        epochs: usize,
    ) -> Self {
        let windows = || order.clone().windows(slots.clone(), start, epochs);
        let blocks = {
            let order = order.clone();
            let all_until = start.0 + usize::from(start.1 > 0);
            windows().flat_map(move |window| {
                let epoch = window.epoch;
                let block = order.block();
                order.blocks_of(window).into_iter().map(move |rows| {
                    let its_turn = (rows.start / block + epoch).is_multiple_of(CHECKED_ONE_IN);
                    Wanted { check: epoch <= all_until || its_turn, rows }
                })
            })
        };
        Self {
            ahead: ReadAhead::start(reader, blocks, WINDOWS * WINDOW * slots.len()),
            coming: Box::new(windows()),
            here: slots.clone().map(|_| VecDeque::new()).collect(),
            first_slot: slots.start,
            order: order.clone(),
        }
    }

    /// Gives the memory of windows that are over back, and waits until those of step `at` (epoch and step) are there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn advance(&mut self, at: (usize, usize), rows: &[(usize, usize)]) -> Result<()> {
        for windows in &mut self.here {
            let over = windows.iter().take_while(|window| window.end <= at).count();
            for window in windows.drain(..over) {
                window.blocks.into_iter().for_each(|block| self.ahead.give_back(block));
            }
        }
        for &(place, _) in rows {
            while self.here[place].is_empty() {
                self.take_next()?;
            }
        }
        Ok(())
    }

    fn take_next(&mut self) -> Result<()> {
        let ended = || {
            Error::request(
                "the order of particles has ended early",
                "this is a defect of the program: report it",
            )
        };
        let window = self.coming.next().ok_or_else(ended)?;
        let blocks = self.order.blocks_of(window).into_iter().map(|_| self.ahead.take()?.ok_or_else(ended));
        let blocks = blocks.collect::<Result<_>>()?;
        let end = (window.epoch, self.order.steps_of(window).end);
        self.here[window.slot - self.first_slot].push_back(Window { end, blocks });
        Ok(())
    }

    /// The block with `row` of the slot at `place`, after [`Windows::advance`] to its step, and the row's place in it.
    pub fn find(&self, place: usize, row: usize) -> (&Block, usize) {
        let blocks = self.here[place].front().map_or(&[][..], |window| &window.blocks);
        let inside = |block: &&Block| (block.first..block.first + block.particles.len()).contains(&row);
        let block = blocks.iter().find(inside).expect("a window has the rows of its steps");
        (block, row - block.first)
    }

    /// What reading came to since the last call.
    pub fn traffic(&mut self) -> Traffic {
        self.ahead.traffic()
    }
}
