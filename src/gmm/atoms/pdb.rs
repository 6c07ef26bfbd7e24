//! PDB files of pseudo-atoms: HETATM records, and ANISOU records for anisotropic Gaussians (PDB format 3.3).
//!
//! Columns are narrow: positions are rounded to 0.001 angstrom, displacements to 1e-4 square angstrom, occupancies to three
//! decimals (the two of the format are too few) and B factors to two, or fewer if these do not fit. mmCIF has no such limits.

use std::path::Path;

use super::header::{self, Header};
use super::{PseudoAtom, PseudoAtomModel, REMEDY, isotropic};
use crate::error::{Error, Result};
use crate::files;
use crate::gmm::Shape;

/// Largest atom number: five digits.
pub const MAX_ATOMS: usize = 99_999;
/// Residues per chain: four digits.
const PER_CHAIN: usize = 9_999;
const CHAINS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const REMARK: &str = "REMARK 999 ";
/// Unit of ANISOU in square angstrom.
const UNIT: f64 = 1e-4;

const EXPLANATION: &str = "REMARK 999
REMARK 999 GAUSSIAN MIXTURE OF CRYOSPLAT-MPI, ONE ATOM A GAUSSIAN.
REMARK 999 OCCUPANCY IS THE AMPLITUDE DIVIDED BY cryosplat.amplitude. ANISOU
REMARK 999 IS THE COVARIANCE, B THE MEAN VARIANCE TIMES 8 PI**2. THE CENTRE OF
REMARK 999 THE BOX LIES AT cryosplat.centre, IN ANGSTROM.
";

/// Writes the pseudo-atoms, atomically.
///
/// # Errors
/// When there are more than [`MAX_ATOMS`], a position or B factor does not fit its columns, or the file cannot be written.
pub fn write(model: &PseudoAtomModel, path: &Path) -> Result<()> {
    const USE_MMCIF: &str = "write mmCIF instead: name the file .cif";
    if model.atoms.len() > MAX_ATOMS {
        let problem =
            format!("PDB files hold at most {MAX_ATOMS} atoms, but the mixture has {}", model.atoms.len());
        return Err(Error::input(path, "", problem, USE_MMCIF));
    }
    let mut lines = Vec::with_capacity(model.atoms.len());
    for (i, atom) in model.atoms.iter().enumerate() {
        let atom_records = records(i, atom, model.shape).ok_or_else(|| {
            let [x, y, z] = atom.position;
            let b = atom.b_factor();
            let problem = format!(
                "at ({x:.1}, {y:.1}, {z:.1}) A with a B factor of {b:.0} A^2 it does not fit PDB's columns"
            );
            Error::input(path, format!("atom {}", i + 1), problem, USE_MMCIF)
        })?;
        lines.push(atom_records);
    }
    files::write_atomically(path, |writer| {
        use std::io::Write;
        writer.write_all(EXPLANATION.as_bytes())?;
        header::write(model, REMARK, writer)?;
        lines.iter().try_for_each(|line| writer.write_all(line.as_bytes()))?;
        writer.write_all(b"END\n")
    })
}

/// The records of atom `i`; `None` if a number does not fit its column.
fn records(i: usize, atom: &PseudoAtom, shape: Shape) -> Option<String> {
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

/// Parses `text`, the content of the file `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<PseudoAtomModel> {
    let mut header = Header::new(path);
    let mut atoms: Vec<PseudoAtom> = Vec::new();
    let mut anisotropic = 0;
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let field = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or("");
        match field(0, 6) {
            "REMARK" => {
                let entry = line.strip_prefix(REMARK).and_then(|rest| rest.split_once(char::is_whitespace));
                if let Some((name, value)) = entry {
                    header.insert(at, name, value.trim());
                }
            }
            "HETATM" => atoms.push(PseudoAtom {
                position: [
                    header::number(path, at, "x", field(30, 38))?,
                    header::number(path, at, "y", field(38, 46))?,
                    header::number(path, at, "z", field(46, 54))?,
                ],
                occupancy: header::occupancy(path, at, field(54, 60))?,
                displacement: isotropic(header::b_factor(path, at, field(60, 66))?),
            }),
            "ANISOU" => {
                anisotropic += 1;
                let count = atoms.len();
                let Some(atom) = atoms.last_mut().filter(|_| anisotropic == count) else {
                    let problem = "the ANISOU record does not follow the HETATM record of its atom";
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
    if header.shape()? == Shape::Anisotropic && anisotropic != atoms.len() {
        let problem = format!("has {anisotropic} ANISOU records for {} atoms", atoms.len());
        return Err(Error::input(path, "", problem, REMEDY));
    }
    header.model(atoms)
}
