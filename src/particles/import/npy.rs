//! NumPy `.npy` files, versions 1 to 3, with one-dimensional structured arrays, as cryoSPARC writes them.
//!
//! The header is parsed as a Python literal and never executed. The file is kept in memory, and values are decoded on access.
//! The reader is our own code because npy crates read arrays of one element type or need the record type at compile time.

mod literal;

use std::path::{Path, PathBuf};

use literal::Literal;

use super::number::NumberFormat;
use super::star::excerpt;
use crate::error::{Error, Result};
use crate::files;

/// The first bytes of a `.npy` file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// A table of records with named fields.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    fields: Vec<(String, Field)>,
    /// Size of a record in bytes.
    stride: usize,
    len: usize,
    bytes: Vec<u8>,
    /// Offset of the first record in `bytes`.
    start: usize,
    /// The description of the fields, as in the header.
    description: String,
}

/// A field of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Offset in the record in bytes.
    pub offset: usize,
    /// Number of values per record.
    pub count: usize,
    /// Type of a value.
    pub field_type: FieldType,
}

/// Type of the values of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldType {
    /// A number.
    NumberFormat(NumberFormat),
    /// Text of this many bytes, padded with NUL.
    Bytes(usize),
    /// Text of this many UTF-32 characters in this byte order, padded with NUL.
    Utf32(usize, NumberFormat),
    /// This many bytes of another type, or of padding.
    Other(usize),
}

impl FieldType {
    fn parse(text: &str) -> Option<Self> {
        if let Some(number) = NumberFormat::parse(text) {
            return Some(Self::NumberFormat(number));
        }
        let (order, rest) = match text.as_bytes().first()? {
            b'<' | b'>' | b'=' | b'|' => text.split_at(1),
            _ => ("<", text),
        };
        let letter = rest.chars().next()?;
        let length = rest[letter.len_utf8()..].parse().ok()?;
        match letter {
            'S' | 'a' => Some(Self::Bytes(length)),
            'U' => Some(Self::Utf32(length, NumberFormat::parse("u4")?.ordered(order))),
            'V' | 'c' | 'm' | 'M' => Some(Self::Other(length)),
            _ => None,
        }
    }

    fn width(self) -> Option<usize> {
        match self {
            Self::NumberFormat(number) => Some(number.width()),
            Self::Bytes(length) | Self::Other(length) => Some(length),
            Self::Utf32(length, _) => length.checked_mul(4),
        }
    }
}

