//! A rank's particles in memory, read and prepared once.

use std::ops::Range;

use crate::error::Result;
use crate::loader::prefetch::{Prefetcher, READER_THREADS, ReadRequest};
use crate::particles::store::{Block, Defect, Particle, Pixels, Reader};
use crate::progress::Progress;
use crate::render::Device;

/// Blocks in memory while particles are loaded.
const PREFETCHED: usize = 2 * READER_THREADS;

/// Consecutive rows in memory.
pub(crate) struct ResidentParticles {
    first: usize,
    /// Rows per block; the last block may have fewer.
    rows_per_block: usize,
    blocks: Vec<ResidentBlock>,
}

/// A block of particles, without the memory that only reading needs.
pub(crate) struct ResidentBlock {
    pub particles: Vec<Particle>,
    /// Prepared images; empty if they are in the device's memory.
    pub images: Pixels,
    /// Sum of the squared pixels of each observed image.
    pub energies: Vec<f64>,
    /// Rows whose images cannot be used.
    pub defects: Vec<(usize, Defect)>,
}

impl ResidentParticles {
    /// Reads `rows` in blocks of `block` rows, and prepares them on `device`. With `on_device`, the device stores the images.
    ///
    /// # Errors
    /// When the file cannot be read, or the device fails.
    pub fn load(
        reader: &Reader,
        rows: Range<usize>,
        block: usize,
        device: &mut dyn Device,
        on_device: bool,
        mut progress: Progress,
    ) -> Result<Self> {
        let mut resident = Self { first: rows.start, rows_per_block: block, blocks: Vec::new() };
        let requests = {
            let rows = rows.clone();
            let starts = rows.clone().step_by(block);
            starts.map(move |start| ReadRequest { rows: start..(start + block).min(rows.end), verify: true })
        };
        let mut prefetcher = Prefetcher::start(reader.clone(), requests, PREFETCHED);
        while let Some(mut block) = prefetcher.take()? {
            if on_device {
                device.store(block.first - resident.first, &mut block.images)?;
            } else {
                device.prepare(&mut block.images)?;
            }
            progress.advance(block.particles.len() as u64);
            resident.blocks.push(ResidentBlock::take_from(&mut block, !on_device));
            prefetcher.give_back(block);
        }
        progress.finish();
        Ok(resident)
    }

    /// The block that holds `row`, and the index of the row in it.
    pub fn find(&self, row: usize) -> (&ResidentBlock, usize) {
        let index = self.index_of(row);
        (&self.blocks[index / self.rows_per_block], index % self.rows_per_block)
    }

    /// The rows whose images cannot be used, in order.
    pub fn defects(&self) -> Vec<(usize, Defect)> {
        self.blocks.iter().flat_map(|block| block.defects.iter().copied()).collect()
    }

    /// The index of `row` among all rows in memory.
    pub fn index_of(&self, row: usize) -> usize {
        row - self.first
    }
}

impl ResidentBlock {
    /// Takes the content of `block`, with its images or without.
    fn take_from(block: &mut Block, with_images: bool) -> Self {
        Self {
            particles: std::mem::take(&mut block.particles),
            images: if with_images { std::mem::take(&mut block.images) } else { Pixels::default() },
            energies: std::mem::take(&mut block.energies),
            defects: std::mem::take(&mut block.defects),
        }
    }
}
