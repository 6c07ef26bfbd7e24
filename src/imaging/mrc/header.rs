//! The header of an MRC file: read and checked, or written.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Frame, HEADER, LABEL};

/// Beginning of the first label of the files that this program writes.
pub(super) const CREATOR: &str = "cryosplat-mpi";
use crate::error::{Error, Result};
use crate::files::{self, Content};

/// The numeric type of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mode 0, signed bytes.
    I8,
    /// Mode 0, unsigned bytes.
    U8,
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
        let refused = |what: &str| unsupported(file, number, what);
        match number {
            0 => Ok(Self::I8),
            1 => Ok(Self::I16),
            2 => Ok(Self::F32),
            6 => Ok(Self::U16),
            12 => Ok(Self::F16),
            3 => Err(refused("complex 16-bit integers")),
            4 => Err(refused("complex 32-bit floats: a transform, not an image")),
            16 => Err(refused("colours")),
            101 => Err(refused("4-bit integers")),
            _ => Err(refused("unknown to the MRC2014 format")),
        }
    }

    /// Bytes per value.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

fn unsupported(file: &Path, mode: i32, what: &str) -> Error {
    Error::input(
        file,
        "header word 4",
        format!("mode {mode} ({what}) is not supported"),
        "convert the file to mode 2 (32-bit float)",
    )
}

/// Header word 39 of files of IMOD and programs that follow it: word 40 then holds flags.
const IMOD_STAMP: i32 = 1_146_047_817;
/// Flag of IMOD: the bytes of mode 0 are signed.
const IMOD_SIGNED: i32 = 1;
/// Flag of IMOD: each byte of mode 0 holds two values.
const IMOD_PACKED: i32 = 16;

/// Whether the bytes of mode 0 are unsigned: by IMOD's `flags` if present, else by the header's minimum and maximum. MRC2014 has
/// signed bytes, but some programs write 0 to 255.
fn unsigned_bytes(flags: Option<i32>, min: f64, max: f64) -> bool {
    match flags {
        Some(flags) => flags & IMOD_SIGNED == 0,
        None => min >= 0.0 && max > f64::from(i8::MAX) && max <= f64::from(u8::MAX),
    }
}

/// The header of an MRC file, checked against the length of the file.
#[derive(Clone, Debug)]
pub struct Header {
    /// Columns, rows and sections as stored (fastest first).
    pub size: [usize; 3],
    /// The numeric type.
    pub mode: Mode,
    /// Voxel size along x, y, z in angstrom; 0 if the header does not have it.
    pub voxel_size: [f64; 3],
    /// The axis (0 = x, 1 = y, 2 = z) that columns, rows and sections run along.
    pub axes: [usize; 3],
    /// Position of the first column, row and section in the unit cell (NXSTART, NYSTART, NZSTART).
    pub start: [i32; 3],
    /// Position of the first voxel (x, y, z) in angstrom (ORIGIN); 0 if the header does not have it.
    pub origin: [f64; 3],
    /// True if the file is big-endian.
    pub big_endian: bool,
    /// The space group word: 0 marks a stack of images, 1 a volume.
    pub space_group: i32,
    pub(super) data_offset: u64,
}

impl Header {
    pub(super) fn read(file: &mut File, path: &Path) -> Result<Self> {
        let length = file.metadata().map_err(Error::io(path, "read its length", "check the path"))?.len();
        let mut bytes = [0u8; HEADER];
        let start = files::first_bytes(path, HEADER as u64)?;
        match Content::of(&start) {
            Content::Gzip => {
                return Err(Error::input(
                    path,
                    "",
                    "is compressed by gzip, which does not allow random access to images",
                    "decompress it with gunzip, and give the decompressed file",
                ));
            }
            // A pickle is not among them: an old stack of 640 columns begins like one.
            Content::Hdf5
            | Content::Star
            | Content::AtomicModel
            | Content::Ply
            | Content::Numpy
            | Content::Json
            | Content::Text => {
                return Err(files::unexpected(
                    path,
                    "an MRC map or stack",
                    "give a map or a stack in MRC format",
                )?);
            }
            _ => {}
        }
        if length < HEADER as u64 {
            return Err(Error::input(
                path,
                "",
                format!("has {length} bytes, fewer than an MRC header of {HEADER}"),
                "copy the file again: it is truncated or not an MRC file",
            ));
        }
        file.read_exact(&mut bytes).map_err(Error::io(path, "read the header", "copy the file again"))?;
        let header = Self::parse(&bytes, path)?;
        let needed = header.data_offset as u128 + header.values() * header.mode.bytes() as u128;
        if needed > u128::from(length) {
            let [nx, ny, nz] = header.size;
            return Err(Error::input(
                path,
                "",
                format!(
                    "has {length} bytes, but its header states {needed} ({nx} x {ny} x {nz} values of {} bytes)",
                    header.mode.bytes()
                ),
                "copy the file again: it is truncated or its header is wrong",
            ));
        }
        Ok(header)
    }

