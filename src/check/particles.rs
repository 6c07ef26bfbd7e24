//! A particle file, as a training would open and keep it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::particles::Subset;
use crate::particles::store::Store;

/// Bytes that are read to measure the speed.
const READ_BYTES: usize = 64 << 20;

/// A particle file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParticlesRecord {
    /// Path.
    pub path: String,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// Number of particles.
    pub count: usize,
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Seconds to open it.
    pub opening: f64,
    /// Speed of reading the end of the file, in bytes per second; it may be in the page cache. 0 if it was not measured.
    pub speed: f64,
}

impl ParticlesRecord {
    /// Opens the file at `path`.
    pub fn of(path: &Path) -> Self {
        let mut found = Self { path: path.display().to_string(), ..Self::default() };
        let started = Instant::now();
        match Store::open(path) {
            Ok(store) => {
                found.opening = started.elapsed().as_secs_f64();
                found.count = store.rows(Subset::All).len();
                found.box_size = store.header().box_size;
                found.pixel_size = store.header().pixel_size;
                match read_speed(path) {
                    Ok((bytes, speed)) => (found.bytes, found.speed) = (bytes, speed),
                    Err(error) => found.problem = Some(format!("{}: {error}", path.display())),
                }
            }
            Err(error) => found.problem = Some(error.to_string()),
        }
        found
    }

    /// Memory of all images in bytes, as they are kept in host memory.
    pub fn image_bytes(&self) -> u64 {
        (self.count * self.box_size.pow(2) * size_of::<f32>()) as u64
    }
}

/// Length of the file, and bytes per second of reading its last bytes.
fn read_speed(path: &Path) -> std::io::Result<(u64, f64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = vec![0; READ_BYTES.min(length as usize)];
    let start = length - bytes.len() as u64;
    let started = Instant::now();
    file.read_exact_at(&mut bytes, start)?;
    Ok((length, bytes.len() as f64 / started.elapsed().as_secs_f64().max(1e-9)))
}
