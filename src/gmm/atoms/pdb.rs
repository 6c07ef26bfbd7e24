//! PDB files of pseudo-atoms: HETATM records, and ANISOU records where Gaussians have axes (PDB format 3.3).
//!
//! Columns are narrow: positions are rounded to 0.001 angstrom, displacements to 1e-4 square angstrom, occupancies to three
//! decimals (the format's two are too few) and B factors to two, or fewer where these do not fit. mmCIF has no such limits.

use std::path::Path;

use super::header::{self, Header};
use super::{Atom, Model, REMEDY, round};
use crate::error::{Error, Result};
use crate::files;
use crate::gmm::Shape;

/// What an atom number of five digits can count.
pub const MOST: usize = 99_999;
/// Residue numbers of a chain, in four digits.
const PER_CHAIN: usize = 9_999;
const CHAINS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const REMARK: &str = "REMARK 999 ";
/// ANISOU's unit in square angstrom.
const UNIT: f64 = 1e-4;

const EXPLANATION: &str = "REMARK 999
REMARK 999 GAUSSIAN MIXTURE OF CRYOSPLAT-MPI, ONE ATOM A GAUSSIAN.
REMARK 999 OCCUPANCY IS THE AMPLITUDE DIVIDED BY cryosplat.amplitude. ANISOU
REMARK 999 IS THE COVARIANCE, B THE MEAN VARIANCE TIMES 8 PI**2. THE CENTRE OF
REMARK 999 THE BOX LIES AT cryosplat.centre, IN ANGSTROM.
";

/// Writes the atoms.
///
/// # Errors
/// When there are too many for the format, an atom lies too far away or is too wide for its columns, or the file cannot be
/// written.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    const USE_MMCIF: &str = "write mmCIF instead: name the file .cif";
    if model.atoms.len() > MOST {
        let problem = format!("PDB files hold {MOST} atoms, and the mixture has {}", model.atoms.len());
        return Err(Error::input(path, "", problem, USE_MMCIF));
    }
    let mut lines = Vec::with_capacity(model.atoms.len());
    for (i, atom) in model.atoms.iter().enumerate() {
        let lines_of = records(i, atom, model.shape).ok_or_else(|| {
            let [x, y, z] = atom.position;
            let b = atom.b_factor();
            let problem = format!(
                "at ({x:.1}, {y:.1}, {z:.1}) A with a B factor of {b:.0} A^2 it does not fit PDB's columns"
            );
            Error::input(path, format!("atom {}", i + 1), problem, USE_MMCIF)
        })?;
        lines.push(lines_of);
    }
    files::write_atomically(path, |writer| {
        use std::io::Write;
        writer.write_all(EXPLANATION.as_bytes())?;
        header::write(model, REMARK, writer)?;
        lines.iter().try_for_each(|line| writer.write_all(line.as_bytes()))?;
        writer.write_all(b"END\n")
    })
}

/// The lines of atom `i`; `None` where its numbers do not fit.
fn records(i: usize, atom: &Atom, shape: Shape) -> Option<String> {
    let (chain, residue) = (char::from(CHAINS[i / PER_CHAIN]), i % PER_CHAIN + 1);
    let name = format!("{:>5} UNK  UNX {chain}{residue:>4} ", i + 1);
    let mut lines = format!("HETATM{name}   ");
    for value in atom.position {
        lines.push_str(&fits(format!("{value:8.3}"), 8)?);
    }
    let b = atom.b_factor();
    let b = (0..=2).rev().map(|decimals| format!("{b:6.decimals$}")).find(|text| text.len() <= 6)?;
    lines.push_str(&format!("{:6.3}{b}          {:>2}  \n", atom.occupancy, "X"));
    if shape == Shape::Anisotropic {
        lines.push_str(&format!("ANISOU{name} "));
        for value in atom.displacement {
            lines.push_str(&fits(format!("{:7.0}", value / UNIT), 7)?);
        }
        lines.push_str(&format!("      {:>2}  \n", "X"));
    }
    Some(lines)
}

fn fits(text: String, width: usize) -> Option<String> {
    (text.len() <= width).then_some(text)
}

/// The atoms in `text`, the content of the file `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<Model> {
    let mut header = Header::new(path);
    let mut atoms: Vec<Atom> = Vec::new();
    // How many have got their axes.
    let mut turned = 0;
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let field = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or("");
        match field(0, 6) {
            "REMARK" => header.take(at, line.strip_prefix(REMARK).unwrap_or("")),
            "HETATM" => atoms.push(Atom {
                position: [
                    header::number(path, at, "x", field(30, 38))?,
                    header::number(path, at, "y", field(38, 46))?,
                    header::number(path, at, "z", field(46, 54))?,
                ],
                occupancy: header::occupancy(path, at, field(54, 60))?,
                displacement: round(header::b_factor(path, at, field(60, 66))?),
            }),
            "ANISOU" => {
                turned += 1;
                let count = atoms.len();
                let Some(atom) = atoms.last_mut().filter(|_| turned == count) else {
                    let problem = "an ANISOU record does not follow the HETATM record of an atom";
                    return Err(Error::input(path, format!("line {at}"), problem, REMEDY));
                };
                for (k, value) in atom.displacement.iter_mut().enumerate() {
                    let from = 28 + 7 * k;
                    *value = UNIT * header::number(path, at, "displacement", field(from, from + 7))?;
                }
            }
            _ => {}
        }
    }
    if header.shape()? == Shape::Anisotropic && turned != atoms.len() {
        let problem = format!("has {turned} ANISOU records for {} atoms", atoms.len());
        return Err(Error::input(path, "", problem, REMEDY));
    }
    header.model(atoms)
}
