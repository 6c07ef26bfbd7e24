//! Parsers and checks of option values that several commands share.

use crate::error::Error;

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

/// Checks that a box and a pixel size given on the command line are possible.
pub(super) fn check_grid(box_size: Option<usize>, pixel_size: Option<f64>) -> Result<(), Error> {
    for (name, least, wrong) in [
        ("--box", "4 or more", box_size.is_some_and(|n| n < 4)),
        ("--pixel-size", "above 0", pixel_size.is_some_and(|p| !(p.is_finite() && p > 0.0))),
    ] {
        if wrong {
            let problem = format!("the {name} given is impossible");
            return Err(Error::request(problem, format!("give {name} {least}")));
        }
    }
    Ok(())
}
