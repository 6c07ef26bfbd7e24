//! The description of a file.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Description of a file.
pub(super) struct Description {
    /// Kind of the file, such as "particle set".
    pub kind: &'static str,
    /// Names and values in display order.
    pub rows: Vec<(&'static str, String)>,
    /// The same as a JSON object.
    pub json: Value,
}

/// A file's length in bytes.
pub(super) fn length(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "read its length", "check the path"))?;
    Ok(metadata.len())
}

/// "1.07 GB (1073741824 bytes)".
pub(super) fn bytes(length: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(size, _)| length as f64 >= *size) {
        Some((size, unit)) => format!("{:.2} {unit} ({length} bytes)", length as f64 / size),
        None => format!("{length} bytes"),
    }
}
