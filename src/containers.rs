//! Values in HDF5 files, believed no further than the file reaches.
//!
//! The library and its bindings take a file at its word: a size becomes memory before a byte is read, text is taken for UTF-8,
//! a byte for a truth, and an attribute without a value for one. Here all of these are looked at first.

use bytemuck::AnyBitPattern;
use hdf5::types::{TypeDescriptor, VarLenUnicode};
use hdf5::{Attribute, Dataset, Group, H5Type, Location, Result};

/// The number in the attribute `name` of `object`.
///
/// # Errors
/// When it is not there, not one value, or no number.
pub fn number<T: H5Type + AnyBitPattern>(object: &Location, name: &str) -> Result<T> {
    single(object, name)?.read_scalar()
}

/// The truth in the attribute `name` of `object`.
///
/// # Errors
/// When it is not there, not one value, or neither true nor false.
pub fn truth(object: &Location, name: &str) -> Result<bool> {
    match single(object, name)?.read_scalar()? {
        Truth(0) => Ok(false),
        Truth(1) => Ok(true),
        Truth(other) => Err(format!("attribute {name} is {other}, neither true nor false").into()),
    }
}

/// The text in the attribute `name` of `object`.
///
/// # Errors
/// When it is not there, not one value, longer than the file, or no text in UTF-8.
pub fn text(object: &Location, name: &str) -> Result<String> {
    let value: VarLenUnicode = single(object, name)?.read_scalar()?;
    if value.as_bytes().len() > file_length(object)? {
        return Err(format!("attribute {name} is longer than the file").into());
    }
    utf8(&value, name)
}

/// All numbers of the data set `name`.
///
/// # Errors
/// When it is not there, holds no numbers, claims more than the file could hold, or is stored in chunks.
pub fn numbers<T: H5Type + AnyBitPattern>(group: &Group, name: &str) -> Result<Vec<T>> {
    bounded(group, name)?.read_raw()
}

/// All texts of the data set `name`, which has one dimension.
///
/// # Errors
/// As [`numbers`], and when one is not UTF-8, or they name the same bytes of the file again and again.
pub fn texts(group: &Group, name: &str) -> Result<Vec<String>> {
    const AT_A_TIME: usize = 64;
    let set = bounded(group, name)?;
    let (count, mut left) = (set.size(), file_length(&set)?);
    if set.ndim() != 1 {
        return Err(format!("{name} has {} dimensions, expected 1", set.ndim()).into());
    }
    let mut texts = Vec::new();
    for first in (0..count).step_by(AT_A_TIME) {
        let some = set.read_slice_1d::<VarLenUnicode, _>(first..count.min(first + AT_A_TIME))?;
        for value in &some {
            let enough = left.checked_sub(value.as_bytes().len());
            left = enough.ok_or_else(|| format!("{name} holds more text than the file"))?;
            texts.push(utf8(value, name)?);
        }
    }
    Ok(texts)
}

/// A truth as it is stored: HDF5 does not check that it is one.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Truth(i8);

// SAFETY: HDF5 stores truths as an enumeration of signed bytes, and any byte is one.
unsafe impl H5Type for Truth {
    fn type_descriptor() -> TypeDescriptor {
        TypeDescriptor::Boolean
    }
}

/// An attribute with one value: of one with none, reading leaves what was in memory.
fn single(object: &Location, name: &str) -> Result<Attribute> {
    let attribute = object.attr(name)?;
    if attribute.is_scalar() {
        return Ok(attribute);
    }
    Err(format!("attribute {name} is not one value").into())
}

/// A data set that is no larger than its file: memory is taken for as much as it claims to hold.
fn bounded(group: &Group, name: &str) -> Result<Dataset> {
    let set = group.dataset(name)?;
    let width = set.dtype()?.size();
    let bytes = set.shape().iter().try_fold(width, |bytes, &count| bytes.checked_mul(count));
    match bytes {
        // What is empty is always stored in chunks, none of them.
        Some(0) => Ok(set),
        Some(_) if set.is_chunked() => Err(format!("{name} is stored in chunks, expected one piece").into()),
        Some(bytes) if bytes <= file_length(&set)? => Ok(set),
        _ => Err(format!("{name} of shape {:?} is larger than the file", set.shape()).into()),
    }
}

fn file_length(object: &Location) -> Result<usize> {
    Ok(object.file()?.size() as usize)
}

