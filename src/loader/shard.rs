//! The particles of one rank and model: resident in memory, or streamed ahead of the steps.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::loader::factors::ParticleFactors;
pub use crate::loader::prefetch::Traffic;
use crate::loader::resident::ResidentParticles;
use crate::loader::sampler::Sampler;
use crate::loader::windows::{RowCursor, WindowBuffers};
use crate::particles::refinement::Refinement;
use crate::particles::store::{Defect, Particle, Reader};
use crate::progress::Progress;
use crate::render::{Device, Observation, Target};

/// Where a rank keeps the particles of a model between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// In the memory of its device, which has reserved it.
    Device,
    /// In host memory.
    Host,
    /// Not in memory: read from the file or a scratch copy in every epoch.
    Streamed,
}

/// The particles of one rank and model.
pub struct Shard {
    reader: Reader,
    sampler: Sampler,
    slots: Range<usize>,
    epochs: usize,
    cursor: RowCursor,
    source: Source,
    /// Contrast, weight and noise group of the particles; `None`: all are the same.
    factors: Option<ParticleFactors>,
    /// Row of the first particle.
    first_row: usize,
    /// What was refined of each particle; empty: nothing.
    refinements: Vec<Refinement>,
    /// The epoch and step after the last one delivered.
    next: (usize, usize),
}

enum Source {
    Device(ResidentParticles),
    Host(ResidentParticles),
    /// `None` until the first step.
    Streamed(Option<WindowBuffers>),
}

/// A rank's part of the batch of a step.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The usable images with their poses and CTFs.
    pub observations: Vec<Observation<'a>>,
    /// The rows of `observations` in the file.
    pub rows: Vec<usize>,
    /// Their particles as stored.
    pub particles: Vec<Particle>,
    /// The rows that cannot be used, and why.
    pub skipped: Vec<(usize, Defect)>,
    /// Time that the rank waited for the batch.
    pub waited: Duration,
}

impl Shard {
    /// Loads the rows of `slots` of `sampler` from `reader`. With [`Residency::Streamed`] reading starts with the first step, and
    /// is for at most `epochs` epochs.
    ///
    /// # Errors
    /// When the file cannot be read, or the device fails.
    pub fn load(
        reader: Reader,
        sampler: &Sampler,
        slots: Range<usize>,
        epochs: usize,
        residency: Residency,
        device: &mut dyn Device,
        progress: Progress,
    ) -> Result<Self> {
        let resident = |on_device| {
            let rows = sampler.shard(slots.clone());
            ResidentParticles::load(&reader, rows, sampler.block(), device, on_device, progress)
        };
        let source = match residency {
            Residency::Device => Source::Device(resident(true)?),
            Residency::Host => Source::Host(resident(false)?),
            Residency::Streamed => Source::Streamed(None),
        };
        let cursor = RowCursor::new(sampler.clone(), slots.clone());
        Ok(Self {
            reader,
            sampler: sampler.clone(),
            slots: slots.clone(),
            epochs,
            cursor,
            source,
            factors: None,
            first_row: sampler.shard(slots).start,
            refinements: Vec::new(),
            next: (0, 0),
        })
    }

    /// Sets the contrast, weight and noise group of the particles in all batches from now on.
    pub(crate) fn set_factors(&mut self, factors: ParticleFactors) {
        self.factors = Some(factors);
    }

