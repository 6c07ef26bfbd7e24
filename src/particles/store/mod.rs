//! `particles.h5`: one file with the images, poses, CTFs and halves of a particle set.
//!
//! The layout is documented in docs/guide.md ("Particle file"). HDF5 creates the file ([`Writer`]) and gives the offsets
//! of its data sets ([`Store::open`]). Every data set is contiguous, so particles are read and written at known offsets
//! with plain file calls, without HDF5's process-wide lock. Rows are sorted by half: each half is a range of rows. No
//! structure here grows with the number of particles. A file is written under a temporary name and renamed when it is
//! complete.

mod columns;
mod identity;
mod open;
mod pixels;
mod reader;
#[cfg(test)]
mod tests;
mod texts;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

pub use identity::{DataSetId, SetDigests};
pub use pixels::Pixels;
use reader::LARGEST_CTF;
pub use reader::{Block, Defect, Reader};
pub use writer::{Records, Writer};

use crate::error::{Error, Result};
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::pose::{Rotation, distance_from_rotation};
use crate::particles::Subset;

/// Value of the root attribute `format`.
pub const FORMAT: &str = "cryosplat-particles";
/// Value of the root attribute `version`.
pub const VERSION: u32 = 3;
/// The oldest version that is still read. It has texts of variable length and no aberrations.
const OLDEST_VERSION: u32 = 2;

/// Root attribute with [`Header::imported_from`].
const IMPORTED_FROM: &str = "imported_from";
/// Longest path that it holds, in bytes.
const LONGEST_PATH: usize = 1024;

/// Data set with the record of the import: how many texts, of how many bytes each.
const IMPORT: &str = "source/import";
const IMPORT_LINES: usize = 12;
const IMPORT_WIDTH: usize = 512;

const REMEDY_READ: &str = "make the file again with `cryosplat-mpi import` or `simulate`";
const REMEDY_WRITE: &str = "check that the folder may be written and the disk is not full";

// Values are written to the little-endian file as they are in memory.
const _: () = assert!(cfg!(target_endian = "little"), "particle files need a little-endian processor");

/// How images are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats: half the size, relative rounding 5e-4.
    F16,
}

/// Where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Header::source_files`].
    pub file: u32,
    /// Image in that file, from 0.
    pub index: u64,
}

/// Properties of the whole particle set.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// True if each image was normalised to a background of mean 0 and standard deviation 1.
    pub normalized: bool,
    /// True if the contrast was inverted on import.
    pub inverted: bool,
    /// The optics groups.
    pub optics: Vec<Optics>,
    /// Number of particles in each half.
    pub halves: [usize; 2],
    /// Stacks that the images were imported from; empty for a simulated set without a STAR file.
    pub source_files: Vec<String>,
    /// The metadata file that the set was imported from, relative to the folder of the particle file; `None` if there is none with the
    /// poses of the set.
    pub imported_from: Option<String>,
}

impl Header {
    /// Number of pixels per image.
    pub fn pixels(&self) -> usize {
        self.box_size * self.box_size
    }

    /// Checks all values. An error names `file` and the first invalid value.
    fn check(&self, file: &Path) -> Result<()> {
        let bad = |at: String, problem: String| Err(Error::input(file, at, problem, REMEDY_READ));
        if self.box_size < 4 {
            return bad(
                String::new(),
                format!("the box size is {} pixels, expected 4 or more", self.box_size),
            );
        }
        if !(self.pixel_size.is_finite() && self.pixel_size > 0.0) {
            return bad(
                String::new(),
                format!("the pixel size is {} A, expected a finite number above 0", self.pixel_size),
            );
        }
        if self.halves == [0, 0] {
            return bad("/images".into(), "has no particles".into());
        }
        for (i, optics) in self.optics.iter().enumerate() {
            let valid = optics.voltage.is_finite()
                && optics.voltage > 0.0
                && optics.spherical_aberration.is_finite()
                && (0.0..=1.0).contains(&optics.amplitude_contrast)
                && optics.even.0.iter().all(|value| value.is_finite())
                && optics.has_usable_magnification()
                && optics.resolution_limit.is_finite()
                && optics.resolution_limit >= 0.0;
            if !valid {
                return bad(format!("optics group {}", i + 1), format!("has impossible values: {optics:?}"));
            }
        }
        Ok(())
    }
}

/// The metadata of one particle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Particle {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Shift (x, y) in pixels that is still to be applied to the image; zero after import.
    pub shift: [f64; 2],
    /// CTF parameters.
    pub ctf: CtfParameters,
    /// Index into [`Header::optics`].
    pub optics_group: u32,
    /// The raw image; `None` if unknown.
    pub source: Option<Source>,
}

impl Particle {
    /// Describes the first invalid value, in a set of `groups` optics groups; `None` if the particle is valid.
    fn defect(&self, groups: usize) -> Option<String> {
        if distance_from_rotation(&self.rotation) > 1e-3 {
            return Some(format!("the pose is not a rotation matrix: {:?}", self.rotation));
        }
        let c = &self.ctf;
        let numbers = [
            self.shift[0],
            self.shift[1],
            c.defocus_u,
            c.defocus_v,
            c.astigmatism_angle,
            c.phase_shift,
            c.b_factor,
            c.scale,
        ];
        if numbers.iter().any(|v| !v.is_finite()) {
            return Some(format!("a shift or CTF value is not finite: {numbers:?}"));
        }
        self.group_defect(groups)
    }

