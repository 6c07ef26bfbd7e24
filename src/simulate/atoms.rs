//! Atomic models: positions and scattering strengths from mmCIF and PDB files.
//!
//! Only coordinates, element and occupancy matter here, so this reads the `_atom_site` loop of mmCIF and the
//! ATOM/HETATM lines of PDB itself. General PDB libraries were tried: they insist on columns that some real files do
//! not have (mmCIF without `group_PDB` gives "no atoms"), and build a hierarchy that is not needed.

use std::path::Path;

use super::cif::{Word, Words};
use crate::error::{Error, Result};
use crate::files;

/// A point that scatters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Atom {
    /// Position (x, y, z) in angstrom.
    pub position: [f64; 3],
    /// Scattering strength: that of the element at zero angle in angstrom, times the occupancy.
    pub weight: f64,
}

/// Strength of an element that the table does not know: about that of carbon.
const UNKNOWN: f64 = 2.5;

/// Electron scattering factors at zero angle in angstrom (Peng et al., Acta Cryst. A52 (1996) 257).
const SCATTERING: [(&str, f64); 21] = [
    ("H", 0.53),
    ("D", 0.53),
    ("C", 2.51),
    ("N", 2.21),
    ("O", 1.98),
    ("F", 1.80),
    ("NA", 4.78),
    ("MG", 5.21),
    ("AL", 5.89),
    ("SI", 5.83),
    ("P", 5.49),
    ("S", 5.16),
    ("CL", 4.86),
    ("K", 9.0),
    ("CA", 9.91),
    ("MN", 7.51),
    ("FE", 7.17),
    ("CO", 6.85),
    ("NI", 6.57),
    ("CU", 5.60),
    ("ZN", 6.07),
];

/// Scattering strength of an element by its symbol, in any case.
pub fn scattering(element: &str) -> f64 {
    SCATTERING.iter().find(|(symbol, _)| element.eq_ignore_ascii_case(symbol)).map_or(UNKNOWN, |&(_, f)| f)
}

/// Reads the atoms of the first model in an mmCIF or PDB file (told apart by their content), as they lie in the file.
///
/// # Errors
/// When the file cannot be read, holds no atoms, or an atom's coordinates or occupancy are not numbers.
pub fn read(path: &Path) -> Result<Vec<Atom>> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the atomic model", "check the path"))?;
    if files::is_gzip(&bytes) {
        return Err(Error::input(path, "", "is compressed by gzip", "unpack it with `gunzip` first"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let atoms = if text.contains(PREFIX) { read_mmcif(&text, path)? } else { read_pdb(&text, path)? };
    if atoms.is_empty() {
        return Err(Error::input(
            path,
            "",
            "holds no atoms (no `_atom_site` loop as in mmCIF, no ATOM or HETATM lines as in PDB)",
            "give an atomic model in mmCIF or PDB format",
        ));
    }
    if atoms.iter().all(|a| a.weight <= 0.0) {
        return Err(Error::input(
            path,
            "",
            "holds only atoms of occupancy 0",
            "set the occupancies, or give another model",
        ));
    }
    Ok(atoms)
}

/// Moves the atoms so that their weighted mean lies at the origin; returns the largest distance from it in angstrom.
pub fn centre(atoms: &mut [Atom]) -> f64 {
    let total: f64 = atoms.iter().map(|a| a.weight).sum();
    let mean: [f64; 3] =
        std::array::from_fn(|axis| atoms.iter().map(|a| a.weight * a.position[axis]).sum::<f64>() / total);
    let mut radius = 0.0f64;
    for atom in atoms {
        for (value, centre) in atom.position.iter_mut().zip(mean) {
            *value -= centre;
        }
        radius = radius.max(atom.position.iter().map(|v| v * v).sum::<f64>().sqrt());
    }
    radius
}

/// No model is larger, in angstrom: sums of squares of what is could leave double precision.
const FARTHEST: f64 = 1e7;
/// No occupancy is larger; those that are fractions and those in percent are not.
const FULLEST: f64 = 1e3;

/// A coordinate of an atom, or an error that says which.
fn coordinate(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
    let value = number(text, what, line, path)?;
    if value.abs() <= FARTHEST {
        return Ok(value);
    }
    Err(Error::input(
        path,
        format!("line {line}"),
        format!("the {what} of an atom is {value:e} A, and no model reaches beyond {FARTHEST:e} A"),
        "correct the line, or get the model again",
    ))
}

/// A number of an atom, or an error that says which.
fn number(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
    // mmCIF may append the uncertainty in brackets: 12.345(6).
    let plain = text.split('(').next().unwrap_or(text).trim();
    plain.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| {
        Error::input(
            path,
            format!("line {line}"),
            format!("the {what} of an atom is \"{text}\", expected a number"),
            "correct the line, or get the model again",
        )
    })
}

fn checked_occupancy(value: f64, line: usize, path: &Path) -> Result<f64> {
    if (0.0..=FULLEST).contains(&value) {
        return Ok(value);
    }
    Err(Error::input(
        path,
        format!("line {line}"),
        format!("an occupancy of {value:e} is impossible"),
        "correct the line, or get the model again",
    ))
}

fn read_pdb(text: &str, path: &Path) -> Result<Vec<Atom>> {
    let mut atoms = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("ENDMDL") {
            break;
        }
        if !(line.starts_with("ATOM  ") || line.starts_with("HETATM")) {
            continue;
        }
        let field = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or("").trim();
        let at = index + 1;
        let mut position = [0.0; 3];
        for (axis, value) in position.iter_mut().enumerate() {
            *value = coordinate(field(30 + 8 * axis, 38 + 8 * axis), ["x", "y", "z"][axis], at, path)?;
        }
        let occupancy = match field(54, 60) {
            "" => 1.0,
            given => checked_occupancy(number(given, "occupancy", at, path)?, at, path)?,
        };
        // Old files have no element column: then the first two letters of the atom's name hold it, right-aligned.
        let element = match field(76, 78) {
            "" => field(12, 14).trim_start_matches(|c: char| c.is_ascii_digit()),
            given => given,
        };
        atoms.push(Atom { position, weight: scattering(element) * occupancy });
    }
    Ok(atoms)
}

