//! cryoDRGN's arrays: poses, CTF parameters and indices.

use std::path::Path;

use crate::error::{Error, Result};
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::pose::{Rotation, distance_from_rotation};
use crate::particles::import::optics::PIXEL_SIZE_TOLERANCE;
use crate::particles::import::pickle::{Array, Id, Pickle};
use crate::particles::import::stack_names::Location;

const REMEDY: &str = "correct the value, or exclude the particle with --ind";
/// Maximal distance of a 32-bit matrix from a rotation, by [`distance_from_rotation`].
const ROTATION_TOLERANCE: f64 = 1e-3;
/// How often indices may name an image, in the mean: the largest point groups have 60 operators.
const MOST_REPEATS: usize = 100;

/// Reads the indices of the selected images from the pickle `path`: an array or a list of integers below `images`, or of
/// `images` Booleans.
pub fn selected(path: &Path, images: usize) -> Result<Vec<usize>> {
    let pickle = Pickle::read(path)?;
    let root = pickle.root();
    let refuse = || {
        let problem = format!("contains {}, expected one array or list of integers", pickle.describe(root));
        Error::input(path, "", problem, "give the file of indices that cryoDRGN accepts as --ind")
    };
    let numbers: Vec<Option<u64>> = match (pickle.array(root), pickle.items(root)) {
        (Some(array), _) if array.shape().len() == 1 && array.is_boolean() => {
            let chosen = (0..array.shape()[0]).map(|i| array.value(&[i]) != 0.0);
            return masked(path, images, &chosen.collect::<Vec<_>>());
        }
        (Some(array), _) if array.shape().len() == 1 && array.is_integer() => {
            (0..array.shape()[0]).map(|i| array.index(&[i])).collect()
        }
        (_, Some(items)) => {
            let chosen: Option<Vec<bool>> = items.iter().map(|&item| pickle.boolean(item)).collect();
            if let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) {
                return masked(path, images, &chosen);
            }
            let number = |&item: &Id| pickle.number(item).filter(|_| pickle.boolean(item).is_none());
            let numbers: Option<Vec<f64>> = items.iter().map(number).collect();
            let index = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
            numbers.ok_or_else(refuse)?.into_iter().map(index).collect()
        }
        _ => return Err(refuse()),
    };
    if numbers.len() > MOST_REPEATS.saturating_mul(images) {
        return Err(Error::input(
            path,
            "",
            format!("has {} indices for {images} images, more than {MOST_REPEATS} each", numbers.len()),
            "list each image once, or once for each symmetry operator",
        ));
    }
    let index = |(i, number): (usize, Option<u64>)| {
        number.filter(|&number| number < images as u64).map(|number| number as usize).ok_or_else(|| {
            let found = number.map_or("not an index".into(), |number| number.to_string());
            Error::input(
                path,
                format!("index {}", i + 1),
                format!("is {found}, expected 0 to {} for {images} images", images.saturating_sub(1)),
                "correct the index",
            )
        })
    };
    numbers.into_iter().enumerate().map(index).collect()
}

/// The indices of the `images` that a mask chooses.
fn masked(path: &Path, images: usize, chosen: &[bool]) -> Result<Vec<usize>> {
    if chosen.len() != images {
        return Err(Error::input(
            path,
            "",
            format!("is a mask of {} Booleans, expected one per image: {images}", chosen.len()),
            "give the mask of these images, or integer indices",
        ));
    }
    tracing::info!("{}: a mask of Booleans", path.display());
    Ok((0..images).filter(|&image| chosen[image]).collect())
}

/// An error in row `row` of a pickle.
fn bad_row(pickle: &Pickle, row: usize, problem: String, remedy: &str) -> Error {
    Error::input(pickle.path(), Location::Particle(row + 1).to_string(), problem, remedy)
}

/// Rotations, and translations as fractions of the box size.
#[derive(Debug)]
pub struct Poses {
    /// The file.
    pub pickle: Pickle,
    rotations: Id,
    translations: Option<Id>,
}

impl Poses {
    pub fn read(path: &Path) -> Result<Self> {
        let pickle = Pickle::read(path)?;
        let root = pickle.root();
        let (rotations, translations) = match pickle.items(root) {
            None => (root, None),
            Some(&[rotations]) => (rotations, None),
            Some(&[rotations, other]) => (rotations, (!pickle.is_none(other)).then_some(other)),
            Some(_) => (root, None),
        };
        let shape = |id| pickle.array(id).map(|array| array.shape().to_vec());
        let len = match shape(rotations).as_deref() {
            Some(&[len, 3, 3]) => Some(len),
            _ => None,
        };
        let fits = translations
            .is_none_or(|id| shape(id).is_some_and(|shape| Some(shape) == len.map(|len| vec![len, 2])));
        if len.is_none() || !fits {
            let parts = pickle.items(root).unwrap_or(&[]).iter().map(|&item| pickle.describe(item));
            let parts: Vec<String> = parts.take(3).collect();
            let of = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
            return Err(Error::input(
                path,
                "",
                format!(
                    "contains {}{of}, expected rotations of shape (n, 3, 3), optionally with translations of shape (n, 2)",
                    pickle.describe(root)
                ),
                "give the file of poses that cryoDRGN accepts as --poses",
            ));
        }
        Ok(Self { pickle, rotations, translations })
    }

