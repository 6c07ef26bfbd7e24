//! The particles of one rank: prepared once and kept in memory where they fit, else read ahead of every step.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::particles::store::Store;
use crate::particles::stream::{ImageReader, read_ahead};
use crate::progress::Progress;
use crate::render::{Device, Observation, Target, View, energy};

/// Where a rank keeps its particles between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// On the device if the shard fits there, else in host memory if half of what is free on the machine holds the shards of
    /// all its ranks, else not at all.
    Auto,
    /// In the memory of the GPU.
    Device,
    /// In host memory.
    Host,
    /// Not at all: read ahead of every step from the file.
    None,
}

/// Images read and prepared at a time while the cache fills.
const FILL: usize = 256;

/// A rank's particles.
pub struct Shard<'a> {
    store: &'a Store,
    pixels: usize,
    cache: Option<Cache>,
    order: super::order::Order,
    slots: std::ops::Range<usize>,
    traffic: Traffic,
}

pub struct Batch<'a> {
    pub observations: Vec<Observation<'a>>,
    pub rows: Vec<usize>,
    pub waited: Duration,
}

#[derive(Default)]
pub struct Traffic {
    pub waited: Duration,
    pub bytes: u64,
}

/// Particles that were read and prepared once.
struct Cache {
    /// The place of each particle among them.
    places: HashMap<usize, usize>,
    /// The images, `[place][y][x]`, where they are kept in host memory.
    targets: Option<Vec<f32>>,
    energies: Vec<f64>,
}

impl<'a> Shard<'a> {
    /// Takes `particles` (sorted indices into the store) into memory if `mode` says so; `sharing` ranks share this machine.
    ///
    /// # Errors
    /// When the file cannot be read, a pixel is not finite, the device fails, or it has no room and `mode` insists.
    pub fn load(
        store: &'a Store,
        order: super::order::Order,
        slots: std::ops::Range<usize>,
        mode: CacheMode,
        sharing: usize,
        device: &mut dyn Device,
        mut progress: Progress,
    ) -> Result<Self> {
        let pixels = store.metadata().box_size.pow(2);
        let particles = order.shard(slots.clone());
        let mut shard = Self { store, pixels, cache: None, order, slots, traffic: Traffic::default() };
        let on_device = match mode {
            CacheMode::Device | CacheMode::Auto => device.keep(particles.len())?,
            CacheMode::Host | CacheMode::None => false,
        };
        if mode == CacheMode::Device && !on_device {
            return Err(Error::request(
                format!(
                    "{} has no room for the {} particles of a rank, {pixels} pixels each",
                    device.name(),
                    particles.len(),
                ),
                "use --cache auto or host, more ranks, or --cache-half",
            ));
        }
        let on_host = match mode {
            CacheMode::Host => true,
            CacheMode::Auto => !on_device && fits_host(particles.len() as u64 * pixels as u64 * 4, sharing),
            CacheMode::Device | CacheMode::None => false,
        };
        if !on_device && !on_host {
            return Ok(shard);
        }
        let mut reader = ImageReader::open(store)?;
        let mut targets = vec![0.0f32; if on_host { particles.len() * pixels } else { FILL * pixels }];
        let mut energies = Vec::with_capacity(particles.len());
        for (group, indices) in particles.chunks(FILL).enumerate() {
            let first = group * FILL;
            let at = if on_host { first * pixels } else { 0 };
            let images = &mut targets[at..at + indices.len() * pixels];
            for (&index, image) in indices.iter().zip(images.chunks_exact_mut(pixels)) {
                reader.read(index, image)?;
            }
            energies.extend(shard.energies(images));
            let ctfs: Vec<Ctf> = indices.iter().map(|&index| store.metadata().ctf_of(index)).collect();
            if on_device {
                device.store(first, &ctfs, images)?;
            } else {
                device.prepare(&ctfs, images)?;
            }
            progress.advance(indices.len() as u64);
        }
        let places = particles.iter().enumerate().map(|(place, &index)| (index, place)).collect();
        shard.cache = Some(Cache { places, targets: on_host.then_some(targets), energies });
        progress.finish();
        Ok(shard)
    }

    fn energies(&self, images: &[f32]) -> Vec<f64> {
        images.par_chunks_exact(self.pixels).map(energy).collect()
    }

    fn view(&self, index: usize) -> View {
        let metadata = self.store.metadata();
        View { rotation: metadata.rotation[index], ctf: metadata.ctf_of(index) }
    }

    /// Calls `step` with the number of each of `batches` and its observations, in order. Returns how long it waited for the
    /// file.
    ///
    /// # Errors
    /// What reading or `step` returns.
    pub fn each_batch(
        &mut self,
        epoch: usize,
        first_step: usize,
        mut step: impl FnMut(usize, &Batch) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let batches = self.order.epoch(epoch, self.slots.clone());
        if let Some(Cache { places, targets, energies }) = &self.cache {
            for (number, batch) in batches.iter().enumerate().skip(first_step) {
                let observations: Vec<Observation> = batch
                    .iter()
                    .map(|&index| {
                        let place = places[&index];
                        let target = targets.as_ref().map_or(Target::Kept(place), |targets| {
                            Target::Prepared(&targets[place * self.pixels..(place + 1) * self.pixels])
                        });
                        Observation { view: self.view(index), target, energy: energies[place] }
                    })
                    .collect();
                let waited = Duration::ZERO;
                if step(number, &Batch { observations, rows: batch.clone(), waited })?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let reader = ImageReader::open(self.store)?;
        std::thread::scope(|scope| {
            let (receiver, _reading) = read_ahead(scope, reader, batches[first_step..].to_vec());
            for (number, batch) in batches.iter().enumerate().skip(first_step) {
                let asked = Instant::now();
                let images = receiver.recv().map_err(|_| {
                    Error::request(
                        "the reading thread ended early",
                        "this is a defect of the program: report it",
                    )
                })??;
                let waited = asked.elapsed();
                self.traffic.waited += waited;
                let observations: Vec<Observation> = batch
                    .iter()
                    .zip(images.chunks_exact(self.pixels).zip(self.energies(&images)))
                    .map(|(&index, (image, energy))| Observation {
                        view: self.view(index),
                        target: Target::Observed(image),
                        energy,
                    })
                    .collect();
                if step(number, &Batch { observations, rows: batch.clone(), waited })?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    pub fn traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Does half of the free memory hold `bytes` for each of the `sharing` ranks?
fn fits_host(bytes: u64, sharing: usize) -> bool {
    let free = available_memory();
    let all = bytes.saturating_mul(sharing as u64);
    if all >= free / 2 {
        tracing::info!(
            "the shards of this machine take {:.1} GiB, and {:.1} are free: reading from the file in every epoch",
            gib(all),
            gib(free)
        );
    }
    all < free / 2
}

/// Memory that the system could give out now, in bytes; nothing where it does not say.
fn available_memory() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
