//! Input of the steps of a bench: synthetic images of noise, or a particle file, read as in training.

use std::ops::ControlFlow;
use std::time::Duration;

use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::BenchOptions;
use crate::error::{Error, Result};
use crate::imaging::ctf::{Ctf, Optics};
use crate::loader::cache;
use crate::loader::sampler::Sampler;
use crate::loader::shard::{Residency, Shard};
use crate::parallel::World;
use crate::particles::Subset;
use crate::particles::store::{Reader, Store};
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::{Device, Geometry, Observation, Target, View, energy};
use crate::simulate::geometry::{self, Distributions};

/// Maximum memory of synthetic images per rank, in bytes: more than CPU caches hold.
const SYNTHETIC_BYTES: usize = 64 << 20;
/// Maximum number of synthetic images per rank: enough for each step to use different ones.
const MAX_SYNTHETIC: usize = 1024;

/// Number of epochs: more than a bench can reach.
const EPOCHS: usize = 1 << 30;

/// Defaults of `simulate`.
const DISTRIBUTIONS: Distributions = Distributions {
    preference: 0.0,
    max_shift: 0.0,
    defocus_median: 1.8e4,
    defocus_spread: 0.3,
    astigmatism: 300.0,
};
const OPTICS: Optics = Optics::new(300.0, 2.7, 0.1);

/// The images of a batch that belong to a rank.
#[derive(Clone, Copy, Debug)]
pub struct RankShare {
    /// Rank in the group.
    pub rank: usize,
    /// Number of ranks.
    pub ranks: usize,
    /// Images per step, over all ranks.
    pub batch: usize,
}

impl RankShare {
    /// Images per full step on this rank.
    pub fn images(self) -> usize {
        (self.rank + 1) * self.batch / self.ranks - self.rank * self.batch / self.ranks
    }
}

/// Source of the particles of a bench.
pub enum ParticleSource<'a> {
    /// Images of noise.
    Synthetic {
        /// Seed of the random streams.
        seed: u64,
    },
    /// A particle file.
    File {
        /// The file.
        store: &'a Store,
        /// Reader of the file, or of its scratch copy.
        reader: Reader,
        /// Sampler of the particles.
        order: Sampler,
        /// Where particles are kept.
        residency: Residency,
    },
}

impl<'a> ParticleSource<'a> {
    /// Decides where particles of `store` are kept, which may be on `device`. Collective: every rank calls it once.
    pub fn new(
        store: Option<&'a Store>,
        share: RankShare,
        world: &World,
        options: &BenchOptions,
        device: &mut Box<dyn Device>,
    ) -> Result<Self> {
        let Some(store) = store else { return Ok(Self::Synthetic { seed: options.seed }) };
        let order = order(store, share.batch, options.seed);
        let count = order.shard(order.slots_of(share.rank, share.ranks)).len();
        let (residencies, reader) = cache::decide(world, &options.cache, store, [(count, device)])?;
        Ok(Self::File { store, reader, order, residency: residencies[0] })
    }

    /// Reserves memory on another device, as [`ParticleSource::new`] did on the first.
    pub fn reserve(&self, share: RankShare, device: &mut dyn Device) -> Result<()> {
        if let Self::File { order, residency: Residency::Device, .. } = self {
            let count = order.shard(order.slots_of(share.rank, share.ranks)).len();
            if !device.reserve(count)? {
                return Err(Error::request(
                    format!("{} has no memory left for {count} particles", device.name()),
                    "use --cache host, or a GPU that no other program uses",
                ));
            }
        }
        Ok(())
    }
}

/// The particles of this rank.
pub enum BenchParticles<'a> {
    /// Images of noise.
    Synthetic(SyntheticParticles),
    /// Particles of a file.
    File(Box<FileParticles<'a>>),
}

impl<'a> BenchParticles<'a> {
    /// Loads the particles of `source` for `device`.
    pub fn new(
        source: &ParticleSource<'a>,
        share: RankShare,
        geometry: &Geometry,
        device: &mut dyn Device,
    ) -> Result<Self> {
        Ok(match source {
            ParticleSource::Synthetic { seed } => {
                Self::Synthetic(SyntheticParticles::new(share, *seed, geometry, device)?)
            }
            ParticleSource::File { store, reader, order, residency } => {
                let slots = order.slots_of(share.rank, share.ranks);
                let silent = Progress::silent();
                let shard = Shard::load(reader.clone(), order, slots, EPOCHS, *residency, device, silent)?;
                Self::File(Box::new(FileParticles { store, shard, order: order.clone(), completed: 0 }))
            }
        })
    }

