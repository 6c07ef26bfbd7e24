//! The objects of a pickle and the bytes that they refer to.

use super::Id;
use crate::particles::import::number::NumberFormat;

/// An object.
#[derive(Debug)]
pub enum Object {
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Bytes(Span),
    Text(Span),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Known(Known),
    Type(NumberFormat),
    Array(Box<Layout>),
}

/// The only `None`.
pub const NONE: Id = Id(0);

/// The classes and functions that build arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Array,
    Type,
    Reconstruct,
    Scalar,
    FromBuffer,
    Encode,
    Bytes,
}

impl Known {
    pub fn named(module: &str, name: &str) -> Option<Self> {
        // NumPy 2 has renamed numpy.core to numpy._core.
        let module =
            module.strip_prefix("numpy._core").map_or(module.to_owned(), |rest| format!("numpy.core{rest}"));
        match (module.as_str(), name) {
            ("numpy", "ndarray") => Some(Self::Array),
            ("numpy", "dtype") => Some(Self::Type),
            ("numpy.core.multiarray", "_reconstruct") => Some(Self::Reconstruct),
            ("numpy.core.multiarray", "scalar") => Some(Self::Scalar),
            ("numpy.core.numeric", "_frombuffer") => Some(Self::FromBuffer),
            ("_codecs", "encode") => Some(Self::Encode),
            ("builtins" | "__builtin__", "bytes" | "bytearray") => Some(Self::Bytes),
            _ => None,
        }
    }
}

/// A range of bytes of the file, or of the decoded strings.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub decoded: bool,
    pub start: usize,
    pub len: usize,
}

/// Shape and storage of an array.
#[derive(Debug)]
pub struct Layout {
    pub shape: Vec<usize>,
    /// Distance between neighbours along each dimension, in values.
    pub strides: Vec<usize>,
    pub number: NumberFormat,
    pub values: Span,
}

/// NumPy's limit.
const MAX_DIMENSIONS: usize = 64;

/// Storage order of an array.
#[derive(Clone, Copy, Debug)]
pub enum Order<'a> {
    /// The last index varies fastest (C).
    Rows,
    /// The first index varies fastest (Fortran).
    Columns,
    /// C order with permuted dimensions: item k is the stored dimension that becomes dimension k.
    Axes(&'a [Id]),
}

/// All objects and the bytes that they refer to.
#[derive(Debug)]
pub struct Memory {
    pub file: Vec<u8>,
    pub decoded: Vec<u8>,
    pub objects: Vec<Object>,
}

impl Memory {
    pub fn object(&self, id: Id) -> &Object {
        &self.objects[id.0 as usize]
    }

    pub fn bytes(&self, span: Span) -> &[u8] {
        let all = if span.decoded { &self.decoded } else { &self.file };
        &all[span.start..span.start + span.len]
    }

    /// The string, or bytes as a string: Python 2 writes names as bytes.
    pub fn text(&self, id: Id) -> Option<&str> {
        match *self.object(id) {
            Object::Text(span) | Object::Bytes(span) => std::str::from_utf8(self.bytes(span)).ok(),
            _ => None,
        }
    }

    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.object(id) {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// An array of these parts; `None` if they are inconsistent.
    pub fn array_of(&self, shape: &[Id], kind: Id, order: Order, values: Id) -> Option<Object> {
        let Object::Type(number) = *self.object(kind) else { return None };
        let Object::Bytes(values) = *self.object(values) else { return None };
        let integer = |id: &Id| match *self.object(*id) {
            Object::Integer(size) => usize::try_from(size).ok(),
            _ => None,
        };
        if shape.len() > MAX_DIMENSIONS {
            return None;
        }
        let stored = shape.iter().map(integer).collect::<Option<Vec<usize>>>()?;
        let bytes = stored.iter().try_fold(number.width(), |bytes, &size| bytes.checked_mul(size))?;
        if bytes != values.len {
            return None;
        }
        let mut strides = vec![1usize; stored.len()];
        // The sizes of an array without values may overflow; its strides are never used.
        match order {
            Order::Columns => {
                (1..stored.len()).for_each(|k| strides[k] = strides[k - 1].saturating_mul(stored[k - 1]))
            }
            _ => (1..stored.len()).rev().for_each(|k| strides[k - 1] = strides[k].saturating_mul(stored[k])),
        }
        let Order::Axes(axes) = order else {
            return Some(Object::Array(Box::new(Layout { shape: stored, strides, number, values })));
        };
        let axes = axes.iter().map(integer).collect::<Option<Vec<usize>>>()?;
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..stored.len()) {
            return None;
        }
        let shape = axes.iter().map(|&axis| stored[axis]).collect();
        let strides = axes.iter().map(|&axis| strides[axis]).collect();
        Some(Object::Array(Box::new(Layout { shape, strides, number, values })))
    }
}
