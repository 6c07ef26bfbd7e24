//! Finds and reads the image stacks of a particle set.

use std::path::{Path, PathBuf};

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
    box_size: usize,
    /// Source of the box size, for error messages.
    box_from: String,
    bytes: Vec<u8>,
}

impl Stacks {
    /// Finds every stack of a set. Takes the box size from the metadata or, failing that, from the first stack.
    ///
    /// # Errors
    /// If a stack is not found, or the first stack cannot be read or has images that are not square.
    pub fn find(properties: &SetProperties) -> Result<Self> {
        let find = |stack| properties.folders.find(&properties.path, stack);
        let mut stacks = Self {
            metadata: properties.path.clone(),
            paths: properties.stacks.all().iter().map(find).collect::<Result<_>>()?,
            names: properties.stacks.names(),
            open: Vec::new(),
            box_size: 0,
            box_from: String::new(),
            bytes: Vec::new(),
        };
        (stacks.box_size, stacks.box_from) = match &properties.image_size {
            Some((size, from)) => (*size, from.clone()),
            None => {
                let first = Stack::open(&stacks.paths[0])?;
                (first.header().size[0], stacks.paths[0].display().to_string())
            }
        };
        // Reads the first header now, to detect a wrong box size before anything is written.
        stacks.opened(0)?;
        Ok(stacks)
    }

    /// Box size of the raw images in pixels.
    pub fn box_size(&self) -> usize {
        self.box_size
    }

    /// The paths of the stacks, in the order of [`SetProperties::stacks`].
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the raw image of `row` (box squared values, `[y][x]`).
    ///
    /// # Errors
    /// If the stack cannot be read, is truncated, has another box size, or does not have the image.
    pub fn read(&mut self, row: &ParticleRow, image: &mut [f32]) -> Result<()> {
        let source = row.source;
        let mut bytes = std::mem::take(&mut self.bytes);
        let stack = self.opened(source.file)?;
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

    /// The stack with index `file`; opens it if necessary.
    fn opened(&mut self, file: u32) -> Result<&Stack> {
        match self.open.iter().rposition(|(open, _)| *open == file) {
            Some(at) => self.open[at..].rotate_left(1),
            None => {
                let stack = self.open_checked(file)?;
                if self.open.len() == MAX_OPEN {
                    self.open.remove(0);
                }
                self.open.push((file, stack));
            }
        }
        Ok(&self.open[self.open.len() - 1].1)
    }

    fn open_checked(&self, file: u32) -> Result<Stack> {
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
        if columns != self.box_size {
            return Err(Error::input(
                path,
                "",
                format!(
                    "has images of {columns} x {rows} pixels, expected {0} x {0} (from {1})",
                    self.box_size, self.box_from
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
}
