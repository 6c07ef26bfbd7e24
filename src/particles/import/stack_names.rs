//! Names of image stacks in metadata, and the folders to search for them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::star::excerpt;
use crate::error::{Error, Result};

/// Location of a particle in its file, for error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// Line number, from 1.
    Line(usize),
    /// Record number, from 1.
    Particle(usize),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Particle(number) => write!(f, "particle {number}"),
        }
    }
}

/// A stack as named by the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackName {
    /// Its path.
    pub name: String,
    /// Location of its first mention.
    pub place: Location,
}

/// Stacks in the order of their first mention.
#[derive(Debug, Default)]
pub struct StackNames {
    named: Vec<StackName>,
    places: HashMap<String, u32>,
}

impl StackNames {
    /// The index of the stack `name`. Adds a stack that is new, with the location `place`.
    pub fn index(&mut self, name: &str, place: Location) -> u32 {
        // In most files, rows of the same stack are consecutive.
        if self.named.last().is_some_and(|last| last.name == name) {
            return self.named.len() as u32 - 1;
        }
        if let Some(&index) = self.places.get(name) {
            return index;
        }
        let index = self.named.len() as u32;
        self.named.push(StackName { name: name.to_owned(), place });
        self.places.insert(name.to_owned(), index);
        index
    }

    /// All stacks.
    pub fn all(&self) -> &[StackName] {
        &self.named
    }

    /// The names of all stacks.
    pub fn names(&self) -> Vec<String> {
        self.named.iter().map(|stack| stack.name.clone()).collect()
    }
}

/// The folders to search for stacks.
#[derive(Clone, Debug)]
pub struct StackFolders {
    /// Base folders of the paths in the metadata, in search order; unused if `datadir` is set.
    begin: Vec<PathBuf>,
    datadir: Option<PathBuf>,
}

impl StackFolders {
    /// Searches relative to the folder of the file `metadata`, to the folders above it (paths of RELION and cryoSPARC start
    /// from the project folder), and to the working directory. With `datadir`, searches there instead: first for the path as
    /// given, then for the bare file name.
    pub fn beside(metadata: &Path, datadir: Option<&Path>) -> Self {
        let folder = metadata.parent().unwrap_or(Path::new("")).to_path_buf();
        let absolute =
            std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder });
        let above = absolute.unwrap_or_default();
        let above = above.ancestors().skip(1).map(Path::to_path_buf);
        let mut begin: Vec<PathBuf> = std::iter::once(folder).chain(above).collect();
        begin.push(PathBuf::new());
        Self { begin, datadir: datadir.map(Path::to_path_buf) }
    }

    /// Candidate paths of the stack `name`, in search order.
    pub(crate) fn candidates(&self, name: &Path) -> Vec<PathBuf> {
        let Some(folder) = &self.datadir else {
            // join() returns an absolute path unchanged.
            let mut candidates: Vec<PathBuf> = self.begin.iter().map(|folder| folder.join(name)).collect();
            let mut seen = HashSet::new();
            candidates.retain(|path| seen.insert(path.clone()));
            return candidates;
        };
        let below: PathBuf =
            name.components().filter(|c| !matches!(c, Component::RootDir | Component::Prefix(_))).collect();
        let mut candidates = vec![folder.join(below)];
        if let Some(bare) = name.file_name()
            && !candidates.contains(&folder.join(bare))
        {
            candidates.push(folder.join(bare));
        }
        if name.is_absolute() {
            candidates.push(name.to_path_buf());
        }
        candidates
    }

    /// The path of the stack, which the file `metadata` names.
    ///
    /// # Errors
    /// If no candidate path exists.
    pub fn find(&self, metadata: &Path, stack: &StackName) -> Result<PathBuf> {
        let candidates = self.candidates(Path::new(&stack.name));
        if let Some(found) = candidates.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let tried = match &self.datadir {
            Some(_) => {
                let tried: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
                format!("tried {}", tried.join(", "))
            }
            None => "in the folder of this file, the folders above it, and the working directory".into(),
        };
        Err(Error::input(
            metadata,
            stack.place.to_string(),
            format!("the stack {} was not found ({tried})", excerpt(&stack.name)),
            "set --datadir to the project folder that the path is relative to, or to the folder of the stack",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_searched_in_order() {
        let find = |file: &str, datadir: Option<&str>, name: &str| {
            StackFolders::beside(Path::new(file), datadir.map(Path::new)).candidates(Path::new(name))
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let above = "/P/R/job1/b.star";
        assert_eq!(
            find(above, None, "E/t.mrcs"),
            paths(&["/P/R/job1/E/t.mrcs", "/P/R/E/t.mrcs", "/P/E/t.mrcs", "/E/t.mrcs", "E/t.mrcs"])
        );
        assert_eq!(find(above, None, "/s/t.mrcs"), paths(&["/s/t.mrcs"]));
        let beside = find("b.star", None, "t.mrcs");
        let here = std::path::absolute("t.mrcs").unwrap();
        assert_eq!(beside[0], Path::new("t.mrcs"));
        assert!(beside[1..].iter().all(|path| path.is_absolute() && *path != here), "{beside:?}");
        assert_eq!(
            find("a/b.star", None, "s/t.mrcs")[..2],
            [PathBuf::from("a/s/t.mrcs"), here.with_file_name("s/t.mrcs")]
        );
        assert_eq!(find("a/b.star", None, "s/t.mrcs").last().unwrap(), Path::new("s/t.mrcs"));
        assert_eq!(find("a/b.star", Some("d"), "s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "t.mrcs"), paths(&["d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "/s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs", "/s/t.mrcs"]));
    }
}
