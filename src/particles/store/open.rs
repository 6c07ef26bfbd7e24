//! Opening a particle file: what HDF5 says of it, checked against the documented layout.

use std::fs::File;
use std::path::Path;

use hdf5::datatype::ByteOrder;

use super::columns::{self, CHECKSUM, COLUMNS, ENERGY, HALF, Kind, Places, Shape};
use super::reader::{Reader, stream};
use super::{Dtype, FORMAT, Header, REMEDY_READ, VERSION, place};
use crate::error::{Error, Result};
use crate::hdf5::{bool_attribute, numeric_dataset, scalar_attribute, text_attribute, text_dataset};
use crate::imaging::ctf::Optics;

/// Opens and checks `path`.
pub fn open(path: &Path) -> Result<Reader> {
    let plain = || File::open(path).map_err(Error::io(path, "open the particle set", "check the path"));
    plain()?;
    let (mut header, dtype, places) = read_layout(path)?;
    let file = plain()?;
    header.halves = count_halves(path, &file, places.half, header.halves[0])?;
    header.check(path)?;
    Ok(Reader::new(path, file, header, dtype, places))
}

fn bad<T>(path: &Path, at: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::input(path, at, problem, REMEDY_READ))
}

/// Everything that HDF5 is needed for. All particles are in the header's first half yet.
fn read_layout(path: &Path) -> Result<(Header, Dtype, Places)> {
    let fail =
        || Error::hdf5(path, "read the particle set (is it cut short, or no particle file?)", REMEDY_READ);
    let file = hdf5::File::open(path).map_err(fail())?;
    let format = text_attribute(&file, "format");
    if format.as_deref().ok() != Some(FORMAT) {
        return bad(path, "", "is an HDF5 file, but no particle set of this program");
    }
    let version: u32 = scalar_attribute(&file, "version").map_err(fail())?;
    if version != VERSION {
        return bad(
            path,
            "",
            format!("is a particle set of version {version}, and this program reads version {VERSION}"),
        );
    }

    let images = dataset(path, &file, "images")?;
    let shape = images.shape();
    let [n, height, width] = shape[..] else {
        return bad(path, "/images", format!("has the shape {shape:?}, expected (n, D, D)"));
    };
    if height != width {
        return bad(path, "/images", format!("are {width} x {height} pixels, expected square ones"));
    }
    if n == 0 {
        return bad(path, "/images", "holds no particles");
    }
    let halved = images.dtype().and_then(|d| d.to_descriptor()).map_err(fail())? == Kind::F16.descriptor();
    let dtype = if halved { Dtype::F16 } else { Dtype::F32 };

    let length = std::fs::metadata(path).map_err(Error::io(path, "read its length", "check the path"))?.len();
    let locate = |shape: Shape| locate(path, &file, length, &shape, n);
    let mut columns = [0; COLUMNS.len()];
    for (place, column) in columns.iter_mut().zip(&COLUMNS) {
        *place = locate(column.shape)?;
    }
    let places = Places {
        images: locate(columns::images(dtype, &[width; 2]))?,
        half: locate(HALF)?,
        checksum: locate(CHECKSUM)?,
        energy: locate(ENERGY)?,
        columns,
    };
    let header = Header {
        box_size: width,
        pixel_size: scalar_attribute(&images, "pixel_size").map_err(fail())?,
        normalized: bool_attribute(&images, "normalized").map_err(fail())?,
        inverted: bool_attribute(&images, "inverted").map_err(fail())?,
        optics: read_optics(path, &file)?,
        halves: [n, 0],
        source_files: text_dataset(&file, "source/files").map_err(fail())?,
    };
    Ok((header, dtype, places))
}

fn dataset(path: &Path, file: &hdf5::File, name: &str) -> Result<hdf5::Dataset> {
    if !file.link_exists(name) {
        return bad(path, &format!("/{name}"), "is not there");
    }
    file.dataset(name).map_err(Error::hdf5(path, "read the metadata", REMEDY_READ))
}

/// Where a data set lies, which must be as `expected` of `n` particles, in one piece, and within the file's `length` bytes.
fn locate(path: &Path, file: &hdf5::File, length: u64, expected: &Shape, n: usize) -> Result<u64> {
    let at = format!("/{}", expected.name);
    let set = dataset(path, file, expected.name)?;
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    let kind = set.dtype().map_err(fail())?;
    let (found, wanted) = (kind.to_descriptor().map_err(fail())?, expected.kind.descriptor());
    if found != wanted {
        let wanted = if expected.name == "images" { "float32 or float16".into() } else { wanted.to_string() };
        return bad(path, &at, format!("holds numbers of type {found}, expected {wanted}"));
    }
    if expected.kind.width() > 1 && kind.byte_order() != ByteOrder::LittleEndian {
        return bad(path, &at, "holds big-endian numbers, expected little-endian ones");
    }
    let (found, wanted) = (set.shape(), expected.of(n));
    if found != wanted {
        return bad(path, &at, format!("has the shape {found:?}, expected {wanted:?}"));
    }
    let Some(offset) = set.offset() else {
        return bad(path, &at, "is stored in chunks, expected one contiguous piece");
    };
    // What follows takes sizes for memory and offsets for places: none may lie outside of the file.
    let bytes = wanted.iter().try_fold(expected.kind.width() as u64, |bytes, &n| bytes.checked_mul(n as u64));
    match bytes.and_then(|bytes| bytes.checked_add(offset)) {
        Some(end) if end <= length => Ok(offset),
        _ => bad(path, &at, format!("of shape {wanted:?} reaches past the file's end")),
    }
}

fn read_optics(path: &Path, file: &hdf5::File) -> Result<Vec<Optics>> {
    let column = |name: &str| -> Result<Vec<f64>> {
        numeric_dataset(file, name).map_err(Error::hdf5(path, "read the metadata", REMEDY_READ))
    };
    let voltage = column("optics/voltage")?;
    let aberration = column("optics/spherical_aberration")?;
    let contrast = column("optics/amplitude_contrast")?;
    if aberration.len() != voltage.len() || contrast.len() != voltage.len() {
        return bad(path, "/optics", "has columns of different lengths");
    }
    let groups = voltage.into_iter().zip(aberration).zip(contrast);
    Ok(groups
        .map(|((voltage, spherical_aberration), amplitude_contrast)| Optics {
            voltage,
            spherical_aberration,
            amplitude_contrast,
        })
        .collect())
}

/// Particles of each half, which must follow each other.
fn count_halves(path: &Path, file: &File, at: u64, n: usize) -> Result<[usize; 2]> {
    let mut halves = [0, 0];
    let mut outcome = Ok(());
    stream(path, file, at, n * HALF.stride(), |bytes| {
        for &half in bytes {
            let row = halves[0] + halves[1];
            if outcome.is_err() {
                return;
            }
            match half {
                0 if halves[1] > 0 => {
                    outcome = bad(
                        path,
                        &place(row),
                        "is of half 1 and comes after particles of half 2: the particles are not sorted by half",
                    );
                }
                0 | 1 => halves[usize::from(half)] += 1,
                _ => outcome = bad(path, &place(row), format!("its half is {half}, expected 0 or 1")),
            }
        }
    })?;
    outcome.map(|()| halves)
}
