//! Python pickles of protocols 0 to 5 with NumPy arrays, tuples, lists, numbers and strings.
//!
//! A pickle is a program that builds objects. This reader builds only the listed types and executes nothing: any other
//! class or function is an error. Arrays stay in the file's bytes and every other object takes a few bytes, so memory is
//! bounded by the size of the file, and no recursion depends on it. The reader is our own code because serde-pickle
//! does not rebuild NumPy arrays and does not bound the memory. Source: CPython's `pickletools` documents the opcodes.

mod machine;
mod objects;
mod text;

use std::path::{Path, PathBuf};

use machine::Machine;
use objects::{Layout, Memory, Object};

use crate::error::{Error, Result};
use crate::files;

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    path: PathBuf,
    memory: Memory,
    root: Id,
}

/// Identifies an object of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u32);

/// An array of numbers with any number of dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
}

impl Array<'_> {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// True for an array of integers (not of Booleans).
    pub fn is_integer(&self) -> bool {
        self.layout.number.is_integer()
    }

    /// True for an array of Booleans.
    pub fn is_boolean(&self) -> bool {
        self.layout.number.is_boolean()
    }

    /// The value at `index` (one number per dimension).
    ///
    /// # Panics
    /// If the index is out of bounds.
    pub fn value(&self, index: &[usize]) -> f64 {
        self.layout.number.value(self.at(index))
    }

    /// The non-negative integer at `index`; `None` for negative numbers and for floats.
    pub fn index(&self, index: &[usize]) -> Option<u64> {
        self.layout.number.index(self.at(index))
    }

    fn at(&self, index: &[usize]) -> &[u8] {
        let Layout { shape, strides, .. } = self.layout;
        assert!(
            index.len() == shape.len() && index.iter().zip(shape).all(|(i, n)| i < n),
            "index out of bounds"
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
    /// If the file cannot be read, is not a pickle, or contains other objects than arrays, tuples, lists, numbers and strings.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = Error::io(path, "read the pickle", "check the path and the read permission");
        Self::parse(path, files::read_bytes(path).map_err(failed)?)
    }

    fn parse(path: &Path, file: Vec<u8>) -> Result<Self> {
        let mut machine = Machine::new(path, file);
        let root = machine.run()?;
        Ok(Self { path: path.to_path_buf(), memory: machine.memory, root })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pickled object.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The items of a tuple or list.
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

    /// A number, or the value of a 0-dimensional array.
    pub fn number(&self, id: Id) -> Option<f64> {
        match *self.memory.object(id) {
            Object::Boolean(value) => Some(f64::from(u8::from(value))),
            Object::Integer(number) => Some(number as f64),
            Object::Float(number) => Some(number),
            _ => self.array(id).filter(|array| array.shape().is_empty()).map(|array| array.value(&[])),
        }
    }

    /// A Boolean, or the value of a 0-dimensional array of Booleans.
    pub fn boolean(&self, id: Id) -> Option<bool> {
        match *self.memory.object(id) {
            Object::Boolean(value) => Some(value),
            _ => {
                let array = self.array(id).filter(|array| array.shape().is_empty() && array.is_boolean())?;
                Some(array.value(&[]) != 0.0)
            }
        }
    }

    /// True for `None`.
    pub fn is_none(&self, id: Id) -> bool {
        matches!(self.memory.object(id), Object::None)
    }

    /// Describes an object for error messages, such as "an array of shape (5, 3)".
    pub fn describe(&self, id: Id) -> String {
        match self.memory.object(id) {
            Object::None => "None".into(),
            Object::Boolean(_) => "a Boolean".into(),
            Object::Integer(_) | Object::Float(_) => "a number".into(),
            Object::Bytes(_) | Object::Text(_) => "a string".into(),
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
