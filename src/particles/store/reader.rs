//! Reads particles and images at known offsets with plain file reads, without HDF5's process-wide lock.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rustix::fs::{Advice, fadvise};

use super::columns::{self, APPLIED_SHIFT, CHECKSUM, COLUMNS, DataSetLayout, ENERGY, HALF, Offsets};
use super::pixels::Pixels;
use super::{Dtype, Header, Particle, REMEDY_READ, SetDigests, particle_name};
use crate::error::{Error, Result};
use crate::imaging::ctf::{Ctf, CtfParameters, Optics};
use crate::imaging::{View, energy};

/// Bytes of images per read: small enough to stay in the CPU cache until they are checked.
const IMAGE_PIECE_BYTES: usize = 256 << 10;

/// Reads particles and images of a file, in any number of threads. A clone shares the file.
#[derive(Clone, Debug)]
pub struct Reader {
    file: Arc<File>,
    set: Arc<Set>,
}

/// The metadata shared by all clones of a reader.
#[derive(Debug)]
struct Set {
    path: PathBuf,
    header: Header,
    dtype: Dtype,
    offsets: Offsets,
    /// What the import has done.
    import: Vec<String>,
}

/// What a file holds, and where.
pub(super) struct Layout {
    pub header: Header,
    pub dtype: Dtype,
    pub offsets: Offsets,
    /// What the import has done.
    pub import: Vec<String>,
}

/// Consecutive rows with their images. The next read reuses the memory.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The first row.
    pub first: usize,
    /// The particles.
    pub particles: Vec<Particle>,
    /// Their images, `[image][y][x]`.
    pub images: Pixels,
    /// Sum of the squared pixels of each image.
    pub energies: Vec<f64>,
    /// Rows of unusable images, with the reason.
    pub defects: Vec<(usize, Defect)>,
    /// Columns as stored in the file.
    bytes: Vec<u8>,
    /// 16-bit images as stored in the file.
    f16_bits: Pixels,
}

/// Why an image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The checksum or the energy does not match the stored one.
    Checksum,
    /// A pixel is not finite, or so large that squared gradients overflow single precision.
    NotFinite,
    /// Its CTF amplifies a frequency of the image by more than [`LARGEST_CTF`].
    Ctf,
}

/// Largest absolute value of a usable CTF at a frequency of the image. Only a corrupt B factor or scale exceeds it; with
/// more, the gradient of the one particle overflows single precision, and with it the sum over the batch.
pub const LARGEST_CTF: f64 = 1e12;

/// Largest mean square of the pixels of a usable image. Electron counts are far below it; above it, second moments of
/// gradients overflow single precision.
const MAX_MEAN_SQUARE: f64 = 1e18;

/// True if an image with this number of pixels and this energy is usable.
pub fn usable(energy: f64, pixels: usize) -> bool {
    // A NaN or infinite pixel makes the energy NaN or infinite, which this comparison refuses.
    energy <= MAX_MEAN_SQUARE * pixels as f64
}

impl Reader {
    pub(super) fn new(path: &Path, file: File, layout: Layout) -> Self {
        let Layout { header, dtype, offsets, import } = layout;
        let set = Set { path: path.to_path_buf(), header, dtype, offsets, import };
        Self { file: Arc::new(file), set: Arc::new(set) }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.set.path
    }

    /// Properties of the whole set.
    pub fn header(&self) -> &Header {
        &self.set.header
    }

    /// How images are stored.
    pub fn dtype(&self) -> Dtype {
        self.set.dtype
    }

    /// What the import has done.
    pub(super) fn import_record(&self) -> &[String] {
        &self.set.import
    }

    /// Byte range of the images of `rows` in the file.
    pub fn bytes_of(&self, rows: Range<usize>) -> Range<u64> {
        let stride = self.stride() as u64;
        let at = |row: usize| self.set.offsets.images + row as u64 * stride;
        at(rows.start)..at(rows.end)
    }

    /// Size of a stored image in bytes.
    fn stride(&self) -> usize {
        columns::images(self.set.dtype, &[self.set.header.box_size; 2]).stride()
    }

    /// A reader of the same set that reads from `copy`, a copy of the file.
    pub fn on(&self, copy: File) -> Self {
        Self { file: Arc::new(copy), set: Arc::clone(&self.set) }
    }

