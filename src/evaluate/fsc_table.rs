//! The table of FSC curves (fsc.csv): writing and reading.

use std::path::Path;

use crate::error::{Error, Result};
use crate::evaluate::fsc::Fsc;
use crate::evaluate::maps::PIXEL_SIZE_TOLERANCE;
use crate::files;

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
                    "FSC curve {label:?} has a box of {} at {:.4} A, but the first has {} at {:.4} A",
                    fsc.box_size, fsc.pixel_size, first.box_size, first.pixel_size
                ),
                "write them to separate files",
            ));
        }
    }
    let failed = |error: csv::Error| {
        Error::request(format!("the FSC cannot be written as CSV: {error}"), "report this bug")
    };
    let labels: Vec<String> = curves.iter().map(|(label, _)| files::csv_text(label)).collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let names = ["shell", "spatial_frequency_1_per_A", "resolution_A"];
    table.write_record(names.into_iter().chain(labels.iter().map(String::as_str))).map_err(failed)?;
    for shell in 1..first.shells.len() {
        let frequency = first.frequency(shell as f64);
        let mut row = vec![shell.to_string(), format!("{frequency:.8}"), format!("{:.4}", 1.0 / frequency)];
        let value = |fsc: &Fsc| fsc.shells.get(shell).map_or(String::new(), |value| format!("{value:.8}"));
        row.extend(curves.iter().map(|(_, fsc)| value(fsc)));
        table.write_record(&row).map_err(failed)?;
    }
    let bytes = table.into_inner().expect("a vector takes all bytes");
    Ok(String::from_utf8(bytes).expect("CSV of strings is UTF-8"))
}

/// Reads a table written by [`to_csv`], for maps of box size `box_size` and pixel size `pixel_size` in angstrom.
///
/// # Errors
/// If the file cannot be read, or is not such a table. Names the line.
pub fn read(path: &Path, box_size: usize, pixel_size: f64) -> Result<Vec<(String, Fsc)>> {
    const REMEDY: &str = "write the table again with `fsc -o` or `train`";
    let text = files::read_text(path).map_err(Error::io(path, "read the FSC", "check the path"))?;
    let mut records = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
        .into_records();
    let broken = |error: csv::Error| Error::input(path, "", format!("is not CSV: {error}"), REMEDY);
    let names = records.next().transpose().map_err(broken)?.unwrap_or_default();
    let bad = |line: usize, problem: &str| {
        Err(Error::input(path, format!("line {}", line + 1), problem.to_owned(), REMEDY))
    };
    if names.len() < 4 || &names[0] != "shell" {
        return bad(0, "is not the header of an FSC table");
    }
    if names.len() - 3 > MAX_CURVES {
        return bad(0, &format!("names {} curves, expected {MAX_CURVES} at most", names.len() - 3));
    }
    // Shell 0 is not in the table.
    let mut curves: Vec<Vec<f64>> = vec![vec![1.0]; names.len() - 3];
    for (number, fields) in records.enumerate() {
        let (shell, fields) = (number + 1, fields.map_err(broken)?);
        // The first curve has a value in every shell, and no other curve is longer.
        let numbers = fields.iter().take(4).all(|field| field.parse::<f64>().is_ok());
        let valid = fields.len() == names.len() && numbers && fields[0].parse() == Ok(shell as f64);
        let mut each = curves.iter_mut().zip(fields.iter().skip(3));
        // A curve has no values after its end.
        let taken = |(curve, field): (&mut Vec<f64>, &str)| match field.parse() {
            Ok(value) if curve.len() == shell => {
                curve.push(value);
                true
            }
            Ok(_) => false,
            Err(_) => field.is_empty() && shell > 1,
        };
        if !(valid && each.all(taken)) {
            let found = fields.iter().collect::<Vec<_>>().join(",");
            return bad(shell, &format!("is {found:?}, expected shell {shell} with a number per curve"));
        }
    }
    let curve = |(name, shells): (&str, Vec<f64>)| (name.to_owned(), Fsc { pixel_size, box_size, shells });
    Ok(names.iter().skip(3).zip(curves).map(curve).collect())
}
