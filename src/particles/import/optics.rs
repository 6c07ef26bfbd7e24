//! Optics groups: from the optics table of RELION 3.1, or from the values of each particle.

use std::collections::HashMap;

use super::columns::{Column, Cursor, find, require};
use super::star::{Document, Table, excerpt};
use crate::error::{Error, Result};
use crate::imaging::aberration::{OddAberration, even_polynomial};
use crate::imaging::ctf::{Optics, wavelength};

/// Relative difference up to which two pixel sizes are equal: files differ in the number of digits.
pub const PIXEL_SIZE_TOLERANCE: f64 = 1e-5;
/// Relative difference from which two pixel sizes of the same images contradict each other: calibrations are rounded.
const CONTRADICTION: f64 = 1e-3;

const NO_CTF: &str = "import particles with CTF parameters (after CTF estimation and extraction)";

/// How the raw images of an optics group are stored, and what the import takes back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawImages {
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Box size in pixels, if the metadata has it.
    pub box_size: Option<usize>,
    /// Odd aberration, of the frequency that the magnification of the group has transformed.
    pub odd: OddAberration,
    /// True if the images were multiplied by the sign of their CTF.
    pub phase_flipped: bool,
    /// Number of particles of the group.
    pub particles: usize,
}

/// The optics groups that particles refer to.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    places: HashMap<Vec<u64>, u32>,
    /// The optics of each group.
    pub optics: Vec<Optics>,
    /// The raw images of each group.
    pub raw: Vec<RawImages>,
}

impl Groups {
    /// The index of the group with these values, in the order of the first particles.
    pub fn index(&mut self, optics: Optics, raw: RawImages) -> u32 {
        let Optics { voltage, spherical_aberration, amplitude_contrast, even, magnification, .. } = &optics;
        let numbers = [*voltage, *spherical_aberration, *amplitude_contrast, raw.pixel_size];
        let numbers =
            numbers.iter().chain(&even.0).chain(magnification.as_flattened()).chain(raw.odd.coefficients());
        let flags =
            [u64::from(optics.premultiplied), u64::from(raw.phase_flipped), raw.box_size.unwrap_or(0) as u64];
        let key: Vec<u64> = flags.into_iter().chain(numbers.map(|value| value.to_bits())).collect();
        *self.places.entry(key).or_insert_with(|| {
            self.optics.push(optics);
            self.raw.push(raw);
            self.optics.len() as u32 - 1
        })
    }

    /// Counts a particle of the group with this index.
    pub fn count(&mut self, group: u32) {
        if let Some(raw) = self.raw.get_mut(group as usize) {
            raw.particles += 1;
        }
    }
}

/// The columns that describe the microscope, in either version.
#[derive(Clone, Copy, Debug)]
struct Microscope {
    voltage: Column,
    aberration: Column,
    contrast: Column,
    tilt: [Option<Column>; 2],
    odd: Option<Column>,
    even: Option<Column>,
    magnification: [Option<Column>; 4],
    premultiplied: Option<Column>,
    phase_flipped: Option<Column>,
}

impl Microscope {
    fn find(document: &Document, table: &Table) -> Result<Self> {
        let column = |label| required_for_ctf(document, table, label);
        let optional = |label| find(table, label);
        Ok(Self {
            voltage: column("_rlnVoltage")?,
            aberration: column("_rlnSphericalAberration")?,
            contrast: column("_rlnAmplitudeContrast")?,
            tilt: ["_rlnBeamTiltX", "_rlnBeamTiltY"].map(optional),
            odd: optional("_rlnOddZernike"),
            even: optional("_rlnEvenZernike"),
            magnification: ["_rlnMagMat00", "_rlnMagMat01", "_rlnMagMat10", "_rlnMagMat11"].map(optional),
            premultiplied: optional("_rlnCtfDataAreCtfPremultiplied"),
            phase_flipped: optional("_rlnCtfDataArePhaseFlipped"),
        })
    }

