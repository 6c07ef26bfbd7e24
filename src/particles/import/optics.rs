//! Optics groups, from the optics table of RELION 3.1 or the columns of a 3.0 file, and aberrations that are not modelled.

use std::collections::HashMap;

use super::columns::{Column, Cursor, find, require};
use super::star::{Document, Table};
use crate::error::{Error, Result};
use crate::imaging::ctf::Optics;

/// Relative difference up to which two pixel sizes are equal: files differ in the number of digits.
pub const PIXEL_SIZE_TOLERANCE: f64 = 1e-5;

const NO_CTF: &str = "import particles with CTF parameters (after CTF estimation and extraction)";

/// An optics group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name in error messages.
    pub label: String,
    /// The microscope.
    pub optics: Optics,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Box size in pixels, if the file has it.
    pub image_size: Option<usize>,
}

/// The columns that describe the microscope, in either version.
#[derive(Clone, Copy, Debug)]
struct Microscope {
    voltage: Column,
    aberration: Column,
    contrast: Column,
}

impl Microscope {
    fn find(document: &Document, table: &Table) -> Result<Self> {
        let column = |label| required_for_ctf(document, table, label);
        Ok(Self {
            voltage: column("_rlnVoltage")?,
            aberration: column("_rlnSphericalAberration")?,
            contrast: column("_rlnAmplitudeContrast")?,
        })
    }

    fn read(&self, row: &Cursor) -> Result<Optics> {
        let amplitude_contrast = row.number(self.contrast)?;
        if !(0.0..=1.0).contains(&amplitude_contrast) {
            return Err(row.refuse(self.contrast, "a fraction from 0 to 1"));
        }
        Ok(Optics::new(row.positive(self.voltage)?, row.number(self.aberration)?, amplitude_contrast))
    }
}

/// The column `label`, which the CTF requires.
pub fn required_for_ctf(document: &Document, table: &Table, label: &'static str) -> Result<Column> {
    find(table, label).ok_or_else(|| {
        Error::input(
            document.path(),
            format!("line {}", table.line()),
            format!("the particles have no CTF: data_{} has no column {label}", table.name()),
            NO_CTF,
        )
    })
}

/// Reads the optics table of RELION 3.1 and later. Returns its groups, and the index of each by `_rlnOpticsGroup`.
pub fn read_table(document: &Document, table: &Table) -> Result<(Vec<Group>, HashMap<i64, u32>)> {
    let number = require(document, table, "_rlnOpticsGroup")?;
    let microscope = Microscope::find(document, table)?;
    let pixel_size = require(document, table, "_rlnImagePixelSize")?;
    let name = find(table, "_rlnOpticsGroupName");
    let image_size = find(table, "_rlnImageSize");
    let dimensions = find(table, "_rlnImageDimensionality");
    let premultiplied = find(table, "_rlnCtfDataAreCtfPremultiplied");

    let mut groups = Vec::with_capacity(table.len());
    let mut places = HashMap::new();
    let mut row = Cursor::new(document, table);
    while row.advance()? {
        let index = groups.len();
        let id = row.integer(number)?;
        if places.insert(id, index as u32).is_some() {
            return Err(
                row.error(format!("optics group {id} occurs twice"), "give each optics group its own number")
            );
        }
        if let Some(column) = dimensions
            && row.integer(column)? != 2
        {
            return Err(row.refuse(column, "2: images, not subtomograms"));
        }
        if let Some(column) = premultiplied
            && row.integer(column)? != 0
        {
            return Err(row.error(
                format!(
                    "the images of optics group {id} are premultiplied by their CTF ({} is 1)",
                    column.label
                ),
                "extract the particles without CTF premultiplication",
            ));
        }
        let image_size = match image_size {
            None => None,
            Some(column) => Some(
                usize::try_from(row.integer(column)?)
                    .ok()
                    .filter(|&size| size > 0)
                    .ok_or_else(|| row.refuse(column, "a size in pixels"))?,
            ),
        };
        let label = match name {
            Some(column) => format!("{id} ({})", row.text(column)),
            None => id.to_string(),
        };
        groups.push(Group {
            label,
            optics: microscope.read(&row)?,
            pixel_size: row.positive(pixel_size)?,
            image_size,
        });
    }
    Ok((groups, places))
}

/// Optics groups of a file without an optics table: rows with equal microscope values and pixel size form a group.
#[derive(Debug)]
pub struct ImplicitGroups {
    microscope: Microscope,
    pixel_size: PixelSize,
    places: HashMap<[u64; 4], u32>,
    /// The groups found, in the order of their first rows.
    pub groups: Vec<Group>,
}

/// The columns that give the pixel size in a file without an optics table.
#[derive(Clone, Copy, Debug)]
enum PixelSize {
    /// Detector pixel size in micrometres, and magnification.
    Detector(Column, Column),
    /// Pixel size in angstrom.
    Angstrom(Column),
}

