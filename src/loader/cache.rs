//! Where the ranks of a node keep their particles between epochs: on the device, in host memory, or in a copy of the file on a
//! node-local disk. All ranks decide together, before they read the first particle.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::loader::scratch;
use crate::loader::shard::Residency;
use crate::memory;
use crate::parallel::World;
use crate::particles::store::{Reader, Store};
use crate::progress::gib;
use crate::render::Device;

/// Where particles are kept between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// The first that has room: device, host (half of the free memory for all ranks of the node), scratch if --scratch is
    /// given, none.
    Auto,
    /// In the memory of the GPU.
    Device,
    /// In host memory.
    Host,
    /// In a copy of the file on the node's own disk, streamed in every epoch.
    Scratch,
    /// Nowhere: streamed from the file in every epoch.
    None,
}

/// The options of the cache.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Where to keep particles.
    pub mode: CacheMode,
    /// Folder for scratch copies; `None`: [`scratch::default_folder`].
    pub scratch: Option<PathBuf>,
}

/// Chooses the residency of each of this rank's models, and the file to read from. `shards` holds the number of particles and
/// the device of each model. Every rank calls it, once.
///
/// # Errors
/// When a device fails, or has no room with `CacheMode::Device`.
pub(crate) fn decide<'a>(
    world: &World,
    options: &CacheOptions,
    store: &Store,
    shards: impl IntoIterator<Item = (usize, &'a mut Box<dyn Device>)>,
) -> Result<(Vec<Residency>, Reader)> {
    let mode = options.mode;
    let mut residencies = Vec::new();
    let mut bytes = 0;
    for (particles, device) in shards {
        let on_device = match mode {
            CacheMode::Device | CacheMode::Auto => device.reserve(particles)?,
            CacheMode::Host | CacheMode::Scratch | CacheMode::None => false,
        };
        if mode == CacheMode::Device && !on_device {
            return Err(Error::request(
                format!(
                    "{} has no room for the {particles} particles of a rank, {} pixels each",
                    device.name(),
                    store.header().pixels(),
                ),
                "use --cache auto or host, more ranks, or --cache-half",
            ));
        }
        residencies.push(match (on_device, mode) {
            (true, _) => Residency::Device,
            (false, CacheMode::Host) => Residency::Host,
            (false, _) => Residency::Streamed,
        });
        if !on_device {
            bytes += particles as u64 * store.header().pixels() as u64 * size_of::<f32>() as u64;
        }
    }
    if mode == CacheMode::Auto {
        // Queried before the all-reduce, which no rank leaves before all have queried: no rank has read particles yet.
        let free = memory::available();
        let all = world.local_all_reduce_sum(bytes);
        if all < free / 2 {
            for residency in residencies.iter_mut().filter(|residency| **residency == Residency::Streamed) {
                *residency = Residency::Host;
            }
        } else if bytes > 0 {
            tracing::info!(
                "the particles of this node's ranks take {:.1} GiB, but only {:.1} GiB are free: streamed in every epoch",
                gib(all),
                gib(free)
            );
        }
    }
    let folder = match mode {
        CacheMode::Scratch => Some(options.scratch.clone().unwrap_or_else(scratch::default_folder)),
        CacheMode::Auto => options.scratch.clone(),
        CacheMode::Device | CacheMode::Host | CacheMode::None => None,
    };
    let mut reader = store.reader();
    if let Some(folder) = folder
        && let Some(copy) =
            scratch::stage(world, store.path(), &folder, residencies.contains(&Residency::Streamed))
    {
        reader = reader.on(copy);
    }
    Ok((residencies, reader))
}
