//! Writes a particle file: HDF5 creates the data sets, then particles and images are written at their offsets.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use hdf5::types::FixedUnicode;
use ndarray::{Array1, Array2, Array3};

use super::columns::{self, APPLIED_SHIFT, CHECKSUM, COLUMNS, ENERGY, HALF, Offsets};
use super::texts::{self, PendingTexts};
use super::{
    Dtype, FORMAT, Header, IMPORT, IMPORT_LINES, IMPORT_WIDTH, IMPORTED_FROM, LONGEST_PATH, Particle,
    REMEDY_READ, REMEDY_WRITE, VERSION, particle_name,
};
use crate::disk;
use crate::error::{Error, Result};
use crate::files::Pending;
use crate::imaging::ctf::Optics;
use crate::imaging::energy;
use crate::particles::Subset;

/// Alignment of large data sets in bytes: one memory page.
const ALIGNMENT: u64 = 4096;

/// The optional data sets of a particle file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The shift that was applied to each image (`/pose/applied_shift`).
    pub applied_shifts: bool,
    /// What the import has done (`/source/import`), written with [`Writer::record_import`].
    pub import: bool,
}

/// Writes a particle file. The particles of each half are appended in order, in pieces of any size.
#[derive(Debug)]
pub struct Writer {
    pending: Pending,
    destination: PathBuf,
    header: Header,
    dtype: Dtype,
    offsets: Offsets,
    written: [usize; 2],
    bytes: Vec<u8>,
}

impl Writer {
    /// Checks that the disk has room for the images of the particle set described by `header`.
    ///
    /// # Errors
    /// When it has not.
    pub(crate) fn check_space(destination: &Path, header: &Header, dtype: Dtype) -> Result<()> {
        let of_image = columns::images(dtype, &[header.box_size; 2]).stride() as u128;
        let count = header.halves.iter().map(|&half| half as u128).sum::<u128>();
        disk::require(destination, count * of_image, "choose another disk, fewer particles, or --dtype f16")
    }

    /// Creates the file for the particle set described by `header`. `destination` is untouched until [`Writer::finish`].
    ///
    /// # Errors
    /// If the header is invalid or the file cannot be created.
    pub fn create(destination: &Path, header: &Header, dtype: Dtype) -> Result<Self> {
        Self::create_with(destination, header, dtype, &Records::default())
    }

    /// Like [`Writer::create`], for a file that also has the data sets of `records`. Particles are then appended with
    /// [`Writer::append_with`].
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create_with(destination: &Path, header: &Header, dtype: Dtype, records: &Records) -> Result<Self> {
        header.check(destination)?;
        Self::check_space(destination, header, dtype)?;
        let pending = Pending::new(destination)?;
        let (offsets, texts) = create_layout(&pending.handle_path(), header, dtype, records)
            .map_err(Error::hdf5(destination, "write the particle set", REMEDY_WRITE))?;
        let failed = || Error::io(destination, "write the particle set", REMEDY_WRITE);
        texts.iter().try_for_each(|texts| texts.write(pending.file())).map_err(failed())?;
        let mut writer = Self {
            pending,
            destination: destination.to_path_buf(),
            header: header.clone(),
            dtype,
            offsets,
            written: [0, 0],
            bytes: Vec::new(),
        };
        writer.write_halves()?;
        // Until it is written, it holds whatever the disk holds.
        writer.record_import(&[])?;
        Ok(writer)
    }

