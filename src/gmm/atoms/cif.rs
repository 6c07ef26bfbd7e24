//! mmCIF files of pseudo-atoms: a table of atoms, and for anisotropic Gaussians a table of displacements (PDBx/mmCIF dictionary).
//!
//! Numbers are written without exponents, which some readers of mmCIF do not accept.

use std::iter::Peekable;
use std::path::Path;

use super::header::{self, Header};
use super::{PseudoAtom, PseudoAtomModel, REMEDY, isotropic};
use crate::error::{Error, Result};
use crate::files;
use crate::gmm::Shape;
use crate::gmm::covariance::Symmetric;
use crate::imaging::cif::{Token, Tokens};

/// First bytes of a file.
pub(super) const START: &str = "data_";

const EXPLANATION: &str = "data_gaussian_mixture
#
# A Gaussian mixture of cryosplat-mpi, one atom per Gaussian. The occupancy is the amplitude divided by _cryosplat.amplitude.
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

/// Writes the pseudo-atoms, atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write(model: &PseudoAtomModel, path: &Path) -> Result<()> {
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

/// Parses `text`, the content of the file `path`. Columns may have any order.
pub(super) fn parse(text: &str, path: &Path) -> Result<PseudoAtomModel> {
    let mut header = Header::new(path);
    let (mut atoms, mut displacements) = (Vec::new(), Vec::new());
    let mut tokens = Tokens::new(text).peekable();
    while let Some(token) = tokens.next() {
        if token.is_loop() {
            let columns = std::iter::from_fn(|| tokens.next_if(|next| next.data_name().is_some()));
            let columns: Vec<&str> = columns.filter_map(|column| column.data_name()).collect();
            let mut table = Table { path, columns, values: &mut tokens };
            match table.category() {
                Some("atom_site") => table.read_atoms(&mut atoms)?,
                Some("atom_site_anisotrop") => table.read_displacements(&mut displacements)?,
                _ => {}
            }
        } else if let Some(name) = token.data_name()
            && let Some(value) = tokens.next_if(Token::is_value)
        {
            header.insert(token.line, name, value.text);
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

/// A table whose column names have been read, and whose values come next.
struct Table<'a, 't> {
    path: &'t Path,
    columns: Vec<&'a str>,
    values: &'t mut Peekable<Tokens<'a>>,
}

impl<'a> Table<'a, '_> {
    /// The part of the column names before the dot.
    fn category(&self) -> Option<&'a str> {
        self.columns.first()?.split_once('.').map(|(category, _)| category)
    }

    fn read_atoms(&mut self, atoms: &mut Vec<PseudoAtom>) -> Result<()> {
        let path = self.path;
        self.each_row(
            ["Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv"],
            |line, [x, y, z, occupancy, b]| {
                atoms.push(PseudoAtom {
                    position: [
                        header::number(path, line, "x", x)?,
                        header::number(path, line, "y", y)?,
                        header::number(path, line, "z", z)?,
                    ],
                    occupancy: header::occupancy(path, line, occupancy)?,
                    displacement: isotropic(header::b_factor(path, line, b)?),
                });
                Ok(())
            },
        )
    }

    fn read_displacements(&mut self, displacements: &mut Vec<Symmetric>) -> Result<()> {
        let path = self.path;
        let [_, _, names @ ..] = DISPLACEMENTS;
        self.each_row(names, |line, values| {
            let mut displacement = [0.0; 6];
            for (entry, text) in displacement.iter_mut().zip(values) {
                *entry = header::number(path, line, "displacement", text)?;
            }
            displacements.push(displacement);
            Ok(())
        })
    }

    /// Calls `read` with the line of each row and its values in the columns `names`.
    fn each_row<const N: usize>(
        &mut self,
        names: [&str; N],
        mut read: impl FnMut(usize, [&'a str; N]) -> Result<()>,
    ) -> Result<()> {
        let mut places = None;
        let mut row: Vec<&str> = Vec::with_capacity(self.columns.len());
        while let Some(first) = self.values.next_if(Token::is_value) {
            row.clear();
            row.push(first.text);
            while row.len() < self.columns.len()
                && let Some(value) = self.values.next_if(Token::is_value)
            {
                row.push(value.text);
            }
            let places = match places {
                Some(places) => places,
                None => *places.insert(self.find(names, first.line)?),
            };
            if row.len() < self.columns.len() {
                let problem = format!("holds {} values, expected {}", row.len(), self.columns.len());
                return Err(Error::input(self.path, format!("line {}", first.line), problem, REMEDY));
            }
            read(first.line, places.map(|place: usize| row[place]))?;
        }
        Ok(())
    }

    /// Positions of the columns `names`; `line` is where the rows start.
    fn find<const N: usize>(&self, names: [&str; N], line: usize) -> Result<[usize; N]> {
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let named = |column: &&str| column.split_once('.').is_some_and(|(_, found)| found == name);
            *place = self.columns.iter().position(named).ok_or_else(|| {
                let problem = format!("its table has no column `{name}`");
                Error::input(self.path, format!("line {line}"), problem, REMEDY)
            })?;
        }
        Ok(places)
    }
}
