//! Atomic models: positions and scattering strengths from mmCIF and PDB files.
//!
//! Only coordinates, element and occupancy are needed, so this module reads the `_atom_site` loop of mmCIF and the ATOM/HETATM
//! records of PDB itself. General PDB libraries were tried: they require columns that some real files lack (mmCIF without
//! `group_PDB` gives "no atoms"), and build a hierarchy that is not needed.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::imaging::cif::{Token, Tokens};

/// A point scatterer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Atom {
    /// Position (x, y, z) in angstrom.
    pub position: [f64; 3],
    /// Scattering factor of the element at zero angle in angstrom, times the occupancy.
    pub weight: f64,
}

/// Scattering factor of an element that is not in the table: about that of carbon.
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

/// Scattering factor at zero angle in angstrom of an element, by its symbol (case is ignored).
pub fn scattering(element: &str) -> f64 {
    SCATTERING.iter().find(|(symbol, _)| element.eq_ignore_ascii_case(symbol)).map_or(UNKNOWN, |&(_, f)| f)
}

/// Reads the atoms of the first model in an mmCIF or PDB file, in file order. The format is detected from the content.
///
/// # Errors
/// When the file cannot be read, contains no atoms, or a coordinate or occupancy is not a number.
pub fn read(path: &Path) -> Result<Vec<Atom>> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the atomic model", "check the path"))?;
    if files::is_gzip(&bytes) {
        return Err(Error::input(path, "", "is compressed with gzip", "unpack it with `gunzip` first"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let atoms = if text.contains(PREFIX) { read_mmcif(&text, path)? } else { read_pdb(&text, path)? };
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

/// Largest accepted coordinate in angstrom: sums of squares of larger ones could overflow.
const MAX_COORDINATE: f64 = 1e7;
/// Largest accepted occupancy: fractions and percentages are below it.
const MAX_OCCUPANCY: f64 = 1e3;

/// Parses a coordinate; `what` names it in the error.
fn coordinate(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
    let value = number(text, what, line, path)?;
    if value.abs() <= MAX_COORDINATE {
        return Ok(value);
    }
    Err(Error::input(
        path,
        format!("line {line}"),
        format!("the {what} of an atom is {value:e} A, expected at most {MAX_COORDINATE:e} A"),
        "correct the line, or download the model again",
    ))
}

/// Parses a number; `what` names it in the error.
fn number(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
    // mmCIF may append the uncertainty in parentheses: 12.345(6).
    let plain = text.split('(').next().unwrap_or(text).trim();
    plain.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| {
        Error::input(
            path,
            format!("line {line}"),
            format!("the {what} of an atom is \"{text}\", expected a number"),
            "correct the line, or download the model again",
        )
    })
}

fn checked_occupancy(value: f64, line: usize, path: &Path) -> Result<f64> {
    if (0.0..=MAX_OCCUPANCY).contains(&value) {
        return Ok(value);
    }
    Err(Error::input(
        path,
        format!("line {line}"),
        format!("the occupancy is {value:e}, expected 0 to {MAX_OCCUPANCY}"),
        "correct the line, or download the model again",
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
        // Old files have no element column: the first two characters of the atom name hold the element, right-aligned.
        let element = match field(76, 78) {
            "" => field(12, 14).trim_start_matches(|c: char| c.is_ascii_digit()),
            given => given,
        };
        atoms.push(Atom { position, weight: scattering(element) * occupancy });
    }
    Ok(atoms)
}

/// Prefix of the column names of mmCIF's atom table.
const PREFIX: &str = "_atom_site.";

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

fn read_mmcif(text: &str, path: &Path) -> Result<Vec<Atom>> {
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
    let mut atoms = Vec::new();
    let mut first_model = None;
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
        let model = columns.model.map(|c| row[c].text);
        if *first_model.get_or_insert(model) != model {
            return Ok(atoms);
        }
        atoms.push(parse_row(&row, &columns, path)?);
        row.clear();
    }
}

/// True for the name of a column of the atom table.
fn is_column(token: &Token) -> bool {
    token.starts_with(PREFIX)
}

fn parse_row(row: &[Token], columns: &Columns, path: &Path) -> Result<Atom> {
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
    let factor = columns.element.map_or(UNKNOWN, |c| scattering(row[c].text));
    Ok(Atom { position, weight: factor * occupancy })
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
