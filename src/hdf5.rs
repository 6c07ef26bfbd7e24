//! Bounds-checked reads of HDF5 files, and the attributes that identify this program's files.
//!
//! The HDF5 library and its bindings trust a file: they allocate the claimed size before reading a byte, take text for UTF-8, take
//! any byte for a boolean, and leave memory uninitialised for an attribute that holds no value. These functions check all of that
//! first, so that a damaged file gives an error.

use std::path::Path;

use bytemuck::AnyBitPattern;
use hdf5::dataset::Layout;
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenUnicode};
use hdf5::{Attribute, Dataset, File, Group, H5Type, IndexType, IterationOrder, LinkType, Location, Result};

use crate::error::Error;
use crate::files::{Content, first_bytes, open_input, unexpected};

/// The scalar attribute `name` of `object`.
///
/// # Errors
/// When the attribute is missing, is not a scalar or is not a number.
pub fn scalar_attribute<T: H5Type + AnyBitPattern>(object: &Location, name: &str) -> Result<T> {
    scalar(object, name)?.read_scalar()
}

/// The boolean attribute `name` of `object`.
///
/// # Errors
/// When the attribute is missing, is not a scalar, or is neither true nor false.
pub fn bool_attribute(object: &Location, name: &str) -> Result<bool> {
    match scalar(object, name)?.read_scalar()? {
        RawBool(0) => Ok(false),
        RawBool(1) => Ok(true),
        RawBool(other) => Err(format!("attribute {name} is {other}, neither true nor false").into()),
    }
}

/// The text attribute `name` of `object`.
///
/// # Errors
/// When the attribute is missing, is not a scalar, is longer than the file or is not UTF-8.
pub fn text_attribute(object: &Location, name: &str) -> Result<String> {
    if let Some(text) = fixed_text_attribute(object, name)? {
        return Ok(text);
    }
    let value: VarLenUnicode = scalar(object, name)?.read_scalar()?;
    if value.as_bytes().len() > file_length(object)? {
        return Err(format!("attribute {name} is longer than the file").into());
    }
    utf8(&value, name)
}

/// The text attribute `name` of `object` if it has a fixed length; `None` if its length is variable. Such a text is not read.
///
/// # Errors
/// When the attribute is missing, is not a scalar, is not a text, is longer than 1024 bytes or is not UTF-8.
pub fn fixed_text_attribute(object: &Location, name: &str) -> Result<Option<String>> {
    const LONGEST: usize = 1024;
    let attribute = scalar(object, name)?;
    // HDF5 does not convert between the two character sets.
    let bytes = match attribute.dtype()?.to_descriptor()? {
        TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii => return Ok(None),
        TypeDescriptor::FixedUnicode(length) if length <= LONGEST => {
            attribute.read_scalar::<FixedUnicode<LONGEST>>()?.as_bytes().to_vec()
        }
        TypeDescriptor::FixedAscii(length) if length <= LONGEST => {
            attribute.read_scalar::<FixedAscii<LONGEST>>()?.as_bytes().to_vec()
        }
        other => return Err(format!("attribute {name} has the type {other}, expected a text").into()),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| format!("attribute {name} is not UTF-8").into())
}

/// The data set `name` of `group`, whose values are in the file itself: not behind an external or soft link, in external storage or
/// in the source files of a virtual data set. A file of this program is one file.
///
/// # Errors
/// When it does not exist, is not in the file itself, or is no data set.
pub fn dataset(group: &Group, name: &str) -> Result<Dataset> {
    check_links(group, name)?;
    let set = group.dataset(name)?;
    let properties = set.dcpl()?;
    if properties.get_layout()? == Layout::Virtual {
        return Err(format!("/{name} is a virtual data set, whose values are in other files").into());
    }
    if let Some(external) = properties.get_external()?.first() {
        return Err(format!("the values of /{name} are in another file, {}", external.name).into());
    }
    Ok(set)
}

