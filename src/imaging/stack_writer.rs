//! Writes an MRC stack image by image.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::mrc::{Statistics, header_bytes};
use crate::error::{Error, Result};
use crate::files::Pending;

const REMEDY: &str = "check that the folder is writable and the disk is not full";

/// Writes an MRC stack image by image, with memory for one image. The header is written last.
pub struct StackWriter {
    pending: Pending,
    destination: PathBuf,
    writer: BufWriter<File>,
    box_size: usize,
    pixel_size: f64,
    values: u64,
    min: f32,
    max: f32,
    sum: f64,
    squares: f64,
}

impl StackWriter {
    /// Creates the file. `destination` is untouched until [`StackWriter::finish`].
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(destination: &Path, box_size: usize, pixel_size: f64) -> Result<Self> {
        let pending = Pending::new(destination)?;
        let open = || -> std::io::Result<BufWriter<File>> {
            let mut writer = BufWriter::with_capacity(1 << 20, pending.writer()?);
            let nothing = Statistics { min: 0.0, max: 0.0, mean: 0.0, deviation: 0.0 };
            writer.write_all(&header_bytes([box_size, box_size, 0], pixel_size, false, &nothing))?;
            Ok(writer)
        };
        let writer = open().map_err(Error::io(destination, "write the stack", REMEDY))?;
        Ok(Self {
            pending,
            destination: destination.to_path_buf(),
            writer,
            box_size,
            pixel_size,
            values: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0.0,
            squares: 0.0,
        })
    }

    /// Appends one or more images.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, images: &[f32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(size_of_val(images));
        for &value in images {
            bytes.extend(value.to_le_bytes());
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.sum += f64::from(value);
            self.squares += f64::from(value) * f64::from(value);
        }
        self.values += images.len() as u64;
        self.writer.write_all(&bytes).map_err(Error::io(&self.destination, "write the stack", REMEDY))
    }

    /// Writes the header, syncs the file and renames it to its destination.
    ///
    /// # Errors
    /// If the file cannot be written; the destination is then untouched.
    pub fn finish(mut self) -> Result<()> {
        let n = self.values.max(1) as f64;
        let mean = self.sum / n;
        let statistics = Statistics {
            min: self.min,
            max: self.max,
            mean: mean as f32,
            deviation: (self.squares / n - mean * mean).max(0.0).sqrt() as f32,
        };
        let count = self.values as usize / (self.box_size * self.box_size);
        let header = header_bytes([self.box_size, self.box_size, count], self.pixel_size, false, &statistics);
        self.writer
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.writer.write_all(&header))
            .and_then(|()| self.writer.flush())
            .map_err(Error::io(&self.destination, "finish the stack", REMEDY))?;
        self.pending.commit()
    }
}