impl ImplicitGroups {
    /// Finds the columns.
    pub fn new(document: &Document, table: &Table) -> Result<Self> {
        let detector = find(table, "_rlnDetectorPixelSize").zip(find(table, "_rlnMagnification"));
        let angstrom = find(table, "_rlnImagePixelSize").or_else(|| find(table, "_rlnPixelSize"));
        let pixel_size = match (detector, angstrom) {
            (Some((pixel, magnification)), _) => PixelSize::Detector(pixel, magnification),
            (None, Some(column)) => PixelSize::Angstrom(column),
            (None, None) => {
                return Err(Error::input(
                    document.path(),
                    format!("line {}", table.line()),
                    format!(
                        "data_{} has no pixel size: neither _rlnDetectorPixelSize with _rlnMagnification nor \
                         _rlnImagePixelSize",
                        table.name()
                    ),
                    "add these columns, or a data_optics table",
                ));
            }
        };
        let microscope = Microscope::find(document, table)?;
        Ok(Self { microscope, pixel_size, places: HashMap::new(), groups: Vec::new() })
    }

    /// The group of the current row.
    pub fn group_of(&mut self, row: &Cursor) -> Result<u32> {
        let optics = self.microscope.read(row)?;
        let pixel_size = match self.pixel_size {
            PixelSize::Detector(pixel, magnification) => {
                1e4 * row.positive(pixel)? / row.positive(magnification)?
            }
            PixelSize::Angstrom(column) => row.positive(column)?,
        };
        let key = [optics.voltage, optics.spherical_aberration, optics.amplitude_contrast, pixel_size]
            .map(f64::to_bits);
        let groups = &mut self.groups;
        Ok(*self.places.entry(key).or_insert_with(|| {
            groups.push(Group {
                label: format!("from line {}", row.line()),
                optics,
                pixel_size,
                image_size: None,
            });
            groups.len() as u32 - 1
        }))
    }
}

/// Optics groups of arrays: particles with equal microscope values form a group.
#[derive(Debug, Default)]
pub struct Groups {
    places: HashMap<[u64; 3], u32>,
    /// The groups found, in the order of their first particles.
    pub optics: Vec<Optics>,
}

impl Groups {
    /// The index of the group with these `optics`.
    pub fn index(&mut self, optics: Optics) -> u32 {
        let key = [optics.voltage, optics.spherical_aberration, optics.amplitude_contrast].map(f64::to_bits);
        *self.places.entry(key).or_insert_with(|| {
            self.optics.push(optics);
            self.optics.len() as u32 - 1
        })
    }
}

/// Checks that all `used` groups have the same pixel size and box size, and returns both.
pub fn common_grid(document: &Document, groups: &[Group], used: &[bool]) -> Result<(f64, Option<usize>)> {
    let mut members = groups.iter().zip(used).filter(|(_, used)| **used).map(|(group, _)| group);
    let Some(first) = members.next() else { return Ok((0.0, None)) };
    let mut sized = first;
    let differ = |a: &Group, b: &Group, what: String| {
        Error::input(
            document.path(),
            "",
            format!("optics groups {} and {} differ in {what}", a.label, b.label),
            "resample them to one pixel size and box size, or import each group from its own STAR file",
        )
    };
    for group in members {
        let (a, b) = (first.pixel_size, group.pixel_size);
        if (b / a - 1.0).abs() > PIXEL_SIZE_TOLERANCE {
            return Err(differ(first, group, format!("pixel size: {a} and {b} A")));
        }
        match (sized.image_size, group.image_size) {
            (Some(a), Some(b)) if a != b => {
                return Err(differ(sized, group, format!("image size: {a} and {b} pixels")));
            }
            (None, Some(_)) => sized = group,
            _ => {}
        }
    }
    Ok((first.pixel_size, sized.image_size))
}

/// Columns of aberrations and distortions that the CTF here does not model, with the value that means "none".
const UNMODELLED: [(&str, f64); 8] = [
    ("_rlnBeamTiltX", 0.0),
    ("_rlnBeamTiltY", 0.0),
    ("_rlnOddZernike", 0.0),
    ("_rlnEvenZernike", 0.0),
    ("_rlnMagMat00", 1.0),
    ("_rlnMagMat01", 0.0),
    ("_rlnMagMat10", 0.0),
    ("_rlnMagMat11", 1.0),
];

/// The unmodelled columns of a table, each with its "none" value and whether another value was found.
pub struct UnmodelledColumns(Vec<(Column, f64, bool)>);

impl UnmodelledColumns {
    /// Finds the columns of `table`.
    pub fn new(table: &Table) -> Self {
        let columns = UNMODELLED.iter().filter_map(|&(label, none)| Some((find(table, label)?, none, false)));
        Self(columns.collect())
    }

    /// Checks the current row.
    pub fn observe(&mut self, row: &Cursor) {
        for (column, none, seen) in self.0.iter_mut().filter(|(_, _, seen)| !seen) {
            // Zernike coefficients are written as "[0.1,0,-0.2]".
            let values = row.text(*column).trim_start_matches('[').trim_end_matches(']');
            *seen = values.split(',').any(|v| v.parse::<f64>().is_ok_and(|v| (v - *none).abs() > 1e-9));
        }
    }

    /// The labels of the columns with a value other than "none".
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, _, seen)| *seen).map(|(column, _, _)| column.label)
    }

    /// [`UnmodelledColumns::labels`] after all rows of `table`.
    pub fn in_table(document: &Document, table: &Table) -> Result<Vec<&'static str>> {
        let mut all = Self::new(table);
        let mut row = Cursor::new(document, table);
        while row.advance()? {
            all.observe(&row);
        }
        Ok(all.labels().collect())
    }
}
