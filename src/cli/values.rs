//! Parsers of option values that several commands share.

/// A number above `low`, up to `high`.
pub(super) fn number(text: &str, low: f64, high: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > low && value <= high => Ok(value),
        _ => Err(format!("expected a number above {low}, up to {high}")),
    }
}

/// Half width of a splat's support, in standard deviations.
pub(super) fn cutoff(text: &str) -> Result<f64, String> {
    number(text, 0.5, 20.0)
}
