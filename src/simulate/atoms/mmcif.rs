//! The `_atom_site` table of mmCIF files.

use std::path::Path;

use super::fields::{checked_occupancy, coordinate, number};
use super::models::{ModelAtoms, ModelChoice};
use crate::error::{Error, Result};
use crate::imaging::cif::{Token, Tokens};

/// Prefix of the column names of mmCIF's atom table.
pub(super) const PREFIX: &str = "_atom_site.";

/// Positions of the required columns in an `_atom_site` loop.
struct Columns {
    position: [usize; 3],
    element: Option<usize>,
    occupancy: Option<usize>,
    model: Option<usize>,
    count: usize,
}

impl Columns {
    fn find(names: &[&str], path: &Path) -> Result<Self> {
        let column = |name: &str| names.iter().position(|n| n.eq_ignore_ascii_case(name));
        let coordinate = |name: &str| {
            column(name).ok_or_else(|| {
                Error::input(
                    path,
                    "",
                    format!("its `_atom_site` loop has no column `{name}`"),
                    "give a model with Cartesian coordinates",
                )
            })
        };
        Ok(Self {
            position: [coordinate("Cartn_x")?, coordinate("Cartn_y")?, coordinate("Cartn_z")?],
            element: column("type_symbol"),
            occupancy: column("occupancy"),
            model: column("pdbx_PDB_model_num"),
            count: names.len(),
        })
    }
}

/// Reads the atoms of a model file.
pub(super) fn read(text: &str, path: &Path, choice: ModelChoice) -> Result<ModelAtoms> {
    let mut tokens = Tokens::new(text).peekable();
    // Skip to the table. A table of one atom may be written without a loop, as pairs of name and value.
    while tokens.next_if(|token| !is_column(token)).is_some() {}
    let mut names = Vec::new();
    let mut single = Vec::new();
    while let Some(column) = tokens.next_if(is_column) {
        names.push(&column.text[PREFIX.len()..]);
        if let Some(value) = tokens.next_if(|token| token.is_value() && names.len() == single.len() + 1) {
            single.push(value);
        }
    }
    let columns = Columns::find(&names, path)?;
    let mut atoms = ModelAtoms::new(choice);
    // In a loop, the token after the last column name is the first value.
    let looped = single.len() < names.len();
    let mut row: Vec<Token> = single;
    loop {
        while row.len() < columns.count {
            match tokens.next_if(|token| looped && token.is_value()) {
                Some(value) => row.push(value),
                None => break,
            }
        }
        if row.is_empty() {
            return Ok(atoms);
        }
        if row.len() < columns.count {
            return Err(Error::input(
                path,
                format!("line {}", row[0].line),
                format!("the `_atom_site` table ends after {} of {} columns", row.len(), columns.count),
                "download the model again: the file is truncated or damaged",
            ));
        }
        if atoms.wants(model_number(&row, &columns, path)?) {
            parse_row(&row, &columns, path, &mut atoms)?;
        }
        row.clear();
    }
}

/// The number of the model of a row: 1 if the table does not have it.
fn model_number(row: &[Token], columns: &Columns, path: &Path) -> Result<i32> {
    let Some(token) = columns.model.map(|c| &row[c]).filter(|token| !matches!(token.text, "?" | ".")) else {
        return Ok(1);
    };
    token.text.parse().map_err(|_| {
        Error::input(
            path,
            format!("line {}", token.line),
            format!("the model of an atom is \"{}\", expected a whole number", token.text),
            "correct the line, or download the model again",
        )
    })
}

/// True for the name of a column of the atom table.
fn is_column(token: &Token) -> bool {
    token.starts_with(PREFIX)
}

fn parse_row(row: &[Token], columns: &Columns, path: &Path, atoms: &mut ModelAtoms) -> Result<()> {
    let mut position = [0.0; 3];
    for (axis, value) in position.iter_mut().enumerate() {
        let token = &row[columns.position[axis]];
        *value = coordinate(token.text, ["x", "y", "z"][axis], token.line, path)?;
    }
    let occupancy = match columns.occupancy.map(|c| &row[c]) {
        Some(token) if !matches!(token.text, "?" | ".") => {
            checked_occupancy(number(token.text, "occupancy", token.line, path)?, token.line, path)?
        }
        _ => 1.0,
    };
    atoms.push(position, columns.element.map(|c| row[c].text), occupancy);
    Ok(())
}
