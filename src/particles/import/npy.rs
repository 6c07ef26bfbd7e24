//! Tables in numpy's `.npy` files, versions 1 to 3: structured arrays of one dimension, as cryoSPARC writes them.
//!
//! The header is a Python literal; nothing of it is executed. The file is held as it is, and its values are taken from it.

mod literal;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use literal::Literal;

use super::number::Number;
use super::star::excerpt;
use crate::error::{Error, Result};

/// What such a file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// A table: records, and the fields that each has.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    fields: Vec<(String, Field)>,
    /// Bytes of a record.
    stride: usize,
    len: usize,
    bytes: Vec<u8>,
    /// Where the first record begins.
    start: usize,
}

/// A field of a table: where in a record it is, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    offset: usize,
    /// Values in it.
    pub count: usize,
    /// What a value is.
    pub kind: Kind,
}

/// What a value of a field is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number.
    Number(Number),
    /// So many bytes of text, filled up with NUL.
    Bytes(usize),
    /// So many letters of UTF-32 in this byte order, filled up with NUL.
    Letters(usize, Number),
    /// So many bytes of something else, or of nothing.
    Other(usize),
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        if let Some(number) = Number::parse(text) {
            return Some(Self::Number(number));
        }
        let (order, rest) = match text.as_bytes().first()? {
            b'<' | b'>' | b'=' | b'|' => text.split_at(1),
            _ => ("<", text),
        };
        let letter = rest.chars().next()?;
        let length = rest[letter.len_utf8()..].parse().ok()?;
        match letter {
            'S' | 'a' => Some(Self::Bytes(length)),
            'U' => Some(Self::Letters(length, Number::parse("u4")?.ordered(order))),
            'V' | 'c' | 'm' | 'M' => Some(Self::Other(length)),
            _ => None,
        }
    }

    fn width(self) -> Option<usize> {
        match self {
            Self::Number(number) => Some(number.width()),
            Self::Bytes(length) | Self::Other(length) => Some(length),
            Self::Letters(length, _) => length.checked_mul(4),
        }
    }
}

impl Table {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no `.npy` file, holds no table, or has not as many bytes as its header says.
    pub fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let failed = Error::io(path, "read the table", "check the path and the right to read it");
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
        Self::parse(path, bytes)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let refuse = |problem: String| {
            Error::input(path, "header", problem, "export the particles again, or copy the file again")
        };
        let cut = || refuse(format!("holds {} bytes, which is less than its header takes", bytes.len()));
        let after = bytes.strip_prefix(MAGIC).ok_or_else(|| refuse("is no .npy file".into()))?;
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
                _ => return Err(refuse("is no table: its array does not have one dimension".into())),
            },
            _ => return Err(refuse("has no shape".into())),
        };
        let Literal::Sequence(described) = entry("descr")? else {
            return Err(refuse("is no table: its records have no fields".into()));
        };
        let mut fields = Vec::with_capacity(described.len());
        let mut stride = 0usize;
        for description in described {
            let (name, field) = field(description, stride).map_err(refuse)?;
            let width = field.kind.width().and_then(|width| width.checked_mul(field.count));
            stride = width
                .and_then(|width| stride.checked_add(width))
                .ok_or_else(|| refuse(format!("the field {} is impossibly large", excerpt(&name))))?;
            fields.push((name, field));
        }
        // Records of no bytes could be any number.
        if stride == 0 || len.checked_mul(stride) != Some(data) {
            return Err(refuse(format!(
                "promises {len} records of {stride} bytes, and {data} bytes follow it"
            )));
        }
        let start = bytes.len() - data;
        Ok(Self { path: path.to_path_buf(), fields, stride, len, bytes, start })
    }

    /// Where it came from.
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

    /// The field `name`, where it has one.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(have, _)| have == name).map(|&(_, field)| field)
    }

    /// The bytes of value `k` of `field` in record `record`.
    fn value(&self, field: Field, record: usize, k: usize) -> &[u8] {
        // The sum of all widths was taken when the header was read.
        let width = field.kind.width().unwrap_or_default();
        let at = self.start + record * self.stride + field.offset + k * width;
        &self.bytes[at..at + width]
    }

    /// Value `k` of a number's `field` in record `record`; NaN for what is no number.
    pub fn number(&self, field: Field, record: usize, k: usize) -> f64 {
        match field.kind {
            Kind::Number(number) => number.value(self.value(field, record, k)),
            _ => f64::NAN,
        }
    }

    /// The index in `field` of record `record`; `None` for what is none.
    pub fn index(&self, field: Field, record: usize) -> Option<u64> {
        match field.kind {
            Kind::Number(number) => number.index(self.value(field, record, 0)),
            _ => None,
        }
    }

    /// The text in `field` of record `record`; `None` for what is none. Bytes that are not UTF-8 become marks.
    pub fn text(&self, field: Field, record: usize) -> Option<String> {
        let bytes = self.value(field, record, 0);
        match field.kind {
            Kind::Bytes(_) => {
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
            Kind::Letters(_, number) => {
                let letter = |bytes| char::from_u32(number.bits(bytes) as u32);
                let letters = bytes.chunks_exact(4).map(|bytes| letter(bytes).unwrap_or('\u{fffd}'));
                Some(letters.collect::<String>().trim_end_matches('\0').to_owned())
            }
            _ => None,
        }
    }
}

