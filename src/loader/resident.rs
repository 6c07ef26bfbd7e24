//! A rank's particles in memory: read and prepared once.

use std::ops::Range;

use crate::error::Result;
use crate::imaging::ctf::Ctf;
use crate::loader::prefetch::{READERS, ReadAhead, Wanted};
use crate::particles::store::{Block, Defect, Particle, Pixels, Reader};
use crate::progress::Progress;
use crate::render::Device;

/// Blocks in memory while it is filled.
const AHEAD: usize = 2 * READERS;

/// Consecutive rows that were read once.
pub struct Kept {
    first: usize,
    /// Rows in a piece; the last one may have fewer.
    rows: usize,
    pieces: Vec<Piece>,
}

/// A block without what reading needs; also without images where the device has them.
pub struct Piece {
    /// The particles.
    pub particles: Vec<Particle>,
    /// Prepared images, or none.
    pub images: Pixels,
    /// The sum of the squares of each observed image's pixels.
    pub energies: Vec<f64>,
    /// Rows whose images cannot be used.
    pub defects: Vec<(usize, Defect)>,
}

impl Kept {
    /// Reads `rows`, in blocks of `block`, and prepares them on `device`, which keeps them itself if `on_device`.
    ///
    /// # Errors
    /// When the file cannot be read, or the device fails.
    pub fn fill(
        reader: &Reader,
        rows: Range<usize>,
        block: usize,
        device: &mut dyn Device,
        on_device: bool,
        mut progress: Progress,
    ) -> Result<Self> {
        let mut kept = Self { first: rows.start, rows: block, pieces: Vec::new() };
        let wanted = {
            let rows = rows.clone();
            let starts = rows.clone().step_by(block);
            starts.map(move |start| Wanted { rows: start..(start + block).min(rows.end), check: true })
        };
        let mut ahead = ReadAhead::start(reader.clone(), wanted, AHEAD);
        while let Some(mut block) = ahead.take()? {
            let ctfs: Vec<Ctf> = block.particles.iter().map(|particle| reader.ctf(particle)).collect();
            if on_device {
                device.store(block.first - kept.first, &ctfs, &mut block.images)?;
            } else {
                device.prepare(&ctfs, &mut block.images)?;
            }
            progress.advance(ctfs.len() as u64);
            kept.pieces.push(Piece::of(&mut block, !on_device));
            ahead.give_back(block);
        }
        progress.finish();
        Ok(kept)
    }

    /// The piece with `row`, and the row's place in it.
    pub fn find(&self, row: usize) -> (&Piece, usize) {
        let place = row - self.first;
        (&self.pieces[place / self.rows], place % self.rows)
    }

    /// The rows whose images cannot be used, in order.
    pub fn defects(&self) -> Vec<(usize, Defect)> {
        self.pieces.iter().flat_map(|piece| piece.defects.iter().copied()).collect()
    }

    /// The place of `row` among all.
    pub fn place(&self, row: usize) -> usize {
        row - self.first
    }
}

impl Piece {
    fn of(block: &mut Block, with_images: bool) -> Self {
        Self {
            particles: std::mem::take(&mut block.particles),
            images: if with_images { std::mem::take(&mut block.images) } else { Pixels::default() },
            energies: std::mem::take(&mut block.energies),
            defects: std::mem::take(&mut block.defects),
        }
    }
}
