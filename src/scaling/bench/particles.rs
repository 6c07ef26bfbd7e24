//! What the steps of a bench see: images of noise made in memory, or the particles of a file by the way of a training.

use std::ops::ControlFlow;
use std::time::Duration;

use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::BenchOptions;
use crate::error::Result;
use crate::imaging::ctf::{Ctf, Optics};
use crate::parallel::World;
use crate::particles::store::Store;
use crate::progress::Progress;
use crate::random::{Purpose, stream};
use crate::render::{Device, Geometry, Observation, Target, View, energy};
use crate::simulate::geometry::{self, Distributions};
use crate::train::cache;
use crate::train::order::Order;
use crate::train::shard::Shard;

/// Memory that made images take on a rank, in bytes, at most: more than a processor's caches hold.
const MADE: usize = 64 << 20;
/// Made images of a rank, at most: enough for every step to see others.
const MOST_MADE: usize = 1024;

/// What `simulate` draws particles from where nothing else is asked for.
const DISTRIBUTIONS: Distributions =
    Distributions { max_shift: 0.0, defocus_median: 1.8e4, defocus_spread: 0.3, astigmatism: 300.0 };
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

/// The particles of this rank.
pub enum Particles {
    /// Made here.
    Made(Made),
    /// Of a file.
    Read(Box<Read>),
}

impl Particles {
    /// Those of `store`, or made ones, where `options` want them kept.
    pub fn new(
        store: Option<&Store>,
        share: Share,
        world: &World,
        options: &BenchOptions,
        geometry: &Geometry,
        device: &mut Box<dyn Device>,
    ) -> Result<Self> {
        Ok(match store {
            Some(store) => Self::Read(Box::new(Read::new(store, share, world, options, device)?)),
            None => Self::Made(Made::new(share, options.seed, geometry, device.as_mut())?),
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
    /// `[image][y][x]`, prepared; empty where the device keeps them.
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
                let particle = geometry::Geometry::draw(&DISTRIBUTIONS, geometry.pixel_size, seed, index);
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
pub struct Read {
    store: Store,
    shard: Shard,
    order: Order,
    /// The steps that were taken, over all epochs.
    taken: usize,
}

/// The order of all particles of a file as one group sees them.
pub fn order(store: &Store, batch: usize, seed: u64) -> Order {
    Order::new(store.rows(None), batch, store.header().pixels() * size_of::<f32>(), seed, 0)
}

impl Read {
    fn new(
        store: &Store,
        share: Share,
        world: &World,
        options: &BenchOptions,
        device: &mut Box<dyn Device>,
    ) -> Result<Self> {
        let order = order(store, share.batch, options.seed);
        let slots = order.slots_of(share.rank, share.ranks);
        let mine = [(order.shard(slots.clone()).len(), &mut *device)];
        let (places, reader) = cache::decide(world, &options.cache, store, mine)?;
        let silent = Progress::silent();
        let shard = Shard::load(reader, &order, slots, usize::MAX, places[0], device.as_mut(), silent)?;
        Ok(Self { store: store.clone(), shard, order, taken: 0 })
    }

    fn each_step(
        &mut self,
        count: usize,
        step: &mut dyn FnMut(u64, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        let Self { store, shard, order, taken } = self;
        let end = *taken + count;
        while *taken < end {
            let (epoch, first) = (*taken / order.steps(), *taken % order.steps());
            shard.each_batch(epoch, first, |number, batch| {
                if let Some(&(row, defect)) = batch.skipped.first() {
                    return Err(store.defect(row, defect));
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