/// The name and the meaning of one entry of `descr`: `('name', '<f4')` or `('name', '<f4', (3,))`.
fn field(description: &Literal, offset: usize) -> std::result::Result<(String, Field), String> {
    let strange = || "describes a field in a way that is not known".to_owned();
    let Literal::Sequence(parts) = description else { return Err(strange()) };
    let (name, kind, shape): (&String, _, &[Literal]) = match &parts[..] {
        [Literal::Text(name), kind] => (name, kind, &[]),
        [Literal::Text(name), kind, Literal::Sequence(shape)] => (name, kind, shape),
        _ => return Err(strange()),
    };
    let Literal::Text(text) = kind else {
        return Err(format!("the field {} has fields of its own", excerpt(name)));
    };
    let kind = Kind::parse(text).ok_or_else(|| {
        format!("the field {} is of type {}, which cannot be read", excerpt(name), excerpt(text))
    })?;
    let count = shape.iter().try_fold(1usize, |count, size| match size {
        Literal::Number(size) => count.checked_mul(*size as usize),
        _ => None,
    });
    let count = count.ok_or_else(|| format!("the field {} has no shape", excerpt(name)))?;
    Ok((name.clone(), Field { offset, count, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `version` with this header and these records.
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
    fn what_is_wrong_is_named() {
        let refused = |bytes: Vec<u8>, fragment: &str| {
            let message = Table::parse(Path::new("p.cs"), bytes).unwrap_err().to_string();
            assert!(message.starts_with("p.cs: header: ") && message.contains(fragment), "{message}");
        };
        let with = |from: &str, to: &str| file(1, &HEADER.replace(from, to), &records());
        refused(b"\x89HDF".to_vec(), "no .npy file");
        refused(file(4, HEADER, &records()), "version 4");
        refused(file(1, HEADER, &records())[..60].to_vec(), "holds 60 bytes");
        refused(file(1, HEADER, &records()[1..]), "promises 2 records of 30 bytes, and 59 bytes follow");
        refused(with("(2,), }", "(3,), }"), "promises 3 records");
        refused(with("(2,), }", "(2, 1), }"), "one dimension");
        refused(with("(2,), }", "(99999999999999999999,)}"), "expected a dictionary");
        refused(with("'<u8'", "'|O'"), "`uid` is of type `|O`");
        refused(with("'<u8'", "[('a', '<u8')]"), "`uid` has fields of its own");
        refused(with("'|S5'", "'|S99999999999999999999'"), "`|S99999999999999999999`");
        refused(with("'|S5'", "'|S5', (9999999999999, 9999999999999)"), "`blob/path` has no shape");
        refused(with("'|S5'", "'<U5', (9999999999999, 999999)"), "impossibly large");
        refused(with("{'descr'", &"(".repeat(1000)), "expected a dictionary");
        refused(with("'shape'", "'form'"), "no entry 'shape'");
        refused(file(1, "{'descr': '<f4', 'shape': (2,)}", &[0; 8]), "no fields");
    }
}
