//! What the steps of a bench see: images of noise made in memory, or the particles of a file by the way of a training.

use std::ops::ControlFlow;
use std::time::Duration;

use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::BenchOptions;
use crate::error::{Error, Result};
use crate::imaging::ctf::{Ctf, Optics};
use crate::loader::cache;
use crate::loader::sampler::Order;
use crate::loader::shard::{Place, Shard};
use crate::parallel::World;
use crate::particles::Subset;
use crate::particles::store::{Reader, Store};
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::{Device, Geometry, Observation, Target, View, energy};
use crate::simulate::geometry::{self, Distributions};

/// Memory that made images take on a rank, in bytes, at most: more than a processor's caches hold.
const MADE: usize = 64 << 20;
/// Made images of a rank, at most: enough for every step to see others.
const MOST_MADE: usize = 1024;

/// Epochs that a bench may go through: more than it ever does.
const EPOCHS: usize = 1 << 30;

/// What `simulate` draws particles from where nothing else is asked for.
const DISTRIBUTIONS: Distributions = Distributions {
    preference: 0.0,
    max_shift: 0.0,
    defocus_median: 1.8e4,
    defocus_spread: 0.3,
    astigmatism: 300.0,
};
const OPTICS: Optics = Optics { voltage: 300.0, spherical_aberration: 2.7, amplitude_contrast: 0.1 };

/// Which images of a batch are a rank's.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// This rank.
    pub rank: usize,
    /// All ranks.
    pub ranks: usize,
    /// Images of a step, over all ranks.
    pub batch: usize,
}

impl Share {
    /// Images of a full step on this rank.
    pub fn images(self) -> usize {
        (self.rank + 1) * self.batch / self.ranks - self.rank * self.batch / self.ranks
    }
}

/// Where the particles of a bench come from.
pub enum Source<'a> {
    /// Nowhere: they are made.
    Made {
        /// Names the random numbers.
        seed: u64,
    },
    /// A file, by way of the place that was decided for it.
    File {
        /// The file.
        store: &'a Store,
        /// Reads it, or a copy.
        reader: Reader,
        /// Who sees which row when.
        order: Order,
        /// Where they are kept.
        place: Place,
    },
}

impl<'a> Source<'a> {
    /// Decides where those of `store` are kept, which may be on `device`. Every rank calls it, once.
    pub fn new(
        store: Option<&'a Store>,
        share: Share,
        world: &World,
        options: &BenchOptions,
        device: &mut Box<dyn Device>,
    ) -> Result<Self> {
        let Some(store) = store else { return Ok(Self::Made { seed: options.seed }) };
        let order = order(store, share.batch, options.seed);
        let count = order.shard(order.slots_of(share.rank, share.ranks)).len();
        let (places, reader) = cache::decide(world, &options.cache, store, [(count, device)])?;
        Ok(Self::File { store, reader, order, place: places[0] })
    }

    /// Makes room on another device, as [`Source::new`] has done on the first.
    pub fn make_room(&self, share: Share, device: &mut dyn Device) -> Result<()> {
        if let Self::File { order, place: Place::Device, .. } = self {
            let count = order.shard(order.slots_of(share.rank, share.ranks)).len();
            if !device.keep(count)? {
                return Err(Error::request(
                    format!("{} has no room any more for {count} particles", device.name()),
                    "use --cache host, or a GPU that nobody else uses",
                ));
            }
        }
        Ok(())
    }
}

/// The particles of this rank.
pub enum Particles<'a> {
    /// Made here.
    Made(Made),
    /// Of a file.
    Read(Box<Read<'a>>),
}

impl<'a> Particles<'a> {
    /// Those of `source`, for `device`.
    pub fn new(
        source: &Source<'a>,
        share: Share,
        geometry: &Geometry,
        device: &mut dyn Device,
    ) -> Result<Self> {
        Ok(match source {
            Source::Made { seed } => Self::Made(Made::new(share, *seed, geometry, device)?),
            Source::File { store, reader, order, place } => {
                let slots = order.slots_of(share.rank, share.ranks);
                let silent = Progress::silent();
                let shard = Shard::load(reader.clone(), order, slots, EPOCHS, *place, device, silent)?;
                Self::Read(Box::new(Read { store, shard, order: order.clone(), taken: 0 }))
            }
        })
    }

