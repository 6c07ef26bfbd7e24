//! The particles of one rank: prepared once and kept in memory where they fit, else read ahead of every step.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::particles::store::{Block, Particle, Store};
use crate::particles::stream::read_ahead;
use crate::progress::Progress;
use crate::render::{Device, Observation, Target, View};

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
}

/// Particles that were read and prepared once.
struct Cache {
    /// The place of each particle among them.
    places: HashMap<usize, usize>,
    /// The images, `[place][y][x]`, where they are kept in host memory.
    targets: Option<Vec<f32>>,
    views: Vec<View>,
    energies: Vec<f64>,
}

impl<'a> Shard<'a> {
    /// Takes `particles` (sorted indices into the store) into memory if `mode` says so; `sharing` ranks share this machine.
    ///
    /// # Errors
    /// When the file cannot be read, a pixel is not finite, the device fails, or it has no room and `mode` insists.
    pub fn load(
        store: &'a Store,
        particles: &[usize],
        mode: CacheMode,
        sharing: usize,
        device: &mut dyn Device,
        mut progress: Progress,
    ) -> Result<Self> {
        let pixels = store.header().pixels();
        let mut shard = Self { store, pixels, cache: None };
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
        let mut block = Block::default();
        let mut views = Vec::with_capacity(particles.len());
        let mut targets = vec![0.0f32; if on_host { particles.len() * pixels } else { FILL * pixels }];
        let mut energies = Vec::with_capacity(particles.len());
        for (group, indices) in particles.chunks(FILL).enumerate() {
            let first = group * FILL;
            let at = if on_host { first * pixels } else { 0 };
            let images = &mut targets[at..at + indices.len() * pixels];
            for (&index, image) in indices.iter().zip(images.chunks_exact_mut(pixels)) {
                store.reader().read(index..index + 1, &mut block)?;
                if let Some(&(row, defect)) = block.defects.first() {
                    return Err(store.defect(row, defect));
                }
                image.copy_from_slice(&block.images);
                energies.push(block.energies[0]);
                views.push(shard.view(&block.particles[0]));
            }
            let ctfs: Vec<Ctf> = views[first..].iter().map(|view: &View| view.ctf).collect();
            if on_device {
                device.store(first, &ctfs, images)?;
            } else {
                device.prepare(&ctfs, images)?;
            }
            progress.advance(indices.len() as u64);
        }
        let places = particles.iter().enumerate().map(|(place, &index)| (index, place)).collect();
        shard.cache = Some(Cache { places, targets: on_host.then_some(targets), views, energies });
        progress.finish();
        Ok(shard)
    }

    fn view(&self, particle: &Particle) -> View {
        View { rotation: particle.rotation, ctf: self.store.reader().ctf(particle) }
    }

    /// Calls `step` with the number of each of `batches` and its observations, in order. Returns how long it waited for the
    /// file.
    ///
    /// # Errors
    /// What reading or `step` returns.
    pub fn each_batch(
        &self,
        batches: Vec<Vec<usize>>,
        mut step: impl FnMut(usize, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        if let Some(Cache { places, targets, views, energies }) = &self.cache {
            for (number, batch) in batches.iter().enumerate() {
                let observations: Vec<Observation> = batch
                    .iter()
                    .map(|&index| {
                        let place = places[&index];
                        let target = targets.as_ref().map_or(Target::Kept(place), |targets| {
                            Target::Prepared(&targets[place * self.pixels..(place + 1) * self.pixels])
                        });
                        Observation { view: views[place], target, energy: energies[place] }
                    })
                    .collect();
                step(number, &observations)?;
            }
            return Ok(waited);
        }
        std::thread::scope(|scope| {
            let (receiver, _reading) = read_ahead(scope, self.store, batches.clone());
            for number in 0..batches.len() {
                let asked = Instant::now();
                let blocks = receiver.recv().map_err(|_| {
                    Error::request(
                        "the reading thread ended early",
                        "this is a defect of the program: report it",
                    )
                })??;
                waited += asked.elapsed();
                let observations: Vec<Observation> = blocks
                    .iter()
                    .map(|block| Observation {
                        view: self.view(&block.particles[0]),
                        target: Target::Observed(&block.images),
                        energy: block.energies[0],
                    })
                    .collect();
                step(number, &observations)?;
            }
            Ok(waited)
        })
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
