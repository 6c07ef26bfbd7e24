//! MRC files (the MRC2014 format): maps and stacks of particle images.
//!
//! Read: modes 0 (i8 or u8), 1 (i16), 2 (f32), 6 (u16) and 12 (f16), both byte orders, extended headers, permuted axes.
//! Written: mode 2, little-endian. Source: Cheng et al., J. Struct. Biol. 192 (2015) 146. The reader is our own code because
//! stacks are read image by image from several threads, and headers that disagree with the file must be refused by name.

mod frame;
mod header;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ndarray::Array3;

pub use frame::Frame;
pub use header::{Header, Mode, Statistics, header_bytes};

use crate::error::{Error, Result};
use crate::files::{self, Content};
use crate::memory;

const HEADER: usize = 1024;
/// Size of a label in bytes.
const LABEL: usize = 80;

/// True if `bytes`, the first 1024 of a file, are an MRC header with the word "MAP".
pub fn looks_like(bytes: &[u8]) -> bool {
    Content::of(bytes) == Content::Mrc
}

/// A map with its voxel size.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Values `[z][y][x]`.
    pub data: Array3<f32>,
    /// Voxel size in angstrom; 0 if unknown.
    pub pixel_size: f64,
    /// Place of the map in the frame of an atomic model. A map computed from another one has the frame of that one.
    pub frame: Frame,
}

impl Volume {
    /// A map that begins at zero angstrom.
    pub fn new(data: Array3<f32>, pixel_size: f64) -> Self {
        Self { data, pixel_size, frame: Frame::default() }
    }

    /// A map in `frame`.
    pub fn in_frame(self, frame: Frame) -> Self {
        Self { frame, ..self }
    }
}

/// A stack of images, open for reading single images from several threads.
#[derive(Debug)]
pub struct Stack {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Stack {
    /// Opens `path` and checks the header against the length of the file.
    ///
    /// # Errors
    /// If the file cannot be read, is not an MRC file, is truncated, or has an unsupported mode.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = files::open_input(path).map_err(Error::io(path, "open the file", "check the path"))?;
        let header = Header::read(&mut file, path)?;
        Ok(Self { path: path.to_path_buf(), file, header })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.header.size[2]
    }

    /// Always false: a stack without images is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values per image: columns times rows.
    pub fn image_len(&self) -> usize {
        self.header.size[0] * self.header.size[1]
    }

    /// Reads image `index` (from 0) into `image` (`[row][column]`, [`Stack::image_len`] values). `bytes` is scratch.
    ///
    /// # Errors
    /// If the index is past the end or the file cannot be read.
    pub fn read_image(&self, index: usize, image: &mut [f32], bytes: &mut Vec<u8>) -> Result<()> {
        if index >= self.len() {
            return Err(Error::input(
                &self.path,
                format!("image {}", index + 1),
                format!("is past the end: the stack has {} images", self.len()),
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

/// Reads a map, with its axes permuted to `[z][y][x]`.
///
/// # Errors
/// As [`Stack::open`], and when the map does not fit the free memory.
pub fn read_volume(path: &Path) -> Result<Volume> {
    let stack = Stack::open(path)?;
    let header = &stack.header;
    let [columns, rows, sections] = header.size;
    memory::require(
        header.values() * size_of::<f32>() as u128,
        || format!("{}: its map of {columns} x {rows} x {sections} voxels", path.display()),
        "crop or bin the map, or use a machine with more memory",
    )?;
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
    Ok(Volume::new(data, header.voxel_size[0]).in_frame(header.frame()))
}

/// Checks that `path` does not exist or is a stack or map that this program wrote, by the label in its header. For outputs whose
/// name the user has not typed.
///
/// # Errors
/// When it is another program's file, with `remedy`, or cannot be read.
pub(crate) fn check_own_stack(path: &Path, remedy: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let start = files::first_bytes(path, HEADER as u64)?;
    if start.get(224..).is_some_and(|labels| labels.starts_with(header::CREATOR.as_bytes())) {
        return Ok(());
    }
    Err(Error::input(path, "", "exists, and was not written by this program", remedy))
}

/// Writes a map (space group 1), atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn write_volume(path: &Path, volume: &Volume) -> Result<()> {
    write_labelled_volume(path, volume, "")
}

/// Like [`write_volume`], with `label` as the second label of the header: up to 80 ASCII characters.
///
/// # Errors
/// As [`write_volume`].
pub fn write_labelled_volume(path: &Path, volume: &Volume, label: &str) -> Result<()> {
    let (nz, ny, nx) = volume.data.dim();
    files::write_atomically(path, |writer| {
        let statistics = Statistics::of(volume.data.iter().copied());
        let mut header = header_bytes([nx, ny, nz], volume.pixel_size, true, &statistics);
        header::set_frame(&mut header, &volume.frame);
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
/// If the file cannot be written.
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

#[cfg(test)]
mod tests;
