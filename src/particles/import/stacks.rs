//! Finds and reads the image stacks of a particle set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::optics::RawImages;
use super::set::{ParticleRow, SetProperties};
use crate::error::{Error, Result};
use crate::imaging::mrc::Stack;

/// Maximal number of open stacks. The usual limit of a process is 1024 open files.
const MAX_OPEN: usize = 64;

/// The stacks of a particle set.
#[derive(Debug)]
pub struct Stacks {
    metadata: PathBuf,
    paths: Vec<PathBuf>,
    names: Vec<String>,
    /// The open stacks, the most recently used last.
    open: Vec<(u32, Stack)>,
    /// Box size of each stack in pixels, from its header; empty if the metadata has all box sizes.
    boxes: Vec<usize>,
    /// The raw images of each optics group.
    raw: Vec<RawImages>,
    /// Source of the box size, for error messages.
    box_from: String,
    /// True once a header was found to contradict the pixel size of the metadata.
    warned: bool,
    bytes: Vec<u8>,
}

/// Relative difference from which the pixel size of a header contradicts the metadata.
const CONTRADICTION: f64 = 0.01;

impl Stacks {
    /// Finds every stack of a set. Takes box sizes from the metadata or, where it lacks some, from the headers of all stacks.
    ///
    /// # Errors
    /// If a stack is not found, or a header that is read has images that are not square.
    pub fn find(properties: &SetProperties) -> Result<Self> {
        let find = |stack| properties.folders.find(&properties.path, stack);
        let mut stacks = Self {
            metadata: properties.path.clone(),
            paths: properties.stacks.all().iter().map(find).collect::<Result<_>>()?,
            names: properties.stacks.names(),
            open: Vec::new(),
            boxes: Vec::new(),
            raw: properties.raw.clone(),
            box_from: properties.box_from.clone(),
            warned: false,
            bytes: Vec::new(),
        };
        if stacks.raw.iter().any(|raw| raw.box_size.is_none()) {
            let boxes =
                (0..stacks.paths.len()).map(|file| Ok(stacks.open_square(file as u32)?.header().size[0]));
            stacks.boxes = boxes.collect::<Result<_>>()?;
        } else if let [raw] = &stacks.raw[..] {
            // Reads the first header now, to detect a wrong box size before anything is written.
            let expected = raw.box_size;
            stacks.opened(0, expected)?;
        }
        Ok(stacks)
    }

    /// Box size of the images of the first stack.
    pub fn first_box(&self) -> usize {
        self.boxes.first().copied().unwrap_or(0)
    }

    /// The box sizes of all stacks, without repetition.
    pub fn box_sizes(&self) -> Vec<usize> {
        let distinct: BTreeSet<usize> = self.boxes.iter().copied().collect();
        distinct.into_iter().collect()
    }

    /// Box size of the raw image of `row`, in pixels.
    pub fn box_of(&self, row: &ParticleRow) -> usize {
        self.raw[row.particle.optics_group as usize]
            .box_size
            .unwrap_or_else(|| self.boxes[row.source.file as usize])
    }

    /// The paths of the stacks, in the order of [`SetProperties::stacks`].
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the raw image of `row` ([`Stacks::box_of`] squared values, `[y][x]`).
    ///
    /// # Errors
    /// If the stack cannot be read, is truncated, has another box size, or does not have the image.
    pub fn read(&mut self, row: &ParticleRow, image: &mut [f32]) -> Result<()> {
        let source = row.source;
        let mut bytes = std::mem::take(&mut self.bytes);
        let expected = self.raw[row.particle.optics_group as usize].box_size;
        self.compare_pixel_size(row)?;
        let stack = self.opened(source.file, expected)?;
        let held = stack.len() as u64;
        if source.index >= held {
            return Err(Error::input(
                &self.metadata,
                row.place.to_string(),
                format!(
                    "image {} is past the end of {}, which has {held} images",
                    source.index + 1,
                    self.paths[source.file as usize].display()
                ),
                "check that the metadata belongs to this stack",
            ));
        }
        stack.read_image(source.index as usize, image, &mut bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// An error for the raw image of `row`. Names the stack, the image (from 1) and the location in the file `metadata`.
    pub fn image_error(paths: &[PathBuf], metadata: &Path, row: &ParticleRow, problem: String) -> Error {
        let source = row.source;
        Error::input(
            &paths[source.file as usize],
            format!("image {} ({}, {})", source.index + 1, metadata.display(), row.place),
            problem,
            "remove the particle, or repair the image",
        )
    }

    /// Warns once if the header of the stack of `row` contradicts the pixel size of the metadata. 0 and 1 A mean unknown.
    fn compare_pixel_size(&mut self, row: &ParticleRow) -> Result<()> {
        if self.warned {
            return Ok(());
        }
        let raw = &self.raw[row.particle.optics_group as usize];
        let (expected, box_size) = (raw.pixel_size, raw.box_size);
        let found = f64::from(self.opened(row.source.file, box_size)?.header().voxel_size[0] as f32);
        if found > 0.0 && found != 1.0 && (found / expected - 1.0).abs() > CONTRADICTION {
            self.warned = true;
            tracing::warn!(
                "{}: the header has a pixel size of {found:.4} A, but the metadata gives {expected:.4} A, which is used",
                self.paths[row.source.file as usize].display()
            );
        }
        Ok(())
    }

    /// The stack with index `file`; opens it if necessary, and checks that its box is the `expected` one.
    fn opened(&mut self, file: u32, expected: Option<usize>) -> Result<&Stack> {
        match self.open.iter().rposition(|(open, _)| *open == file) {
            Some(at) => self.open[at..].rotate_left(1),
            None => {
                let stack = self.open_square(file)?;
                if self.open.len() == MAX_OPEN {
                    self.open.remove(0);
                }
                self.open.push((file, stack));
            }
        }
        let stack = &self.open[self.open.len() - 1].1;
        let [columns, rows, _] = stack.header().size;
        if let Some(expected) = expected.filter(|&expected| expected != columns) {
            return Err(Error::input(
                &self.paths[file as usize],
                "",
                format!(
                    "has images of {columns} x {rows} pixels, expected {expected} x {expected} (from {})",
                    self.box_from
                ),
                format!(
                    "check that {} names the right stack ({})",
                    self.metadata.display(),
                    self.names[file as usize]
                ),
            ));
        }
        Ok(stack)
    }

    fn open_square(&self, file: u32) -> Result<Stack> {
        let path = &self.paths[file as usize];
        let stack = Stack::open(path)?;
        let [columns, rows, _] = stack.header().size;
        if columns != rows {
            return Err(Error::input(
                path,
                "",
                format!("has images of {columns} x {rows} pixels, expected square images"),
                format!("extract the particles of {} in square boxes", self.metadata.display()),
            ));
        }
        Ok(stack)
    }
}
