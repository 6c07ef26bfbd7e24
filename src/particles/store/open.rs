//! Opens a particle file and checks it against the documented layout.

use std::fs::File;
use std::path::Path;

use hdf5::datatype::ByteOrder;

use super::columns::{
    self, APPLIED_SHIFT, CHECKSUM, COLUMNS, DataSetLayout, ENERGY, HALF, NumberType, Offsets,
};
use super::reader::{Layout, Reader, stream};
use super::{
    Dtype, FORMAT, Header, IMPORT, IMPORTED_FROM, OLDEST_VERSION, REMEDY_READ, VERSION, particle_name, texts,
};
use crate::error::{Error, Result};
use crate::files;
use crate::hdf5::{
    bool_attribute, exists, fixed_text_attribute, numeric_dataset, open as open_hdf5, scalar_attribute,
    wrong_format,
};
use crate::imaging::ctf::{EvenPolynomial, Optics};

const REMEDY_GIVE: &str = "give a particle file that `import` or `simulate` wrote";

/// Opens and checks `path`.
pub fn open(path: &Path) -> Result<Reader> {
    let plain =
        || files::open_input(path).map_err(Error::io(path, "open the particle set", "check the path"));
    let file = plain()?;
    let mut layout = read_layout(path, &file)?;
    let all = layout.header.halves[0];
    layout.header.halves = count_halves(path, &file, layout.offsets.half, all)?;
    layout.header.check(path)?;
    Ok(Reader::new(path, file, layout))
}

fn bad<T>(path: &Path, at: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::input(path, at, problem, REMEDY_READ))
}

/// Reads everything that needs HDF5. The header counts all particles in half 1; [`count_halves`] corrects that.
fn read_layout(path: &Path, plain: &File) -> Result<Layout> {
    let fail = || {
        Error::hdf5(path, "read the particle set (it may be truncated, or not a particle file)", REMEDY_READ)
    };
    let file = open_hdf5(path, "a particle file", REMEDY_GIVE)?;
    // None for a text of variable length, as in version 2: it is not read, since a damaged one ends the process inside HDF5.
    let format = fixed_text_attribute(&file, "format");
    let found = match &format {
        Ok(Some(found)) => found.as_str(),
        Ok(None) if file.link_exists("images") => FORMAT,
        Ok(None) if file.link_exists("mean_x") => "cryosplat-gmm",
        Ok(None) if file.attr("identity").is_ok() => "cryosplat-checkpoint",
        Ok(None) | Err(_) => "none",
    };
    if found != FORMAT {
        return Err(wrong_format(path, found, "a particle file", REMEDY_GIVE));
    }
    let version: u32 = scalar_attribute(&file, "version").map_err(fail())?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return bad(
            path,
            "",
            format!(
                "is a particle file of version {version}, expected version {OLDEST_VERSION} to {VERSION}"
            ),
        );
    }
    if matches!(format, Ok(None)) && version > OLDEST_VERSION {
        return bad(path, "", "is an HDF5 file, but not a particle file of this program");
    }

    let images = dataset(path, &file, "images")?;
    let shape = images.shape();
    let [n, height, width] = shape[..] else {
        return bad(path, "/images", format!("has shape {shape:?}, expected (n, D, D)"));
    };
    if height != width {
        return bad(path, "/images", format!("are {width} x {height} pixels, expected square images"));
    }
    if n == 0 {
        return bad(path, "/images", "is empty");
    }
    let halved =
        images.dtype().and_then(|d| d.to_descriptor()).map_err(fail())? == NumberType::F16.descriptor();
    let dtype = if halved { Dtype::F16 } else { Dtype::F32 };

    let length = std::fs::metadata(path).map_err(Error::io(path, "read its length", "check the path"))?.len();
    let locate = |shape: DataSetLayout| locate(path, &file, length, &shape, n);
    let mut columns = [0; COLUMNS.len()];
    for (place, column) in columns.iter_mut().zip(&COLUMNS) {
        *place = locate(column.shape)?;
    }
    let offsets = Offsets {
        images: locate(columns::images(dtype, &[width; 2]))?,
        half: locate(HALF)?,
        checksum: locate(CHECKSUM)?,
        energy: locate(ENERGY)?,
        columns,
        import: None,
        applied_shift: file.link_exists(APPLIED_SHIFT.name).then(|| locate(APPLIED_SHIFT)).transpose()?,
    };
    let header = Header {
        box_size: width,
        pixel_size: scalar_attribute(&images, "pixel_size").map_err(fail())?,
        normalized: bool_attribute(&images, "normalized").map_err(fail())?,
        inverted: bool_attribute(&images, "inverted").map_err(fail())?,
        optics: read_optics(path, &file, plain, version)?,
        halves: [n, 0],
        source_files: texts::read(&file, plain, "source/files").map_err(fail())?,
        imported_from: match file.attr(IMPORTED_FROM) {
            Ok(_) => fixed_text_attribute(&file, IMPORTED_FROM).map_err(fail())?,
            Err(_) => None,
        },
    };
    let import = match file.link_exists(IMPORT) {
        true => texts::read(&file, plain, IMPORT).map_err(fail())?,
        false => Vec::new(),
    };
    let import = import.into_iter().filter(|line| !line.is_empty()).collect();
    Ok(Layout { header, dtype, offsets, import })
}

