//! Parsers and checks of option values that several commands share.

use crate::error::Error;

/// Largest box of particles or maps that is taken for one, in pixels; what memory allows is often less.
const LARGEST_BOX: usize = 1_000_000;

/// A number above `low`, up to `high`.
pub(super) fn number(text: &str, low: f64, high: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > low && value <= high => Ok(value),
        _ => Err(format!("expected a number above {low}, up to {high}")),
    }
}

/// A pixel size in angstrom.
pub(super) fn pixel_size(text: &str) -> Result<f64, String> {
    number(text, 1e-4, 1000.0)
}

/// A B factor in square angstrom, of either sign. How far it may sharpen depends on the map.
pub(super) fn b_factor(text: &str) -> Result<f64, String> {
    number(text, -1e15, 1e5)
}

/// Half width of a splat's support, in standard deviations.
pub(super) fn cutoff(text: &str) -> Result<f64, String> {
    number(text, 0.5, 20.0)
}

/// A length in angstrom that is not absurdly large. What is not above 0 is refused where the length is used.
pub(super) fn length(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 1e5 && value.is_finite() => Err("expected a length up to 100000 A".into()),
        Ok(value) => Ok(value),
        Err(_) => Err("expected a number of angstrom".into()),
    }
}

/// Checks that a box given on the command line is possible.
pub(super) fn check_box(box_size: Option<usize>) -> Result<(), Error> {
    match box_size {
        Some(size) if size < 4 => {
            Err(Error::request("the --box given is impossible", "give --box 4 or more"))
        }
        Some(size) if size > LARGEST_BOX => Err(Error::request(
            format!("a box of {size} pixels is impossible"),
            format!("give --box {LARGEST_BOX} or less"),
        )),
        _ => Ok(()),
    }
}
