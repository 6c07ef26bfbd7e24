//! The ATOM and HETATM records of PDB files.

use std::path::Path;

use super::elements;
use super::fields::{checked_occupancy, coordinate, number};
use super::models::{ModelAtoms, ModelChoice};
use crate::error::{Error, Result};

/// Reads the atoms of a model file. Atoms before any MODEL record belong to model 1.
pub(super) fn read(text: &str, path: &Path, choice: ModelChoice) -> Result<ModelAtoms> {
    let mut atoms = ModelAtoms::new(choice);
    let mut model: i32 = 1;
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let field = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or("").trim();
        if line.starts_with("MODEL ") || line == "MODEL" {
            // Columns 11 to 14; some programs write the number elsewhere.
            let given = field(5, line.len());
            model = given.parse().map_err(|_| {
                Error::input(
                    path,
                    format!("line {at}"),
                    format!("the number of a model is \"{given}\", expected a whole number"),
                    "correct the line, or download the model again",
                )
            })?;
            continue;
        }
        if line.starts_with("ENDMDL") {
            // Atoms behind it belong to another model, also without a MODEL record.
            model = model.saturating_add(1);
            continue;
        }
        if !(line.starts_with("ATOM  ") || line.starts_with("HETATM")) || !atoms.wants(model) {
            continue;
        }
        let mut position = [0.0; 3];
        for (axis, value) in position.iter_mut().enumerate() {
            *value = coordinate(field(30 + 8 * axis, 38 + 8 * axis), ["x", "y", "z"][axis], at, path)?;
        }
        let occupancy = match field(54, 60) {
            "" => 1.0,
            given => checked_occupancy(number(given, "occupancy", at, path)?, at, path)?,
        };
        atoms.push(position, elements::of_pdb_record(line), occupancy);
    }
    Ok(atoms)
}
