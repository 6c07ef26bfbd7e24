//! `particles.h5`: one file with the images, poses, CTFs and halves of a particle set.
//!
//! The layout is documented in docs/guide.md ("Particle file"). Every data set lies in one piece, so that particles are
//! read and written at known offsets, past HDF5 and its lock; HDF5 itself lays the file out ([`Writer`]) and says where
//! things lie ([`Store::open`]). Rows are sorted by half, so a half is a range of rows, and nothing here holds memory
//! that grows with their number. A file is written under a temporary name and renamed when complete.

mod columns;
mod identity;
mod open;
mod pixels;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::Path;

pub use identity::DataSetId;
pub use pixels::Pixels;
pub use reader::{Block, Defect, Reader};
pub use writer::Writer;

use crate::error::{Error, Result};
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::pose::{Rotation, distance_from_rotation};
use crate::particles::Subset;

/// What the root attribute `format` says.
pub const FORMAT: &str = "cryosplat-particles";
/// What the root attribute `version` says; another one is refused.
pub const VERSION: u32 = 2;

const REMEDY_READ: &str = "make the file again with `cryosplat-mpi import` or `simulate`";
const REMEDY_WRITE: &str = "check that the folder may be written and the disk is not full";

// What is in memory goes into the file as it is, and the file is little-endian.
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

/// What the particles of a set have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// True where each image's background was brought to mean 0 and standard deviation 1.
    pub normalized: bool,
    /// True where the contrast was inverted on import.
    pub inverted: bool,
    /// The optics groups.
    pub optics: Vec<Optics>,
    /// Particles in each half.
    pub halves: [usize; 2],
    /// Files the images came from; empty where there are none (simulated without a STAR file).
    pub source_files: Vec<String>,
}

impl Header {
    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.box_size * self.box_size
    }

    /// Names `file` and the first thing that cannot be.
    fn check(&self, file: &Path) -> Result<()> {
        let bad = |at: String, problem: String| Err(Error::input(file, at, problem, REMEDY_READ));
        if self.box_size < 4 {
            return bad(String::new(), format!("a box of {} pixels is too small", self.box_size));
        }
        if !(self.pixel_size.is_finite() && self.pixel_size > 0.0) {
            return bad(String::new(), format!("a pixel size of {} A is impossible", self.pixel_size));
        }
        if self.halves == [0, 0] {
            return bad("/images".into(), "holds no particles".into());
        }
        for (i, optics) in self.optics.iter().enumerate() {
            let sound = optics.voltage.is_finite()
                && optics.voltage > 0.0
                && optics.spherical_aberration.is_finite()
                && (0.0..=1.0).contains(&optics.amplitude_contrast);
            if !sound {
                return bad(format!("optics group {}", i + 1), format!("{optics:?} is impossible"));
            }
        }
        Ok(())
    }
}

/// One particle but its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Particle {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Shift (x, y) in pixels still to be applied (zero after import).
    pub shift: [f64; 2],
    /// CTF parameters.
    pub ctf: CtfParameters,
    /// Index into [`Header::optics`].
    pub optics_group: u32,
    /// Where its image came from.
    pub source: Option<Source>,
}

impl Particle {
    /// What is wrong with it, if something is, in a set of `groups` optics groups.
    fn defect(&self, groups: usize) -> Option<String> {
        if distance_from_rotation(&self.rotation) > 1e-3 {
            return Some(format!("its pose is not a rotation: {:?}", self.rotation));
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
            .then(|| format!("its optics group is {}, and there are {groups}", self.optics_group))
    }
}

/// How a message names row `row`.
fn place(row: usize) -> String {
    format!("particle {}", row + 1)
}

/// A particle file, open for reading. It holds nothing that grows with the number of particles.
#[derive(Clone, Debug)]
pub struct Store {
    reader: Reader,
}

impl Store {
    /// Opens `path`; checks attributes, optics, and shape, type and place of every data set, and that the rows are
    /// sorted by half. Closes the HDF5 file again.
    ///
    /// # Errors
    /// When it is not there, cut short, no particle file, of another version, or not of the documented layout.
    pub fn open(path: &Path) -> Result<Self> {
        open::open(path).map(|reader| Self { reader })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// What the particles have in common.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// How images are stored.
    pub fn dtype(&self) -> Dtype {
        self.reader.dtype()
    }

    /// Number of particles, at least 1.
    pub fn len(&self) -> usize {
        self.header().halves.iter().sum()
    }

    /// False: a file without particles is refused.
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
    /// When the file cannot be read. Names the first particle with a number that is not finite, a pose that is no
    /// rotation, or an optics group that is not there.
    pub fn validate(&self) -> Result<DataSetId> {
        self.inspect(|_, _| Ok(()))
    }

    /// [`Store::validate`], which shows every sound particle and its row to `visit` on the way.
    ///
    /// # Errors
    /// As [`Store::validate`], and what `visit` returns.
    pub fn inspect(&self, mut visit: impl FnMut(usize, &Particle) -> Result<()>) -> Result<DataSetId> {
        const AT_A_TIME: usize = 4096;
        let groups = self.header().optics.len();
        for first in (0..self.len()).step_by(AT_A_TIME) {
            let rows = first..self.len().min(first + AT_A_TIME);
            for (row, particle) in rows.clone().zip(self.reader.particles(rows)?) {
                if let Some(problem) = particle.defect(groups) {
                    return Err(Error::input(self.path(), place(row), problem, REMEDY_READ));
                }
                visit(row, &particle)?;
            }
        }
        self.reader.identity()
    }

    /// Reads all images and compares them with their checksums.
    ///
    /// # Errors
    /// Names the first image whose checksum differs, or that has a pixel that is not finite.
    pub fn verify(&self) -> Result<()> {
        const BYTES: usize = 4 << 20;
        let count = (BYTES / (4 * self.header().pixels())).max(1);
        let mut block = Block::default();
        for first in (0..self.len()).step_by(count) {
            self.reader.read(first..self.len().min(first + count), &mut block)?;
            if let Some(&(row, defect)) = block.defects.first() {
                return Err(self.defect(row, defect));
            }
        }
        Ok(())
    }

    /// What reads particles and images.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The stack that row `row` came from, and its image there, from 1; `None` where that is not known.
    pub fn origin(&self, row: usize) -> Option<(&str, u64)> {
        let source = self.reader.particles(row..row + 1).ok()?.first()?.source?;
        Some((self.header().source_files.get(source.file as usize)?, source.index.saturating_add(1)))
    }

    /// The error that the image in `row` cannot be used: names the file, the particle and the image it came from.
    pub fn defect(&self, row: usize, defect: Defect) -> Error {
        let origin = self.origin(row).map(|(stack, image)| format!(" (image {image} of {stack})"));
        let at = place(row) + &origin.unwrap_or_default();
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
                "has a pixel that is not finite, or far too large",
                "import again without this particle",
            ),
        }
    }
}
