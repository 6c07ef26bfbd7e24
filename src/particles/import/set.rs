//! A particle set to import, whatever its format: what its particles share, and a source of their rows.

use std::fmt;
use std::path::{Path, PathBuf};

use super::stack_names::{Folders, Place, StackNames};
use crate::error::{Error, Result};
use crate::imaging::ctf::Optics;
use crate::particles::Subset;
use crate::particles::halves;
use crate::particles::store::{Particle, Source};

/// What is asked of a set, whatever its format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted<'a> {
    /// Only this many particles from the start; `None` for all.
    pub first: Option<usize>,
    /// Draws the halves that the file does not give.
    pub seed: u64,
    /// Where the stacks are, if not where the metadata says.
    pub datadir: Option<&'a Path>,
}

/// A particle set, as its metadata file says.
pub trait Particles: fmt::Debug + Send {
    /// What the particles share.
    fn common(&self) -> &Common;

    /// The particles in file order, from the first one on each call. Fails where the file cannot be read, or has changed.
    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<Row>> + '_>;
}

/// What the particles of a set share.
#[derive(Debug)]
pub struct Common {
    /// The metadata file, which messages name.
    pub path: PathBuf,
    /// Other metadata files that were read with it.
    pub others: Vec<PathBuf>,
    /// Pixel size of the raw images in angstrom.
    pub pixel_size: f64,
    /// Box of the raw images in pixels, where the metadata says, and what says so ("_rlnImageSize of p.star").
    pub image_size: Option<(usize, String)>,
    /// The optics groups.
    pub optics: Vec<Optics>,
    /// The half of each particle.
    pub half: Vec<Subset>,
    /// True where the metadata gives the halves, false where they were drawn.
    pub halves_given: bool,
    /// True where the metadata says of any image that the specimen in it is dark.
    pub dark: bool,
    /// The stacks that the particles are in.
    pub stacks: StackNames,
    /// Where the stacks are looked for.
    pub folders: Folders,
}

/// A particle as its row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The particle, centred; its source is an index into [`Common::stacks`].
    pub particle: Particle,
    /// Stack and image (from 0).
    pub source: Source,
    /// How far the image must be moved (x, y) to be centred, in raw pixels.
    pub shift: [f64; 2],
    /// The half that it belongs to.
    pub half: Subset,
    /// True where the metadata says that the specimen is dark in this image.
    pub dark: bool,
    /// Where in the metadata it is.
    pub place: Place,
}

impl Common {
    /// Number of particles.
    pub fn len(&self) -> usize {
        self.half.len()
    }

    /// True without particles, which every reader refuses.
    pub fn is_empty(&self) -> bool {
        self.half.is_empty()
    }

    /// Particles in each half.
    pub fn halves(&self) -> [usize; 2] {
        let second = self.half.iter().filter(|&&half| half == Subset::Half2).count();
        [self.len() - second, second]
    }
}

/// Draws the halves of `count` particles of the file `path`, for which two are needed.
///
/// # Errors
/// When there are fewer.
pub fn draw_halves(path: &Path, count: usize, seed: u64) -> Result<Vec<Subset>> {
    if count < 2 {
        let problem = format!("half 2 holds zero of the {count} particles");
        return Err(Error::input(path, "", problem, "import two particles or more"));
    }
    Ok(halves::draw(count, seed))
}

/// Warns of `ignored`, columns of the file `path` with terms of the CTF that are not modelled.
pub fn warn_of_ignored<'a>(path: &Path, ignored: impl IntoIterator<Item = &'a str>) {
    let ignored: Vec<&str> = ignored.into_iter().collect();
    if !ignored.is_empty() {
        tracing::warn!(
            "{}: ignored, since the CTF here has no such terms: {}",
            path.display(),
            ignored.join(", ")
        );
    }
}

/// Directions of view, so far: a 2-D classification leaves all of them the same.
#[derive(Debug, Default)]
pub struct Directions {
    first: Option<[f64; 3]>,
    differ: bool,
}

impl Directions {
    /// Looks at a particle.
    pub fn look(&mut self, particle: &Particle) {
        // The last row of W is the direction of view in the volume.
        self.differ |= *self.first.get_or_insert(particle.rotation[2]) != particle.rotation[2];
    }

    /// Warns where all `count` particles of the file `path` had the same.
    pub fn warn(&self, path: &Path, count: usize) {
        if count > 2 && !self.differ {
            tracing::warn!(
                "{}: all particles are seen from the same direction: are these the results of a 2-D classification?",
                path.display()
            );
        }
    }
}