    /// Calls `step` `count` times with the number of images over all ranks and this rank's observations. Returns the time spent
    /// waiting for particles.
    pub fn each_step(
        &mut self,
        count: usize,
        mut step: impl FnMut(u64, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        match self {
            Self::Synthetic(synthetic) => {
                for _ in 0..count {
                    step(synthetic.share.batch as u64, &synthetic.next())?;
                }
                Ok(Duration::ZERO)
            }
            Self::File(particles) => particles.each_step(count, &mut step),
        }
    }
}

/// Images of noise with random poses and CTFs.
pub struct SyntheticParticles {
    share: RankShare,
    views: Vec<View>,
    energies: Vec<f64>,
    /// Prepared images; empty if the device keeps them.
    images: Vec<f32>,
    pixels: usize,
    next: usize,
}

impl SyntheticParticles {
    fn new(share: RankShare, seed: u64, geometry: &Geometry, device: &mut dyn Device) -> Result<Self> {
        let pixels = geometry.box_size.pow(2);
        let count = (SYNTHETIC_BYTES / (4 * pixels)).clamp(1, MAX_SYNTHETIC).max(share.images());
        let first = share.rank * count;
        let views: Vec<View> = (first..first + count)
            .into_par_iter()
            .map(|index| {
                let particle =
                    geometry::SimulatedParticle::draw(&DISTRIBUTIONS, geometry.pixel_size, seed, index);
                View::new(particle.rotation, Ctf::new(&OPTICS, &particle.ctf))
            })
            .collect();
        let mut images = vec![0.0f32; count * pixels];
        images.par_chunks_exact_mut(pixels).enumerate().for_each(|(k, image)| {
            let random = &mut stream(seed, Purpose::Noise, 0, (first + k) as u64);
            image.iter_mut().for_each(|pixel| *pixel = StandardNormal.sample(random));
        });
        let energies = images.par_chunks_exact(pixels).map(energy).collect();
        if device.reserve(count)? {
            device.store(0, &mut images)?;
            images = Vec::new();
        } else {
            device.prepare(&mut images)?;
        }
        Ok(Self { share, views, energies, images, pixels, next: 0 })
    }

    /// The images of this rank's next step; cycles through all images.
    fn next(&mut self) -> Vec<Observation<'_>> {
        let first = self.next;
        self.next = (first + self.share.images()) % self.views.len();
        (first..first + self.share.images())
            .map(|k| k % self.views.len())
            .map(|index| {
                let target = if self.images.is_empty() {
                    Target::Resident(index)
                } else {
                    Target::Prepared(&self.images[index * self.pixels..(index + 1) * self.pixels])
                };
                Observation::new(self.views[index], target, self.energies[index])
            })
            .collect()
    }
}

/// Particles of a file.
pub struct FileParticles<'a> {
    store: &'a Store,
    shard: Shard,
    order: Sampler,
    /// Completed steps, over all epochs.
    completed: usize,
}

/// Sampler of all particles of a file for one group.
pub fn order(store: &Store, batch: usize, seed: u64) -> Sampler {
    let image_bytes = store.header().pixels() * size_of::<f32>();
    Sampler::new(store.rows(Subset::All), batch, image_bytes, seed, Subset::All)
}

impl FileParticles<'_> {
    fn each_step(
        &mut self,
        count: usize,
        step: &mut dyn FnMut(u64, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        let end = self.completed + count;
        let Self { store, shard, order, completed } = self;
        while *completed < end {
            let (epoch, first) = (*completed / order.steps(), *completed % order.steps());
            shard.each_batch(epoch, first, |number, batch| {
                if let Some(&(row, defect)) = batch.skipped.first() {
                    return Err(store.image_error(row, defect));
                }
                waited += batch.waited;
                step(order.images(number) as u64, &batch.observations)?;
                *completed += 1;
                Ok(if *completed < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        Ok(waited)
    }
}