    /// Calls `step` `count` times with the images of the step on all ranks and this rank's observations. Returns how long it
    /// waited for particles.
    pub fn each_step(
        &mut self,
        count: usize,
        mut step: impl FnMut(u64, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        match self {
            Self::Made(made) => {
                for _ in 0..count {
                    step(made.share.batch as u64, &made.next())?;
                }
                Ok(Duration::ZERO)
            }
            Self::Read(read) => read.each_step(count, &mut step),
        }
    }
}

/// Images of noise with random poses and CTFs.
pub struct Made {
    share: Share,
    views: Vec<View>,
    energies: Vec<f64>,
    /// Prepared images; empty where the device keeps them.
    images: Vec<f32>,
    pixels: usize,
    next: usize,
}

impl Made {
    fn new(share: Share, seed: u64, geometry: &Geometry, device: &mut dyn Device) -> Result<Self> {
        let pixels = geometry.box_size.pow(2);
        let count = (MADE / (4 * pixels)).clamp(1, MOST_MADE).max(share.images());
        let first = share.rank * count;
        let views: Vec<View> = (first..first + count)
            .into_par_iter()
            .map(|index| {
                let particle =
                    geometry::SimulatedParticle::draw(&DISTRIBUTIONS, geometry.pixel_size, seed, index);
                View { rotation: particle.rotation, ctf: Ctf::new(&OPTICS, &particle.ctf) }
            })
            .collect();
        let mut images = vec![0.0f32; count * pixels];
        images.par_chunks_exact_mut(pixels).enumerate().for_each(|(k, image)| {
            let random = &mut stream(seed, Purpose::Noise, 0, (first + k) as u64);
            image.iter_mut().for_each(|pixel| *pixel = StandardNormal.sample(random));
        });
        let energies = images.par_chunks_exact(pixels).map(energy).collect();
        let ctfs: Vec<Ctf> = views.iter().map(|view| view.ctf).collect();
        if device.keep(count)? {
            device.store(0, &ctfs, &mut images)?;
            images = Vec::new();
        } else {
            device.prepare(&ctfs, &mut images)?;
        }
        Ok(Self { share, views, energies, images, pixels, next: 0 })
    }

    /// The images of this rank's next step, in turn.
    fn next(&mut self) -> Vec<Observation<'_>> {
        let first = self.next;
        self.next = (first + self.share.images()) % self.views.len();
        (first..first + self.share.images())
            .map(|k| k % self.views.len())
            .map(|place| Observation {
                view: self.views[place],
                target: if self.images.is_empty() {
                    Target::Kept(place)
                } else {
                    Target::Prepared(&self.images[place * self.pixels..(place + 1) * self.pixels])
                },
                energy: self.energies[place],
            })
            .collect()
    }
}

/// Particles of a file, epoch after epoch.
pub struct Read<'a> {
    store: &'a Store,
    shard: Shard,
    order: Order,
    /// The steps that were taken, over all epochs.
    taken: usize,
}

/// The order of all particles of a file as one group sees them.
pub fn order(store: &Store, batch: usize, seed: u64) -> Order {
    let image_bytes = store.header().pixels() * size_of::<f32>();
    Order::new(store.rows(Subset::All), batch, image_bytes, seed, Subset::All)
}

impl Read<'_> {
    fn each_step(
        &mut self,
        count: usize,
        step: &mut dyn FnMut(u64, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        let end = self.taken + count;
        let Self { store, shard, order, taken } = self;
        while *taken < end {
            let (epoch, first) = (*taken / order.steps(), *taken % order.steps());
            shard.each_batch(epoch, first, |number, batch| {
                if let Some(&(row, defect)) = batch.skipped.first() {
                    return Err(store.image_error(row, defect));
                }
                waited += batch.waited;
                step(order.images(number) as u64, &batch.observations)?;
                *taken += 1;
                Ok(if *taken < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        Ok(waited)
    }
}
