//! Writing a particle file: HDF5 lays it out, then particles and images go to their places in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use hdf5::types::VarLenUnicode;
use ndarray::Array1;

use super::columns::{self, CHECKSUM, COLUMNS, ENERGY, HALF, Places};
use super::{Dtype, FORMAT, Header, Particle, REMEDY_READ, REMEDY_WRITE, VERSION, place};
use crate::error::{Error, Result};
use crate::files::Pending;
use crate::imaging::ctf::Optics;
use crate::imaging::energy;
use crate::particles::Subset;

/// Large data sets begin at a multiple of this, a page of memory.
const ALIGNMENT: u64 = 4096;

/// Writes a particle file: the particles of each half in order, in pieces of any size.
#[derive(Debug)]
pub struct Writer {
    pending: Pending,
    destination: PathBuf,
    file: File,
    header: Header,
    dtype: Dtype,
    places: Places,
    written: [usize; 2],
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts `destination` (which stays untouched until [`Writer::finish`]) for a set as `header` says.
    ///
    /// # Errors
    /// When the header is not sound or the file cannot be made.
    pub fn create(destination: &Path, header: &Header, dtype: Dtype) -> Result<Self> {
        header.check(destination)?;
        let pending = Pending::new(destination)?;
        let places = lay_out(pending.path(), header, dtype).map_err(Error::hdf5(
            destination,
            "write the particle set",
            REMEDY_WRITE,
        ))?;
        let file = File::options().write(true).open(pending.path());
        let file = file.map_err(Error::io(destination, "write the particle set", REMEDY_WRITE))?;
        let mut writer = Self {
            pending,
            destination: destination.to_path_buf(),
            file,
            header: header.clone(),
            dtype,
            places,
            written: [0, 0],
            bytes: Vec::new(),
        };
        writer.write_halves()?;
        Ok(writer)
    }

    fn write_halves(&mut self) -> Result<()> {
        const AT_A_TIME: usize = 1 << 16;
        let mut row = 0;
        for (half, count) in self.header.halves.into_iter().enumerate() {
            let bytes = vec![half as u8; count.min(AT_A_TIME)];
            let end = row + count;
            while row < end {
                let count = bytes.len().min(end - row);
                self.write(&bytes[..count], self.places.half + (row * HALF.stride()) as u64)?;
                row += count;
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let failed = Error::io(&self.destination, "write the particle set", REMEDY_WRITE);
        self.file.write_all_at(bytes, at).map_err(failed)
    }

    /// Appends the next particles of `half`, with their images (`[image][y][x]`).
    ///
    /// # Errors
    /// When a particle is not sound, a pixel is not finite or too large, or the file cannot be written.
    ///
    /// # Panics
    /// When `half` is [`Subset::All`], when there are more particles than the header announced, or another number of images.
    pub fn append(&mut self, half: Subset, particles: &[Particle], images: &[f32]) -> Result<()> {
        let (half, pixels) =
            (usize::from(half.code().expect("a half, not all particles")), self.header.pixels());
        let end = self.written[half] + particles.len();
        assert!(images.len() == particles.len() * pixels && end <= self.header.halves[half]);
        let first = self.written[half] + if half == 0 { 0 } else { self.header.halves[0] };

        let groups = self.header.optics.len();
        for (k, particle) in particles.iter().enumerate() {
            if let Some(problem) = particle.defect(groups) {
                return Err(Error::input(&self.destination, place(first + k), problem, REMEDY_READ));
            }
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        for (column, at) in COLUMNS.iter().zip(self.places.columns) {
            bytes.clear();
            particles.iter().for_each(|particle| (column.put)(particle, &mut bytes));
            self.write(&bytes, at + (first * column.shape.stride()) as u64)?;
        }
        bytes.clear();
        match self.dtype {
            Dtype::F32 => self.write_images(first, bytemuck::cast_slice(images), images, &mut bytes)?,
            Dtype::F16 => {
                let mut halved = vec![half::f16::ZERO; images.len()];
                halved.convert_from_f32_slice(images);
                let mut stored = vec![0.0; images.len()];
                halved.convert_to_f32_slice(&mut stored);
                let halved = bytemuck::cast_slice(halved.reinterpret_cast());
                self.write_images(first, halved, &stored, &mut bytes)?;
            }
        }
        self.bytes = bytes;
        self.written[half] = end;
        Ok(())
    }

    /// Writes the bytes of the images from row `first` on, which stand for the pixels of `values`, and their checksums
    /// and energies.
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
                    place(first + k),
                    "has a pixel that is not finite, or far too large (or for f16)",
                    "remove the particle, or store f32 and normalise",
                ));
            }
            sums.extend(crc32fast::hash(image).to_le_bytes());
            energies.push(energy);
        }
        self.write(images, self.places.images + (first * stride) as u64)?;
        self.write(sums, self.places.checksum + (first * CHECKSUM.stride()) as u64)?;
        let energies = bytemuck::cast_slice(&energies);
        self.write(energies, self.places.energy + (first * ENERGY.stride()) as u64)
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// When particles are missing or the file cannot be finished; the destination is then untouched.
    pub fn finish(self) -> Result<()> {
        if self.written != self.header.halves {
            return Err(Error::request(
                format!("{:?} of {:?} particles were written", self.written, self.header.halves),
                "this is a defect of the program: report it",
            ));
        }
        self.pending.commit()
    }
}

