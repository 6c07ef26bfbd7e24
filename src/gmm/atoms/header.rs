//! The header of a pseudo-atom file: names that start with `cryosplat.`, and their values; the same in both formats.

use std::io::Write;
use std::path::Path;

use super::{PseudoAtom, PseudoAtomModel, REMEDY};
use crate::error::{Error, Result};
use crate::gmm::Shape;
use crate::imaging::Symmetry;

/// Version of the header.
const VERSION: usize = 1;
/// Prefix of all names.
const PREFIX: &str = "cryosplat.";
/// Entry of the point group; absent for C1.
const SYMMETRY: &str = "symmetry";
const MARK: &str = "cryosplat.version ";

/// True if `start`, the first bytes of a file, belong to pseudo-atoms that this program wrote.
pub fn is_pseudo_atoms(start: &[u8]) -> bool {
    start.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// Writes one name and value a line, each after `before`.
pub fn write(model: &PseudoAtomModel, before: &str, writer: &mut impl Write) -> std::io::Result<()> {
    let shape = model.shape.name();
    let [x, y, z] = model.centre;
    writeln!(writer, "{before}{MARK}{VERSION}")?;
    writeln!(writer, "{before}{PREFIX}gaussians {}", model.atoms.len())?;
    writeln!(writer, "{before}{PREFIX}shape {shape}")?;
    if model.symmetry != Symmetry::C1 {
        writeln!(writer, "{before}{PREFIX}{SYMMETRY} {}", model.symmetry)?;
    }
    writeln!(writer, "{before}{PREFIX}box_size {}", model.box_size)?;
    writeln!(writer, "{before}{PREFIX}pixel_size {}", model.pixel_size)?;
    writeln!(writer, "{before}{PREFIX}centre_x {x}")?;
    writeln!(writer, "{before}{PREFIX}centre_y {y}")?;
    writeln!(writer, "{before}{PREFIX}centre_z {z}")?;
    writeln!(writer, "{before}{PREFIX}amplitude {}", model.amplitude)
}

/// Header entries read so far: line, name without prefix, value.
#[derive(Debug)]
pub struct Header<'a> {
    path: &'a Path,
    found: Vec<(usize, &'a str, &'a str)>,
}

impl<'a> Header<'a> {
    /// An empty header of the file `path`.
    pub fn new(path: &'a Path) -> Self {
        Self { path, found: Vec::new() }
    }

    /// Adds the entry of `line` if `name` has the prefix.
    pub fn insert(&mut self, line: usize, name: &'a str, value: &'a str) {
        if let Some(name) = name.strip_prefix(PREFIX) {
            self.found.push((line, name, value));
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str, valid: impl Fn(&T) -> bool) -> Result<T> {
        let (line, text) = self.text(name)?;
        text.parse().ok().filter(valid).ok_or_else(|| {
            let problem = format!("{PREFIX}{name} is \"{text}\", which is invalid");
            Error::input(self.path, format!("line {line}"), problem, REMEDY)
        })
    }

    fn text(&self, name: &str) -> Result<(usize, &'a str)> {
        let found = self.found.iter().find(|(_, known, _)| *known == name);
        found.map(|&(line, _, value)| (line, value)).ok_or_else(|| {
            let problem = format!("has no {PREFIX}{name}, which identifies pseudo-atoms of this program");
            Error::input(self.path, "", problem, REMEDY)
        })
    }

    /// Shape of the Gaussians.
    pub fn shape(&self) -> Result<Shape> {
        match self.text("shape")? {
            (_, "anisotropic") => Ok(Shape::Anisotropic),
            (_, "isotropic") => Ok(Shape::Isotropic),
            (line, other) => {
                let problem = format!("{PREFIX}shape is \"{other}\", expected anisotropic or isotropic");
                Err(Error::input(self.path, format!("line {line}"), problem, REMEDY))
            }
        }
    }

    /// The point group.
    fn symmetry(&self) -> Result<Symmetry> {
        match self.found.iter().any(|(_, name, _)| *name == SYMMETRY) {
            true => self.number(SYMMETRY, |_: &Symmetry| true),
            false => Ok(Symmetry::C1),
        }
    }

    /// The model of the header and `atoms`.
    ///
    /// # Errors
    /// When an entry is missing or invalid, or the number of atoms differs.
    pub fn model(&self, atoms: Vec<PseudoAtom>) -> Result<PseudoAtomModel> {
        self.number("version", |&version: &usize| version == VERSION)?;
        let positive = |value: &f64| value.is_finite() && *value > 0.0;
        let finite = |value: &f64| value.is_finite();
        let count = self.number("gaussians", |&count: &usize| count > 0)?;
        if count != atoms.len() {
            let problem = format!("holds {} atoms, but its header promises {count}", atoms.len());
            return Err(Error::input(self.path, "", problem, REMEDY));
        }
        Ok(PseudoAtomModel {
            shape: self.shape()?,
            symmetry: self.symmetry()?,
            box_size: self.number("box_size", |size: &usize| (4..=65_535).contains(size))?,
            pixel_size: self.number("pixel_size", positive)?,
            centre: [
                self.number("centre_x", finite)?,
                self.number("centre_y", finite)?,
                self.number("centre_z", finite)?,
            ],
            amplitude: self.number("amplitude", positive)?,
            atoms,
        })
    }
}

/// Parses a number on line `line`; `what` names it in the error.
pub fn number(path: &Path, line: usize, what: &str, text: &str) -> Result<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
        let problem = format!("the {what} of an atom is \"{}\", expected a number", text.trim());
        Error::input(path, format!("line {line}"), problem, REMEDY)
    })
}

/// Parses an occupancy, which is between 0 and 1.
pub fn occupancy(path: &Path, line: usize, text: &str) -> Result<f64> {
    let value = number(path, line, "occupancy", text)?;
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    let problem = format!("the occupancy is {value}, expected 0 to 1");
    Err(Error::input(path, format!("line {line}"), problem, REMEDY))
}

/// Parses a B factor, which is not negative.
pub fn b_factor(path: &Path, line: usize, text: &str) -> Result<f64> {
    let value = number(path, line, "B factor", text)?;
    if value >= 0.0 {
        return Ok(value);
    }
    let problem = format!("the B factor is {value}, expected 0 or more");
    Err(Error::input(path, format!("line {line}"), problem, REMEDY))
}