    fn array(&self, id: Id) -> Array<'_> {
        // Checked in read().
        self.pickle.array(id).expect("an array")
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.array(self.rotations).shape()[0]
    }

    /// The rotation, which is `W` without conversion.
    pub fn rotation(&self, row: usize) -> Result<Rotation> {
        let array = self.array(self.rotations);
        let rotation: Rotation = std::array::from_fn(|i| std::array::from_fn(|j| array.value(&[row, i, j])));
        if distance_from_rotation(&rotation) > ROTATION_TOLERANCE {
            return Err(bad_row(
                &self.pickle,
                row,
                format!("the pose is not a rotation matrix: {rotation:?}"),
                REMEDY,
            ));
        }
        Ok(rotation)
    }

    /// The translation as a fraction of the box size.
    pub fn shift(&self, row: usize) -> Result<[f64; 2]> {
        let Some(translations) = self.translations else { return Ok([0.0; 2]) };
        let array = self.array(translations);
        let shift = [array.value(&[row, 0]), array.value(&[row, 1])];
        if shift.iter().all(|value| value.abs() <= 1.0) {
            return Ok(shift);
        }
        Err(bad_row(
            &self.pickle,
            row,
            format!("the translation is {shift:?}, expected fractions of the box size from -1 to 1"),
            "parse the poses again with cryoDRGN 0.3 or later: older files are in pixels",
        ))
    }
}

/// CTF parameters, an array of shape (n, 9): box size, pixel size (A), defocus U and V (A) and angle (degrees), voltage (kV),
/// spherical aberration (mm), amplitude contrast and phase shift (degrees).
#[derive(Debug)]
pub struct Ctf {
    /// The file.
    pub pickle: Pickle,
}

const COLUMNS: [&str; 9] = [
    "the box",
    "the pixel size",
    "defocus U",
    "defocus V",
    "the defocus angle",
    "the voltage",
    "the spherical aberration",
    "the amplitude contrast",
    "the phase shift",
];

impl Ctf {
    pub fn read(path: &Path) -> Result<Self> {
        let pickle = Pickle::read(path)?;
        let root = pickle.root();
        let shape = pickle.array(root).map(|array| array.shape().to_vec());
        if !matches!(shape.as_deref(), Some([_, 9])) {
            return Err(Error::input(
                path,
                "",
                format!("contains {}, expected CTF parameters of shape (n, 9)", pickle.describe(root)),
                "give the file of CTF parameters that cryoDRGN accepts as --ctf",
            ));
        }
        Ok(Self { pickle })
    }

    fn array(&self) -> Array<'_> {
        // Checked in read().
        self.pickle.array(self.pickle.root()).expect("an array")
    }

    fn values(&self, row: usize) -> Result<[f64; 9]> {
        let array = self.array();
        let values: [f64; 9] = std::array::from_fn(|column| array.value(&[row, column]));
        let positive = |column: usize| column > 1 && column != 5 || values[column] > 0.0;
        let contrast = |column: usize| column != 7 || (0.0..=1.0).contains(&values[column]);
        match (0..9).find(|&c| !(values[c].is_finite() && positive(c) && contrast(c))) {
            None => Ok(values),
            Some(column) => {
                let (name, value) = (COLUMNS[column], values[column]);
                let expected = match column {
                    0 | 1 | 5 => "a number above 0",
                    7 => "a fraction from 0 to 1",
                    _ => "a finite number",
                };
                let problem = format!("{name} (column {}) is {value}, expected {expected}", column + 1);
                Err(bad_row(&self.pickle, row, problem, REMEDY))
            }
        }
    }

    /// The CTF in row `row`. An error if its pixel size or box size differs from that of the first row.
    pub fn row(&self, row: usize) -> Result<(Optics, CtfParameters)> {
        let values = self.values(row)?;
        self.check_grid(row, &values)?;
        let [
            _,
            _,
            defocus_u,
            defocus_v,
            astigmatism_angle,
            voltage,
            spherical_aberration,
            contrast,
            phase_shift,
        ] = values;
        let optics = Optics::new(voltage, spherical_aberration, contrast);
        let ctf = CtfParameters {
            defocus_u,
            defocus_v,
            astigmatism_angle,
            phase_shift,
            ..CtfParameters::default()
        };
        Ok((optics, ctf))
    }

    /// Pixel size in angstrom and box size in pixels.
    pub fn grid(&self) -> Result<(f64, usize)> {
        let [box_size, pixel_size, ..] = self.values(0)?;
        Ok((pixel_size, box_size as usize))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.array().shape()[0]
    }

    /// Checks that row `row` has the same pixel size and box size as the first one.
    fn check_grid(&self, row: usize, values: &[f64; 9]) -> Result<()> {
        let first = self.values(0)?;
        let same = |column: usize| (values[column] / first[column] - 1.0).abs() <= PIXEL_SIZE_TOLERANCE;
        match [0, 1].into_iter().find(|&column| !same(column)) {
            None => Ok(()),
            Some(column) => Err(bad_row(
                &self.pickle,
                row,
                format!("{} is {}, but {} for particle 1", COLUMNS[column], values[column], first[column]),
                "resample all particles to one pixel size and box size, or import each group from its own files",
            )),
        }
    }
}
