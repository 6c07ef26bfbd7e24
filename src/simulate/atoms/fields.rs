//! Numbers of a model file.

use std::path::Path;

use crate::error::{Error, Result};

/// Largest accepted coordinate in angstrom: sums of squares of larger ones could overflow.
const MAX_COORDINATE: f64 = 1e7;
/// Largest accepted occupancy: fractions and percentages are below it.
const MAX_OCCUPANCY: f64 = 1e3;

/// Parses a coordinate; `what` names it in the error.
pub(super) fn coordinate(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
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
pub(super) fn number(text: &str, what: &str, line: usize, path: &Path) -> Result<f64> {
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

pub(super) fn checked_occupancy(value: f64, line: usize, path: &Path) -> Result<f64> {
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