    fn write_halves(&mut self) -> Result<()> {
        const ROWS_PER_WRITE: usize = 1 << 16;
        let mut row = 0;
        for (half, count) in self.header.halves.into_iter().enumerate() {
            let bytes = vec![half as u8; count.min(ROWS_PER_WRITE)];
            let end = row + count;
            while row < end {
                let count = bytes.len().min(end - row);
                self.write(&bytes[..count], self.offsets.half + (row * HALF.stride()) as u64)?;
                row += count;
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let failed = Error::io(&self.destination, "write the particle set", REMEDY_WRITE);
        self.pending.file().write_all_at(bytes, at).map_err(failed)
    }

    /// Appends the next particles of `half`, with their images (`[image][y][x]`).
    ///
    /// # Errors
    /// If a particle is invalid, a pixel is not finite or too large, or the file cannot be written.
    ///
    /// # Panics
    /// If `half` is [`Subset::All`], the half has more particles than the header states, or the number of images differs
    /// from that of the particles.
    pub fn append(&mut self, half: Subset, particles: &[Particle], images: &[f32]) -> Result<()> {
        self.append_with(half, particles, &[], images)
    }

    /// Like [`Writer::append`], with the shift (x, y) that was applied to each image, in pixels of the stored box.
    ///
    /// # Errors
    /// As [`Writer::append`].
    ///
    /// # Panics
    /// As [`Writer::append`]; and if the number of shifts differs from that of the particles in a file that has them, or is not
    /// 0 in one that has not.
    pub fn append_with(
        &mut self,
        half: Subset,
        particles: &[Particle],
        applied_shifts: &[[f32; 2]],
        images: &[f32],
    ) -> Result<()> {
        let (half, pixels) =
            (usize::from(half.code().expect("a half, not all particles")), self.header.pixels());
        let end = self.written[half] + particles.len();
        assert!(images.len() == particles.len() * pixels && end <= self.header.halves[half]);
        let first = self.written[half] + if half == 0 { 0 } else { self.header.halves[0] };

        let groups = self.header.optics.len();
        for (k, particle) in particles.iter().enumerate() {
            if let Some(problem) = particle.defect(groups) {
                return Err(Error::input(&self.destination, particle_name(first + k), problem, REMEDY_READ));
            }
        }
        let recorded = if self.offsets.applied_shift.is_some() { particles.len() } else { 0 };
        assert_eq!(applied_shifts.len(), recorded, "applied shifts of {} particles", particles.len());
        if let Some(at) = self.offsets.applied_shift {
            let at = at + (first * APPLIED_SHIFT.stride()) as u64;
            self.write(bytemuck::cast_slice(applied_shifts), at)?;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        for (column, at) in COLUMNS.iter().zip(self.offsets.columns) {
            bytes.clear();
            particles.iter().for_each(|particle| (column.encode)(particle, &mut bytes));
            self.write(&bytes, at + (first * column.shape.stride()) as u64)?;
        }
        bytes.clear();
        match self.dtype {
            Dtype::F32 => self.write_images(first, bytemuck::cast_slice(images), images, &mut bytes)?,
            Dtype::F16 => {
                let mut f16_bits = vec![half::f16::ZERO; images.len()];
                f16_bits.convert_from_f32_slice(images);
                let mut stored = vec![0.0; images.len()];
                f16_bits.convert_to_f32_slice(&mut stored);
                let f16_bits = bytemuck::cast_slice(f16_bits.reinterpret_cast());
                self.write_images(first, f16_bits, &stored, &mut bytes)?;
            }
        }
        self.bytes = bytes;
        self.written[half] = end;
        Ok(())
    }

    /// Writes the bytes of the images from row `first` on, and the checksums and energies. `values` are the pixels as they
    /// will be read.
    fn write_images(&self, first: usize, images: &[u8], values: &[f32], sums: &mut Vec<u8>) -> Result<()> {
        let pixels = self.header.pixels();
        let stride = images.len() / (values.len() / pixels).max(1);
        let mut energies = Vec::with_capacity(values.len() / pixels);
        for (k, (image, values)) in
            images.chunks_exact(stride.max(1)).zip(values.chunks_exact(pixels)).enumerate()
        {
            let energy = energy(values);
            if !super::reader::usable(energy, values.len()) {
                return Err(Error::input(
                    &self.destination,
                    particle_name(first + k),
                    "has a pixel that is not finite, or too large for the stored type",
                    "remove the particle, or store normalised f32 images",
                ));
            }
            sums.extend(crc32fast::hash(image).to_le_bytes());
            energies.push(energy);
        }
        self.write(images, self.offsets.images + (first * stride) as u64)?;
        self.write(sums, self.offsets.checksum + (first * CHECKSUM.stride()) as u64)?;
        let energies = bytemuck::cast_slice(&energies);
        self.write(energies, self.offsets.energy + (first * ENERGY.stride()) as u64)
    }

    /// Writes what the import has done, one text per line, into a file that was created with [`Records::import`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record_import(&self, lines: &[String]) -> Result<()> {
        match self.offsets.import {
            Some(at) => self.write(&texts::padded(lines, IMPORT_LINES, IMPORT_WIDTH), at),
            None => Ok(()),
        }
    }

    /// Syncs the file and renames it to its destination.
    ///
    /// # Errors
    /// If particles are missing or the file cannot be written; the destination is then untouched.
    pub fn finish(self) -> Result<()> {
        if self.written != self.header.halves {
            return Err(Error::request(
                format!("{:?} of {:?} particles were written", self.written, self.header.halves),
                "this is a bug: report it",
            ));
        }
        self.pending.commit()
    }
}

/// Creates the file with all attributes and optics groups. Returns the offsets of the data sets that follow, and the texts that
/// are to be written.
fn create_layout(
    path: &Path,
    header: &Header,
    dtype: Dtype,
    records: &Records,
) -> hdf5::Result<(Offsets, [PendingTexts; 2])> {
    let n = header.halves.iter().sum();
    let file = hdf5::File::with_options().with_fapl(|p| p.alignment(ALIGNMENT, ALIGNMENT)).create(path)?;
    for (name, value) in
        [("format", FORMAT), ("creator", concat!("cryosplat-mpi ", env!("CARGO_PKG_VERSION")))]
    {
        let value: FixedUnicode<32> = value.parse().map_err(|_| format!("{value} has more than 32 bytes"))?;
        file.new_attr::<FixedUnicode<32>>().create(name)?.write_scalar(&value)?;
    }
    file.new_attr::<u32>().create("version")?.write_scalar(&VERSION)?;
    // A path that is too long is left out.
    let imported_from = header.imported_from.as_ref();
    if let Some(Ok(path)) = imported_from.map(|path| path.parse::<FixedUnicode<LONGEST_PATH>>()) {
        file.new_attr::<FixedUnicode<LONGEST_PATH>>().create(IMPORTED_FROM)?.write_scalar(&path)?;
    }
    for group in ["pose", "ctf", "source"] {
        file.create_group(group)?;
    }

    let texts =
        [create_optics(&file, &header.optics)?, texts::create(&file, "source/files", &header.source_files)?];

    let mut columns = [0; COLUMNS.len()];
    for (place, column) in columns.iter_mut().zip(&COLUMNS) {
        *place = column.shape.create(&file, n)?;
    }
    let offsets = Offsets {
        columns,
        import: match records.import {
            true => Some(texts::reserve(&file, IMPORT, IMPORT_LINES, IMPORT_WIDTH)?),
            false => None,
        },
        applied_shift: records.applied_shifts.then(|| APPLIED_SHIFT.create(&file, n)).transpose()?,
        half: HALF.create(&file, n)?,
        checksum: CHECKSUM.create(&file, n)?,
        energy: ENERGY.create(&file, n)?,
        images: columns::images(dtype, &[header.box_size; 2]).create(&file, n)?,
    };
    let images = file.dataset("images")?;
    images.new_attr::<f64>().create("pixel_size")?.write_scalar(&header.pixel_size)?;
    images.new_attr::<bool>().create("normalized")?.write_scalar(&header.normalized)?;
    images.new_attr::<bool>().create("inverted")?.write_scalar(&header.inverted)?;
    drop(images);
    file.close()?;
    Ok((offsets, texts))
}

/// Creates the group of the optics groups. Returns their names, which are to be written.
fn create_optics(file: &hdf5::File, groups: &[Optics]) -> hdf5::Result<PendingTexts> {
    let optics = file.create_group("optics")?;
    let column = |name: &str, value: fn(&Optics) -> f64| -> hdf5::Result<()> {
        let values: Array1<f64> = groups.iter().map(value).collect();
        optics.new_dataset_builder().with_data(&values).create(name)?;
        Ok(())
    };
    column("voltage", |o| o.voltage)?;
    column("spherical_aberration", |o| o.spherical_aberration)?;
    column("amplitude_contrast", |o| o.amplitude_contrast)?;
    column("resolution_limit", |o| o.resolution_limit)?;
    let even = Array2::from_shape_fn((groups.len(), 9), |(i, k)| groups[i].even.0[k]);
    optics.new_dataset_builder().with_data(&even).create("even_aberration")?;
    let magnification =
        Array3::from_shape_fn((groups.len(), 2, 2), |(i, row, column)| groups[i].magnification[row][column]);
    optics.new_dataset_builder().with_data(&magnification).create("magnification")?;
    let premultiplied: Array1<u8> = groups.iter().map(|o| u8::from(o.premultiplied)).collect();
    optics.new_dataset_builder().with_data(&premultiplied).create("premultiplied")?;
    let names: Vec<String> = groups.iter().map(|o| o.name.clone()).collect();
    texts::create(file, "optics/name", &names)
}