/// The group `name` of `group`, in the file itself.
///
/// # Errors
/// When it does not exist, is behind an external or soft link, or is no group.
pub fn group(group: &Group, name: &str) -> Result<Group> {
    check_links(group, name)?;
    group.group(name)
}

/// Whether `name` exists in `group`.
///
/// # Errors
/// When it is behind an external or soft link: that could lead to any file, or to a device.
pub fn exists(group: &Group, name: &str) -> Result<bool> {
    let (first, rest) = name.split_once('/').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let found = group.find_link(IndexType::Name, IterationOrder::Native, |name, link| {
        Ok((name == first).then_some(link.link_type))
    })?;
    match (found, rest) {
        (Some(LinkType::Hard), Some(rest)) => exists(&group.group(first)?, rest),
        (Some(LinkType::Hard), None) => Ok(true),
        (Some(LinkType::Soft), _) => Err(format!("{first} is a soft link, expected data").into()),
        (Some(_), _) => Err(format!("{first} is a link to another file, expected data").into()),
        (None, _) => Ok(false),
    }
}

/// Checks that every link of the path `name` exists and is a hard one.
fn check_links(group: &Group, name: &str) -> Result<()> {
    if exists(group, name)? { Ok(()) } else { Err(format!("{name} does not exist").into()) }
}

/// Tells HDF5 to open files without locks, which some parallel file systems refuse, unless the user has set
/// `HDF5_USE_FILE_LOCKING`. Outputs are renamed when they are complete, so that nobody reads a file that is being written.
///
/// # Safety
/// No other thread may be running, and HDF5 must not have been used.
pub(crate) unsafe fn disable_file_locks() {
    const VARIABLE: &str = "HDF5_USE_FILE_LOCKING";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread reads the environment, as the caller guarantees.
        unsafe { std::env::set_var(VARIABLE, "FALSE") };
    }
}

/// All values of the numeric data set `name`, flattened in C order.
///
/// # Errors
/// When the data set is missing, is not numeric, claims more bytes than the file has, or is chunked.
pub fn numeric_dataset<T: H5Type + AnyBitPattern>(group: &Group, name: &str) -> Result<Vec<T>> {
    bounded(group, name)?.read_raw()
}

/// Opens an HDF5 file that should hold `expected` ("a mixture"); a missing file gives a plain I/O error instead of HDF5's.
///
/// # Errors
/// When the file is missing, or is not HDF5: the error names what it is instead.
pub fn open(path: &Path, expected: &str, remedy: &'static str) -> crate::error::Result<File> {
    open_input(path).map_err(Error::io(path, "open the file", "check the path"))?;
    if Content::of(&first_bytes(path, 1024)?) != Content::Hdf5 {
        return Err(unexpected(path, expected, remedy)?);
    }
    File::open(path).map_err(Error::hdf5(path, "open the file as HDF5 (it may be truncated)", remedy))
}

/// What the HDF5 files of this program are, by their format, and the commands that take them.
fn known_format(format: &str) -> Option<(&'static str, &'static str)> {
    Some(match format {
        "cryosplat-particles" => (
            "a particle file",
            "give it to `train` or `backproject`; `info` describes it, and `export star` writes its STAR file",
        ),
        "cryosplat-gmm" => {
            ("a mixture", "give it to `voxelize`, `fsc`, `export gmm` or `train --init`; `info` describes it")
        }
        "cryosplat-checkpoint" => {
            ("a checkpoint of `train`", "continue its run with `train --resume`; `info` describes it")
        }
        "cryosplat-refinement" => (
            "the refinement of a run",
            "give the folder of its run to `export star --run`, `export cs --run` or `export particles --run`",
        ),
        _ => return None,
    })
}

