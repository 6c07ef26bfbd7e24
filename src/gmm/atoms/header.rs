//! What a file of pseudo-atoms says of its mixture, by names that begin with `cryosplat.`; the same in both formats.

use std::io::Write;
use std::path::Path;

use super::{Atom, Model, REMEDY};
use crate::error::{Error, Result};
use crate::gmm::Shape;

/// The version of what is written.
const VERSION: usize = 1;
/// What the names begin with.
const PREFIX: &str = "cryosplat.";
const MARK: &str = "cryosplat.version ";

/// True where `start`, the first bytes of a file, are those of pseudo-atoms of this program.
pub fn is_ours(start: &[u8]) -> bool {
    start.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// Writes the names and values, each line after `before`.
pub fn write(model: &Model, before: &str, writer: &mut impl Write) -> std::io::Result<()> {
    let shape = model.shape.name();
    let [x, y, z] = model.centre;
    writeln!(writer, "{before}{MARK}{VERSION}")?;
    writeln!(writer, "{before}{PREFIX}gaussians {}", model.atoms.len())?;
    writeln!(writer, "{before}{PREFIX}shape {shape}")?;
    writeln!(writer, "{before}{PREFIX}box_size {}", model.box_size)?;
    writeln!(writer, "{before}{PREFIX}pixel_size {}", model.pixel_size)?;
    writeln!(writer, "{before}{PREFIX}centre_x {x}")?;
    writeln!(writer, "{before}{PREFIX}centre_y {y}")?;
    writeln!(writer, "{before}{PREFIX}centre_z {z}")?;
    writeln!(writer, "{before}{PREFIX}amplitude {}", model.amplitude)
}

/// The names found so far, with their values and lines.
#[derive(Debug)]
pub struct Header<'a> {
    path: &'a Path,
    found: Vec<(usize, &'a str, &'a str)>,
}

impl<'a> Header<'a> {
    /// Of the file `path`.
    pub fn new(path: &'a Path) -> Self {
        Self { path, found: Vec::new() }
    }

    /// Takes line `number` without what stands before its name, if it is one of ours.
    pub fn take(&mut self, number: usize, text: &'a str) {
        let pair = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(char::is_whitespace));
        if let Some((name, value)) = pair {
            self.found.push((number, name, value.trim()));
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str, sound: impl Fn(&T) -> bool) -> Result<T> {
        let (line, text) = self.text(name)?;
        text.parse().ok().filter(sound).ok_or_else(|| {
            let problem = format!("{PREFIX}{name} is \"{text}\", which is impossible");
            Error::input(self.path, format!("line {line}"), problem, REMEDY)
        })
    }

    fn text(&self, name: &str) -> Result<(usize, &'a str)> {
        let found = self.found.iter().find(|(_, known, _)| *known == name);
        found.map(|&(line, _, value)| (line, value)).ok_or_else(|| {
            let problem = format!("has no {PREFIX}{name}, by which pseudo-atoms of this program are known");
            Error::input(self.path, "", problem, REMEDY)
        })
    }

    /// True where the Gaussians are round.
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

    /// The model of the atoms that the file holds.
    ///
    /// # Errors
    /// When a name is missing, a value impossible, or an atom missing.
    pub fn model(&self, atoms: Vec<Atom>) -> Result<Model> {
        self.number("version", |&version: &usize| version == VERSION)?;
        let positive = |value: &f64| value.is_finite() && *value > 0.0;
        let finite = |value: &f64| value.is_finite();
        let count = self.number("gaussians", |&count: &usize| count > 0)?;
        if count != atoms.len() {
            let problem = format!("holds {} atoms, and its header promises {count}", atoms.len());
            return Err(Error::input(self.path, "", problem, REMEDY));
        }
        Ok(Model {
            shape: self.shape()?,
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

/// A number of line `line`, or the error that it is none; `what` names it.
pub fn number(path: &Path, line: usize, what: &str, text: &str) -> Result<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
        let problem = format!("the {what} of an atom is \"{}\", expected a number", text.trim());
        Error::input(path, format!("line {line}"), problem, REMEDY)
    })
}

/// An occupancy, which lies between 0 and 1.
pub fn occupancy(path: &Path, line: usize, text: &str) -> Result<f64> {
    let value = number(path, line, "occupancy", text)?;
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    let problem = format!("an occupancy of {value} is impossible, expected 0 to 1");
    Err(Error::input(path, format!("line {line}"), problem, REMEDY))
}

/// A B factor, which is not below 0.
pub fn b_factor(path: &Path, line: usize, text: &str) -> Result<f64> {
    let value = number(path, line, "B factor", text)?;
    if value >= 0.0 {
        return Ok(value);
    }
    let problem = format!("a B factor of {value} is impossible, expected 0 or more");
    Err(Error::input(path, format!("line {line}"), problem, REMEDY))
}
