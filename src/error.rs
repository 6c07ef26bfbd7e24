//! The error type of the library. Each message names the file, the place in it, the problem and a remedy.

use std::path::{Path, PathBuf};

/// Result of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// An error with a remedy. Every message is a single line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Invalid content of an input file.
    #[error("{}{}: {problem}; {remedy}", shown(file), place(at))]
    Input {
        /// The file.
        file: PathBuf,
        /// Place in the file ("line 12", "particle 7", "/pose/rotation"); empty for the whole file.
        at: String,
        /// Value found and value expected.
        problem: String,
        /// Remedy.
        remedy: String,
    },
    /// Failure of an operation of the operating system.
    #[error("{}: cannot {action}: {}; {remedy}", shown(file), printable(&reason.to_string()))]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// Operation that failed: a verb and its object ("read the header").
        action: &'static str,
        /// Remedy.
        remedy: &'static str,
        /// Error of the operating system.
        reason: std::io::Error,
    },
    /// Failure of the HDF5 library.
    #[error("{}: cannot {action}: {}; {remedy}", shown(file), one_line(reason))]
    Hdf5 {
        /// The file.
        file: PathBuf,
        /// Operation that failed: a verb and its object ("open the particle set").
        action: &'static str,
        /// Remedy.
        remedy: &'static str,
        /// Error of the HDF5 library.
        reason: hdf5::Error,
    },
    /// A request that cannot be met, independent of file content.
    #[error("{problem}; {remedy}")]
    Request {
        /// The request, and why it cannot be met.
        problem: String,
        /// Remedy.
        remedy: String,
    },
    /// Failure of a GPU or its libraries.
    #[error("{device}: cannot {action}: {}; {remedy}", printable(reason))]
    Device {
        /// Name of the device ("NVIDIA H100 (device 0)").
        device: String,
        /// Operation that failed: a verb and its object ("render").
        action: String,
        /// Error of the driver or library.
        reason: String,
        /// Remedy.
        remedy: String,
    },
    /// A value outside its valid range, from a computation.
    #[error("{}; {remedy}", printable(problem))]
    Numeric {
        /// Value found, and where.
        problem: String,
        /// Remedy.
        remedy: String,
    },
}

/// `text` with a space in the place of each control character. Texts from files and names of files may hold some, which would
/// break a line of a log or a table, or change the terminal.
pub fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() || is_bidirectional(c) || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

/// Whether `c` changes the order in which a terminal shows a line.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shown(file: &Path) -> String {
    printable(&file.display().to_string())
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(": {at}") }
}

/// HDF5's error stack as one line. It may quote names from a damaged file, which the bindings do not check for UTF-8.
fn one_line(error: &hdf5::Error) -> String {
    let bytes = error.to_string().into_bytes();
    let text = printable(&String::from_utf8_lossy(&bytes));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Error {
    /// An [`Error::Input`].
    pub fn input(
        file: impl AsRef<Path>,
        at: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        // Messages may quote a damaged file.
        Self::Input {
            file: file.as_ref().to_path_buf(),
            at: printable(&at.into()),
            problem: printable(&problem.into()),
            remedy: printable(&remedy.into()),
        }
    }

    /// An [`Error::Request`].
    pub fn request(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Request { problem: printable(&problem.into()), remedy: remedy.into() }
    }

    /// An [`Error::Io`]. Usage: `.map_err(Error::io(path, "read the header", "check ..."))`.
    pub fn io(
        file: impl AsRef<Path>,
        action: &'static str,
        remedy: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.as_ref().to_path_buf();
        move |reason| Self::Io { file, action, remedy, reason }
    }

    /// An [`Error::Hdf5`]. Usage: `.map_err(Error::hdf5(path, "read /images", "check ..."))`.
    pub fn hdf5(
        file: impl AsRef<Path>,
        action: &'static str,
        remedy: &'static str,
    ) -> impl FnOnce(hdf5::Error) -> Self {
        let file = file.as_ref().to_path_buf();
        move |reason| Self::Hdf5 { file, action, remedy, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        let message = Error::input("f.h5", "image 1 of a\nb", "is \u{1b}[31m\r\n", "look at it").to_string();
        assert_eq!(message, "f.h5: image 1 of a b: is  [31m  ; look at it");
        let reason = std::io::Error::other("x\ny");
        let message = Error::io("a\u{1b}\n.mrc", "read", "look at it")(reason).to_string();
        assert_eq!(message, "a  .mrc: cannot read: x y; look at it");
    }
}