    /// The rows of this rank.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.sampler.shard(self.slots.clone())
    }

    /// The reader of its particles.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sets what was refined of each particle of [`Shard::rows`], for all batches from now on.
    pub(crate) fn set_refinements(&mut self, refinements: Vec<Refinement>) {
        debug_assert_eq!(refinements.len(), self.rows().len());
        self.refinements = refinements;
    }

    /// What was refined of the particle in `row`.
    pub(crate) fn refinement(&self, row: usize) -> Refinement {
        self.refinements.get(row - self.first_row).copied().unwrap_or_default()
    }

    /// Calls `step` with the number and the batch of each step of `epoch` from `first_step` on, in order, until the epoch ends
    /// or `step` breaks. A batch may be empty.
    ///
    /// # Errors
    /// When the file cannot be read, or `step` fails.
    pub fn each_batch(
        &mut self,
        epoch: usize,
        first_step: usize,
        mut step: impl FnMut(usize, &Batch) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for number in first_step..self.sampler.steps() {
            let at = (epoch, number);
            let rows = self.cursor.step(epoch, number);
            let start = Instant::now();
            if let Source::Streamed(windows) = &mut self.source {
                // After the last epoch the particles may be read once more, to compare them with the model.
                if windows.is_none() || self.next != at || epoch >= self.epochs {
                    // Free the windows of another step before new ones are allocated.
                    *windows = None;
                    let (reader, slots) = (self.reader.clone(), self.slots.clone());
                    self.epochs = self.epochs.max(epoch + 1);
                    *windows = Some(WindowBuffers::start(reader, &self.sampler, slots, at, self.epochs));
                }
                windows.as_mut().expect("just started").advance(at, &rows)?;
            }
            self.next = if number + 1 < self.sampler.steps() { (epoch, number + 1) } else { (epoch + 1, 0) };
            if step(number, &self.batch(&rows, start.elapsed()))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Calls `use_group` with all particles once: in groups of `size` rows where they are in memory, else in the batches of `epoch`, until
    /// it breaks.
    ///
    /// # Errors
    /// When the file cannot be read, or `use_group` fails.
    pub(crate) fn each_group(
        &mut self,
        epoch: usize,
        size: usize,
        mut use_group: impl FnMut(&Batch) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if matches!(self.source, Source::Streamed(_)) {
            return self.each_batch(epoch, 0, |_, batch| use_group(batch));
        }
        let rows = self.rows();
        for start in rows.clone().step_by(size) {
            let group: Vec<_> = (start..rows.end.min(start + size)).map(|row| (0, row)).collect();
            if use_group(&self.batch(&group, Duration::ZERO))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The particles of `rows`, each with its slot, which only streamed particles need.
    fn batch(&self, rows: &[(usize, usize)], waited: Duration) -> Batch<'_> {
        let mut batch = Batch {
            observations: Vec::with_capacity(rows.len()),
            rows: Vec::with_capacity(rows.len()),
            particles: Vec::with_capacity(rows.len()),
            skipped: Vec::new(),
            waited,
        };
        let pixels = self.reader.header().pixels();
        for &(slot, row) in rows {
            let (particles, images, energies, defects, index) = match &self.source {
                Source::Device(resident) | Source::Host(resident) => {
                    let (block, index) = resident.find(row);
                    (&block.particles, &block.images, &block.energies, &block.defects, index)
                }
                Source::Streamed(windows) => {
                    let windows = windows.as_ref().expect("started before its first step");
                    let (block, index) = windows.find(slot, row);
                    (&block.particles, &block.images, &block.energies, &block.defects, index)
                }
            };
            if let Some(&defect) = defects.iter().find(|(defective, _)| *defective == row) {
                batch.skipped.push(defect);
                continue;
            }
            let image = || &images[index * pixels..(index + 1) * pixels];
            let target = match &self.source {
                Source::Device(resident) => Target::Resident(resident.index_of(row)),
                Source::Host(_) => Target::Prepared(image()),
                Source::Streamed(_) => Target::Observed(image()),
            };
            let particle = &particles[index];
            let view = self.refinement(row).view(&self.reader, particle);
            let mut observation = Observation::new(view, target, energies[index]);
            if let Some(factors) = &self.factors {
                factors.apply(&mut observation, row, particle.optics_group);
            }
            batch.observations.push(observation);
            batch.rows.push(row);
            batch.particles.push(*particle);
        }
        batch
    }

    /// The rows that cannot be used, if the particles are resident. Streamed particles report theirs with each batch.
    pub fn defects(&self) -> Vec<(usize, Defect)> {
        match &self.source {
            Source::Device(resident) | Source::Host(resident) => resident.defects(),
            Source::Streamed(_) => Vec::new(),
        }
    }

    /// Statistics of streaming since the last call; zeros if the particles are resident.
    pub fn traffic(&mut self) -> Traffic {
        match &mut self.source {
            Source::Streamed(Some(windows)) => windows.traffic(),
            _ => Traffic::default(),
        }
    }
}
