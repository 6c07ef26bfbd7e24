//! Output on standard output and names of output files.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Splits the value of `-o` into a folder and the start of the file names.
pub(super) fn folder_and_stem(output: &Path) -> Result<(&Path, String)> {
    let stem = output
        .file_name()
        .ok_or_else(|| Error::input(output, "", "is not a file name", "give -o a name such as run/fsc"))?;
    Ok((output.parent().unwrap_or(Path::new("")), stem.to_string_lossy().into_owned()))
}

/// Prints text to standard output, without control characters other than the ends of lines and tabs; a closed pipe (`| head`) is not an error.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let text =
        String::from_utf8_lossy(bytes).replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ");
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
