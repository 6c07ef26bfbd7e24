//! A sample of particles that are not imported yet, for commands that look at them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::particles::import::cryodrgn::{CtfFrom, Files};
use crate::particles::import::format::{self, Companions};
use crate::particles::import::pipeline::{self, Options};
use crate::particles::import::selected::Selection;
use crate::particles::import::set::ReadOptions;
use crate::particles::store::Dtype;

/// Particles of a sample, at most.
const SAMPLE: usize = 4_000;
/// Pixels of all raw images of a sample, at most.
const SAMPLE_PIXELS: usize = 128 << 20;

/// Where a set that is not imported yet is, as for `import`.
#[derive(Clone, Debug, Default)]
pub(super) struct SetSource {
    pub box_size: Option<usize>,
    pub pixel_size: Option<f64>,
    pub datadir: Option<PathBuf>,
    pub passthrough: Vec<PathBuf>,
    pub poses: Option<PathBuf>,
    pub ctf: Option<PathBuf>,
}

impl SetSource {
    /// The other metadata files of the set.
    pub(super) fn companions(&self) -> Companions {
        match &self.poses {
            Some(poses) => {
                let ctf = self.ctf.clone();
                let ctf = ctf.map_or(CtfFrom::Nowhere(self.pixel_size), CtfFrom::File);
                Companions::CryoDrgn(Files { poses: poses.clone(), ctf, selected: None })
            }
            None if self.passthrough.is_empty() => Companions::Alone,
            None => Companions::Passthrough(self.passthrough.clone()),
        }
    }
}

/// Name of the particle file of a sample.
const PARTICLES: &str = "particles.h5";

/// A sample, imported into a temporary folder, which is removed with it.
pub(super) struct Sample {
    folder: PathBuf,
    /// Particles of each half of the whole set.
    pub halves: [usize; 2],
    /// Seconds that the import of the whole set takes.
    pub import_seconds: f64,
}

impl Drop for Sample {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Sample {
    /// Imports random particles of `input`.
    ///
    /// # Errors
    /// If the set cannot be imported, or there is no folder for temporary files.
    pub(super) fn of(input: &Path, source: &SetSource) -> Result<Self> {
        let started = Instant::now();
        let companions = source.companions();
        let read = ReadOptions { datadir: source.datadir.as_deref(), ..ReadOptions::default() };
        let set = format::read(input, &companions, &read)?;
        let (halves, all) = (set.properties().halves(), set.properties().len());
        let raw_box = set.properties().raw.iter().filter_map(|raw| raw.box_size).max();
        let raw_box = raw_box.or(source.box_size).unwrap_or(256);
        drop(set);
        let metadata = started.elapsed().as_secs_f64();
        let count = SAMPLE.min(SAMPLE_PIXELS / raw_box.pow(2)).max(16).min(all);
        tracing::info!("a sample of {count} of {all} particles is read");
        let folder = std::env::temp_dir().join(format!("cryosplat-sample-{}", std::process::id()));
        // An existing folder is an error: nobody else may prepare it.
        std::fs::create_dir(&folder).map_err(Error::io(
            &folder,
            "create a folder for the sample",
            "set TMPDIR to a folder that may be written",
        ))?;
        let mut sample = Self { folder, halves, import_seconds: 0.0 };
        let options = Options {
            companions,
            datadir: source.datadir.clone(),
            box_size: source.box_size,
            pixel_size: source.pixel_size.filter(|_| source.poses.is_none() || source.ctf.is_some()),
            invert: false,
            normalize: true,
            background_radius: None,
            dtype: Dtype::F32,
            seed: 0,
            redraw_halves: false,
            threads: None,
            first: None,
            class: None,
            selection: Selection { random: Some(count), ..Selection::default() },
        };
        let started = Instant::now();
        pipeline::import(input, &sample.particles(), &options)?;
        // The import has read the metadata twice, to select and to import.
        let images = (started.elapsed().as_secs_f64() - 2.0 * metadata).max(0.0);
        sample.import_seconds = metadata + images * all as f64 / count as f64;
        Ok(sample)
    }

    /// The particle file.
    pub(super) fn particles(&self) -> PathBuf {
        self.folder.join(PARTICLES)
    }
}