impl Table {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a `.npy` file, does not contain a table, or has another length than its header
    /// states.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = Error::io(path, "read the table", "check the path and the read permission");
        Self::parse(path, files::read_bytes(path).map_err(failed)?)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let refuse = |problem: String| {
            Error::input(path, "header", problem, "export the particles again, or copy the file again")
        };
        let cut = || refuse(format!("has {} bytes, fewer than its header needs", bytes.len()));
        let after = bytes.strip_prefix(MAGIC).ok_or_else(|| refuse("is not a .npy file".into()))?;
        let (version, after) = after.split_first_chunk::<2>().ok_or_else(cut)?;
        let (length, after) = match version[0] {
            1 => {
                let (length, after) = after.split_first_chunk().ok_or_else(cut)?;
                (u32::from(u16::from_le_bytes(*length)), after)
            }
            2 | 3 => {
                let (length, after) = after.split_first_chunk().ok_or_else(cut)?;
                (u32::from_le_bytes(*length), after)
            }
            other => return Err(refuse(format!("has version {other} of the format, expected 1 to 3"))),
        };
        let header = after.get(..length as usize).ok_or_else(cut)?;
        let data = after.len() - header.len();
        let header = String::from_utf8_lossy(header);
        let Some(Literal::Dictionary(entries)) = Literal::read(&header) else {
            return Err(refuse(format!("expected a dictionary, found {}", excerpt(header.trim()))));
        };
        let entry = |name: &str| {
            let found = entries.iter().find(|(key, _)| matches!(key, Literal::Text(text) if text == name));
            found.map(|(_, value)| value).ok_or_else(|| refuse(format!("has no entry '{name}'")))
        };
        let len = match entry("shape")? {
            Literal::Sequence(shape) => match shape[..] {
                [Literal::Number(len)] => len as usize,
                _ => return Err(refuse("is not a table: its array is not one-dimensional".into())),
            },
            _ => return Err(refuse("has no shape".into())),
        };
        let Literal::Sequence(described) = entry("descr")? else {
            return Err(refuse("is not a table: its records have no fields".into()));
        };
        let mut fields = Vec::with_capacity(described.len());
        let mut stride = 0usize;
        for description in described {
            let (name, field) = field(description, stride).map_err(refuse)?;
            let width = field.field_type.width().and_then(|width| width.checked_mul(field.count));
            stride = width
                .and_then(|width| stride.checked_add(width))
                .ok_or_else(|| refuse(format!("the field {} is too large", excerpt(&name))))?;
            fields.push((name, field));
        }
        // With records of size 0, the length would be arbitrary.
        if stride == 0 || len.checked_mul(stride) != Some(data) {
            return Err(refuse(format!(
                "states {len} records of {stride} bytes, but {data} bytes follow it"
            )));
        }
        let start = bytes.len() - data;
        let description = entry("descr")?.to_string();
        Ok(Self { path: path.to_path_buf(), fields, stride, len, bytes, start, description })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The field `name`, if it exists.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(have, _)| have == name).map(|&(_, field)| field)
    }

    /// The header of a file with `len` records of the same fields.
    pub fn header(&self, len: usize) -> Vec<u8> {
        let text = format!("{{'descr': {}, 'fortran_order': False, 'shape': ({len},), }}", self.description);
        // Version 2 has a length of 4 bytes, version 3 is in UTF-8.
        let version: u8 = if !text.is_ascii() { 3 } else { 1 + u8::from(text.len() > 60_000) };
        let width = if version == 1 { 2 } else { 4 };
        let before = MAGIC.len() + 2 + width;
        // NumPy aligns the records to 64 bytes. The header ends with a line feed.
        let padded = (before + text.len() + 1).next_multiple_of(64) - before;
        let mut header = MAGIC.to_vec();
        header.extend([version, 0]);
        header.extend(&(padded as u32).to_le_bytes()[..width]);
        header.extend(text.as_bytes());
        header.resize(before + padded - 1, b' ');
        header.push(b'\n');
        header
    }

    /// The bytes of a record.
    pub fn record(&self, record: usize) -> &[u8] {
        let at = self.start + record * self.stride;
        &self.bytes[at..at + self.stride]
    }

    /// The bytes of value `k` of `field` in record `record`.
    fn value(&self, field: Field, record: usize, k: usize) -> &[u8] {
        // The parser has checked that the sum of all widths does not overflow.
        let width = field.field_type.width().unwrap_or_default();
        let at = self.start + record * self.stride + field.offset + k * width;
        &self.bytes[at..at + width]
    }

    /// Value `k` of the numeric `field` in record `record`; NaN if the field is not numeric.
    pub fn number(&self, field: Field, record: usize, k: usize) -> f64 {
        match field.field_type {
            FieldType::NumberFormat(number) => number.value(self.value(field, record, k)),
            _ => f64::NAN,
        }
    }

    /// The non-negative integer in `field` of record `record`; `None` if it is not one.
    pub fn index(&self, field: Field, record: usize) -> Option<u64> {
        match field.field_type {
            FieldType::NumberFormat(number) => number.index(self.value(field, record, 0)),
            _ => None,
        }
    }

    /// The text in `field` of record `record`; `None` if the field is not text. Invalid UTF-8 is replaced.
    pub fn text(&self, field: Field, record: usize) -> Option<String> {
        let bytes = self.value(field, record, 0);
        match field.field_type {
            FieldType::Bytes(_) => {
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
            FieldType::Utf32(_, number) => {
                let letter = |bytes| char::from_u32(number.bits(bytes) as u32);
                let letters = bytes.chunks_exact(4).map(|bytes| letter(bytes).unwrap_or('\u{fffd}'));
                Some(letters.collect::<String>().trim_end_matches('\0').to_owned())
            }
            _ => None,
        }
    }
}

