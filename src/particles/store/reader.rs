//! Reading particles and images at full speed: plain reads at known offsets, past HDF5 and its lock.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rustix::fs::{Advice, fadvise};

use super::columns::{self, CHECKSUM, COLUMNS, ENERGY, HALF, Places, ROTATION};
use super::pixels::Pixels;
use super::{DataSetId, Dtype, Header, Particle, REMEDY_READ, place};
use crate::error::{Error, Result};
use crate::imaging::ctf::{Ctf, CtfParameters};
use crate::imaging::energy;

/// Bytes of images that are read, and then checked, at a time: they stay in the processor's own memory in between.
const PIECE: usize = 256 << 10;

/// Reads particles and images of a file, in any number of threads. A clone shares the file.
#[derive(Clone, Debug)]
pub struct Reader {
    file: Arc<File>,
    set: Arc<Set>,
}

/// What is known of the file.
#[derive(Debug)]
struct Set {
    path: PathBuf,
    header: Header,
    dtype: Dtype,
    places: Places,
}

/// Consecutive rows with their images. The memory is used again by the next read.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The first row.
    pub first: usize,
    /// The particles.
    pub particles: Vec<Particle>,
    /// Their images, `[image][y][x]`.
    pub images: Pixels,
    /// The sum of the squares of each image's pixels.
    pub energies: Vec<f64>,
    /// Rows whose images cannot be used.
    pub defects: Vec<(usize, Defect)>,
    /// Columns as stored.
    bytes: Vec<u8>,
    /// Some images as stored, where that is in 16 bits.
    halved: Pixels,
}

/// Why an image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It does not match its checksum, or its energy is not the stored one.
    Checksum,
    /// Its pixels are not finite, or so large that single precision cannot hold the squares of their gradients.
    NotFinite,
}

/// The largest mean of a usable image's squares. Counts of electrons are far below; with more, second moments of gradients leave
/// single precision.
const LARGEST: f64 = 1e18;

/// Whether an image of so many pixels and this energy can be compared with.
pub fn usable(energy: f64, pixels: usize) -> bool {
    // A sum is finite only if all its terms are.
    energy <= LARGEST * pixels as f64
}

impl Reader {
    pub(super) fn new(path: &Path, file: File, header: Header, dtype: Dtype, places: Places) -> Self {
        let set = Set { path: path.to_path_buf(), header, dtype, places };
        Self { file: Arc::new(file), set: Arc::new(set) }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.set.path
    }

    /// What the particles have in common.
    pub fn header(&self) -> &Header {
        &self.set.header
    }

    /// How images are stored.
    pub fn dtype(&self) -> Dtype {
        self.set.dtype
    }

    /// Where the bytes of the images in `rows` lie in the file.
    pub fn bytes_of(&self, rows: Range<usize>) -> Range<u64> {
        let stride = self.stride() as u64;
        let at = |row: usize| self.set.places.images + row as u64 * stride;
        at(rows.start)..at(rows.end)
    }

    /// Stored bytes of an image.
    fn stride(&self) -> usize {
        columns::images(self.set.dtype, &[self.set.header.box_size; 2]).stride()
    }

    /// The same set, read from a copy of its file.
    pub fn on(&self, staged: File) -> Self {
        Self { file: Arc::new(staged), set: Arc::clone(&self.set) }
    }

    /// The particles in `rows`.
    ///
    /// # Errors
    /// When the file cannot be read, or an optics group is not there.
    ///
    /// # Panics
    /// When the range is past the end.
    pub fn particles(&self, rows: Range<usize>) -> Result<Vec<Particle>> {
        let mut particles = Vec::new();
        self.read_particles(rows, &mut particles, &mut Vec::new())?;
        Ok(particles)
    }

    fn read_particles(
        &self,
        rows: Range<usize>,
        particles: &mut Vec<Particle>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        const BLANK: Particle = Particle {
            rotation: [[0.0; 3]; 3],
            shift: [0.0; 2],
            ctf: CtfParameters {
                defocus_u: 0.0,
                defocus_v: 0.0,
                astigmatism_angle: 0.0,
                phase_shift: 0.0,
                b_factor: 0.0,
                scale: 0.0,
            },
            optics_group: 0,
            source: None,
        };
        self.check(&rows);
        particles.clear();
        particles.resize(rows.len(), BLANK);
        for (column, place) in COLUMNS.iter().zip(self.set.places.columns) {
            let stride = column.shape.stride();
            bytes.resize(rows.len() * stride, 0);
            self.read_at(bytes, place + (rows.start * stride) as u64)?;
            for (particle, bytes) in particles.iter_mut().zip(bytes.chunks_exact(stride)) {
                (column.get)(particle, bytes);
            }
        }
        let groups = self.header().optics.len();
        for (row, particle) in rows.zip(particles) {
            if let Some(problem) = particle.group_defect(groups) {
                return Err(Error::input(self.path(), place(row), problem, REMEDY_READ));
            }
        }
        Ok(())
    }

    /// Reads `rows`: particles, images, energies and what is wrong with an image. Every image is compared with its checksum,
    /// and its squares are added up anew.
    ///
    /// # Errors
    /// When the file cannot be read, or an optics group is not there.
    ///
    /// # Panics
    /// When the range is past the end.
    pub fn read(&self, rows: Range<usize>, block: &mut Block) -> Result<()> {
        self.read_block(rows, true, block)
    }

    /// [`Reader::read`] of images that were compared with their checksums before: of their pixels nothing is asked, and the
    /// energies are the stored ones.
    ///
    /// # Errors
    /// As [`Reader::read`].
    ///
    /// # Panics
    /// As [`Reader::read`].
    pub fn read_again(&self, rows: Range<usize>, block: &mut Block) -> Result<()> {
        self.read_block(rows, false, block)
    }

