//! Texts in a particle file.
//!
//! Texts have a fixed length, and are read and written at known offsets like the particles. Files of version 2 have texts of
//! variable length, which HDF5 keeps in heaps; a damaged heap ends the process inside the HDF5 library. They are read here from
//! the bytes of the file (HDF5 File Format Specification 3.0, sections III.E and IV.A.2.j), with every length checked.

use std::fs::File;
use std::os::unix::fs::FileExt;

use hdf5::plist::dataset_create::{AllocTime, FillTime};
use hdf5::types::TypeDescriptor;

/// Longest text in bytes: that of a path.
const LONGEST: usize = 4096;
/// Bytes of a reference to a text of variable length: length (4), address of the heap (8), index in the heap (4).
const REFERENCE: usize = 16;

/// A data set of texts that are still to be written.
#[derive(Debug)]
pub struct PendingTexts {
    offset: u64,
    bytes: Vec<u8>,
}

impl PendingTexts {
    /// Writes the texts to the file, which HDF5 has closed.
    pub fn write(&self, file: &File) -> std::io::Result<()> {
        file.write_all_at(&self.bytes, self.offset)
    }
}

/// Creates the data set `name` for `texts`: fixed length, padded with NUL.
pub fn create(file: &hdf5::File, name: &str, texts: &[String]) -> hdf5::Result<PendingTexts> {
    let texts: Vec<&str> = texts.iter().map(|text| text.split('\0').next().unwrap_or("")).collect();
    let width = texts.iter().map(|text| text.len()).max().unwrap_or(0).max(1);
    if width > LONGEST {
        return Err(format!("a text of /{name} has {width} bytes, expected at most {LONGEST}").into());
    }
    let set = file.new_dataset_builder().empty_as(TypeDescriptor::FixedUnicode(width));
    let set = set.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never).shape((texts.len(),));
    let set = set.create(name)?;
    let mut bytes = vec![0; width * texts.len()];
    for (place, text) in bytes.chunks_exact_mut(width).zip(texts) {
        place[..text.len()].copy_from_slice(text.as_bytes());
    }
    // HDF5 allocates nothing for a data set without entries.
    let offset = set.offset().filter(|_| !bytes.is_empty()).unwrap_or(0);
    Ok(PendingTexts { offset, bytes })
}

/// Creates the data set `name` for `count` texts of up to `width` bytes that are written later ([`padded`]). Returns its offset.
pub fn reserve(file: &hdf5::File, name: &str, count: usize, width: usize) -> hdf5::Result<u64> {
    let set = file.new_dataset_builder().empty_as(TypeDescriptor::FixedUnicode(width));
    let set = set.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never).shape((count,));
    let set = set.create(name)?;
    set.offset().ok_or_else(|| hdf5::Error::from(format!("/{name} has no offset in the file")))
}

/// The bytes of the first `count` of `texts`, each cut or padded with NUL to `width` bytes.
pub fn padded(texts: &[String], count: usize, width: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * width];
    for (place, text) in bytes.chunks_exact_mut(width).zip(texts) {
        let end = (0..=width.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        place[..end].copy_from_slice(&text.as_bytes()[..end]);
    }
    bytes
}

/// The texts of the data set `name`, from the bytes of `file`, whose HDF5 structure is open as `set_file`.
///
/// # Errors
/// If the data set is missing, is not one-dimensional or contiguous, does not hold texts, extends past the end of the file, or
/// has a text that is not UTF-8.
pub fn read(set_file: &hdf5::File, file: &File, name: &str) -> hdf5::Result<Vec<String>> {
    let set = crate::hdf5::dataset(set_file, name)?;
    let refuse = |problem: &str| Err::<Vec<String>, hdf5::Error>(format!("/{name} {problem}").into());
    let &[count] = &set.shape()[..] else { return refuse("is not one-dimensional") };
    if count == 0 {
        return Ok(Vec::new());
    }
    let (width, variable) = match set.dtype()?.to_descriptor()? {
        TypeDescriptor::FixedUnicode(width) | TypeDescriptor::FixedAscii(width) => (width, false),
        TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii => (REFERENCE, true),
        other => return refuse(&format!("has the type {other}, expected texts")),
    };
    let Some(offset) = set.offset().filter(|_| !set.is_chunked()) else {
        return refuse("is not contiguous");
    };
    let Some(bytes) = count.checked_mul(width).and_then(|bytes| piece(file, offset, bytes)) else {
        return refuse("extends past the end of the file");
    };
    // References may share a text: together they are no longer than the file.
    let mut budget = file.metadata().map_or(0, |metadata| metadata.len() as usize);
    let mut texts = Vec::new();
    for entry in bytes.chunks_exact(width) {
        let text = if variable { from_heap(file, entry) } else { Some(entry.to_vec()) };
        let Some(text) = text.filter(|text| text.len() <= LONGEST) else {
            return refuse("holds a text that cannot be read");
        };
        match budget.checked_sub(text.len()) {
            Some(rest) => budget = rest,
            None => return refuse("holds more text than the file"),
        }
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        match std::str::from_utf8(&text[..end]) {
            Ok(text) => texts.push(text.to_owned()),
            Err(_) => return refuse("holds a text that is not UTF-8"),
        }
    }
    Ok(texts)
}

/// `length` bytes of the file from `offset` on; `None` past its end.
fn piece(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let end = offset.checked_add(length as u64)?;
    if end > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// Little-endian number in up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The text of variable length that `reference` refers to.
fn from_heap(file: &File, reference: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 16;
    let length = number(&reference[..4]) as usize;
    let (heap, index) = (number(&reference[4..12]), number(&reference[12..16]));
    if length == 0 {
        return Some(Vec::new());
    }
    let header = piece(file, heap, HEADER)?;
    if !header.starts_with(b"GCOL\x01") {
        return None;
    }
    let size = number(&header[8..16]);
    let mut at = HEADER as u64;
    // An object: index (2), references (2), reserved (4), size (8), then its bytes, padded to a multiple of 8.
    while at.checked_add(HEADER as u64)? <= size {
        let object = piece(file, heap.checked_add(at)?, HEADER)?;
        let (number_of, bytes) = (number(&object[..2]), number(&object[8..16]));
        if number_of == 0 {
            return None;
        }
        let data = at + HEADER as u64;
        if number_of == index {
            let inside = data.checked_add(bytes)? <= size && length as u64 <= bytes && length <= LONGEST;
            return inside.then(|| piece(file, heap.checked_add(data)?, length)).flatten();
        }
        at = data.checked_add(bytes.checked_next_multiple_of(8)?)?;
    }
    None
}
