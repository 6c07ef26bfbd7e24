//! Finding and reading the image stacks that a particle set names.

use std::path::{Path, PathBuf};

use super::set::{Common, Row};
use crate::error::{Error, Result};
use crate::imaging::mrc::Stack;

/// Stacks kept open at a time; a process may have about a thousand files open.
const KEPT_OPEN: usize = 64;

/// The stacks of a particle set.
#[derive(Debug)]
pub struct Stacks {
    metadata: PathBuf,
    paths: Vec<PathBuf>,
    names: Vec<String>,
    /// The stacks that are open, the last used one last.
    open: Vec<(u32, Stack)>,
    box_size: usize,
    /// What says that the images have this box, for messages.
    box_from: String,
    bytes: Vec<u8>,
}

impl Stacks {
    /// Finds every stack of a set, and learns the images' box from its metadata or the first stack.
    ///
    /// # Errors
    /// When a stack is at none of the places where it may be; or the first one cannot be read or has images that are not
    /// square.
    pub fn find(common: &Common) -> Result<Self> {
        let find = |stack| common.folders.find(&common.path, stack);
        let mut stacks = Self {
            metadata: common.path.clone(),
            paths: common.stacks.all().iter().map(find).collect::<Result<_>>()?,
            names: common.stacks.names(),
            open: Vec::new(),
            box_size: 0,
            box_from: String::new(),
            bytes: Vec::new(),
        };
        (stacks.box_size, stacks.box_from) = match &common.image_size {
            Some((size, from)) => (*size, from.clone()),
            None => {
                let first = Stack::open(&stacks.paths[0])?;
                (first.header().size[0], stacks.paths[0].display().to_string())
            }
        };
        // Reads the first header now: a wrong box is then known before anything is written.
        stacks.opened(0)?;
        Ok(stacks)
    }

    /// Box of the images in pixels.
    pub fn box_size(&self) -> usize {
        self.box_size
    }

    /// Where the stacks are, in the order of [`Common::stacks`].
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the raw image of `row` (box squared values, `[y][x]`).
    ///
    /// # Errors
    /// When the stack cannot be read, is cut short, has another box, or does not have the image.
    pub fn read(&mut self, row: &Row, image: &mut [f32]) -> Result<()> {
        let source = row.source;
        let mut bytes = std::mem::take(&mut self.bytes);
        let stack = self.opened(source.file)?;
        let held = stack.len() as u64;
        if source.index >= held {
            return Err(Error::input(
                &self.metadata,
                row.place.to_string(),
                format!(
                    "image {} is past the end of {}, which holds {held} images",
                    source.index + 1,
                    self.paths[source.file as usize].display()
                ),
                "check that this file belongs to this stack",
            ));
        }
        stack.read_image(source.index as usize, image, &mut bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// An error at the image of `row`: stack, image from 1, and place in the file `metadata`.
    pub fn image_error(paths: &[PathBuf], metadata: &Path, row: &Row, problem: String) -> Error {
        let source = row.source;
        Error::input(
            &paths[source.file as usize],
            format!("image {} ({}, {})", source.index + 1, metadata.display(), row.place),
            problem,
            "leave the particle out, or repair the image",
        )
    }

    /// The stack `file`, opened if it is not.
    fn opened(&mut self, file: u32) -> Result<&Stack> {
        match self.open.iter().rposition(|(open, _)| *open == file) {
            Some(at) => self.open[at..].rotate_left(1),
            None => {
                let stack = self.open_checked(file)?;
                if self.open.len() == KEPT_OPEN {
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
                format!("holds images of {columns} x {rows} pixels, expected square ones"),
                format!("extract the particles of {} in square boxes", self.metadata.display()),
            ));
        }
        if columns != self.box_size {
            return Err(Error::input(
                path,
                "",
                format!(
                    "holds images of {columns} x {rows} pixels, expected {0} x {0} (from {1})",
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