/// Parses one entry of `descr`: `('name', '<f4')` or `('name', '<f4', (3,))`.
fn field(description: &Literal, offset: usize) -> std::result::Result<(String, Field), String> {
    let malformed = || "describes a field in an unknown way".to_owned();
    let Literal::Sequence(parts) = description else { return Err(malformed()) };
    let (name, field_type, shape): (&String, _, &[Literal]) = match &parts[..] {
        [Literal::Text(name), field_type] => (name, field_type, &[]),
        [Literal::Text(name), field_type, Literal::Sequence(shape)] => (name, field_type, shape),
        _ => return Err(malformed()),
    };
    let Literal::Text(text) = field_type else {
        return Err(format!("the field {} has nested fields", excerpt(name)));
    };
    let field_type = FieldType::parse(text)
        .ok_or_else(|| format!("the field {} has the unsupported type {}", excerpt(name), excerpt(text)))?;
    let count = shape.iter().try_fold(1usize, |count, size| match size {
        Literal::Number(size) => count.checked_mul(*size as usize),
        _ => None,
    });
    let count = count.ok_or_else(|| format!("the field {} has an invalid shape", excerpt(name)))?;
    Ok((name.clone(), Field { offset, count, field_type }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.npy` file of `version` with this header and these records.
    fn file(version: u8, header: &str, records: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(records);
        bytes
    }

    fn parse(version: u8, header: &str, records: &[u8]) -> Result<Table> {
        Table::parse(Path::new("p.cs"), file(version, header, records))
    }

    const HEADER: &str = "{'descr': [('uid', '<u8'), ('blob/path', '|S5'), ('', '|V1'), ('x/y', '>f4', (2,)), \
                          ('n', '<U2')], 'fortran_order': False, 'shape': (2,), }   \n";

    fn records() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (uid, path, x, name) in [(7u64, b"a.mrc", 1.5f32, "ä"), (u64::MAX, b"b.m\0\0", -2.5, "xy")] {
            bytes.extend(uid.to_le_bytes());
            bytes.extend(path);
            bytes.push(9);
            bytes.extend(x.to_be_bytes());
            bytes.extend((2.0 * x).to_be_bytes());
            let mut letters = name.chars();
            for _ in 0..2 {
                bytes.extend(letters.next().map_or(0, u32::from).to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn every_version_is_read() {
        for version in 1..=3 {
            let table = parse(version, HEADER, &records()).unwrap();
            let field = |name: &str| table.field(name).unwrap();
            assert_eq!(table.len(), 2);
            assert_eq!(table.index(field("uid"), 1), Some(u64::MAX));
            assert_eq!(table.text(field("blob/path"), 0).unwrap(), "a.mrc");
            assert_eq!(table.text(field("blob/path"), 1).unwrap(), "b.m");
            assert_eq!([0, 1].map(|k| table.number(field("x/y"), 1, k)), [-2.5, -5.0]);
            assert_eq!(field("x/y").count, 2);
            assert_eq!(table.text(field("n"), 0).unwrap(), "ä");
            assert!(table.field("z").is_none());
        }
    }

    #[test]
    fn errors_name_the_problem() {
        let refused = |bytes: Vec<u8>, fragment: &str| {
            let message = Table::parse(Path::new("p.cs"), bytes).unwrap_err().to_string();
            assert!(message.starts_with("p.cs: header: ") && message.contains(fragment), "{message}");
        };
        let with = |from: &str, to: &str| file(1, &HEADER.replace(from, to), &records());
        refused(b"\x89HDF".to_vec(), "not a .npy file");
        refused(file(4, HEADER, &records()), "version 4");
        refused(file(1, HEADER, &records())[..60].to_vec(), "has 60 bytes");
        refused(file(1, HEADER, &records()[1..]), "states 2 records of 30 bytes, but 59 bytes follow");
        refused(with("(2,), }", "(3,), }"), "states 3 records");
        refused(with("(2,), }", "(2, 1), }"), "one-dimensional");
        refused(with("(2,), }", "(99999999999999999999,)}"), "expected a dictionary");
        refused(with("'<u8'", "'|O'"), "`uid` has the unsupported type `|O`");
        refused(with("'<u8'", "[('a', '<u8')]"), "`uid` has nested fields");
        refused(with("'|S5'", "'|S99999999999999999999'"), "`|S99999999999999999999`");
        refused(with("'|S5'", "'|S5', (9999999999999, 9999999999999)"), "`blob/path` has an invalid shape");
        refused(with("'|S5'", "'<U5', (9999999999999, 999999)"), "too large");
        refused(with("{'descr'", &"(".repeat(1000)), "expected a dictionary");
        refused(with("'shape'", "'form'"), "no entry 'shape'");
        refused(file(1, "{'descr': '<f4', 'shape': (2,)}", &[0; 8]), "no fields");
    }
}
