//! The interface between the formats and the import: a particle set with its metadata and its rows.

use std::fmt;
use std::path::{Path, PathBuf};

use super::choice::Choice;
use super::half_sets::HalfSets;
use super::optics::RawImages;
pub use super::row::{ParticleRow, ReadOptions};
use super::stack_names::{StackFolders, StackNames};
use crate::error::Result;
use crate::imaging::ctf::Optics;
use crate::particles::Subset;
use crate::particles::store::Particle;

/// A particle set, read from its metadata files.
pub trait ParticleSet: fmt::Debug + Send {
    /// Properties of the whole set.
    fn properties(&self) -> &SetProperties;

    /// The chosen particles in file order. Every call starts at the first one. A row is an error if the file cannot be read, or
    /// has changed since it was opened.
    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<ParticleRow>> + '_>;
}

/// Properties of a particle set.
#[derive(Debug)]
pub struct SetProperties {
    /// The metadata file, as named in error messages.
    pub path: PathBuf,
    /// The other metadata files of the set.
    pub others: Vec<PathBuf>,
    /// The optics groups.
    pub optics: Vec<Optics>,
    /// The raw images of each optics group.
    pub raw: Vec<RawImages>,
    /// Source of the box sizes ("_rlnImageSize of p.star").
    pub box_from: String,
    /// The columns of voltage, defocus and origin, for warnings.
    pub columns: [&'static str; 3],
    /// The rows of the metadata that are imported.
    pub choice: Choice,
    /// The half of each particle.
    pub half_sets: HalfSets,
    /// Columns of aberrations that are not taken into account.
    pub ignored: Vec<&'static str>,
    /// True if any image has dark specimen according to the metadata.
    pub dark: bool,
    /// The stacks of the raw images.
    pub stacks: StackNames,
    /// The folders to search for stacks.
    pub folders: StackFolders,
}

impl SetProperties {
    /// Number of particles.
    pub fn len(&self) -> usize {
        self.half_sets.of.len()
    }

    /// True for a set without particles. Readers refuse such sets.
    pub fn is_empty(&self) -> bool {
        self.half_sets.of.is_empty()
    }

    /// The name of the optics group with this index in messages.
    pub fn label(&self, group: usize) -> String {
        let name = &self.optics[group].name;
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        format!("optics group {}{name} of {}", group + 1, self.path.display())
    }

    /// Number of particles in each half.
    pub fn halves(&self) -> [usize; 2] {
        let second = self.half_sets.of.iter().filter(|&&half| half == Subset::Half2).count();
        [self.len() - second, second]
    }
}

/// Warns about `ignored`: columns of the file `path` with aberrations that are not taken into account.
pub fn warn_about_ignored(path: &Path, ignored: &[&str]) {
    if !ignored.is_empty() {
        tracing::warn!("{}: ignored columns with aberrations: {}", path.display(), ignored.join(", "));
    }
}

/// Detects sets in which all particles have the same viewing direction, as after a 2-D classification.
#[derive(Debug, Default)]
pub struct ViewingDirections {
    first: Option<[f64; 3]>,
    differ: bool,
}

impl ViewingDirections {
    /// Records the viewing direction of a particle.
    pub fn observe(&mut self, particle: &Particle) {
        // The last row of W is the viewing direction in the volume.
        self.differ |= *self.first.get_or_insert(particle.rotation[2]) != particle.rotation[2];
    }

    /// Warns if all `count` particles of the file `path` have the same viewing direction.
    pub fn warn(&self, path: &Path, count: usize) {
        if count > 2 && !self.differ {
            tracing::warn!(
                "{}: all particles have the same viewing direction; the file may be the result of a 2-D classification",
                path.display()
            );
        }
    }
}
