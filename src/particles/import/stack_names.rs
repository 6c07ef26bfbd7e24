//! The names of image stacks in metadata, and the folders that stacks are looked for in.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::star::excerpt;
use crate::error::{Error, Result};

/// Where in its file a particle is, as messages say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of text, from 1.
    Line(usize),
    /// A record, from 1.
    Particle(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Particle(number) => write!(f, "particle {number}"),
        }
    }
}

/// A stack, as the metadata names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackName {
    /// Its path.
    pub name: String,
    /// Where it is named first.
    pub place: Place,
}

/// Stacks in the order in which they are named first.
#[derive(Debug, Default)]
pub struct StackNames {
    named: Vec<StackName>,
    places: HashMap<String, u32>,
}

impl StackNames {
    /// The place of the stack `name` among them, which is `place`'s if it is new.
    pub fn index(&mut self, name: &str, place: Place) -> u32 {
        // Rows of one stack follow each other in most files.
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

    /// All of them.
    pub fn all(&self) -> &[StackName] {
        &self.named
    }

    /// Their names alone.
    pub fn names(&self) -> Vec<String> {
        self.named.iter().map(|stack| stack.name.clone()).collect()
    }
}

/// Where stacks are looked for.
#[derive(Clone, Debug)]
pub struct Folders {
    /// What a path in the metadata begins from, in the order of trying; unused where there is a data folder.
    begin: Vec<PathBuf>,
    datadir: Option<PathBuf>,
}

impl Folders {
    /// From the folder of the file `metadata`, or, with `datadir`, below that: a path as given, then its bare file name.
    pub fn beside(metadata: &Path, datadir: Option<&Path>) -> Self {
        let begin = metadata.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { begin: vec![begin], datadir: datadir.map(Path::to_path_buf) }
    }

    /// The same, and then from the folder above the metadata's.
    pub fn or_above(mut self) -> Self {
        let above = self.begin[0].join("..");
        self.begin.push(above);
        self
    }

    /// Where the stack `name` may be, in the order of trying.
    fn places(&self, name: &Path) -> Vec<PathBuf> {
        let Some(folder) = &self.datadir else {
            // join() takes an absolute name as it is.
            let mut places: Vec<PathBuf> = self.begin.iter().map(|folder| folder.join(name)).collect();
            places.dedup();
            return places;
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

    /// Where the stack is that the file `metadata` names.
    ///
    /// # Errors
    /// When it is at none of the places.
    pub fn find(&self, metadata: &Path, stack: &StackName) -> Result<PathBuf> {
        let places = self.places(Path::new(&stack.name));
        if let Some(found) = places.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Err(Error::input(
            metadata,
            stack.place.to_string(),
            format!("the stack {} is not there (tried {})", excerpt(&stack.name), tried.join(", ")),
            "give --datadir the folder that its path begins from (the project's folder), or that it lies in",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_looked_for_in_order() {
        let find = |file: &str, datadir: Option<&str>, name: &str| {
            Folders::beside(Path::new(file), datadir.map(Path::new)).places(Path::new(name))
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(find("a/b.star", None, "s/t.mrcs"), paths(&["a/s/t.mrcs"]));
        assert_eq!(find("b.star", None, "t.mrcs"), paths(&["t.mrcs"]));
        assert_eq!(find("a/b.star", None, "/s/t.mrcs"), paths(&["/s/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "t.mrcs"), paths(&["d/t.mrcs"]));
        assert_eq!(find("a/b.star", Some("d"), "/s/t.mrcs"), paths(&["d/s/t.mrcs", "d/t.mrcs", "/s/t.mrcs"]));
        let above = |file: &str, name: &str| {
            Folders::beside(Path::new(file), None).or_above().places(Path::new(name))
        };
        assert_eq!(above("P/J2/b.cs", "J1/t.mrc"), paths(&["P/J2/J1/t.mrc", "P/J2/../J1/t.mrc"]));
        assert_eq!(above("b.cs", "J1/t.mrc"), paths(&["J1/t.mrc", "../J1/t.mrc"]));
        assert_eq!(above("b.cs", "/s/t.mrc"), paths(&["/s/t.mrc"]));
    }
}
