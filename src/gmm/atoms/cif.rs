//! mmCIF files of pseudo-atoms: a table of atoms, and one of displacements where Gaussians have axes (the PDBx/mmCIF dictionary).
//!
//! Numbers have no exponents, which not every reader of mmCIF knows.

use std::path::Path;

use super::header::{self, Header};
use super::{Atom, Model, REMEDY, round};
use crate::error::{Error, Result};
use crate::files;
use crate::gmm::Shape;

/// What a file begins with.
pub(super) const START: &str = "data_";

const EXPLANATION: &str = "data_gaussian_mixture
#
# A Gaussian mixture of cryosplat-mpi, one atom a Gaussian. The occupancy is the amplitude divided by _cryosplat.amplitude.
# U is the covariance in square angstrom, B the mean variance times 8 pi^2. The centre of the box lies at _cryosplat.centre_x,
# centre_y, centre_z, in angstrom.
#
";

const ATOMS: [&str; 16] = [
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "auth_asym_id",
    "auth_seq_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "B_iso_or_equiv",
];

const DISPLACEMENTS: [&str; 8] =
    ["id", "type_symbol", "U[1][1]", "U[2][2]", "U[3][3]", "U[1][2]", "U[1][3]", "U[2][3]"];

/// Writes the atoms.
///
/// # Errors
/// When the file cannot be written.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    files::write_atomically(path, |writer| {
        use std::io::Write;
        writer.write_all(EXPLANATION.as_bytes())?;
        header::write(model, "_", writer)?;
        writer.write_all(b"#\n_entity.id 1\n_entity.type non-polymer\n#\nloop_\n")?;
        for name in ATOMS {
            writeln!(writer, "_atom_site.{name}")?;
        }
        for (i, atom) in model.atoms.iter().enumerate() {
            let (id, [x, y, z], b) = (i + 1, atom.position, atom.b_factor());
            write!(writer, "HETATM {id} X UNK . UNX A 1 . A {id} {x:.5} {y:.5} {z:.5} ")?;
            writeln!(writer, "{:.9} {b:.5}", atom.occupancy)?;
        }
        if model.shape == Shape::Anisotropic {
            writer.write_all(b"#\nloop_\n")?;
            for name in DISPLACEMENTS {
                writeln!(writer, "_atom_site_anisotrop.{name}")?;
            }
            for (i, atom) in model.atoms.iter().enumerate() {
                write!(writer, "{} X", i + 1)?;
                for value in atom.displacement {
                    write!(writer, " {value:.7}")?;
                }
                writeln!(writer)?;
            }
        }
        writer.write_all(b"#\n")
    })
}

/// The atoms in `text`, the content of the file `path`: tables of one line a row, whatever the order of their columns.
pub(super) fn parse(text: &str, path: &Path) -> Result<Model> {
    let mut header = Header::new(path);
    let mut labels: Vec<&str> = Vec::new();
    let (mut atoms, mut displacements) = (Vec::new(), Vec::new());
    let (mut of_atoms, mut of_displacements) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let (at, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "loop_" {
            labels.clear();
            // Another table has columns of its own.
            (of_atoms, of_displacements) = (None, None);
            continue;
        }
        if let Some(name) = line.strip_prefix('_') {
            header.take(at, name);
            labels.push(name);
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let table = labels.first().and_then(|label| label.split_once('.')).map(|(table, _)| table);
        let row = Row { path, at, labels: &labels, words: &words };
        match table {
            Some("atom_site") => {
                let columns = row.columns(
                    &mut of_atoms,
                    ["Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv"],
                )?;
                let [x, y, z, occupancy, b] = row.pick(columns)?;
                atoms.push(Atom {
                    position: [
                        header::number(path, at, "x", x)?,
                        header::number(path, at, "y", y)?,
                        header::number(path, at, "z", z)?,
                    ],
                    occupancy: header::occupancy(path, at, occupancy)?,
                    displacement: round(header::b_factor(path, at, b)?),
                });
            }
            Some("atom_site_anisotrop") => {
                let [_, _, names @ ..] = DISPLACEMENTS;
                let columns = row.columns(&mut of_displacements, names)?;
                let mut displacement = [0.0; 6];
                for (value, word) in displacement.iter_mut().zip(row.pick(columns)?) {
                    *value = header::number(path, at, "displacement", word)?;
                }
                displacements.push(displacement);
            }
            _ => {}
        }
    }
    if header.shape()? == Shape::Anisotropic {
        if displacements.len() != atoms.len() {
            let problem = format!("has {} displacements for {} atoms", displacements.len(), atoms.len());
            return Err(Error::input(path, "", problem, REMEDY));
        }
        atoms.iter_mut().zip(displacements).for_each(|(atom, displacement)| atom.displacement = displacement);
    }
    header.model(atoms)
}

/// A row of a table.
struct Row<'a> {
    path: &'a Path,
    at: usize,
    labels: &'a [&'a str],
    words: &'a [&'a str],
}

impl<'a> Row<'a> {
    /// Where the columns `names` are, looked for at the first row of a table.
    fn columns<const N: usize>(
        &self,
        known: &mut Option<[usize; N]>,
        names: [&str; N],
    ) -> Result<[usize; N]> {
        if let Some(columns) = *known {
            return Ok(columns);
        }
        let mut columns = [0; N];
        for (column, name) in columns.iter_mut().zip(names) {
            let named = |label: &&str| label.split_once('.').is_some_and(|(_, found)| found == name);
            *column = self.labels.iter().position(named).ok_or_else(|| {
                let problem = format!("its table has no column `{name}`");
                Error::input(self.path, format!("line {}", self.at), problem, REMEDY)
            })?;
        }
        *known = Some(columns);
        Ok(columns)
    }

    /// The words in these columns.
    fn pick<const N: usize>(&self, columns: [usize; N]) -> Result<[&'a str; N]> {
        if self.words.len() != self.labels.len() {
            let problem = format!("holds {} values, expected {}", self.words.len(), self.labels.len());
            return Err(Error::input(self.path, format!("line {}", self.at), problem, REMEDY));
        }
        Ok(columns.map(|column| self.words[column]))
    }
}