/// Makes the file with everything but what [`Writer::append`] writes; says where that goes.
fn lay_out(path: &Path, header: &Header, dtype: Dtype) -> hdf5::Result<Places> {
    let n = header.halves.iter().sum();
    let file = hdf5::File::with_options().with_fapl(|p| p.alignment(ALIGNMENT, ALIGNMENT)).create(path)?;
    file.new_attr::<VarLenUnicode>().create("format")?.write_scalar(&text(FORMAT))?;
    file.new_attr::<u32>().create("version")?.write_scalar(&VERSION)?;
    file.new_attr::<VarLenUnicode>()
        .create("creator")?
        .write_scalar(&text(concat!("cryosplat-mpi ", env!("CARGO_PKG_VERSION"))))?;
    for group in ["pose", "ctf", "source"] {
        file.create_group(group)?;
    }

    let optics = file.create_group("optics")?;
    let column = |name: &str, value: fn(&Optics) -> f64| -> hdf5::Result<()> {
        let values: Array1<f64> = header.optics.iter().map(value).collect();
        optics.new_dataset_builder().with_data(&values).create(name)?;
        Ok(())
    };
    column("voltage", |o| o.voltage)?;
    column("spherical_aberration", |o| o.spherical_aberration)?;
    column("amplitude_contrast", |o| o.amplitude_contrast)?;
    let names: Vec<VarLenUnicode> = header.source_files.iter().map(|f| text(f)).collect();
    file.new_dataset_builder().with_data(&names).create("source/files")?;

    let mut columns = [0; COLUMNS.len()];
    for (place, column) in columns.iter_mut().zip(&COLUMNS) {
        *place = column.shape.create(&file, n)?;
    }
    let places = Places {
        columns,
        half: HALF.create(&file, n)?,
        checksum: CHECKSUM.create(&file, n)?,
        energy: ENERGY.create(&file, n)?,
        images: columns::images(dtype, &[header.box_size; 2]).create(&file, n)?,
    };
    let images = file.dataset("images")?;
    images.new_attr::<f64>().create("pixel_size")?.write_scalar(&header.pixel_size)?;
    images.new_attr::<bool>().create("normalized")?.write_scalar(&header.normalized)?;
    images.new_attr::<bool>().create("inverted")?.write_scalar(&header.inverted)?;
    drop((images, optics));
    file.close()?;
    Ok(places)
}

/// A string as HDF5 stores it; a NUL, which it cannot hold, ends it.
fn text(value: &str) -> VarLenUnicode {
    let value = value.split('\0').next().unwrap_or("");
    value.parse().unwrap_or_default()
}