/// How the columns of mmCIF's table of atoms are named.
const PREFIX: &str = "_atom_site.";

/// The columns of an `_atom_site` loop that matter here.
struct Columns {
    position: [usize; 3],
    element: Option<usize>,
    occupancy: Option<usize>,
    model: Option<usize>,
    count: usize,
}

impl Columns {
    fn of(names: &[&str], path: &Path) -> Result<Self> {
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

fn read_mmcif(text: &str, path: &Path) -> Result<Vec<Atom>> {
    let mut words = Words::of(text).peekable();
    // The first tag of the table; a table of one atom may also be written without a loop, tag by tag.
    while words.next_if(|w| !is_tag(w)).is_some() {}
    let mut names = Vec::new();
    let mut single = Vec::new();
    while let Some(tag) = words.next_if(is_tag) {
        names.push(&tag.text[PREFIX.len()..]);
        if let Some(value) =
            words.next_if(|w| !is_tag(w) && names.len() == single.len() + 1 && !w.ends_table())
        {
            single.push(value);
        }
    }
    let columns = Columns::of(&names, path)?;
    let mut atoms = Vec::new();
    let mut first_model = None;
    // After a loop's tags, the word that followed the last tag is its first value.
    let looped = single.len() < names.len();
    let mut row: Vec<Word> = single;
    loop {
        while row.len() < columns.count {
            match words.next_if(|w| looped && !w.ends_table()) {
                Some(word) => row.push(word),
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
                "get the model again: the file is cut short or damaged",
            ));
        }
        let model = columns.model.map(|c| row[c].text);
        if *first_model.get_or_insert(model) != model {
            return Ok(atoms);
        }
        atoms.push(atom_of_row(&row, &columns, path)?);
        row.clear();
    }
}

/// True for the name of a column of the table of atoms.
fn is_tag(word: &Word) -> bool {
    word.starts(PREFIX)
}

fn atom_of_row(row: &[Word], columns: &Columns, path: &Path) -> Result<Atom> {
    let mut position = [0.0; 3];
    for (axis, value) in position.iter_mut().enumerate() {
        let word = &row[columns.position[axis]];
        *value = coordinate(word.text, ["x", "y", "z"][axis], word.line, path)?;
    }
    let occupancy = match columns.occupancy.map(|c| &row[c]) {
        Some(word) if !matches!(word.text, "?" | ".") => {
            checked_occupancy(number(word.text, "occupancy", word.line, path)?, word.line, path)?
        }
        _ => 1.0,
    };
    let strength = columns.element.map_or(UNKNOWN, |c| scattering(row[c].text));
    Ok(Atom { position, weight: strength * occupancy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Atom>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
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
        assert_eq!(atoms, expected, "the second model is left out");
    }

    #[test]
    fn a_table_of_one_atom_needs_no_loop() {
        let text = "data_X\n_atom_site.type_symbol O\n_atom_site.Cartn_x 1\n_atom_site.Cartn_y 2\n_atom_site.Cartn_z 3\n_b.c 4\n";
        assert_eq!(read_text(text).unwrap(), [Atom { position: [1.0, 2.0, 3.0], weight: 1.98 }]);
    }

    #[test]
    fn pdb_lines_are_read_by_their_columns() {
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
    fn what_is_no_model_is_refused_in_one_line() {
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
                "line 1: an occupancy of 1",
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
    fn centring_weighs_atoms() {
        let mut atoms =
            [Atom { position: [0.0; 3], weight: 3.0 }, Atom { position: [4.0, 0.0, 0.0], weight: 1.0 }];
        let radius = centre(&mut atoms);
        assert_eq!((atoms[0].position[0], atoms[1].position[0], radius), (-1.0, 3.0, 3.0));
    }
}
