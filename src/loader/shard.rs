//! The particles of one rank and model: prepared once and kept in memory where they fit, else read ahead of the steps.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::imaging::View;
pub use crate::loader::prefetch::Traffic;
use crate::loader::resident::Kept;
use crate::loader::sampler::Sampler;
use crate::loader::windows::{Walk, Windows};
use crate::particles::store::{Defect, Reader};
use crate::progress::Progress;
use crate::render::{Device, Observation, Target};

/// Where a rank keeps the particles of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On its device, which has made room for them.
    Device,
    /// In host memory.
    Host,
    /// In the file alone, or its copy: read ahead in every epoch.
    File,
}

/// A rank's particles of one model.
pub struct Shard {
    reader: Reader,
    order: Sampler,
    slots: Range<usize>,
    epochs: usize,
    walk: Walk,
    source: Source,
    /// The epoch and step that comes next, if nobody asks for another.
    next: (usize, usize),
}

enum Source {
    Device(Kept),
    Host(Kept),
    File(Option<Windows>),
}

/// What a rank sees in a step.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The images that can be used, and how they were seen.
    pub observations: Vec<Observation<'a>>,
    /// Their rows in the file.
    pub rows: Vec<usize>,
    /// The rows that cannot be used, and why.
    pub skipped: Vec<(usize, Defect)>,
    /// How long it took to come.
    pub waited: Duration,
}

impl Shard {
    /// The rows that `slots` of `order` see, from `reader`; those that `place` keeps in memory are read now. At most `epochs`
    /// epochs are wanted.
    ///
    /// # Errors
    /// When the file cannot be read, or the device fails.
    pub fn load(
        reader: Reader,
        order: &Sampler,
        slots: Range<usize>,
        epochs: usize,
        place: Place,
        device: &mut dyn Device,
        progress: Progress,
    ) -> Result<Self> {
        let fill = |on_device| {
            let rows = order.shard(slots.clone());
            Kept::fill(&reader, rows, order.block(), device, on_device, progress)
        };
        let source = match place {
            Place::Device => Source::Device(fill(true)?),
            Place::Host => Source::Host(fill(false)?),
            Place::File => Source::File(None),
        };
        let walk = Walk::new(order.clone(), slots.clone());
        Ok(Self { reader, order: order.clone(), slots, epochs, walk, source, next: (0, 0) })
    }

    /// Calls `step` with the number and the batch of each step of `epoch` from `first_step` on, in order, until the epoch ends
    /// or `step` breaks off. A batch may be empty.
    ///
    /// # Errors
    /// What reading or `step` returns.
    pub fn each_batch(
        &mut self,
        epoch: usize,
        first_step: usize,
        mut step: impl FnMut(usize, &Batch) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for number in first_step..self.order.steps() {
            let at = (epoch, number);
            let rows = self.walk.step(epoch, number);
            let asked = Instant::now();
            if let Source::File(windows) = &mut self.source {
                if windows.is_none() || self.next != at {
                    // Those that were read for another step first: their memory is used again.
                    *windows = None;
                    let (reader, slots) = (self.reader.clone(), self.slots.clone());
                    let epochs = self.epochs.max(epoch + 1);
                    *windows = Some(Windows::start(reader, &self.order, slots, at, epochs));
                }
                windows.as_mut().expect("just started").advance(at, &rows)?;
            }
            self.next = if number + 1 < self.order.steps() { (epoch, number + 1) } else { (epoch + 1, 0) };
            if step(number, &self.batch(&rows, asked.elapsed()))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn batch(&self, rows: &[(usize, usize)], waited: Duration) -> Batch<'_> {
        let mut batch = Batch {
            observations: Vec::with_capacity(rows.len()),
            rows: Vec::with_capacity(rows.len()),
            skipped: Vec::new(),
            waited,
        };
        let pixels = self.reader.header().pixels();
        for &(slot, row) in rows {
            let (particles, images, energies, defects, place) = match &self.source {
                Source::Device(kept) | Source::Host(kept) => {
                    let (piece, place) = kept.find(row);
                    (&piece.particles, &piece.images, &piece.energies, &piece.defects, place)
                }
                Source::File(windows) => {
                    let windows = windows.as_ref().expect("started before its first step");
                    let (block, place) = windows.find(slot, row);
                    (&block.particles, &block.images, &block.energies, &block.defects, place)
                }
            };
            if let Some(&defect) = defects.iter().find(|(defective, _)| *defective == row) {
                batch.skipped.push(defect);
                continue;
            }
            let image = || &images[place * pixels..(place + 1) * pixels];
            let target = match &self.source {
                Source::Device(kept) => Target::Kept(kept.place(row)),
                Source::Host(_) => Target::Prepared(image()),
                Source::File(_) => Target::Observed(image()),
            };
            let particle = &particles[place];
            let view = View { rotation: particle.rotation, ctf: self.reader.ctf(particle) };
            batch.observations.push(Observation { view, target, energy: energies[place] });
            batch.rows.push(row);
        }
        batch
    }

    /// The rows that cannot be used, as far as they were read already: all of them where they are kept in memory.
    pub fn defects(&self) -> Vec<(usize, Defect)> {
        match &self.source {
            Source::Device(kept) | Source::Host(kept) => kept.defects(),
            Source::File(_) => Vec::new(),
        }
    }

    /// What reading came to since the last call; nothing where particles are kept in memory.
    pub fn traffic(&mut self) -> Traffic {
        match &mut self.source {
            Source::File(Some(windows)) => windows.traffic(),
            _ => Traffic::default(),
        }
    }
}