    fn read_block(&self, rows: Range<usize>, check: bool, block: &mut Block) -> Result<()> {
        let Block { first, particles, images, energies, defects, bytes, halved } = block;
        self.read_particles(rows.clone(), particles, bytes)?;
        *first = rows.start;
        energies.resize(rows.len(), 0.0);
        let at = self.set.places.energy + (rows.start * ENERGY.stride()) as u64;
        self.read_at(bytemuck::cast_slice_mut(energies), at)?;
        let pixels = self.header().pixels();
        images.resize(rows.len() * pixels);
        defects.clear();
        if !check {
            let unusable = rows.clone().zip(&*energies).filter(|&(_, &energy)| !usable(energy, pixels));
            defects.extend(unusable.map(|(row, _)| (row, Defect::NotFinite)));
            return self.read_images(rows, images, halved, |_, _, _| ());
        }
        bytes.resize(rows.len() * CHECKSUM.stride(), 0);
        self.read_at(bytes, self.set.places.checksum + (rows.start * CHECKSUM.stride()) as u64)?;
        self.read_images(rows.clone(), images, halved, |place, stored, image| {
            let (row, found) = (rows.start + place, energy(image));
            let expected = &bytes[place * CHECKSUM.stride()..(place + 1) * CHECKSUM.stride()];
            if crc32fast::hash(stored).to_le_bytes() != expected {
                defects.push((row, Defect::Checksum));
            } else if !usable(found, pixels) {
                defects.push((row, Defect::NotFinite));
            } else if found != energies[place] {
                defects.push((row, Defect::Checksum));
            }
        })
    }

    /// Reads the images of `rows`, and shows each to `look`: its place, as it is stored, and as it is read.
    fn read_images(
        &self,
        rows: Range<usize>,
        images: &mut [f32],
        halved: &mut Pixels,
        mut look: impl FnMut(usize, &[u8], &[f32]),
    ) -> Result<()> {
        let (stride, pixels) = (self.stride(), self.header().pixels());
        let some = (PIECE / stride).max(1);
        let mut place = 0;
        for (first, images) in rows.step_by(some).zip(images.chunks_mut(some * pixels)) {
            let at = self.bytes_of(first..first + 1).start;
            let values = images.len();
            let stored: &[u8] = match self.set.dtype {
                Dtype::F32 => {
                    self.read_at(bytemuck::cast_slice_mut(images), at)?;
                    bytemuck::cast_slice(images)
                }
                Dtype::F16 => {
                    halved.resize(values.div_ceil(2));
                    let stored = &mut bytemuck::cast_slice_mut::<f32, u16>(halved)[..values];
                    self.read_at(bytemuck::cast_slice_mut(stored), at)?;
                    stored.reinterpret_cast::<half::f16>().convert_to_f32_slice(images);
                    bytemuck::cast_slice(stored)
                }
            };
            for (image, stored) in images.chunks_exact(pixels).zip(stored.chunks_exact(stride)) {
                look(place, stored, image);
                place += 1;
            }
        }
        Ok(())
    }

    /// Lets the system begin to read all that [`Reader::read`] will want of `rows`, so that the disk is not idle while what
    /// came before is checked.
    pub fn announce(&self, rows: Range<usize>) {
        let images = self.bytes_of(rows.clone());
        self.advise(images.start, (images.end - images.start) as usize);
        let columns = COLUMNS.iter().map(|column| column.shape).zip(self.set.places.columns);
        let places = &self.set.places;
        let others = [(CHECKSUM, places.checksum), (ENERGY, places.energy)];
        for (shape, place) in columns.chain(others) {
            self.advise(place + (rows.start * shape.stride()) as u64, rows.len() * shape.stride());
        }
    }

    /// A hint only: a system that ignores it reads the same bytes later.
    fn advise(&self, at: u64, length: usize) {
        let _ = fadvise(&*self.file, at, NonZeroU64::new(length as u64), Advice::WillNeed);
    }

    /// The CTF of a particle of this set.
    pub fn ctf(&self, particle: &Particle) -> Ctf {
        Ctf::new(&self.header().optics[particle.optics_group as usize], &particle.ctf)
    }

    /// The identity of the set.
    pub(super) fn identity(&self) -> Result<DataSetId> {
        let places = &self.set.places;
        DataSetId::of(|hash| {
            for (place, stride) in [
                (places.checksum, CHECKSUM.stride()),
                (places.columns[ROTATION], COLUMNS[ROTATION].shape.stride()),
                (places.half, HALF.stride()),
            ] {
                stream(self.path(), &self.file, place, self.len() * stride, &mut *hash)?;
            }
            Ok(())
        })
    }

    fn len(&self) -> usize {
        self.header().halves.iter().sum()
    }

    fn check(&self, rows: &Range<usize>) {
        assert!(rows.start <= rows.end && rows.end <= self.len(), "rows {rows:?} of {}", self.len());
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(failed(self.path()))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(path, "read particles", "check the disk, or copy the file again: it may be cut short")
}

/// Shows `length` bytes from `at` on to `take`, in pieces whose lengths are multiples of 8 but for the last.
pub(super) fn stream(
    path: &Path,
    file: &File,
    at: u64,
    length: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<()> {
    const AT_A_TIME: usize = 1 << 20;
    let mut bytes = vec![0; length.min(AT_A_TIME)];
    for start in (0..length).step_by(AT_A_TIME) {
        let piece = &mut bytes[..AT_A_TIME.min(length - start)];
        file.read_exact_at(piece, at + start as u64).map_err(failed(path))?;
        take(piece);
    }
    Ok(())
}
