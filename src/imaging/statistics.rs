//! Statistics of the values of MRC files.

use crate::error::Result;
use crate::imaging::mrc::Stack;

/// Statistics of the finite values of a map or stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ValueStatistics {
    pub min: f32,
    pub max: f32,
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// Number of values that are NaN or infinite.
    pub not_finite: u64,
}

impl ValueStatistics {
    /// Reads a stack or map one section at a time: a stack may not fit in memory.
    pub(crate) fn of(stack: &Stack) -> Result<Self> {
        let (mut min, mut max, mut not_finite) = (f32::INFINITY, f32::NEG_INFINITY, 0);
        let (mut count, mut sum, mut squares) = (0.0f64, 0.0f64, 0.0f64);
        // Sums of differences from the first value, so that a small deviation from a large mean is not lost to rounding.
        let mut about = None;
        let mut image = vec![0.0; stack.image_len()];
        let mut scratch = Vec::new();
        for index in 0..stack.len() {
            stack.read_image(index, &mut image, &mut scratch)?;
            for &value in &image {
                if !value.is_finite() {
                    not_finite += 1;
                    continue;
                }
                min = min.min(value);
                max = max.max(value);
                let difference = f64::from(value) - *about.get_or_insert(f64::from(value));
                count += 1.0;
                sum += difference;
                squares += difference * difference;
            }
        }
        let Some(about) = about else {
            return Ok(Self { min: 0.0, max: 0.0, mean: 0.0, deviation: 0.0, not_finite });
        };
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        Ok(Self { min, max, mean: about + mean, deviation, not_finite })
    }
}
