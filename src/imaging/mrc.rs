//! MRC files (the MRC2014 format): maps and stacks of particle images.
//!
//! Read: modes 0 (i8), 1 (i16), 2 (f32), 6 (u16) and 12 (f16), both byte orders, extended headers, permuted axes.
//! Written: mode 2, little-endian. Source: Cheng et al., J. Struct. Biol. 192 (2015) 146.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ndarray::Array3;

use crate::error::{Error, Result};
use crate::files;

const HEADER: usize = 1024;
/// Bytes of a label.
const LABEL: usize = 80;

/// True where `bytes`, the first 1024 of a file, are an MRC header with its mark.
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.len() == HEADER && bytes[208..].starts_with(b"MAP")
}

/// The numeric type of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mode 0.
    I8,
    /// Mode 1.
    I16,
    /// Mode 2.
    F32,
    /// Mode 6.
    U16,
    /// Mode 12.
    F16,
}

impl Mode {
    fn from_number(number: i32, file: &Path) -> Result<Self> {
        let refused = |what: &str| {
            Error::input(
                file,
                "header word 4",
                format!("mode {number} ({what}) cannot be read"),
                "convert the file to mode 2 (32-bit float)",
            )
        };
        match number {
            0 => Ok(Self::I8),
            1 => Ok(Self::I16),
            2 => Ok(Self::F32),
            6 => Ok(Self::U16),
            12 => Ok(Self::F16),
            3 => Err(refused("complex 16-bit integers")),
            4 => Err(refused("complex 32-bit floats: a transform, not an image")),
            101 => Err(refused("4-bit integers")),
            _ => Err(refused("unknown to the MRC2014 format")),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The header of an MRC file, checked against the file's length.
#[derive(Clone, Debug)]
pub struct Header {
    /// Columns, rows and sections as stored (fastest first).
    pub size: [usize; 3],
    /// The numeric type.
    pub mode: Mode,
    /// Voxel size along x, y, z in angstrom; 0 where the header does not say.
    pub voxel_size: [f64; 3],
    /// The axis (0 = x, 1 = y, 2 = z) that columns, rows and sections run along.
    pub axes: [usize; 3],
    /// Where the first column, row and section lie in the cell (NXSTART, NYSTART, NZSTART).
    pub start: [i32; 3],
    /// Position of the first voxel (x, y, z) in angstrom (ORIGIN); 0 where the header does not say.
    pub origin: [f64; 3],
    /// True where the file's numbers are big-endian.
    pub big_endian: bool,
    /// The space group word: 0 marks a stack of images, 1 a volume.
    pub space_group: i32,
    data_offset: u64,
}

impl Header {
    fn read(file: &mut File, path: &Path) -> Result<Self> {
        let length = file.metadata().map_err(Error::io(path, "read its length", "check the path"))?.len();
        let mut bytes = [0u8; HEADER];
        if length < HEADER as u64 {
            return Err(Error::input(
                path,
                "",
                format!("holds {length} bytes, and an MRC header alone takes {HEADER}"),
                "copy the file again: it is cut short or not an MRC file",
            ));
        }
        file.read_exact(&mut bytes).map_err(Error::io(path, "read the header", "copy the file again"))?;
        if files::is_gzip(&bytes) {
            return Err(Error::input(
                path,
                "",
                "is compressed by gzip, and images are read from any place of a file",
                "unpack it with gunzip, and name what that writes",
            ));
        }
        let header = Self::parse(&bytes, path)?;
        let needed = header.data_offset as u128 + header.values() * header.mode.bytes() as u128;
        if needed > u128::from(length) {
            let [nx, ny, nz] = header.size;
            return Err(Error::input(
                path,
                "",
                format!(
                    "holds {length} bytes, and its header promises {needed} ({nx} x {ny} x {nz} values of {} bytes)",
                    header.mode.bytes()
                ),
                "copy the file again: it is cut short or its header is wrong",
            ));
        }
        Ok(header)
    }

    /// Where the first voxel lies in the frame of an atomic model, (x, y, z) in angstrom: ORIGIN, or the start in the cell
    /// where there is none.
    pub fn corner(&self) -> [f64; 3] {
        if self.origin.iter().all(|v| v.is_finite()) && self.origin != [0.0; 3] {
            return self.origin;
        }
        let mut corner = [0.0; 3];
        for (start, &axis) in self.start.iter().zip(&self.axes) {
            corner[axis] = f64::from(*start) * self.voxel_size[axis];
        }
        corner
    }

    fn values(&self) -> u128 {
        self.size.iter().map(|&n| n as u128).product()
    }

    fn parse(bytes: &[u8; HEADER], path: &Path) -> Result<Self> {
        let raw = |word: usize| -> [u8; 4] {
            let at = 4 * (word - 1);
            [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
        };
        // The machine stamp is often wrong; a mode or a column index read with the wrong byte order never looks sane.
        let big_endian = {
            let little = i32::from_le_bytes(raw(4));
            let big = i32::from_be_bytes(raw(4));
            match ((0..=101).contains(&little), (0..=101).contains(&big)) {
                (true, false) => false,
                (false, true) => true,
                _ => bytes[212] == 0x11,
            }
        };
        let int = |word| {
            if big_endian { i32::from_be_bytes(raw(word)) } else { i32::from_le_bytes(raw(word)) }
        };
        let float = |word| {
            f64::from(if big_endian { f32::from_be_bytes(raw(word)) } else { f32::from_le_bytes(raw(word)) })
        };
        let mut size = [0usize; 3];
        for (axis, value) in size.iter_mut().enumerate() {
            let n = int(axis + 1);
            *value = usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| {
                Error::input(
                    path,
                    format!("header word {}", axis + 1),
                    format!("a size of {n} is impossible"),
                    "check that this is an MRC file, uncompressed and complete",
                )
            })?;
        }
        let mode = Mode::from_number(int(4), path)?;
        let mut axes = [int(17), int(18), int(19)];
        if axes == [0, 0, 0] {
            axes = [1, 2, 3];
        }
        let mut sorted = axes;
        sorted.sort_unstable();
        if sorted != [1, 2, 3] {
            return Err(Error::input(
                path,
                "header words 17 to 19",
                format!("axes {axes:?} are not an order of 1, 2, 3"),
                "check that this is an MRC file, or rewrite its header",
            ));
        }
        let voxel = |axis: usize| {
            let (intervals, cell) = (int(8 + axis), float(11 + axis));
            if intervals > 0 && cell.is_finite() && cell > 0.0 { cell / f64::from(intervals) } else { 0.0 }
        };
        let extended = int(24);
        let extended = u64::try_from(extended).map_err(|_| {
            Error::input(
                path,
                "header word 24",
                format!("an extended header of {extended} bytes is impossible"),
                "check that this is an MRC file",
            )
        })?;
        Ok(Self {
            size,
            mode,
            voxel_size: [voxel(0), voxel(1), voxel(2)],
            axes: axes.map(|a| a as usize - 1),
            start: [int(5), int(6), int(7)],
            origin: [float(50), float(51), float(52)],
            big_endian,
            space_group: int(23),
            data_offset: HEADER as u64 + extended,
        })
    }

    /// Decodes stored bytes into f32 values.
    fn decode(&self, bytes: &[u8], values: &mut [f32]) {
        macro_rules! words {
            ($type:ty, $to:expr) => {
                for (value, word) in values.iter_mut().zip(bytes.chunks_exact(size_of::<$type>())) {
                    let word = word.try_into().expect("chunks of the type's size");
                    *value = $to(if self.big_endian {
                        <$type>::from_be_bytes(word)
                    } else {
                        <$type>::from_le_bytes(word)
                    });
                }
            };
        }
        match self.mode {
            Mode::I8 => words!(i8, f32::from),
            Mode::I16 => words!(i16, f32::from),
            Mode::U16 => words!(u16, f32::from),
            Mode::F32 => words!(f32, |v| v),
            Mode::F16 => words!(half::f16, half::f16::to_f32),
        }
    }
}

/// A map: values and their place in the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Values `[z][y][x]`.
    pub data: Array3<f32>,
    /// Voxel size in angstrom; 0 where unknown.
    pub pixel_size: f64,
}

/// A stack of images, opened for reading single images from several threads.
#[derive(Debug)]
pub struct Stack {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Stack {
    /// Opens `path` and checks its header against its length.
    ///
    /// # Errors
    /// When the file is not there, is no MRC file, is cut short, or has a mode that cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path, "open the file", "check the path"))?;
        let header = Header::read(&mut file, path)?;
        Ok(Self { path: path.to_path_buf(), file, header })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.header.size[2]
    }

    /// True for a stack without images (which [`Stack::open`] refuses).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values in one image: columns times rows.
    pub fn image_len(&self) -> usize {
        self.header.size[0] * self.header.size[1]
    }

    /// Reads image `index` (from 0) into `image` (`[row][column]`, [`Stack::image_len`] values). `bytes` is scratch.
    ///
    /// # Errors
    /// When the index is past the end or the file cannot be read.
    pub fn read_image(&self, index: usize, image: &mut [f32], bytes: &mut Vec<u8>) -> Result<()> {
        if index >= self.len() {
            return Err(Error::input(
                &self.path,
                format!("image {}", index + 1),
                format!("is past the end: the stack holds {} images", self.len()),
                "check that the metadata belongs to this stack",
            ));
        }
        let length = self.image_len() * self.header.mode.bytes();
        bytes.resize(length, 0);
        self.file
            .read_exact_at(bytes, self.header.data_offset + index as u64 * length as u64)
            .map_err(Error::io(&self.path, "read an image", "copy the file again"))?;
        self.header.decode(bytes, image);
        Ok(())
    }
}

/// Reads a map, with its axes brought to `[z][y][x]`.
///
/// # Errors
/// As [`Stack::open`].
pub fn read_volume(path: &Path) -> Result<Volume> {
    let stack = Stack::open(path)?;
    let header = &stack.header;
    let [columns, rows, sections] = header.size;
    let mut extent = [0usize; 3];
    for (stored, &axis) in header.axes.iter().enumerate() {
        extent[axis] = header.size[stored];
    }
    let mut data = Array3::zeros((extent[2], extent[1], extent[0]));
    let mut image = vec![0.0f32; columns * rows];
    let mut bytes = Vec::new();
    for section in 0..sections {
        stack.read_image(section, &mut image, &mut bytes)?;
        for row in 0..rows {
            for column in 0..columns {
                let mut at = [0usize; 3];
                at[header.axes[0]] = column;
                at[header.axes[1]] = row;
                at[header.axes[2]] = section;
                data[[at[2], at[1], at[0]]] = image[row * columns + column];
            }
        }
    }
    Ok(Volume { data, pixel_size: header.voxel_size[0] })
}

/// Writes a map (space group 1), atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write_volume(path: &Path, volume: &Volume) -> Result<()> {
    write_labelled_volume(path, volume, "")
}

/// [`write_volume`], with a second label that says what the map is of: up to 80 characters of ASCII.
///
/// # Errors
/// As [`write_volume`].
pub fn write_labelled_volume(path: &Path, volume: &Volume, label: &str) -> Result<()> {
    let (nz, ny, nx) = volume.data.dim();
    files::write_atomically(path, |writer| {
        let statistics = Statistics::of(volume.data.iter().copied());
        let mut header = header_bytes([nx, ny, nz], volume.pixel_size, true, &statistics);
        if !label.is_empty() {
            let [count, labels] = [220, 224 + LABEL];
            header[count..count + 4].copy_from_slice(&2i32.to_le_bytes());
            header[labels..labels + LABEL].fill(b' ');
            for (byte, letter) in header[labels..labels + LABEL].iter_mut().zip(label.bytes()) {
                *byte = letter;
            }
        }
        writer.write_all(&header)?;
        for &value in &volume.data {
            writer.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    })
}

/// Writes a stack of images (space group 0), atomically. `images` yields `count` images of `box_size`^2 values.
///
/// # Errors
/// When the file cannot be written.
pub fn write_stack<'a>(
    path: &Path,
    box_size: usize,
    pixel_size: f64,
    images: impl Iterator<Item = &'a [f32]> + Clone,
) -> Result<()> {
    files::write_atomically(path, |writer| {
        let statistics = Statistics::of(images.clone().flatten().copied());
        let count = images.clone().count();
        writer.write_all(&header_bytes([box_size, box_size, count], pixel_size, false, &statistics))?;
        for &value in images.flatten() {
            writer.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    })
}

/// What the header says of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Mean.
    pub mean: f32,
    /// Standard deviation about the mean.
    pub deviation: f32,
}

impl Statistics {
    /// Of all values, in one pass (f64 sums).
    pub fn of(values: impl Iterator<Item = f32>) -> Self {
        let (mut min, mut max, mut sum, mut squares, mut n) =
            (f32::INFINITY, f32::NEG_INFINITY, 0.0f64, 0.0f64, 0.0f64);
        for value in values {
            min = min.min(value);
            max = max.max(value);
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
            n += 1.0;
        }
        let n = f64::max(n, 1.0);
        let mean = sum / n;
        Self { min, max, mean: mean as f32, deviation: (squares / n - mean * mean).max(0.0).sqrt() as f32 }
    }
}

/// A mode-2, little-endian header. A volume's cell is its box; a stack's z counts images.
pub fn header_bytes(
    size: [usize; 3],
    pixel_size: f64,
    volume: bool,
    statistics: &Statistics,
) -> [u8; HEADER] {
    let mut bytes = [0u8; HEADER];
    let mut put = |word: usize, value: [u8; 4]| {
        bytes[4 * (word - 1)..4 * word].copy_from_slice(&value);
    };
    for (axis, &n) in size.iter().enumerate() {
        put(1 + axis, (n as i32).to_le_bytes());
        // MZ: sections per volume; 1 for a stack of images (MRC2014).
        let sampling = if axis == 2 && !volume { 1 } else { n };
        put(8 + axis, (sampling as i32).to_le_bytes());
        put(11 + axis, ((sampling as f64 * pixel_size) as f32).to_le_bytes());
        put(14 + axis, 90.0f32.to_le_bytes());
        put(17 + axis, (axis as i32 + 1).to_le_bytes());
    }
    put(4, 2i32.to_le_bytes());
    put(20, statistics.min.to_le_bytes());
    put(21, statistics.max.to_le_bytes());
    put(22, statistics.mean.to_le_bytes());
    put(23, i32::from(volume).to_le_bytes());
    put(28, 20_141i32.to_le_bytes());
    put(53, *b"MAP ");
    put(54, [0x44, 0x44, 0, 0]);
    put(55, statistics.deviation.to_le_bytes());
    put(56, 1i32.to_le_bytes());
    let label = concat!("cryosplat-mpi ", env!("CARGO_PKG_VERSION"));
    bytes[224..224 + LABEL].fill(b' ');
    bytes[224..224 + label.len()].copy_from_slice(label.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cube() -> Volume {
        Volume {
            data: Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (100 * z + 10 * y + x) as f32),
            pixel_size: 1.5,
        }
    }

    #[test]
    fn a_volume_survives_the_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mrc");
        write_volume(&path, &cube()).unwrap();
        let back = read_volume(&path).unwrap();
        assert_eq!(back.data, cube().data);
        assert!((back.pixel_size - 1.5).abs() < 1e-6);
    }

