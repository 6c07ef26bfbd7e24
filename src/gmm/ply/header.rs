//! The header of a PLY file.

use std::str::SplitWhitespace;

use crate::imaging::Symmetry;

/// The word after `comment` that is followed by the name of a point group.
pub(super) const SYMMETRY: &str = "symmetry";

/// Encoding of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Ascii,
    LittleEndian,
    BigEndian,
}

/// Type of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "char" | "int8" => Self::I8,
            "uchar" | "uint8" => Self::U8,
            "short" | "int16" => Self::I16,
            "ushort" | "uint16" => Self::U16,
            "int" | "int32" => Self::I32,
            "uint" | "uint32" => Self::U32,
            "float" | "float32" => Self::F32,
            "double" | "float64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The value at the start of `bytes`, which has at least [`Scalar::bytes`] of them.
    pub fn decode(self, bytes: &[u8], big_endian: bool) -> f32 {
        let mut word = [0; 8];
        let word = &mut word[..self.bytes()];
        word.copy_from_slice(&bytes[..self.bytes()]);
        if big_endian {
            word.reverse();
        }
        macro_rules! little_endian {
            ($type:ty) => {
                <$type>::from_le_bytes((&*word).try_into().expect("as many bytes as the type has")) as f32
            };
        }
        match self {
            Self::I8 => little_endian!(i8),
            Self::U8 => little_endian!(u8),
            Self::I16 => little_endian!(i16),
            Self::U16 => little_endian!(u16),
            Self::I32 => little_endian!(i32),
            Self::U32 => little_endian!(u32),
            Self::F32 => little_endian!(f32),
            Self::F64 => little_endian!(f64),
        }
    }
}

/// A property of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub name: String,
    /// `None` for a list.
    pub scalar: Option<Scalar>,
}

/// An element: a table with one row per vertex, face or the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub name: String,
    pub rows: usize,
    pub properties: Vec<Property>,
}

impl Element {
    /// Bytes per row in a binary file; `None` if a property is a list.
    pub fn width(&self) -> Option<usize> {
        self.properties.iter().map(|property| property.scalar.map(Scalar::bytes)).sum()
    }
}

/// The header of a PLY file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub format: Format,
    /// In the order of the file.
    pub elements: Vec<Element>,
    /// Point group of which the vertices are the asymmetric unit.
    pub symmetry: Symmetry,
    /// Number of lines.
    pub lines: usize,
}

impl Header {
    /// Splits a file into its header and the bytes after it. The error is a line (from 1; 0: none) and a problem.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), (usize, String)> {
        /// Longest accepted header: a binary file of another format is not searched to its end.
        const MAX_LENGTH: usize = 1 << 16;
        let incomplete = || (0, "has no complete PLY header".to_owned());
        // All lines of a header end as the first one does.
        let ending: &[u8] = if bytes.starts_with(b"ply\r\n") {
            b"\r\n"
        } else if bytes.starts_with(b"ply\r") {
            b"\r"
        } else {
            b"\n"
        };
        let mut header =
            Self { format: Format::Ascii, elements: Vec::new(), symmetry: Symmetry::C1, lines: 0 };
        let mut format = None;
        let mut rest = bytes;
        loop {
            let length = rest.windows(ending.len()).take(MAX_LENGTH).position(|w| w == ending);
            let length = length.ok_or_else(incomplete)?;
            let line = std::str::from_utf8(&rest[..length]).map_err(|_| incomplete())?;
            rest = &rest[length + ending.len()..];
            header.lines += 1;
            if line.trim_end() == "end_header" {
                break;
            }
            if bytes.len() - rest.len() > MAX_LENGTH {
                return Err(incomplete());
            }
            let problem = |problem: &str| (header.lines, format!("`{}` {problem}", line.trim()));
            let mut words = line.split_whitespace();
            match words.next() {
                Some("comment") => {
                    if let (Some(SYMMETRY), Some(group), None) = (words.next(), words.next(), words.next()) {
                        let group = group.parse();
                        header.symmetry = group.map_err(|_| problem("names no point group of rotations"))?;
                    }
                }
                None | Some("obj_info") => {}
                Some("ply") if header.lines == 1 => {}
                Some("format") => {
                    let found = format_of(words).ok_or_else(|| problem("is not a known format"))?;
                    format = Some(found);
                }
                Some("element") => {
                    let element = element_of(words).ok_or_else(|| problem("has no valid name and count"))?;
                    header.elements.push(element);
                }
                Some("property") => {
                    let property = property_of(words).ok_or_else(|| problem("has no valid type and name"))?;
                    let element = header.elements.last_mut();
                    element.ok_or_else(|| problem("belongs to no element"))?.properties.push(property);
                }
                Some(_) => return Err(problem("is not a line of a PLY header")),
            }
        }
        header.format = format.ok_or_else(|| (0, "its PLY header has no format".to_owned()))?;
        Ok((header, rest))
    }
}

fn format_of(mut words: SplitWhitespace) -> Option<Format> {
    let format = match words.next()? {
        "ascii" => Format::Ascii,
        "binary_little_endian" => Format::LittleEndian,
        "binary_big_endian" => Format::BigEndian,
        _ => return None,
    };
    (words.next() == Some("1.0")).then_some(format)
}

fn element_of(mut words: SplitWhitespace) -> Option<Element> {
    let (name, rows) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    words.next().is_none().then_some(Element { name, rows, properties: Vec::new() })
}

fn property_of(mut words: SplitWhitespace) -> Option<Property> {
    let scalar = match words.next()? {
        "list" => {
            Scalar::of(words.next()?)?;
            Scalar::of(words.next()?)?;
            None
        }
        scalar => Some(Scalar::of(scalar)?),
    };
    let name = words.next()?.to_owned();
    words.next().is_none().then_some(Property { name, scalar })
}
