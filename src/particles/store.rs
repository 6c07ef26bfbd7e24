//! `particles.h5`: one file with the images, poses, CTFs and halves of a particle set.
//!
//! The layout is documented in README.md ("The particle file"). Images lie in one contiguous data set, so that ranks
//! can read them in parallel at known offsets. A file is written under a temporary name and renamed when complete.

use std::path::{Path, PathBuf};

use hdf5::types::{FloatSize, TypeDescriptor, VarLenUnicode};
use ndarray::{Array1, Array2, Array3, ArrayView3, s};

use crate::error::{Error, Result};
use crate::files::Pending;
use crate::imaging::ctf::{Ctf, CtfParameters, Optics};
use crate::imaging::pose::{Rotation, distance_from_rotation};

/// What the root attribute `format` says.
pub const FORMAT: &str = "cryosplat-particles";
/// What the root attribute `version` says; another one is refused.
pub const VERSION: u32 = 1;
/// Images per checksum in `/source/checksum`.
pub const CHECKSUM_BLOCK: usize = 64;

const REMEDY_READ: &str = "make the file again with `cryosplat-mpi import` or `simulate`";
const REMEDY_WRITE: &str = "check that the folder may be written and the disk is not full";

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Metadata::source_files`].
    pub file: u32,
    /// Image in that file, from 0.
    pub index: u64,
}

/// Everything about a particle set but its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// True where each image's background was brought to mean 0 and standard deviation 1.
    pub normalized: bool,
    /// True where the contrast was inverted on import.
    pub inverted: bool,
    /// `W` of each particle: volume to view.
    pub rotation: Vec<Rotation>,
    /// Shift of each particle (x, y) in pixels still to be applied (zero after import).
    pub shift: Vec<[f64; 2]>,
    /// CTF parameters of each particle.
    pub ctf: Vec<CtfParameters>,
    /// Index into [`Metadata::optics`] of each particle.
    pub optics_group: Vec<u32>,
    /// The optics groups.
    pub optics: Vec<Optics>,
    /// FSC half of each particle: 0 or 1.
    pub half: Vec<u8>,
    /// Files the images came from.
    pub source_files: Vec<String>,
    /// Origin of each image; empty where there is none (simulated without a STAR file).
    pub source: Vec<Source>,
}

impl Metadata {
    /// Number of particles.
    pub fn len(&self) -> usize {
        self.rotation.len()
    }

    /// True for a set without particles.
    pub fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }

    /// The CTF of particle `i`.
    pub fn ctf_of(&self, i: usize) -> Ctf {
        Ctf::new(&self.optics[self.optics_group[i] as usize], &self.ctf[i])
    }

    /// The particles of half 0 or 1, in file order.
    pub fn members(&self, half: u8) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.half[i] == half).collect()
    }

    /// Checks that every particle is usable.
    ///
    /// # Errors
    /// Names `file` and the first particle with a number that is not finite, a pose that is no rotation, a half other
    /// than 0 and 1, or an optics group that is not there.
    pub fn validate(&self, file: &Path) -> Result<()> {
        let bad = |at: String, problem: String| Err(Error::input(file, at, problem, REMEDY_READ));
        if self.box_size < 4 {
            return bad(String::new(), format!("a box of {} pixels is too small", self.box_size));
        }
        if !(self.pixel_size.is_finite() && self.pixel_size > 0.0) {
            return bad(String::new(), format!("a pixel size of {} A is impossible", self.pixel_size));
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
        for i in 0..self.len() {
            let at = || format!("particle {}", i + 1);
            let distance = distance_from_rotation(&self.rotation[i]);
            if distance > 1e-3 {
                return bad(at(), format!("its pose is not a rotation: {:?}", self.rotation[i]));
            }
            let c = &self.ctf[i];
            let numbers = [
                self.shift[i][0],
                self.shift[i][1],
                c.defocus_u,
                c.defocus_v,
                c.astigmatism_angle,
                c.phase_shift,
                c.b_factor,
                c.scale,
            ];
            if numbers.iter().any(|v| !v.is_finite()) {
                return bad(at(), format!("a shift or CTF value is not finite: {numbers:?}"));
            }
            if self.half[i] > 1 {
                return bad(at(), format!("its half is {}, expected 0 or 1", self.half[i]));
            }
            if self.optics_group[i] as usize >= self.optics.len() {
                return bad(
                    at(),
                    format!(
                        "its optics group is {}, and there are {}",
                        self.optics_group[i],
                        self.optics.len()
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Writes a particle file: metadata first, then images in order, in chunks of any size.
#[derive(Debug)]
pub struct Writer {
    pending: Option<Pending>,
    destination: PathBuf,
    file: Option<hdf5::File>,
    images: hdf5::Dataset,
    dtype: Dtype,
    box_size: usize,
    total: usize,
    written: usize,
    checksums: Vec<u32>,
    block: crc32fast::Hasher,
}

impl Writer {
    /// Starts `destination` (which stays untouched until [`Writer::finish`]) for the particles of `metadata`.
    ///
    /// # Errors
    /// When the metadata is not sound or the file cannot be made.
    pub fn create(destination: &Path, metadata: &Metadata, dtype: Dtype) -> Result<Self> {
        metadata.validate(destination)?;
        let pending = Pending::new(destination)?;
        let fail = || Error::hdf5(destination, "write the particle set", REMEDY_WRITE);
        let file = hdf5::File::create(pending.path()).map_err(fail())?;
        write_metadata(&file, metadata).map_err(fail())?;
        let shape = (metadata.len(), metadata.box_size, metadata.box_size);
        let images = match dtype {
            Dtype::F32 => file.new_dataset::<f32>().shape(shape).create("images"),
            Dtype::F16 => file.new_dataset::<half::f16>().shape(shape).create("images"),
        }
        .map_err(fail())?;
        images
            .new_attr::<f64>()
            .create("pixel_size")
            .and_then(|a| a.write_scalar(&metadata.pixel_size))
            .and_then(|()| images.new_attr::<bool>().create("normalized"))
            .and_then(|a| a.write_scalar(&metadata.normalized))
            .and_then(|()| images.new_attr::<bool>().create("inverted"))
            .and_then(|a| a.write_scalar(&metadata.inverted))
            .map_err(fail())?;
        Ok(Self {
            pending: Some(pending),
            destination: destination.to_path_buf(),
            file: Some(file),
            images,
            dtype,
            box_size: metadata.box_size,
            total: metadata.len(),
            written: 0,
            checksums: Vec::new(),
            block: crc32fast::Hasher::new(),
        })
    }

    /// Appends images (`[image][y][x]`, a multiple of box^2 values).
    ///
    /// # Errors
    /// When a pixel is not finite, or the file cannot be written.
    ///
    /// # Panics
    /// When more images come than the metadata announced.
    pub fn append(&mut self, images: &[f32]) -> Result<()> {
        let pixels = self.box_size * self.box_size;
        let count = images.len() / pixels;
        assert!(images.len().is_multiple_of(pixels) && self.written + count <= self.total);
        let fail = || Error::hdf5(&self.destination, "write images", REMEDY_WRITE);
        let view = ArrayView3::from_shape((count, self.box_size, self.box_size), images)
            .expect("the length was checked");
        let range = s![self.written..self.written + count, .., ..];
        let mut bytes = Vec::with_capacity(pixels * 4);
        match self.dtype {
            Dtype::F32 => self.images.write_slice(view, range).map_err(fail())?,
            Dtype::F16 => {
                let halved = view.mapv(half::f16::from_f32);
                self.images.write_slice(&halved, range).map_err(fail())?;
            }
        }
        for (k, image) in images.chunks_exact(pixels).enumerate() {
            let finite = match self.dtype {
                Dtype::F32 => image.iter().all(|v| v.is_finite()),
                Dtype::F16 => image.iter().all(|&v| half::f16::from_f32(v).is_finite()),
            };
            if !finite {
                return Err(Error::input(
                    &self.destination,
                    format!("particle {}", self.written + k + 1),
                    "has a pixel that is not finite (or too large for f16)",
                    "remove the particle, or store f32 and normalise",
                ));
            }
            bytes.clear();
            match self.dtype {
                Dtype::F32 => image.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
                Dtype::F16 => image.iter().for_each(|&v| bytes.extend(half::f16::from_f32(v).to_le_bytes())),
            }
            self.block.update(&bytes);
            if (self.written + k + 1).is_multiple_of(CHECKSUM_BLOCK) {
                self.checksums.push(std::mem::take(&mut self.block).finalize());
            }
        }
        self.written += count;
        Ok(())
    }

    /// Writes the checksums, syncs the file and gives it its name.
    ///
    /// # Errors
    /// When images are missing or the file cannot be finished; the destination is then untouched.
    pub fn finish(mut self) -> Result<()> {
        if self.written != self.total {
            return Err(Error::request(
                format!("{} of {} images were written", self.written, self.total),
                "this is a defect of the program: report it",
            ));
        }
        if !self.total.is_multiple_of(CHECKSUM_BLOCK) {
            self.checksums.push(std::mem::take(&mut self.block).finalize());
        }
        let file = self.file.take().expect("taken once");
        let fail = || Error::hdf5(&self.destination, "finish the particle set", REMEDY_WRITE);
        file.group("source")
            .and_then(|g| g.new_dataset_builder().with_data(&self.checksums).create("checksum"))
            .and_then(|_| file.flush())
            .and_then(|()| file.close())
            .map_err(fail())?;
        self.pending.take().expect("taken once").commit()
    }
}

/// A string as HDF5 stores it; a NUL, which it cannot hold, ends it.
fn text(value: &str) -> VarLenUnicode {
    let value = value.split('\0').next().unwrap_or("");
    value.parse().unwrap_or_default()
}

fn write_metadata(file: &hdf5::File, metadata: &Metadata) -> hdf5::Result<()> {
    let n = metadata.len();
    file.new_attr::<VarLenUnicode>().create("format")?.write_scalar(&text(FORMAT))?;
    file.new_attr::<u32>().create("version")?.write_scalar(&VERSION)?;
    file.new_attr::<VarLenUnicode>()
        .create("creator")?
        .write_scalar(&text(concat!("cryosplat-mpi ", env!("CARGO_PKG_VERSION"))))?;

    let pose = file.create_group("pose")?;
    let rotation = Array3::from_shape_fn((n, 3, 3), |(i, r, c)| metadata.rotation[i][r][c]);
    pose.new_dataset_builder().with_data(&rotation).create("rotation")?;
    let shift = Array2::from_shape_fn((n, 2), |(i, k)| metadata.shift[i][k]);
    pose.new_dataset_builder().with_data(&shift).create("shift")?;

    let ctf = file.create_group("ctf")?;
    let column = |name: &str, value: fn(&CtfParameters) -> f64| -> hdf5::Result<()> {
        let values: Array1<f64> = metadata.ctf.iter().map(value).collect();
        ctf.new_dataset_builder().with_data(&values).create(name)?;
        Ok(())
    };
    column("defocus_u", |c| c.defocus_u)?;
    column("defocus_v", |c| c.defocus_v)?;
    column("astigmatism_angle", |c| c.astigmatism_angle)?;
    column("phase_shift", |c| c.phase_shift)?;
    column("b_factor", |c| c.b_factor)?;
    column("scale", |c| c.scale)?;
    ctf.new_dataset_builder().with_data(&metadata.optics_group).create("optics_group")?;

    let optics = file.create_group("optics")?;
    let column = |name: &str, value: fn(&Optics) -> f64| -> hdf5::Result<()> {
        let values: Array1<f64> = metadata.optics.iter().map(value).collect();
        optics.new_dataset_builder().with_data(&values).create(name)?;
        Ok(())
    };
    column("voltage", |o| o.voltage)?;
    column("spherical_aberration", |o| o.spherical_aberration)?;
    column("amplitude_contrast", |o| o.amplitude_contrast)?;

    file.new_dataset_builder().with_data(&metadata.half).create("half")?;

    let source = file.create_group("source")?;
    let names: Vec<VarLenUnicode> = metadata.source_files.iter().map(|f| text(f)).collect();
    source.new_dataset_builder().with_data(&names).create("files")?;
    let files: Vec<u32> = metadata.source.iter().map(|s| s.file).collect();
    source.new_dataset_builder().with_data(&files).create("file")?;
    let indices: Vec<u64> = metadata.source.iter().map(|s| s.index).collect();
    source.new_dataset_builder().with_data(&indices).create("index")?;
    Ok(())
}

/// A particle file, open for reading.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    images: hdf5::Dataset,
    metadata: Metadata,
    dtype: Dtype,
    checksums: Vec<u32>,
}

impl Store {
    /// Opens `path` and checks all its metadata.
    ///
    /// # Errors
    /// When it is not there, cut short, no particle file, of another version, or has metadata that is not sound.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::File::open(path).map_err(Error::io(path, "open the particle set", "check the path"))?;
        let fail = || {
            Error::hdf5(path, "read the particle set (is it cut short, or no particle file?)", REMEDY_READ)
        };
        let file = hdf5::File::open(path).map_err(fail())?;
        let format =
            file.attr("format").and_then(|a| a.read_scalar::<VarLenUnicode>()).map(|v| v.as_str().to_owned());
        if format.as_deref().ok() != Some(FORMAT) {
            return Err(Error::input(
                path,
                "",
                "is an HDF5 file, but no particle set of this program",
                REMEDY_READ,
            ));
        }
        let version: u32 = file.attr("version").and_then(|a| a.read_scalar()).map_err(fail())?;
        if version != VERSION {
            return Err(Error::input(
                path,
                "",
                format!("is a particle set of version {version}, and this program reads version {VERSION}"),
                REMEDY_READ,
            ));
        }
        let images = file.dataset("images").map_err(fail())?;
        let shape = images.shape();
        let [n, height, width] = shape[..] else {
            return Err(Error::input(
                path,
                "/images",
                format!("has the shape {shape:?}, expected (n, D, D)"),
                REMEDY_READ,
            ));
        };
        if height != width {
            return Err(Error::input(
                path,
                "/images",
                format!("are {width} x {height} pixels, expected square ones"),
                REMEDY_READ,
            ));
        }
        if n == 0 {
            return Err(Error::input(path, "/images", "holds no particles", REMEDY_READ));
        }
        let dtype = match images.dtype().and_then(|d| d.to_descriptor()).map_err(fail())? {
            TypeDescriptor::Float(FloatSize::U4) => Dtype::F32,
            TypeDescriptor::Float(FloatSize::U2) => Dtype::F16,
            other => {
                return Err(Error::input(
                    path,
                    "/images",
                    format!("are stored as {other}, expected f32 or f16"),
                    REMEDY_READ,
                ));
            }
        };
        let metadata = read_metadata(&file, &images, n, width, path)?;
        metadata.validate(path)?;
        let checksums = column::<u32>(&file, "source/checksum", n.div_ceil(CHECKSUM_BLOCK), path)?;
        Ok(Self { path: path.to_path_buf(), images, metadata, dtype, checksums })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything but the pixels.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// How images are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// A number that tells this particle set from others: of its checksums, poses and halves.
    pub fn identity(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.checksums.iter().for_each(|c| hasher.update(&c.to_le_bytes()));
        self.metadata.rotation.iter().flatten().flatten().for_each(|v| hasher.update(&v.to_le_bytes()));
        hasher.update(&self.metadata.half);
        hasher.finalize()
    }

    /// Byte offset of `/images` in the file, for direct reads; `None` where HDF5 does not lay it out in one piece.
    pub fn image_offset(&self) -> Option<u64> {
        self.images.offset()
    }

    /// Reads images `start..start + count` into `images` (`[image][y][x]`).
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the range is past the end or `images` has another length.
    pub fn read_images(&self, start: usize, count: usize, images: &mut [f32]) -> Result<()> {
        let d = self.metadata.box_size;
        assert!(start + count <= self.metadata.len() && images.len() == count * d * d);
        let fail = || Error::hdf5(&self.path, "read images", "check the disk, or copy the file again");
        let range = s![start..start + count, .., ..];
        match self.dtype {
            Dtype::F32 => {
                let data: Array3<f32> = self.images.read_slice(range).map_err(fail())?;
                images.copy_from_slice(data.as_slice().expect("standard layout"));
            }
            Dtype::F16 => {
                let data: Array3<half::f16> = self.images.read_slice(range).map_err(fail())?;
                images.iter_mut().zip(&data).for_each(|(out, v)| *out = v.to_f32());
            }
        }
        Ok(())
    }

    /// Reads everything and compares with the checksums.
    ///
    /// # Errors
    /// Names the first block of images whose checksum differs.
    pub fn verify(&self) -> Result<()> {
        let d = self.metadata.box_size;
        for (block, &expected) in self.checksums.iter().enumerate() {
            let start = block * CHECKSUM_BLOCK;
            let count = CHECKSUM_BLOCK.min(self.metadata.len() - start);
            let mut images = vec![0.0; count * d * d];
            self.read_images(start, count, &mut images)?;
            let mut hasher = crc32fast::Hasher::new();
            for &value in &images {
                match self.dtype {
                    Dtype::F32 => hasher.update(&value.to_le_bytes()),
                    Dtype::F16 => hasher.update(&half::f16::from_f32(value).to_le_bytes()),
                }
            }
            if hasher.finalize() != expected {
                return Err(Error::input(
                    &self.path,
                    format!("particles {} to {}", start + 1, start + count),
                    "do not match their checksum: the file is corrupt",
                    "copy the file again, or import again",
                ));
            }
        }
        Ok(())
    }
}

/// A one-dimensional data set of `n` values.
fn column<T: hdf5::H5Type>(file: &hdf5::File, name: &str, n: usize, path: &Path) -> Result<Vec<T>> {
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    let values: Vec<T> = file.dataset(name).and_then(|d| d.read_raw()).map_err(fail())?;
    if values.len() != n {
        return Err(Error::input(
            path,
            format!("/{name}"),
            format!("holds {} values, expected {n}", values.len()),
            REMEDY_READ,
        ));
    }
    Ok(values)
}

fn read_metadata(
    file: &hdf5::File,
    images: &hdf5::Dataset,
    n: usize,
    box_size: usize,
    path: &Path,
) -> Result<Metadata> {
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    let attribute = |name: &str| images.attr(name);
    let pixel_size = attribute("pixel_size").and_then(|a| a.read_scalar()).map_err(fail())?;
    let normalized = attribute("normalized").and_then(|a| a.read_scalar()).map_err(fail())?;
    let inverted = attribute("inverted").and_then(|a| a.read_scalar()).map_err(fail())?;
    let rotation = column::<f64>(file, "pose/rotation", 9 * n, path)?
        .chunks_exact(9)
        .map(|w| [[w[0], w[1], w[2]], [w[3], w[4], w[5]], [w[6], w[7], w[8]]])
        .collect();
    let shift =
        column::<f64>(file, "pose/shift", 2 * n, path)?.chunks_exact(2).map(|s| [s[0], s[1]]).collect();
    let ctf_column = |name: &str| column::<f64>(file, &format!("ctf/{name}"), n, path);
    let (u, v) = (ctf_column("defocus_u")?, ctf_column("defocus_v")?);
    let (angle, phase) = (ctf_column("astigmatism_angle")?, ctf_column("phase_shift")?);
    let (b, scale) = (ctf_column("b_factor")?, ctf_column("scale")?);
    let ctf = (0..n)
        .map(|i| CtfParameters {
            defocus_u: u[i],
            defocus_v: v[i],
            astigmatism_angle: angle[i],
            phase_shift: phase[i],
            b_factor: b[i],
            scale: scale[i],
        })
        .collect();
    let groups = file.dataset("optics/voltage").map_err(fail())?.size();
    let voltage = column::<f64>(file, "optics/voltage", groups, path)?;
    let aberration = column::<f64>(file, "optics/spherical_aberration", groups, path)?;
    let contrast = column::<f64>(file, "optics/amplitude_contrast", groups, path)?;
    let optics = (0..groups)
        .map(|i| Optics {
            voltage: voltage[i],
            spherical_aberration: aberration[i],
            amplitude_contrast: contrast[i],
        })
        .collect();
    let source_count = file.dataset("source/file").map_err(fail())?.size();
    if source_count != 0 && source_count != n {
        return Err(Error::input(
            path,
            "/source/file",
            format!("holds {source_count} values, expected {n}"),
            REMEDY_READ,
        ));
    }
    let source_file = column::<u32>(file, "source/file", source_count, path)?;
    let source_index = column::<u64>(file, "source/index", source_count, path)?;
    let names: Vec<VarLenUnicode> = file.dataset("source/files").and_then(|d| d.read_raw()).map_err(fail())?;
    Ok(Metadata {
        box_size,
        pixel_size,
        normalized,
        inverted,
        rotation,
        shift,
        ctf,
        optics_group: column(file, "ctf/optics_group", n, path)?,
        optics,
        half: column(file, "half", n, path)?,
        source_files: names.iter().map(|v| v.as_str().to_owned()).collect(),
        source: source_file
            .into_iter()
            .zip(source_index)
            .map(|(file, index)| Source { file, index })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;

    fn metadata(n: usize) -> Metadata {
        Metadata {
            box_size: 8,
            pixel_size: 2.5,
            normalized: true,
            inverted: false,
            rotation: (0..n).map(|i| rotation_from_relion(i as f64, 40.0, 70.0)).collect(),
            shift: vec![[0.0; 2]; n],
            ctf: vec![CtfParameters { defocus_u: 1.2e4, ..CtfParameters::default() }; n],
            optics_group: vec![0; n],
            optics: vec![Optics { voltage: 300.0, spherical_aberration: 2.7, amplitude_contrast: 0.1 }],
            half: (0..n).map(|i| (i % 2) as u8).collect(),
            source_files: vec!["stack.mrcs".into()],
            source: (0..n).map(|i| Source { file: 0, index: i as u64 }).collect(),
        }
    }

    fn write(path: &Path, n: usize, dtype: Dtype) -> Vec<f32> {
        let images: Vec<f32> = (0..n * 64).map(|i| (i % 97) as f32 * 0.25).collect();
        let mut writer = Writer::create(path, &metadata(n), dtype).unwrap();
        for chunk in images.chunks(64 * 10) {
            writer.append(chunk).unwrap();
        }
        writer.finish().unwrap();
        images
    }

    #[test]
    fn a_set_survives_the_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.h5");
        for dtype in [Dtype::F32, Dtype::F16] {
            let images = write(&path, 131, dtype);
            let store = Store::open(&path).unwrap();
            assert_eq!(store.metadata(), &metadata(131));
            assert_eq!(store.dtype(), dtype);
            let mut some = vec![0.0; 3 * 64];
            store.read_images(60, 3, &mut some).unwrap();
            assert_eq!(some, images[60 * 64..63 * 64]);
            store.verify().unwrap();
            assert!(store.image_offset().is_some());
        }
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.h5");
        write(&path, 131, Dtype::F32);
        let offset = Store::open(&path).unwrap().image_offset().unwrap() as usize;
        let sound = std::fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[offset + 70 * 256] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let message = Store::open(&path).unwrap().verify().unwrap_err().to_string();
        assert!(message.contains("particles 65 to 128"), "{message}");
        std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
        let message = Store::open(&path).unwrap_err().to_string();
        assert!(message.contains("p.h5") && !message.contains('\n'), "{message}");
        std::fs::write(&path, b"not at all").unwrap();
        assert!(Store::open(&path).is_err());
    }

    #[test]
    fn poses_that_are_no_rotation_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut bad = metadata(3);
        bad.rotation[1][0][0] = f64::NAN;
        let message = Writer::create(&folder.path().join("p.h5"), &bad, Dtype::F32).unwrap_err().to_string();
        assert!(message.contains("particle 2"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