fn dataset(path: &Path, file: &hdf5::File, name: &str) -> Result<hdf5::Dataset> {
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    if !exists(file, name).map_err(fail())? {
        return bad(path, &format!("/{name}"), "does not exist");
    }
    crate::hdf5::dataset(file, name).map_err(fail())
}

/// The offset of a data set. Checks that it has the `expected` layout for `n` particles, is contiguous, and lies within the
/// `length` bytes of the file.
fn locate(path: &Path, file: &hdf5::File, length: u64, expected: &DataSetLayout, n: usize) -> Result<u64> {
    let at = format!("/{}", expected.name);
    let set = dataset(path, file, expected.name)?;
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    let number_type = set.dtype().map_err(fail())?;
    let (found, wanted) = (number_type.to_descriptor().map_err(fail())?, expected.number_type.descriptor());
    if found != wanted {
        let wanted = if expected.name == "images" { "float32 or float16".into() } else { wanted.to_string() };
        return bad(path, &at, format!("has numbers of type {found}, expected {wanted}"));
    }
    if expected.number_type.width() > 1 && number_type.byte_order() != ByteOrder::LittleEndian {
        return bad(path, &at, "has big-endian numbers, expected little-endian");
    }
    let (found, wanted) = (set.shape(), expected.shape(n));
    if found != wanted {
        return bad(path, &at, format!("has shape {found:?}, expected {wanted:?}"));
    }
    let Some(offset) = set.offset() else {
        return bad(path, &at, "is chunked, expected contiguous storage");
    };
    // Readers allocate by this size and read at this offset, so both must lie within the file.
    let bytes =
        wanted.iter().try_fold(expected.number_type.width() as u64, |bytes, &n| bytes.checked_mul(n as u64));
    match bytes.and_then(|bytes| bytes.checked_add(offset)) {
        Some(end) if end <= length => Ok(offset),
        _ => bad(path, &at, format!("with shape {wanted:?} extends past the end of the file")),
    }
}

fn read_optics(path: &Path, file: &hdf5::File, plain: &File, version: u32) -> Result<Vec<Optics>> {
    let fail = || Error::hdf5(path, "read the metadata", REMEDY_READ);
    let voltage: Vec<f64> = numeric_dataset(file, "optics/voltage").map_err(fail())?;
    let groups = voltage.len();
    let different = || Error::input(path, "/optics", "has columns of different lengths", REMEDY_READ);
    // `width` numbers for each group.
    let column = |name: &str, width: usize| -> Result<Vec<f64>> {
        let values: Vec<f64> = numeric_dataset(file, &format!("optics/{name}")).map_err(fail())?;
        if values.len() == width * groups { Ok(values) } else { Err(different()) }
    };
    let (aberration, contrast) = (column("spherical_aberration", 1)?, column("amplitude_contrast", 1)?);
    let mut optics: Vec<Optics> =
        (0..groups).map(|i| Optics::new(voltage[i], aberration[i], contrast[i])).collect();
    if version == OLDEST_VERSION {
        return Ok(optics);
    }
    let names = texts::read(file, plain, "optics/name").map_err(fail())?;
    let premultiplied: Vec<u8> = numeric_dataset(file, "optics/premultiplied").map_err(fail())?;
    let (even, magnification) = (column("even_aberration", 9)?, column("magnification", 4)?);
    let limits = column("resolution_limit", 1)?;
    if names.len() != groups || premultiplied.len() != groups {
        return Err(different());
    }
    for (i, (optics, name)) in optics.iter_mut().zip(names).enumerate() {
        optics.name = name;
        optics.even = EvenPolynomial(std::array::from_fn(|k| even[9 * i + k]));
        optics.magnification = [0, 2].map(|row| [magnification[4 * i + row], magnification[4 * i + row + 1]]);
        optics.resolution_limit = limits[i];
        optics.premultiplied = match premultiplied[i] {
            0 => false,
            1 => true,
            other => {
                let problem = format!("is {other} for optics group {}, expected 0 or 1", i + 1);
                return bad(path, "/optics/premultiplied", problem);
            }
        };
    }
    Ok(optics)
}

/// Counts the particles of each half. Checks that half 1 precedes half 2.
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
                        &particle_name(row),
                        "is in half 1 but follows particles of half 2: the particles are not sorted by half",
                    );
                }
                0 | 1 => halves[usize::from(half)] += 1,
                _ => outcome = bad(path, &particle_name(row), format!("the half is {half}, expected 0 or 1")),
            }
        }
    })?;
    outcome.map(|()| halves)
}