/// An error for an HDF5 file of format `found` that should hold `expected`.
pub fn wrong_format(path: &Path, found: &str, expected: &str, remedy: &str) -> Error {
    match known_format(found) {
        Some((what, own_remedy)) => {
            Error::input(path, "", format!("is {what}, expected {expected}"), own_remedy)
        }
        None if found == "none" => {
            Error::input(path, "", format!("is an HDF5 file of another program, expected {expected}"), remedy)
        }
        None => Error::input(
            path,
            "",
            format!("is an HDF5 file of format \"{found}\", expected {expected}"),
            remedy,
        ),
    }
}

/// Writes the root attributes `format` and `version`, which identify this program's HDF5 files.
///
/// # Errors
/// When HDF5 cannot write.
pub fn write_format(file: &File, format: &str, version: u32) -> Result<()> {
    let text: VarLenUnicode = format.parse().unwrap_or_default();
    file.new_attr::<VarLenUnicode>().create("format")?.write_scalar(&text)?;
    file.new_attr::<u32>().create("version")?.write_scalar(&version)
}

/// Checks the attributes that [`write_format`] writes.
///
/// # Errors
/// When the format or the version differs.
pub fn check_format(
    file: &File,
    path: &Path,
    format: &str,
    version: u32,
    remedy: &'static str,
) -> crate::error::Result<()> {
    let found = text_attribute(file, "format").unwrap_or_else(|_| "none".into());
    if found != format {
        let expected = known_format(format).map_or(format, |(what, _)| what);
        return Err(wrong_format(path, &found, expected, remedy));
    }
    let found: u32 =
        scalar_attribute(file, "version").map_err(Error::hdf5(path, "read its version", remedy))?;
    if found != version {
        let problem = format!("is of version {found}, but this program reads version {version}");
        return Err(Error::input(path, "", problem, remedy));
    }
    Ok(())
}

/// A boolean as stored: HDF5 does not check that the byte is 0 or 1.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct RawBool(i8);

// SAFETY: HDF5 stores booleans as an enumeration of signed bytes, and every bit pattern is a valid `i8`.
unsafe impl H5Type for RawBool {
    fn type_descriptor() -> TypeDescriptor {
        TypeDescriptor::Boolean
    }
}

/// An attribute that holds exactly one value: reading one that holds none leaves memory uninitialised.
fn scalar(object: &Location, name: &str) -> Result<Attribute> {
    let attribute = object.attr(name)?;
    if attribute.is_scalar() {
        return Ok(attribute);
    }
    Err(format!("attribute {name} is not a scalar").into())
}

