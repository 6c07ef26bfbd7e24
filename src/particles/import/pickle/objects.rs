//! The objects of a pickle, and the bytes that they refer to.

use super::Id;
use crate::particles::import::number::Number;

/// What an object is.
#[derive(Debug)]
pub enum Object {
    None,
    Whole(i64),
    Float(f64),
    Bytes(Span),
    Text(Span),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Known(Known),
    Type(Number),
    Array(Box<Layout>),
}

/// The one `None` there is.
pub const NONE: Id = Id(0);

/// The classes and functions that arrays are built with.
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
        // numpy 2 has moved what was in numpy.core.
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

/// A part of the file, or of what was decoded from it.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub decoded: bool,
    pub start: usize,
    pub len: usize,
}

/// An array's shape, and where its values are.
#[derive(Debug)]
pub struct Layout {
    pub shape: Vec<usize>,
    /// How many values lie between neighbours along each dimension.
    pub strides: Vec<usize>,
    pub number: Number,
    pub values: Span,
}

/// numpy's arrays have no more.
const MOST_DIMENSIONS: usize = 64;

/// In which order an array's values lie.
#[derive(Clone, Copy, Debug)]
pub enum Order<'a> {
    /// The last index runs fastest (C).
    Rows,
    /// The first index runs fastest (Fortran).
    Columns,
    /// As rows, and then the dimensions change places: each of these becomes the next one.
    Axes(&'a [Id]),
}

/// The objects, and the bytes that they refer to.
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

    /// The text, or the bytes of one: Python 2 writes names as bytes.
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

    /// An array of these parts; `None` where they do not fit together.
    pub fn laid_out(&self, shape: &[Id], kind: Id, order: Order, values: Id) -> Option<Object> {
        let Object::Type(number) = *self.object(kind) else { return None };
        let Object::Bytes(values) = *self.object(values) else { return None };
        let whole = |id: &Id| match *self.object(*id) {
            Object::Whole(size) => usize::try_from(size).ok(),
            _ => None,
        };
        if shape.len() > MOST_DIMENSIONS {
            return None;
        }
        let stored = shape.iter().map(whole).collect::<Option<Vec<usize>>>()?;
        let bytes = stored.iter().try_fold(number.width(), |bytes, &size| bytes.checked_mul(size))?;
        if bytes != values.len {
            return None;
        }
        let mut strides = vec![1usize; stored.len()];
        // An array without values may have sizes whose product is too large, and is never read.
        match order {
            Order::Columns => {
                (1..stored.len()).for_each(|k| strides[k] = strides[k - 1].saturating_mul(stored[k - 1]))
            }
            _ => (1..stored.len()).rev().for_each(|k| strides[k - 1] = strides[k].saturating_mul(stored[k])),
        }
        let Order::Axes(axes) = order else {
            return Some(Object::Array(Box::new(Layout { shape: stored, strides, number, values })));
        };
        let axes = axes.iter().map(whole).collect::<Option<Vec<usize>>>()?;
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
