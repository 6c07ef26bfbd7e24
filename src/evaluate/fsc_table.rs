//! The table of FSC curves (fsc.csv): writing and reading.

use std::path::Path;

use crate::error::{Error, Result};
use crate::evaluate::fsc::Fsc;
use crate::evaluate::maps::PIXEL_SIZE_TOLERANCE;

/// Largest number of curves read: each needs a legend entry.
const MAX_CURVES: usize = 100;

/// The table of `curves` as CSV. Columns are shell, spatial_frequency_1_per_A, resolution_A, and one per curve, named by its label.
/// Rows start at shell 1. A field beyond the end of a curve is empty.
///
/// # Errors
/// When there is no curve, a curve is longer than the first, or the curves differ in box or pixel size.
pub(crate) fn to_csv(curves: &[(String, Fsc)]) -> Result<String> {
    let Some((_, first)) = curves.first() else {
        return Err(Error::request("there is no FSC curve to write", "give at least one"));
    };
    for (label, fsc) in curves {
        let same_pixels =
            (fsc.pixel_size - first.pixel_size).abs() <= PIXEL_SIZE_TOLERANCE * first.pixel_size;
        if fsc.shells.len() > first.shells.len() || fsc.box_size != first.box_size || !same_pixels {
            return Err(Error::request(
                format!(
                    "FSC curve {label:?} has a box of {} at {:.4} A, and the first has {} at {:.4} A",
                    fsc.box_size, fsc.pixel_size, first.box_size, first.pixel_size
                ),
                "write them to separate files",
            ));
        }
    }
    let names: Vec<String> = curves.iter().map(|(label, _)| quoted(label)).collect();
    let mut table = format!("shell,spatial_frequency_1_per_A,resolution_A,{}\n", names.join(","));
    for shell in 1..first.shells.len() {
        let frequency = first.frequency(shell as f64);
        let value = |fsc: &Fsc| fsc.shells.get(shell).map_or(String::new(), |value| format!("{value:.8}"));
        let values: Vec<String> = curves.iter().map(|(_, fsc)| value(fsc)).collect();
        table += &format!("{shell},{frequency:.8},{:.4},{}\n", 1.0 / frequency, values.join(","));
    }
    Ok(table)
}

/// Reads a table of FSC curves of maps with `box_size` pixels of `pixel_size` angstrom.
///
/// # Errors
/// When the file cannot be read or is not such a table, with the line.
pub fn read(path: &Path, box_size: usize, pixel_size: f64) -> Result<Vec<(String, Fsc)>> {
    const REMEDY: &str = "write the table again with `fsc -o` or `train`";
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read the FSC", "check the path"))?;
    let mut lines = text.lines();
    let names = fields(lines.next().unwrap_or_default());
    let bad = |line: usize, problem: &str| {
        Err(Error::input(path, format!("line {}", line + 1), problem.to_owned(), REMEDY))
    };
    if names.len() < 4 || names[0] != "shell" {
        return bad(0, "is not the header of a table of FSC curves");
    }
    if names.len() - 3 > MAX_CURVES {
        return bad(0, &format!("names {} curves, and at most {MAX_CURVES} can be shown", names.len() - 3));
    }
    // Shell 0 is not in the table.
    let mut curves: Vec<Vec<f64>> = vec![vec![1.0]; names.len() - 3];
    for (number, line) in lines.enumerate() {
        let shell = number + 1;
        let fields = fields(line);
        // The first curve has a value in every row; others may end earlier.
        let numbers = fields.iter().take(4).all(|field| field.parse::<f64>().is_ok());
        let sound = fields.len() == names.len() && numbers && fields[0].parse() == Ok(shell as f64);
        let mut each = curves.iter_mut().zip(fields.iter().skip(3));
        // Beyond its end a curve has no values.
        let accept = |(curve, field): (&mut Vec<f64>, &String)| match field.parse() {
            Ok(value) if curve.len() == shell => {
                curve.push(value);
                true
            }
            Ok(_) => false,
            Err(_) => field.is_empty() && shell > 1,
        };
        if !(sound && each.all(accept)) {
            return bad(shell, &format!("is not shell {shell} with a number for each curve: {line:?}"));
        }
    }
    let curve = |(name, shells): (&String, Vec<f64>)| (name.clone(), Fsc { pixel_size, box_size, shells });
    Ok(names[3..].iter().zip(curves).map(curve).collect())
}

/// The fields of a line of CSV (RFC 4180).
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let field = fields.last_mut().expect("there is one from the start");
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

/// A CSV field, quoted where it must be (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