/// A contiguous data set that is no larger than its file: reading allocates whatever size it claims.
fn bounded(group: &Group, name: &str) -> Result<Dataset> {
    let set = dataset(group, name)?;
    let width = set.dtype()?.size();
    let bytes = set.shape().iter().try_fold(width, |bytes, &count| bytes.checked_mul(count));
    match bytes {
        // HDF5 reports an empty data set as chunked.
        Some(0) => Ok(set),
        Some(_) if set.is_chunked() => Err(format!("{name} is chunked, expected contiguous storage").into()),
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
    use hdf5::Extents;

    fn refused<T: std::fmt::Debug>(outcome: Result<T>, fragment: &str) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
    }

    fn with_file(check: impl FnOnce(&File)) {
        let folder = tempfile::tempdir().unwrap();
        check(&File::create(folder.path().join("f.h5")).unwrap());
    }

    #[test]
    fn an_attribute_without_a_value_is_refused() {
        with_file(|file| {
            let text_type = TypeDescriptor::VarLenUnicode;
            file.new_attr_builder().empty_as(&text_type).shape(Extents::Null).create("text").unwrap();
            file.new_attr::<u32>().shape(Extents::Null).create("number").unwrap();
            file.new_attr::<bool>().shape((1,)).create("flag").unwrap();
            refused(text_attribute(file, "text"), "not a scalar");
            refused(scalar_attribute::<u32>(file, "number"), "not a scalar");
            refused(bool_attribute(file, "flag"), "not a scalar");
        });
    }

    #[test]
    fn a_boolean_is_true_or_false() {
        with_file(|file| {
            let attribute = file.new_attr::<bool>().create("flag").unwrap();
            for (stored, expected) in [(0, Some(false)), (1, Some(true)), (7, None)] {
                attribute.write_scalar(&RawBool(stored)).unwrap();
                assert_eq!(bool_attribute(file, "flag").ok(), expected);
            }
        });
    }

    #[test]
    fn sizes_beyond_the_file_are_refused_before_allocation() {
        with_file(|file| {
            file.new_dataset::<f32>().shape((1usize << 40,)).create("long").unwrap();
            file.new_dataset::<f32>().shape((1usize << 40, 1usize << 20)).create("vast").unwrap();
            file.new_dataset::<f32>().chunk((4,)).shape((8,)).create("chunks").unwrap();
            refused(numeric_dataset::<f32>(file, "long"), "larger than the file");
            refused(numeric_dataset::<f32>(file, "vast"), "larger than the file");
            refused(numeric_dataset::<f32>(file, "chunks"), "is chunked");
            file.new_dataset_builder().with_data(&[0u64; 0]).create("none").unwrap();
            assert!(numeric_dataset::<u64>(file, "none").unwrap().is_empty());
        });
    }

    #[test]
    fn text_must_be_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.h5");
        let file = File::create(&path).unwrap();
        let name: VarLenUnicode = "a-name-to-find".parse().unwrap();
        file.new_attr::<VarLenUnicode>().create("text").unwrap().write_scalar(&name).unwrap();
        assert_eq!(text_attribute(&file, "text").unwrap(), "a-name-to-find");
        file.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"a-name-to-find")).collect();
        assert_eq!(places.len(), 1);
        places.into_iter().for_each(|at| bytes[at] = 0xff);
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        refused(text_attribute(&file, "text"), "not UTF-8");
    }

    /// HDF5's error message then quotes the name.
    #[test]
    fn names_that_are_not_utf8_give_an_error_message_in_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.h5");
        let file = File::create(&path).unwrap();
        file.new_attr::<bool>().create("flag").unwrap().write_scalar(&true).unwrap();
        file.close().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.windows(5).position(|window| window == b"FALSE").unwrap();
        bytes[place..place + 3].copy_from_slice(b"\xf8\xff\n");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        let error = bool_attribute(&file, "flag").map_err(Error::hdf5(&path, "read", "copy it again"));
        let message = error.unwrap_err().to_string().into_bytes();
        assert!(std::str::from_utf8(&message).is_ok_and(|text| !text.contains('\n')), "{message:?}");
    }

    #[test]
    fn texts_of_fixed_length_are_read_and_others_left_alone() {
        with_file(|file| {
            let fixed: FixedUnicode<8> = "short".parse().unwrap();
            file.new_attr::<FixedUnicode<8>>().create("fixed").unwrap().write_scalar(&fixed).unwrap();
            let ascii = FixedAscii::<8>::from_ascii("plain").unwrap();
            file.new_attr::<FixedAscii<8>>().create("ascii").unwrap().write_scalar(&ascii).unwrap();
            let variable: VarLenUnicode = "short".parse().unwrap();
            file.new_attr::<VarLenUnicode>().create("variable").unwrap().write_scalar(&variable).unwrap();
            file.new_attr::<u32>().create("number").unwrap().write_scalar(&1).unwrap();
            assert_eq!(fixed_text_attribute(file, "fixed").unwrap().as_deref(), Some("short"));
            assert_eq!(fixed_text_attribute(file, "ascii").unwrap().as_deref(), Some("plain"));
            assert_eq!(fixed_text_attribute(file, "variable").unwrap(), None);
            assert_eq!(["fixed", "variable"].map(|name| text_attribute(file, name).unwrap()), ["short"; 2]);
            refused(fixed_text_attribute(file, "number"), "expected a text");
        });
    }
}
