//! Python pickles as data: arrays of numpy, tuples, lists, numbers and texts, of every protocol (0 to 5).
//!
//! A pickle is a program that builds objects. Here it builds only those, and nothing of it is executed: any other
//! class or function it names is an error that names it. An object takes no more than a few bytes beside those of the
//! file, in which arrays stay, so memory is bounded by the file's size; nothing is nested, dropped or walked in depth.
//! Source: the opcodes as CPython's `pickletools` describes them.

mod machine;
mod objects;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use machine::Machine;
use objects::{Layout, Memory, Object};

use crate::error::{Error, Result};

/// A pickle's objects.
#[derive(Debug)]
pub struct Pickle {
    path: PathBuf,
    memory: Memory,
    root: Id,
}

/// An object of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u32);

/// An array of numbers, of any dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
}

impl Array<'_> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// True for an array of integers.
    pub fn is_whole(&self) -> bool {
        self.layout.number.is_whole()
    }

    /// The value at `index` (one number for each dimension).
    ///
    /// # Panics
    /// When it is outside of the array.
    pub fn value(&self, index: &[usize]) -> f64 {
        self.layout.number.value(self.at(index))
    }

    /// The index that is stored at `index`; `None` for a negative number and for what is no integer.
    pub fn index(&self, index: &[usize]) -> Option<u64> {
        self.layout.number.index(self.at(index))
    }

    fn at(&self, index: &[usize]) -> &[u8] {
        let Layout { shape, strides, .. } = self.layout;
        assert!(
            index.len() == shape.len() && index.iter().zip(shape).all(|(i, n)| i < n),
            "outside of the array"
        );
        let place: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        let width = self.layout.number.width();
        &self.bytes[place * width..(place + 1) * width]
    }
}

impl Pickle {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no pickle, or builds anything but arrays, tuples, lists, numbers and texts.
    pub fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let failed = Error::io(path, "read the pickle", "check the path and the right to read it");
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
        Self::parse(path, bytes)
    }

    fn parse(path: &Path, file: Vec<u8>) -> Result<Self> {
        let mut machine = Machine::new(path, file);
        let root = machine.run()?;
        Ok(Self { path: path.to_path_buf(), memory: machine.memory, root })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object that was pickled.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The items of a tuple or a list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.memory.object(id) {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// An array.
    pub fn array(&self, id: Id) -> Option<Array<'_>> {
        match self.memory.object(id) {
            Object::Array(layout) => Some(Array { layout, bytes: self.memory.bytes(layout.values) }),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, id: Id) -> Option<f64> {
        match *self.memory.object(id) {
            Object::Whole(number) => Some(number as f64),
            Object::Float(number) => Some(number),
            _ => self.array(id).filter(|array| array.shape().is_empty()).map(|array| array.value(&[])),
        }
    }

    /// True for `None`.
    pub fn is_none(&self, id: Id) -> bool {
        matches!(self.memory.object(id), Object::None)
    }

    /// What an object is, for messages: "an array of shape (5, 3)".
    pub fn describe(&self, id: Id) -> String {
        match self.memory.object(id) {
            Object::None => "None".into(),
            Object::Whole(_) | Object::Float(_) => "a number".into(),
            Object::Bytes(_) | Object::Text(_) => "a text".into(),
            Object::Tuple(items) => format!("a tuple of {}", items.len()),
            Object::List(items) => format!("a list of {}", items.len()),
            Object::Known(_) | Object::Type(_) => "a type".into(),
            Object::Array(layout) => {
                let shape: Vec<String> = layout.shape.iter().map(usize::to_string).collect();
                format!("an array of shape ({})", shape.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
