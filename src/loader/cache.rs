//! Where the ranks of a machine keep their particles: on the device, in host memory, on the machine's own disk, or not at
//! all. Decided by all ranks together, before the first is read.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::loader::scratch;
use crate::loader::shard::Place;
use crate::parallel::World;
use crate::particles::store::{Reader, Store};
use crate::render::Device;
use crate::resources::memory;

/// Where particles are kept between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// The first that has room: device, host (half of the free memory for all ranks of the machine), scratch if --scratch is
    /// given, none.
    Auto,
    /// In the memory of the GPU.
    Device,
    /// In host memory.
    Host,
    /// In a copy of the file on the machine's own disk, read ahead in every epoch.
    Scratch,
    /// Not at all: read ahead from the file in every epoch.
    None,
}

/// What the user says about it.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Where to keep particles.
    pub mode: CacheMode,
    /// The folder for copies, if one is named.
    pub scratch: Option<PathBuf>,
}

/// Decides for this rank's models, each with the particles of its shard and its device; and through which file to read. Every
/// rank calls it, once.
///
/// # Errors
/// When a device fails, or has no room although the user insists.
pub fn decide<'a>(
    world: &World,
    options: &CacheOptions,
    store: &Store,
    shards: impl IntoIterator<Item = (usize, &'a mut Box<dyn Device>)>,
) -> Result<(Vec<Place>, Reader)> {
    let mode = options.mode;
    let mut places = Vec::new();
    let mut bytes = 0;
    for (particles, device) in shards {
        let on_device = match mode {
            CacheMode::Device | CacheMode::Auto => device.keep(particles)?,
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
        places.push(match (on_device, mode) {
            (true, _) => Place::Device,
            (false, CacheMode::Host) => Place::Host,
            (false, _) => Place::File,
        });
        if !on_device {
            bytes += particles as u64 * store.header().pixels() as u64 * size_of::<f32>() as u64;
        }
    }
    if mode == CacheMode::Auto {
        // Asked before the sum, which no rank leaves before all have asked: nobody's reading is counted.
        let free = memory::available();
        let all = world.local_all_reduce_sum(bytes);
        if all < free / 2 {
            places.iter_mut().filter(|place| **place == Place::File).for_each(|place| *place = Place::Host);
        } else if bytes > 0 {
            tracing::info!(
                "the particles of this machine's ranks take {:.1} GiB, and {:.1} are free: read in every epoch",
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
        && let Some(copy) = scratch::stage(world, store.path(), &folder, places.contains(&Place::File))
    {
        reader = reader.on(copy);
    }
    Ok((places, reader))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
