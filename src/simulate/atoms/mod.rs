//! Atomic models: positions and scattering strengths from mmCIF and PDB files.
//!
//! Only coordinates, element and occupancy are needed, so this module reads the `_atom_site` loop of mmCIF and the ATOM/HETATM
//! records of PDB itself. General PDB libraries were tried: they require columns that some real files lack (mmCIF without
//! `group_PDB` gives "no atoms"), and build a hierarchy that is not needed.

mod elements;
mod fields;
mod mmcif;
mod models;
mod pdb;

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

pub use elements::scattering;
pub use models::ModelChoice;

/// A point scatterer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Atom {
    /// Position (x, y, z) in angstrom.
    pub position: [f64; 3],
    /// Scattering factor of the element at zero angle in angstrom, times the occupancy.
    pub weight: f64,
}

/// Reads the atoms of the chosen models in an mmCIF or PDB file, in file order. The format is detected from the content.
///
/// # Errors
/// When the file cannot be read, contains no atoms or not the chosen model, or a coordinate or occupancy is not a number.
pub fn read(path: &Path, choice: ModelChoice) -> Result<Vec<Atom>> {
    let bytes =
        files::read_bytes(path).map_err(Error::io(path, "read the atomic model", "check the path"))?;
    if files::is_gzip(&bytes) {
        return Err(Error::input(path, "", "is compressed with gzip", "unpack it with `gunzip` first"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let read = if text.contains(mmcif::PREFIX) { mmcif::read } else { pdb::read };
    let atoms = read(&text, path, choice)?.finish(path)?;
    if atoms.is_empty() {
        return Err(Error::input(
            path,
            "",
            "contains no atoms (no `_atom_site` loop as in mmCIF, no ATOM or HETATM records as in PDB)",
            "give an atomic model in mmCIF or PDB format",
        ));
    }
    if atoms.iter().all(|a| a.weight <= 0.0) {
        return Err(Error::input(
            path,
            "",
            "contains only atoms with occupancy 0",
            "set the occupancies, or give another model",
        ));
    }
    Ok(atoms)
}

/// Moves the atoms so that their weighted mean is at the origin. Returns the largest distance from the origin in angstrom.
pub fn centre(atoms: &mut [Atom]) -> f64 {
    move_origin(atoms, centre_of(atoms))
}

/// The centre of the atoms, weighted by their scattering.
pub fn centre_of(atoms: &[Atom]) -> [f64; 3] {
    let total: f64 = atoms.iter().map(|a| a.weight).sum();
    std::array::from_fn(|axis| atoms.iter().map(|a| a.weight * a.position[axis]).sum::<f64>() / total)
}

/// Moves the atoms so that `mean` becomes the origin. Returns the largest distance of an atom from it.
pub fn move_origin(atoms: &mut [Atom], mean: [f64; 3]) -> f64 {
    let mut radius = 0.0f64;
    for atom in atoms {
        for (value, centre) in atom.position.iter_mut().zip(mean) {
            *value -= centre;
        }
        radius = radius.max(atom.position.iter().map(|v| v * v).sum::<f64>().sqrt());
    }
    radius
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Atom>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), ModelChoice::First)
    }

    #[test]
    fn an_mmcif_loop_is_read_with_quotes_comments_and_text_fields() {
        let text = "data_X\n_entry.id 'it''s _atom_site.x'\n_struct.title\n;a text\nloop_ in it\n;\n#\nloop_\n\
            _atom_site.id\n_atom_site.type_symbol\n_atom_site.label_atom_id\n_atom_site.Cartn_x\n\
            _atom_site.Cartn_y\n_atom_site.Cartn_z\n_atom_site.occupancy\n_atom_site.pdbx_PDB_model_num\n\
            1 C \"C1'\" 1.0 2.0 3.0 0.5 1\n2 ZN ZN -1.5(2) 0 1e1\n? 1\n3 C CA 9 9 9 1 2\n#\nloop_\n_other.x\n7\n";
        let atoms = read_text(text).unwrap();
        let expected = [
            Atom { position: [1.0, 2.0, 3.0], weight: 2.51 * 0.5 },
            Atom { position: [-1.5, 0.0, 10.0], weight: 6.07 },
        ];
        assert_eq!(atoms, expected, "the second model is skipped");
    }

    #[test]
    fn a_table_of_one_atom_needs_no_loop() {
        let text = "data_X\n_atom_site.type_symbol O\n_atom_site.Cartn_x 1\n_atom_site.Cartn_y 2\n_atom_site.Cartn_z 3\n_b.c 4\n";
        assert_eq!(read_text(text).unwrap(), [Atom { position: [1.0, 2.0, 3.0], weight: 1.98 }]);
    }

    #[test]
    fn pdb_records_are_read_by_column() {
        let text = "HEADER    X\n\
ATOM      1  CA  ALA A   1    -100.500 200.250   3.000  0.50 20.00           C  \n\
HETATM    2 MG    MG A   2       1.000   2.000   3.000\nENDMDL\n\
ATOM      1  CA  ALA A   1       1.000   1.000   1.000  1.00 20.00           C  \n";
        let atoms = read_text(text).unwrap();
        assert_eq!(atoms[0], Atom { position: [-100.5, 200.25, 3.0], weight: 2.51 * 0.5 });
        assert_eq!(atoms[1], Atom { position: [1.0, 2.0, 3.0], weight: 5.21 });
        assert_eq!(atoms.len(), 2);
    }

    #[test]
    fn models_are_chosen_by_their_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let record = |x: f64| {
            format!("ATOM      1  CA  ALA A   1    {x:8.3}   1.000   1.000  1.00 20.00           C\n")
        };
        let model = |number: i32, x: f64| format!("MODEL     {number:4}\n{}ENDMDL\n", record(x));
        let pdb = model(2, 1.0) + &model(7, 2.0) + &model(7, 3.0) + "END\n";
        let table =
            "loop_\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n_atom_site.type_symbol\n";
        let cif = format!("{table}_atom_site.pdbx_PDB_model_num\n1 1 1 C 2\n2 1 1 C 7\n3 1 1 C 7\n");
        for text in [pdb, cif] {
            std::fs::write(file.path(), &text).unwrap();
            let found = |choice| -> Vec<f64> {
                read(file.path(), choice).unwrap().iter().map(|atom| atom.position[0]).collect()
            };
            assert_eq!(found(ModelChoice::First), [1.0]);
            assert_eq!(found(ModelChoice::Number(7)), [2.0, 3.0]);
            assert_eq!(found(ModelChoice::All), [1.0, 2.0, 3.0]);
            let message = read(file.path(), ModelChoice::Number(1)).unwrap_err().to_string();
            assert!(message.contains("holds no model 1, but 2 to 7"), "{message}");
        }
        std::fs::write(file.path(), record(1.0)).unwrap();
        assert!(read(file.path(), ModelChoice::Number(1)).is_ok(), "no MODEL record: model 1");
        std::fs::write(file.path(), format!("MODEL     one\n{}", record(1.0))).unwrap();
        let message = read(file.path(), ModelChoice::First).unwrap_err().to_string();
        assert!(message.contains("line 1: the number of a model is \"one\""), "{message}");
    }

    #[test]
    fn invalid_models_give_one_line_errors() {
        let table = "loop_\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n";
        for (text, fragment) in [
            (String::new(), "no atoms"),
            ("any text\nwithout atoms \u{1F980}\n".into(), "no atoms"),
            (table.into(), "no atoms"),
            (format!("{table}1 2 x\n"), "\"x\""),
            (format!("{table}1 2 nan\n"), "\"nan\""),
            (format!("{table}1 2 -1e300\n"), "the z of an atom is -1e300 A"),
            (
                "ATOM      1  CA  ALA A   1       1.000   1.000   1.000 1e300\n".into(),
                "line 1: the occupancy is 1e300",
            ),
            (format!("{table}1 2 3\n4 5\n"), "line 6"),
            ("_atom_site.id 1".into(), "Cartn_x"),
            (format!("{table}1 \u{c} 2\r\n'x"), "line 6"),
            ("loop_\n_atom_site.Cartn_x 'unclosed".into(), "Cartn_y"),
            ("ATOM      1  CA  ALA A   1    nothing\n".into(), "line 1"),
            (
                "ATOM  \u{1F980}\u{1F980}\u{1F980}\u{1F980}\u{1F980}\u{1F980}\u{1F980}\u{1F980}".into(),
                "line 1",
            ),
        ] {
            let message = read_text(&text).unwrap_err().to_string();
            assert!(message.contains(fragment) && !message.contains('\n'), "{text:?}: {message}");
        }
    }

    #[test]
    fn centring_uses_the_weights() {
        let mut atoms =
            [Atom { position: [0.0; 3], weight: 3.0 }, Atom { position: [4.0, 0.0, 0.0], weight: 1.0 }];
        let radius = centre(&mut atoms);
        assert_eq!((atoms[0].position[0], atoms[1].position[0], radius), (-1.0, 3.0, 3.0));
    }
}