fn utf8(value: &VarLenUnicode, name: &str) -> Result<String> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| format!("{name} holds text that is not UTF-8").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5::{Extents, File};

    fn refused<T: std::fmt::Debug>(outcome: Result<T>, fragment: &str) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
    }

    fn with_file(check: impl FnOnce(&File)) {
        let folder = tempfile::tempdir().unwrap();
        check(&File::create(folder.path().join("f.h5")).unwrap());
    }

    #[test]
    fn an_attribute_without_a_value_is_none() {
        with_file(|file| {
            let text_type = TypeDescriptor::VarLenUnicode;
            file.new_attr_builder().empty_as(&text_type).shape(Extents::Null).create("text").unwrap();
            file.new_attr::<u32>().shape(Extents::Null).create("number").unwrap();
            file.new_attr::<bool>().shape((1,)).create("truth").unwrap();
            refused(text(file, "text"), "not one value");
            refused(number::<u32>(file, "number"), "not one value");
            refused(truth(file, "truth"), "not one value");
        });
    }

    #[test]
    fn a_truth_is_true_or_false() {
        with_file(|file| {
            let attribute = file.new_attr::<bool>().create("truth").unwrap();
            for (stored, expected) in [(0, Some(false)), (1, Some(true)), (7, None)] {
                attribute.write_scalar(&Truth(stored)).unwrap();
                assert_eq!(truth(file, "truth").ok(), expected);
            }
        });
    }

    #[test]
    fn sizes_beyond_the_file_take_no_memory() {
        with_file(|file| {
            file.new_dataset::<f32>().shape((1usize << 40,)).create("long").unwrap();
            file.new_dataset::<f32>().shape((1usize << 40, 1usize << 20)).create("vast").unwrap();
            file.new_dataset::<f32>().chunk((4,)).shape((8,)).create("chunks").unwrap();
            file.new_dataset::<VarLenUnicode>().shape((1usize << 40,)).create("texts").unwrap();
            refused(numbers::<f32>(file, "long"), "larger than the file");
            refused(numbers::<f32>(file, "vast"), "larger than the file");
            refused(numbers::<f32>(file, "chunks"), "in chunks");
            file.new_dataset_builder().with_data(&[0u64; 0]).create("none").unwrap();
            assert!(numbers::<u64>(file, "none").unwrap().is_empty());
            refused(texts(file, "texts"), "larger than the file");
        });
    }

    #[test]
    fn text_is_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.h5");
        let file = File::create(&path).unwrap();
        let name: VarLenUnicode = "a-name-to-find".parse().unwrap();
        file.new_dataset_builder().with_data(std::slice::from_ref(&name)).create("texts").unwrap();
        file.new_attr::<VarLenUnicode>().create("text").unwrap().write_scalar(&name).unwrap();
        assert_eq!(texts(&file, "texts").unwrap(), ["a-name-to-find"]);
        assert_eq!(text(&file, "text").unwrap(), "a-name-to-find");
        file.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"a-name-to-find")).collect();
        assert_eq!(places.len(), 2);
        places.into_iter().for_each(|at| bytes[at] = 0xff);
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        refused(texts(&file, "texts"), "not UTF-8");
        refused(text(&file, "text"), "not UTF-8");
    }
    /// The library's own words then have the names in them.
    #[test]
    fn names_that_are_not_utf8_are_errors_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.h5");
        let file = File::create(&path).unwrap();
        file.new_attr::<bool>().create("truth").unwrap().write_scalar(&true).unwrap();
        file.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.windows(5).position(|window| window == b"FALSE").unwrap();
        bytes[place..place + 3].copy_from_slice(b"\xf8\xff\n");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        let error = truth(&file, "truth").map_err(crate::error::Error::hdf5(&path, "read", "copy it again"));
        let message = error.unwrap_err().to_string().into_bytes();
        assert!(std::str::from_utf8(&message).is_ok_and(|text| !text.contains('\n')), "{message:?}");
    }

    #[test]
    fn texts_that_are_named_again_and_again_take_no_more_memory_than_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.h5");
        let file = File::create(&path).unwrap();
        let mut names: Vec<VarLenUnicode> = vec!["short".parse().unwrap(); 20];
        names[0] = "long".repeat(800).parse().unwrap();
        let place = file.new_dataset_builder().with_data(&names).create("texts").unwrap().offset().unwrap();
        assert_eq!(texts(&file, "texts").unwrap().len(), 20);
        file.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        // A text's place: its length in 4 bytes, the heap's address in 8, its number there in 4.
        for index in 1..20 {
            bytes.copy_within(place as usize..place as usize + 16, place as usize + 16 * index);
        }
        std::fs::write(&path, bytes).unwrap();
        refused(texts(&File::open(&path).unwrap(), "texts"), "more text than the file");
    }
}