    #[test]
    fn every_mode_and_both_byte_orders_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.mrc");
        let statistics = Statistics::of([0.0].into_iter());
        for (mode, width) in [(0i32, 1usize), (1, 2), (2, 4), (6, 2), (12, 2)] {
            for big in [false, true] {
                let mut bytes = header_bytes([2, 1, 1], 1.0, true, &statistics).to_vec();
                bytes[12..16].copy_from_slice(&mode.to_le_bytes());
                if big {
                    // Text (MAP, stamp, labels) keeps its order; every number is reversed.
                    for word in (0..56).filter(|w| *w != 52 && *w != 53) {
                        bytes[4 * word..4 * word + 4].reverse();
                    }
                    bytes[212] = 0x11;
                    bytes[213] = 0x11;
                }
                for value in [3.0f32, 7.0] {
                    let mut word = match mode {
                        0 => vec![value as u8],
                        1 | 6 => (value as u16).to_le_bytes().to_vec(),
                        2 => value.to_le_bytes().to_vec(),
                        _ => half::f16::from_f32(value).to_le_bytes().to_vec(),
                    };
                    assert_eq!(word.len(), width);
                    if big {
                        word.reverse();
                    }
                    bytes.extend(word);
                }
                std::fs::write(&path, &bytes).unwrap();
                let volume = read_volume(&path).unwrap();
                assert_eq!(volume.data.as_slice().unwrap(), [3.0, 7.0], "mode {mode}, big {big}");
            }
        }
    }

    #[test]
    fn permuted_axes_are_put_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.mrc");
        write_volume(&path, &cube()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        // Columns along z, rows along x, sections along y.
        for (word, axis) in [(16usize, 3i32), (17, 1), (18, 2)] {
            bytes[4 * word..4 * word + 4].copy_from_slice(&axis.to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let turned = read_volume(&path).unwrap();
        assert_eq!(turned.data.dim(), (5, 3, 4));
        assert_eq!(turned.data[[4, 2, 1]], cube().data[[2, 1, 4]]);
    }

    #[test]
    fn a_short_file_and_a_bad_mode_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.mrc");
        write_volume(&path, &cube()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = read_volume(&path).unwrap_err().to_string();
        assert!(message.contains("short.mrc") && message.contains("promises 1264"), "{message}");
        for (mode, what) in [(3, "complex 16-bit"), (4, "complex 32-bit"), (101, "4-bit"), (7, "unknown")] {
            let mut other = bytes.clone();
            other[12] = mode;
            std::fs::write(&path, &other).unwrap();
            let message = read_volume(&path).unwrap_err().to_string();
            assert!(
                message.contains(&format!("mode {mode} ({what}")) && message.contains("mode 2"),
                "{message}"
            );
        }
        let packed = [&[0x1f, 0x8b, 8][..], &bytes].concat();
        std::fs::write(&path, packed).unwrap();
        assert!(read_volume(&path).unwrap_err().to_string().contains("gunzip"));
    }

    #[test]
    fn an_extended_header_is_gone_past_and_a_size_of_zero_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.mrc");
        write_volume(&path, &cube()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (header, data) = bytes.split_at(HEADER);
        let mut header = header.to_vec();
        header[92..96].copy_from_slice(&160i32.to_le_bytes());
        // The cell.
        header[40..52].fill(0);
        std::fs::write(&path, [&header[..], &[0xa5; 160], data].concat()).unwrap();
        let back = read_volume(&path).unwrap();
        assert_eq!((back.data, back.pixel_size), (cube().data, 0.0));
    }
}
