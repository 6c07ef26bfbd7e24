//! Output on standard output and names of output files.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Splits the value of `-o` into a folder and the start of the file names.
pub(super) fn folder_and_stem(output: &Path) -> Result<(&Path, &OsStr)> {
    let refuse = |problem| Error::input(output, "", problem, "give -o a name such as run/fsc");
    let typed = output.as_os_str().as_bytes();
    if typed.ends_with(b"/") || typed.ends_with(b"/.") {
        return Err(refuse("is the name of a folder, expected the start of file names"));
    }
    let stem = output.file_name().ok_or_else(|| refuse("is not a file name"))?;
    Ok((output.parent().unwrap_or(Path::new("")), stem))
}

/// The command line of this process, as records show it: bytes that are not UTF-8 are replaced.
pub(super) fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The name of a file without its folder, for a title.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Prints text to standard output, without control characters other than the ends of lines and tabs; a closed pipe (`| head`) is not an error.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    const REMEDY: &str = "send it to a file on a disk that is not full, or to a terminal";
    let text =
        String::from_utf8_lossy(bytes).replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ");
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", "print the result", REMEDY)(error).into())
        }
        _ => Ok(()),
    }
}
