//! The particles of one rank: prepared once and kept in memory where they fit, else read ahead of every step.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::particles::store::Store;
use crate::particles::stream::{ImageReader, read_ahead};
use crate::progress::Progress;
use crate::render::{Device, Observation, View};

/// Where a rank keeps its particles between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// In host memory if half of what is free on the machine holds the shards of all its ranks, else not at all.
    Auto,
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

/// Prepared particles in memory.
struct Cache {
    /// The place of each particle among them.
    places: HashMap<usize, usize>,
    /// The images, `[place][y][x]`.
    targets: Vec<f32>,
    energies: Vec<f64>,
}

impl<'a> Shard<'a> {
    /// Takes `particles` (sorted indices into the store) into memory if `mode` says so; `sharing` ranks share this machine.
    ///
    /// # Errors
    /// When the file cannot be read or a pixel is not finite.
    pub fn load(
        store: &'a Store,
        particles: &[usize],
        mode: CacheMode,
        sharing: usize,
        device: &(impl Device + Sync),
        mut progress: Progress,
    ) -> Result<Self> {
        let pixels = store.metadata().box_size.pow(2);
        let bytes = particles.len() as u64 * pixels as u64 * 4;
        let keep = match mode {
            CacheMode::Host => true,
            CacheMode::None => false,
            CacheMode::Auto => {
                let free = available_memory();
                let fits = bytes.saturating_mul(sharing as u64) < free / 2;
                if !fits {
                    tracing::info!(
                        "the shards of this machine take {:.1} GiB, and {:.1} are free: reading from the file in every epoch",
                        (bytes * sharing as u64) as f64 / f64::from(1 << 30),
                        free as f64 / f64::from(1 << 30)
                    );
                }
                fits
            }
        };
        let mut shard = Self { store, pixels, cache: None };
        if keep {
            let mut reader = ImageReader::open(store)?;
            let mut targets = vec![0.0f32; particles.len() * pixels];
            let mut energies = Vec::with_capacity(particles.len());
            for (indices, images) in particles.chunks(FILL).zip(targets.chunks_mut(FILL * pixels)) {
                for (&index, image) in indices.iter().zip(images.chunks_exact_mut(pixels)) {
                    reader.read(index, image)?;
                }
                energies.extend(shard.prepare(device, indices, images));
                progress.advance(indices.len() as u64);
            }
            let places = particles.iter().enumerate().map(|(place, &index)| (index, place)).collect();
            shard.cache = Some(Cache { places, targets, energies });
            progress.finish();
        }
        Ok(shard)
    }

    /// Prepares raw images in place; their energies.
    fn prepare(&self, device: &(impl Device + Sync), indices: &[usize], images: &mut [f32]) -> Vec<f64> {
        let metadata = self.store.metadata();
        indices
            .par_iter()
            .zip(images.par_chunks_exact_mut(self.pixels))
            .map(|(&index, image)| device.prepare(&metadata.ctf_of(index), image))
            .collect()
    }

    fn view(&self, index: usize) -> View {
        let metadata = self.store.metadata();
        let ctf: Ctf = metadata.ctf_of(index);
        View { rotation: metadata.rotation[index], ctf }
    }

    /// Calls `step` with the observations of each of `batches`, in order. Returns how long it waited for the file.
    ///
    /// # Errors
    /// What reading or `step` returns.
    pub fn each_batch<D: Device + Sync>(
        &self,
        batches: Vec<Vec<usize>>,
        device: &mut D,
        mut step: impl FnMut(&mut D, &[Observation]) -> Result<()>,
    ) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        if let Some(Cache { places, targets, energies }) = &self.cache {
            for batch in batches {
                let observations: Vec<Observation> = batch
                    .iter()
                    .map(|&index| {
                        let place = places[&index];
                        let target = &targets[place * self.pixels..(place + 1) * self.pixels];
                        Observation { view: self.view(index), target, energy: energies[place] }
                    })
                    .collect();
                step(device, &observations)?;
            }
            return Ok(waited);
        }
        let reader = ImageReader::open(self.store)?;
        std::thread::scope(|scope| {
            let (receiver, _reading) = read_ahead(scope, reader, batches.clone());
            for batch in &batches {
                let asked = Instant::now();
                let mut images = receiver.recv().map_err(|_| {
                    Error::request(
                        "the reading thread ended early",
                        "this is a defect of the program: report it",
                    )
                })??;
                waited += asked.elapsed();
                let energies = self.prepare(device, batch, &mut images);
                let observations: Vec<Observation> = batch
                    .iter()
                    .zip(images.chunks_exact(self.pixels).zip(energies))
                    .map(|(&index, (target, energy))| Observation { view: self.view(index), target, energy })
                    .collect();
                step(device, &observations)?;
            }
            Ok(waited)
        })
    }
}

/// Memory that the system could give out now, in bytes; nothing where it does not say.
fn available_memory() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