    /// The metadata of the particles in `rows`.
    ///
    /// # Errors
    /// If the file cannot be read, or an optics group does not exist.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn particles(&self, rows: Range<usize>) -> Result<Vec<Particle>> {
        let mut particles = Vec::new();
        self.read_particles(rows, &mut particles, &mut Vec::new())?;
        Ok(particles)
    }

    /// The shifts (x, y) that were applied to the images of `rows`, in pixels of the stored box: an image was moved by PLUS its
    /// shift, so that a particle whose origin was right is centred. `None` for a file without them (simulated, or of an older
    /// program).
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn applied_shifts(&self, rows: Range<usize>) -> Result<Option<Vec<[f32; 2]>>> {
        self.check(&rows);
        let Some(offset) = self.set.offsets.applied_shift else { return Ok(None) };
        let mut shifts = vec![[0.0f32; 2]; rows.len()];
        let at = offset + (rows.start * APPLIED_SHIFT.stride()) as u64;
        self.read_at(bytemuck::cast_slice_mut(&mut shifts), at)?;
        Ok(Some(shifts))
    }

    /// Checksum and energy of the images of `rows`: images that are equal have equal ones.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn fingerprints(&self, rows: Range<usize>) -> Result<Vec<(u32, f64)>> {
        self.check(&rows);
        let mut checksums = vec![0u32; rows.len()];
        let mut energies = vec![0.0f64; rows.len()];
        let Offsets { checksum, energy, .. } = &self.set.offsets;
        let at = checksum + (rows.start * CHECKSUM.stride()) as u64;
        self.read_at(bytemuck::cast_slice_mut(&mut checksums), at)?;
        let at = energy + (rows.start * ENERGY.stride()) as u64;
        self.read_at(bytemuck::cast_slice_mut(&mut energies), at)?;
        Ok(checksums.into_iter().zip(energies).collect())
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
        for (column, place) in COLUMNS.iter().zip(self.set.offsets.columns) {
            let stride = column.shape.stride();
            bytes.resize(rows.len() * stride, 0);
            self.read_at(bytes, place + (rows.start * stride) as u64)?;
            for (particle, bytes) in particles.iter_mut().zip(bytes.chunks_exact(stride)) {
                (column.decode)(particle, bytes);
            }
        }
        let groups = self.header().optics.len();
        for (row, particle) in rows.zip(particles) {
            if let Some(problem) = particle.group_defect(groups) {
                return Err(Error::input(self.path(), particle_name(row), problem, REMEDY_READ));
            }
        }
        Ok(())
    }

    /// Reads the particles, images, energies and defects of `rows`. Verifies the checksum and the energy of every image.
    ///
    /// # Errors
    /// If the file cannot be read, or an optics group does not exist.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn read(&self, rows: Range<usize>, block: &mut Block) -> Result<()> {
        self.read_block(rows, true, block)
    }

    /// Like [`Reader::read`], for images that were verified before: checks no pixels, and returns the stored energies.
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
        let Block { first, particles, images, energies, defects, bytes, f16_bits } = block;
        self.read_particles(rows.clone(), particles, bytes)?;
        *first = rows.start;
        energies.resize(rows.len(), 0.0);
        let at = self.set.offsets.energy + (rows.start * ENERGY.stride()) as u64;
        self.read_at(bytemuck::cast_slice_mut(energies), at)?;
        let pixels = self.header().pixels();
        images.resize(rows.len() * pixels);
        defects.clear();
        if !check {
            for ((row, particle), &energy) in rows.clone().zip(&*particles).zip(&*energies) {
                if !usable(energy, pixels) {
                    defects.push((row, Defect::NotFinite));
                } else if !self.usable_ctf(particle) {
                    defects.push((row, Defect::Ctf));
                }
            }
            return self.read_images(rows, images, f16_bits, |_, _, _| ());
        }
        bytes.resize(rows.len() * CHECKSUM.stride(), 0);
        self.read_at(bytes, self.set.offsets.checksum + (rows.start * CHECKSUM.stride()) as u64)?;
        self.read_images(rows.clone(), images, f16_bits, |place, stored, image| {
            let (row, found) = (rows.start + place, energy(image));
            let expected = &bytes[place * CHECKSUM.stride()..(place + 1) * CHECKSUM.stride()];
            if crc32fast::hash(stored).to_le_bytes() != expected {
                defects.push((row, Defect::Checksum));
            } else if !usable(found, pixels) {
                defects.push((row, Defect::NotFinite));
            } else if found != energies[place] {
                defects.push((row, Defect::Checksum));
            } else if !self.usable_ctf(&particles[place]) {
                defects.push((row, Defect::Ctf));
            }
        })
    }

    /// Reads the images of `rows` and passes each to `visit`: its index, its stored bytes and its pixels.
    fn read_images(
        &self,
        rows: Range<usize>,
        images: &mut [f32],
        f16_bits: &mut Pixels,
        mut visit: impl FnMut(usize, &[u8], &[f32]),
    ) -> Result<()> {
        let (stride, pixels) = (self.stride(), self.header().pixels());
        let some = (IMAGE_PIECE_BYTES / stride).max(1);
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
                    f16_bits.resize(values.div_ceil(2));
                    let stored = &mut bytemuck::cast_slice_mut::<f32, u16>(f16_bits)[..values];
                    self.read_at(bytemuck::cast_slice_mut(stored), at)?;
                    stored.reinterpret_cast::<half::f16>().convert_to_f32_slice(images);
                    bytemuck::cast_slice(stored)
                }
            };
            for (image, stored) in images.chunks_exact(pixels).zip(stored.chunks_exact(stride)) {
                visit(place, stored, image);
                place += 1;
            }
        }
        Ok(())
    }

    /// Advises the kernel to read everything that [`Reader::read`] needs for `rows`, so that the disk stays busy while
    /// earlier rows are checked.
    pub fn announce(&self, rows: Range<usize>) {
        let images = self.bytes_of(rows.clone());
        self.advise(images.start, (images.end - images.start) as usize);
        let columns = COLUMNS.iter().map(|column| column.shape).zip(self.set.offsets.columns);
        let offsets = &self.set.offsets;
        let others = [(CHECKSUM, offsets.checksum), (ENERGY, offsets.energy)];
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

    /// The view of a particle of this set: its CTF, and its pose with the magnification of its optics group. For a magnification M
    /// that is anisotropic, the first two rows of the pose are M^T times those of the rotation.
    pub fn view(&self, particle: &Particle) -> View {
        let m = &self.header().optics[particle.optics_group as usize].magnification;
        let ctf = self.ctf(particle);
        if *m == Optics::ISOTROPIC {
            return View::new(particle.rotation, ctf);
        }
        let [x, y, z] = particle.rotation;
        let row = |j: usize| std::array::from_fn(|axis| m[0][j] * x[axis] + m[1][j] * y[axis]);
        View::new([row(0), row(1), z], ctf)
    }

    fn usable_ctf(&self, particle: &Particle) -> bool {
        // The corner of the image's spectrum.
        let highest = 0.5 / self.header().pixel_size.powi(2);
        self.ctf(particle).amplitude_bound(highest) <= LARGEST_CTF
    }

    /// The digests of the set.
    pub(super) fn digests(&self) -> Result<SetDigests> {
        let Set { offsets, header, .. } = &*self.set;
        let mut digests = SetDigests::default();
        let columns = COLUMNS.iter().zip(offsets.columns).map(|(column, at)| (column.shape, at));
        let stored: Vec<(DataSetLayout, u64)> = columns
            .chain([(CHECKSUM, offsets.checksum), (ENERGY, offsets.energy), (HALF, offsets.half)])
            .collect();
        for (part, names) in columns::PARTS {
            digests.add(part, |hash| {
                stored.iter().filter(|(shape, _)| names.contains(&shape.name)).try_for_each(|&(shape, at)| {
                    stream(self.path(), &self.file, at, self.len() * shape.stride(), &mut *hash)
                })
            })?;
        }
        digests.add("pixel size", |hash| {
            hash(&(header.box_size as u64).to_le_bytes());
            hash(&header.pixel_size.to_le_bytes());
            hash(&[u8::from(header.normalized), u8::from(header.inverted)]);
            Ok::<(), Error>(())
        })?;
        digests.add("optics", |hash| {
            header.optics.iter().for_each(|optics| {
                let own = [optics.voltage, optics.spherical_aberration, optics.amplitude_contrast];
                let magnification = optics.magnification.into_iter().flatten();
                let numbers = own.into_iter().chain(optics.even.0).chain(magnification);
                let numbers = numbers.chain([optics.resolution_limit]);
                numbers.for_each(|number| hash(&number.to_le_bytes()));
                hash(&[u8::from(optics.premultiplied)]);
            });
            Ok::<(), Error>(())
        })?;
        Ok(digests)
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
    Error::io(path, "read particles", "check the disk, or copy the file again: it may be truncated")
}

/// Passes `length` bytes from offset `at` to `take` in pieces. All lengths but the last are multiples of 8.
pub(super) fn stream(
    path: &Path,
    file: &File,
    at: u64,
    length: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut bytes = vec![0; length.min(PIECE_BYTES)];
    for start in (0..length).step_by(PIECE_BYTES) {
        let piece = &mut bytes[..PIECE_BYTES.min(length - start)];
        file.read_exact_at(piece, at + start as u64).map_err(failed(path))?;
        take(piece);
    }
    Ok(())
}