    /// The optics and, but for their sizes, the raw images of the current row.
    fn read(&self, row: &Cursor) -> Result<(Optics, RawImages)> {
        let contrast = row.number(self.contrast)?;
        if !(0.0..=1.0).contains(&contrast) {
            return Err(row.refuse(self.contrast, "a fraction from 0 to 1"));
        }
        let mut optics = Optics::new(row.positive(self.voltage)?, row.number(self.aberration)?, contrast);
        if let Some(column) = self.even {
            optics.even = even_polynomial(&coefficients(row, column)?).map_err(|index| {
                row.error(
                    format!("{}: coefficient {} belongs to an order above 4", column.label, index + 1),
                    "estimate even aberrations up to order 4 (the default of RELION)",
                )
            })?;
        }
        let mut magnification = Optics::ISOTROPIC;
        for (value, column) in magnification.as_flattened_mut().iter_mut().zip(self.magnification) {
            *value = row.number_or(column, *value)?;
        }
        optics.magnification = magnification;
        if let Some(column) = self.magnification[0].filter(|_| !optics.has_usable_magnification()) {
            return Err(row.refuse(column, "a magnification matrix near [1 0; 0 1]"));
        }
        optics.premultiplied = flag(row, self.premultiplied)?;
        let [x, y] = self.tilt;
        let mut odd = OddAberration::default();
        if let Some(column) = self.odd {
            let mut coefficients = coefficients(row, column)?;
            if x.or(y).is_some() {
                // As in RELION, the beam tilt takes the place of the coma terms (3, -1) and (3, 1).
                coefficients.iter_mut().skip(3).take(2).for_each(|coma| *coma = 0.0);
            }
            odd = OddAberration::new(coefficients)
                .ok_or_else(|| row.refuse(column, "at most 72 coefficients"))?;
        }
        // From mrad.
        let tilt = [1e-3 * row.number_or(x, 0.0)?, 1e-3 * row.number_or(y, 0.0)?];
        let displacement = tilt.map(|tilt| 1e7 * optics.spherical_aberration * tilt);
        odd.add_tilt(displacement, wavelength(optics.voltage));
        let phase_flipped = flag(row, self.phase_flipped)?;
        Ok((optics, RawImages { odd, phase_flipped, ..RawImages::default() }))
    }
}

/// A list of numbers as RELION writes it: "[0.1,0,-0.2]".
fn coefficients(row: &Cursor, column: Column) -> Result<Vec<f64>> {
    let text = row.text(column);
    let inside = text.trim_start_matches('[').trim_end_matches(']');
    let numbers = inside.split(',').map(str::trim).filter(|number| !number.is_empty());
    let numbers: Option<Vec<f64>> =
        numbers.map(|number| number.parse().ok().filter(|value: &f64| value.is_finite())).collect();
    numbers.ok_or_else(|| {
        row.error(
            format!("{} is {}, expected a list such as [0.1,0,-0.2]", column.label, excerpt(text)),
            "correct the value",
        )
    })
}