    fn group_defect(&self, groups: usize) -> Option<String> {
        (self.optics_group as usize >= groups)
            .then(|| format!("the optics group is {} (from 0), but the set has {groups}", self.optics_group))
    }
}

/// How error messages name the particle in row `row` (from 0).
fn particle_name(row: usize) -> String {
    format!("particle {}", row + 1)
}

/// A particle file, open for reading. Its memory does not depend on the number of particles.
#[derive(Clone, Debug)]
pub struct Store {
    reader: Reader,
}

impl Store {
    /// Opens `path`. Checks the attributes, the optics groups, the shape, type and offset of every data set, and that the
    /// rows are sorted by half.
    ///
    /// # Errors
    /// If the file does not exist, is truncated, is not a particle file, or has another version or layout.
    pub fn open(path: &Path) -> Result<Self> {
        open::open(path).map(|reader| Self { reader })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// Properties of the whole set.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The path of the metadata file that the set was imported from, if its poses are those of the set.
    pub fn imported_from(&self) -> Option<PathBuf> {
        let folder = self.path().parent().unwrap_or(Path::new(""));
        self.header().imported_from.as_ref().map(|file| folder.join(file))
    }

    /// What `import` has done to the images, one text per line as "contrast: inverted"; empty for a file without it (simulated, or of
    /// an older program).
    pub fn import_record(&self) -> &[String] {
        self.reader.import_record()
    }

    /// How images are stored.
    pub fn dtype(&self) -> Dtype {
        self.reader.dtype()
    }

    /// Number of particles, at least 1.
    pub fn len(&self) -> usize {
        self.header().halves.iter().sum()
    }

    /// Always false: a file without particles is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of the particles of `subset`.
    pub fn rows(&self, subset: Subset) -> Range<usize> {
        let first = self.header().halves[0];
        match subset {
            Subset::Half1 => 0..first,
            Subset::Half2 => first..self.len(),
            Subset::All => 0..self.len(),
        }
    }

    /// Reads all metadata once, checks that every particle is usable, and returns the identity of the set.
    ///
    /// # Errors
    /// If the file cannot be read, or a particle has a value that is not finite, a pose that is not a rotation, or an
    /// optics group that does not exist. Names the first such particle.
    pub fn validate(&self) -> Result<DataSetId> {
        self.inspect(|_, _| Ok(())).map(|digests| digests.id())
    }

    /// Like [`Store::validate`], but returns the digests that the identity follows from. Passes the row and the metadata of every particle to
    /// `visit`, in order.
    ///
    /// # Errors
    /// As [`Store::validate`], and the errors of `visit`.
    pub fn inspect(&self, mut visit: impl FnMut(usize, &Particle) -> Result<()>) -> Result<SetDigests> {
        const ROWS_PER_READ: usize = 4096;
        let groups = self.header().optics.len();
        for first in (0..self.len()).step_by(ROWS_PER_READ) {
            let rows = first..self.len().min(first + ROWS_PER_READ);
            for (row, particle) in rows.clone().zip(self.reader.particles(rows)?) {
                if let Some(problem) = particle.defect(groups) {
                    return Err(Error::input(self.path(), particle_name(row), problem, REMEDY_READ));
                }
                visit(row, &particle)?;
            }
        }
        self.reader.digests()
    }

    /// Reads all images and verifies their checksums.
    ///
    /// # Errors
    /// If the checksum of an image does not match, or a pixel is not finite. Names the first such image.
    pub fn verify(&self) -> Result<()> {
        const BLOCK_BYTES: usize = 4 << 20;
        let count = (BLOCK_BYTES / (4 * self.header().pixels())).max(1);
        let mut block = Block::default();
        for first in (0..self.len()).step_by(count) {
            self.reader.read(first..self.len().min(first + count), &mut block)?;
            if let Some(&(row, defect)) = block.defects.first() {
                return Err(self.image_error(row, defect));
            }
        }
        Ok(())
    }

    /// A reader of particles and images.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The stack that the particle in row `row` came from, and the number of its image there, from 1; `None` if unknown.
    pub fn origin(&self, row: usize) -> Option<(&str, u64)> {
        let source = self.reader.particles(row..row + 1).ok()?.first()?.source?;
        Some((self.header().source_files.get(source.file as usize)?, source.index.saturating_add(1)))
    }

    /// The error for an unusable image in row `row`: names the file, the particle and the raw image.
    pub fn image_error(&self, row: usize, defect: Defect) -> Error {
        let origin = self.origin(row).map(|(stack, image)| format!(" (image {image} of {stack})"));
        let at = particle_name(row) + &origin.unwrap_or_default();
        match defect {
            Defect::Checksum => Error::input(
                self.path(),
                at,
                "does not match its checksum: the file is corrupt",
                "copy the file again, or import again",
            ),
            Defect::NotFinite => Error::input(
                self.path(),
                at,
                "has a pixel that is not finite, or too large",
                "import again without this particle",
            ),
            Defect::Ctf => Error::input(
                self.path(),
                at,
                format!(
                    "has a CTF that is not finite, or above {LARGEST_CTF:e}, at a frequency of the image"
                ),
                "check its B factor and scale, or import again without this particle",
            ),
        }
    }
}
