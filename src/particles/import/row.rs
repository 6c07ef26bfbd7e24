//! A row of the metadata, and the options of the readers.

use std::path::Path;

use super::stack_names::Location;
use crate::particles::Subset;
use crate::particles::store::{Particle, Source};

/// Options of a reader that do not depend on the format.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReadOptions<'a> {
    /// Number of particles to read, from the first one of each half; `None` for all.
    pub first: Option<usize>,
    /// The class whose particles are read; `None` for all.
    pub class: Option<i64>,
    /// Seed of the random halves, for metadata without halves.
    pub seed: u64,
    /// Draw random halves even if the metadata has halves.
    pub redraw_halves: bool,
    /// Folder to search for stacks; `None` for the paths in the metadata.
    pub datadir: Option<&'a Path>,
    /// For each row of the metadata whether it may be imported ([`super::selected`]); `None` for all.
    pub keep: Option<&'a [bool]>,
}

/// A particle as given by its row of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParticleRow {
    /// The particle, centred. Its source is an index into the stacks of the set.
    pub particle: Particle,
    /// Stack and image (from 0).
    pub source: Source,
    /// Shift (x, y) in raw pixels that centres the image.
    pub shift: [f64; 2],
    /// Its half.
    pub half: Subset,
    /// True if the specimen is dark in this image according to the metadata.
    pub dark: bool,
    /// Its location in the metadata.
    pub place: Location,
}
