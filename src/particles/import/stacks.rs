//! Finding and reading the image stacks that a STAR file names.

use std::path::{Component, Path, PathBuf};

use super::relion::{Particles, Row, StackName};
use super::star::excerpt;
use crate::error::{Error, Result};
use crate::imaging::mrc::Stack;

/// Stacks kept open at a time; a process may have about a thousand files open.
const KEPT_OPEN: usize = 64;

/// The stacks of a particle set.
#[derive(Debug)]
pub struct Stacks {
    star: PathBuf,
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
    /// Finds every stack of `particles`, and learns the images' box from the STAR file `star` or the first stack.
    ///
    /// A stack is looked for from the STAR file's folder, or, with `datadir`, below that: its path as given, then its
    /// bare file name.
    ///
    /// # Errors
    /// When a stack is at none of these places; or the first one cannot be read or has images that are not square.
    pub fn find(star: &Path, datadir: Option<&Path>, particles: &Particles) -> Result<Self> {
        let mut paths = Vec::with_capacity(particles.stacks().len());
        for StackName { name, line } in particles.stacks() {
            let places = places(star, datadir, Path::new(name));
            let Some(found) = places.iter().find(|path| path.is_file()) else {
                let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
                return Err(Error::input(
                    star,
                    format!("line {line}"),
                    format!("the stack {} is not there (tried {})", excerpt(name), tried.join(", ")),
                    "give --datadir the folder that its path begins from (RELION's project folder), or that it lies in",
                ));
            };
            paths.push(found.clone());
        }
        let mut stacks = Self {
            star: star.to_path_buf(),
            paths,
            names: particles.stacks().iter().map(|stack| stack.name.clone()).collect(),
            open: Vec::new(),
            box_size: 0,
            box_from: String::new(),
            bytes: Vec::new(),
        };
        match particles.image_size {
            Some(size) => {
                stacks.box_size = size;
                stacks.box_from = format!("_rlnImageSize of {}", star.display());
            }
            None => {
                let first = Stack::open(&stacks.paths[0])?;
                stacks.box_size = first.header().size[0];
                stacks.box_from = stacks.paths[0].display().to_string();
            }
        }
        // Reads the first header now: a wrong box is then known before anything is written.
        stacks.opened(0)?;
        Ok(stacks)
    }

    /// Box of the images in pixels.
    pub fn box_size(&self) -> usize {
        self.box_size
    }

    /// Where the stacks are, in the order of [`Particles::stacks`].
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
                &self.star,
                format!("line {}", row.line),
                format!(
                    "image {} is past the end of {}, which holds {held} images",
                    source.index + 1,
                    self.paths[source.file as usize].display()
                ),
                "check that the STAR file belongs to this stack",
            ));
        }
        stack.read_image(source.index as usize, image, &mut bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// An error at the image of `row`: stack, image from 1, and line of the STAR file.
    pub fn image_error(paths: &[PathBuf], star: &Path, row: &Row, problem: String) -> Error {
        let source = row.source;
        Error::input(
            &paths[source.file as usize],
            format!("image {} ({}, line {})", source.index + 1, star.display(), row.line),
            problem,
            "remove its row from the STAR file, or repair the image",
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
                format!("extract the particles of {} in square boxes", self.star.display()),
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
                    self.star.display(),
                    self.names[file as usize]
                ),
            ));
        }
        Ok(stack)
    }
}

/// Where a stack may be, in the order of trying.
fn places(star: &Path, datadir: Option<&Path>, name: &Path) -> Vec<PathBuf> {
    let Some(folder) = datadir else {
        // join() takes an absolute name as it is.
        return vec![star.parent().unwrap_or(Path::new("")).join(name)];
    };
    let below: PathBuf =
        name.components().filter(|c| !matches!(c, Component::RootDir | Component::Prefix(_))).collect();
    let mut places = vec![folder.join(below)];
    if let Some(bare) = name.file_name()
        && !places.contains(&folder.join(bare))
    {
        places.push(folder.join(bare));
    }
    if name.is_absolute() {
        places.push(name.to_path_buf());
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_looked_for_in_order() {
        let find = |star: &str, datadir: Option<&str>, name: &str| {
            places(Path::new(star), datadir.map(Path::new), Path::new(name))
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(find("a/b.star", None, "s/t.mrcs"), paths(&["a/s/t.mrcs"]));
        assert_eq!(find("b.star", None, "t.mrcs"), paths(&["t.mrcs"]));
        assert_eq!(find("a/b.star", None, "/s/t.mrcs"), paths(&["/s/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "t.mrcs"), paths(&["d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "/s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs", "/s/t.mrcs"]));
    }
}