/// 0 or 1; 0 without the column.
fn flag(row: &Cursor, column: Option<Column>) -> Result<bool> {
    let Some(column) = column else { return Ok(false) };
    match row.integer(column)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(row.refuse(column, "0 or 1")),
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

/// The numbers of the groups in the optics table of RELION 3.1 and later: the row (from 0) of each `_rlnOpticsGroup`.
pub fn read_numbers(document: &Document, table: &Table) -> Result<HashMap<i64, u32>> {
    let number = require(document, table, "_rlnOpticsGroup")?;
    let mut rows = HashMap::new();
    let mut row = Cursor::new(document, table);
    while row.advance()? {
        let (id, index) = (row.integer(number)?, rows.len() as u32);
        if rows.insert(id, index).is_some() {
            return Err(
                row.error(format!("optics group {id} occurs twice"), "give each optics group its own number")
            );
        }
    }
    Ok(rows)
}

/// The pixel size in angstrom of the images of each `_rlnOpticsGroup` of an optics table.
pub fn read_pixel_sizes(document: &Document, table: &Table) -> Result<HashMap<i64, f64>> {
    let number = require(document, table, "_rlnOpticsGroup")?;
    let pixel_size = require(document, table, "_rlnImagePixelSize")?;
    let mut sizes = HashMap::new();
    let mut row = Cursor::new(document, table);
    while row.advance()? {
        sizes.insert(row.integer(number)?, row.positive(pixel_size)?);
    }
    Ok(sizes)
}

/// Reads the rows of the optics table to which particles refer: row i has `particles[i]` of them. Other rows are not checked.
pub fn read_table(document: &Document, table: &Table, particles: &[usize]) -> Result<Groups> {
    let microscope = Microscope::find(document, table)?;
    let pixel_size = require(document, table, "_rlnImagePixelSize")?;
    let name = find(table, "_rlnOpticsGroupName");
    let image_size = find(table, "_rlnImageSize");
    let dimensions = find(table, "_rlnImageDimensionality");
    let mut groups = Groups::default();
    let mut row = Cursor::new(document, table);
    for &particles in particles {
        row.advance()?;
        if particles == 0 {
            continue;
        }
        if let Some(column) = dimensions
            && row.integer(column)? != 2
        {
            return Err(row.refuse(column, "2: images, not subtomograms"));
        }
        let box_size = match image_size {
            None => None,
            Some(column) => Some(
                usize::try_from(row.integer(column)?)
                    .ok()
                    .filter(|&size| size > 0)
                    .ok_or_else(|| row.refuse(column, "a size in pixels"))?,
            ),
        };
        let (mut optics, raw) = microscope.read(&row)?;
        optics.name = name.map(|column| row.text(column).to_owned()).unwrap_or_default();
        groups.optics.push(optics);
        groups.raw.push(RawImages { pixel_size: row.positive(pixel_size)?, box_size, particles, ..raw });
    }
    Ok(groups)
}

/// Optics groups of a file without an optics table: rows with equal values form a group.
#[derive(Debug)]
pub struct ImplicitGroups {
    microscope: Microscope,
    /// Detector pixel size in micrometres, and magnification.
    detector: Option<(Column, Column)>,
    /// Pixel size in angstrom.
    angstrom: Option<Column>,
    /// The groups found, in the order of their first rows.
    pub groups: Groups,
}

impl ImplicitGroups {
    /// Finds the columns.
    pub fn new(document: &Document, table: &Table) -> Result<Self> {
        let detector = find(table, "_rlnDetectorPixelSize").zip(find(table, "_rlnMagnification"));
        let angstrom = find(table, "_rlnImagePixelSize").or_else(|| find(table, "_rlnPixelSize"));
        if detector.is_none() && angstrom.is_none() {
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
        let microscope = Microscope::find(document, table)?;
        Ok(Self { microscope, detector, angstrom, groups: Groups::default() })
    }

    /// The group of the current row.
    pub fn group_of(&mut self, row: &Cursor) -> Result<u32> {
        let (optics, raw) = self.microscope.read(row)?;
        let pixel_size = self.pixel_size(row)?;
        Ok(self.groups.index(optics, RawImages { pixel_size, ..raw }))
    }

    /// The pixel size in angstrom of the image of the current row.
    pub fn pixel_size(&self, row: &Cursor) -> Result<f64> {
        let from_detector = match self.detector {
            Some((pixel, magnification)) => Some(1e4 * row.positive(pixel)? / row.positive(magnification)?),
            None => None,
        };
        let angstrom = self.angstrom.map(|column| Ok((column.label, row.positive(column)?))).transpose()?;
        match (from_detector, angstrom) {
            (Some(detector), Some((label, angstrom))) if (detector / angstrom - 1.0).abs() > CONTRADICTION => {
                Err(row.error(
                    format!(
                        "{label} is {angstrom} A, but _rlnDetectorPixelSize and _rlnMagnification give {detector:.4} A"
                    ),
                    "remove the columns that are wrong",
                ))
            }
            (Some(size), _) | (None, Some((_, size))) => Ok(size),
            (None, None) => Err(row.error("the row has no pixel size", "add a pixel size")),
        }
    }
}

/// Columns of aberrations and distortions, with the value that means "none".
const ABERRATIONS: [(&str, f64); 8] = [
    ("_rlnBeamTiltX", 0.0),
    ("_rlnBeamTiltY", 0.0),
    ("_rlnOddZernike", 0.0),
    ("_rlnEvenZernike", 0.0),
    ("_rlnMagMat00", 1.0),
    ("_rlnMagMat01", 0.0),
    ("_rlnMagMat10", 0.0),
    ("_rlnMagMat11", 1.0),
];

/// Columns of aberrations in a particle table beside an optics table. As in RELION, only those of the optics table count. Each
/// with its "none" value and whether another value was found.
pub struct OverriddenColumns(Vec<(Column, f64, bool)>);

impl OverriddenColumns {
    /// Finds the columns of `table`.
    pub fn new(table: &Table) -> Self {
        let columns =
            ABERRATIONS.iter().filter_map(|&(label, none)| Some((find(table, label)?, none, false)));
        Self(columns.collect())
    }

    /// Checks the current row.
    pub fn observe(&mut self, row: &Cursor) {
        for (column, none, seen) in self.0.iter_mut().filter(|(_, _, seen)| !seen) {
            let values = row.text(*column).trim_start_matches('[').trim_end_matches(']');
            *seen = values.split(',').any(|v| v.parse::<f64>().is_ok_and(|v| (v - *none).abs() > 1e-9));
        }
    }

    /// The labels of the columns with a value other than "none".
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, _, seen)| *seen).map(|(column, _, _)| column.label)
    }
}
