//! Reading particles ahead of who needs them.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::store::{Block, Store};
use crate::error::Result;

/// Batches that the reader may be ahead of the trainer.
const AHEAD: usize = 4;

/// Reads `batches` (rows of the file) in order, in a thread of `scope`, ahead of who receives them: a block a row.
pub fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    store: &'scope Store,
    batches: Vec<Vec<usize>>,
) -> (Receiver<Result<Vec<Block>>>, ScopedJoinHandle<'scope, ()>) {
    let (sender, receiver) = sync_channel(AHEAD);
    let handle = scope.spawn(move || {
        for batch in batches {
            let blocks: Result<Vec<Block>> = batch.iter().map(|&row| read(store, row)).collect();
            let failed = blocks.is_err();
            // The receiver is gone when the trainer has stopped: nothing more is wanted then.
            if sender.send(blocks).is_err() || failed {
                return;
            }
        }
    });
    (receiver, handle)
}

fn read(store: &Store, row: usize) -> Result<Block> {
    let mut block = Block::default();
    store.reader().read(row..row + 1, &mut block)?;
    match block.defects.first() {
        Some(&(row, defect)) => Err(store.defect(row, defect)),
        None => Ok(block),
    }
}