    /// The frame, along x, y, z whatever the order of the stored axes. An ORIGIN that is not finite counts as zero.
    pub fn frame(&self) -> Frame {
        let mut start = [0; 3];
        for (&stored, &axis) in self.start.iter().zip(&self.axes) {
            start[axis] = stored;
        }
        let known = self.origin.iter().all(|v| v.is_finite());
        Frame { start, origin: if known { self.origin } else { [0.0; 3] } }
    }

    /// Position of the first voxel (x, y, z) in angstrom in the frame of an atomic model.
    pub fn corner(&self) -> [f64; 3] {
        self.frame().corner(self.voxel_size)
    }

    /// Number of values of all sections.
    pub(crate) fn values(&self) -> u128 {
        self.size.iter().map(|&n| n as u128).product()
    }

    fn parse(bytes: &[u8; HEADER], path: &Path) -> Result<Self> {
        let raw = |word: usize| -> [u8; 4] {
            let at = 4 * (word - 1);
            [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
        };
        // The machine stamp is often wrong, but a mode or an axis read with the wrong byte order is out of range. Zero is zero in
        // both orders.
        let order = |word: usize, limit: i32| {
            let valid = |value: i32| (0..=limit).contains(&value);
            match (valid(i32::from_le_bytes(raw(word))), valid(i32::from_be_bytes(raw(word)))) {
                (true, false) => Some(false),
                (false, true) => Some(true),
                _ => None,
            }
        };
        let big_endian = order(4, 101).or_else(|| order(17, 3)).unwrap_or(bytes[212] == 0x11);
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
                    format!("the size is {n}, expected a number above 0"),
                    "check that this is a complete, uncompressed MRC file",
                )
            })?;
        }
        let mut mode = Mode::from_number(int(4), path)?;
        if mode == Mode::I8 {
            let flags = (int(39) == IMOD_STAMP).then(|| int(40));
            if flags.is_some_and(|flags| flags & IMOD_PACKED != 0) {
                return Err(unsupported(path, 0, "4-bit integers, by the flag of IMOD in header word 40"));
            }
            if unsigned_bytes(flags, float(20), float(21)) {
                mode = Mode::U8;
            }
        }
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
                format!("the axes are {axes:?}, expected a permutation of 1, 2, 3"),
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
                format!("the extended header has {extended} bytes, expected 0 or more"),
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
    pub(super) fn decode(&self, bytes: &[u8], values: &mut [f32]) {
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
            Mode::U8 => words!(u8, f32::from),
            Mode::I16 => words!(i16, f32::from),
            Mode::U16 => words!(u16, f32::from),
            Mode::F32 => words!(f32, |v| v),
            Mode::F16 => words!(half::f16, half::f16::to_f32),
        }
    }
}

/// Statistics of the values, for the header.
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
    /// The statistics of `values`, in one pass with f64 sums.
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

/// A header of mode 2, little-endian. The unit cell of a volume is its box; the z axis of a stack counts images.
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
        // MZ is the number of sections per volume: 1 for a stack of images (MRC2014).
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
    let label = format!("{CREATOR} {}", env!("CARGO_PKG_VERSION"));
    bytes[224..224 + LABEL].fill(b' ');
    bytes[224..224 + label.len()].copy_from_slice(label.as_bytes());
    bytes
}

/// Writes `frame` into a little-endian header of a map whose axes are x, y, z.
pub(super) fn set_frame(header: &mut [u8; HEADER], frame: &Frame) {
    for axis in 0..3 {
        let [start, origin] = [4 + axis, 49 + axis].map(|word| 4 * word);
        header[start..start + 4].copy_from_slice(&frame.start[axis].to_le_bytes());
        header[origin..origin + 4].copy_from_slice(&(frame.origin[axis] as f32).to_le_bytes());
    }
}
