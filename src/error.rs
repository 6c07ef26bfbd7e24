//! What can go wrong in the library, in sentences that name the file, the place in it, and the remedy.

use std::path::{Path, PathBuf};

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An error that a user can act on. Every variant prints on one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The content of an input file is wrong.
    #[error("{}{}: {problem}; {remedy}", file.display(), place(at))]
    Input {
        /// The file at fault.
        file: PathBuf,
        /// The place in it ("line 12", "particle 7", "/pose/rotation"); empty for the whole file.
        at: String,
        /// What was found and what was expected.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// The operating system refused something.
    #[error("{}: cannot {action}: {reason}; {remedy}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was tried, as a verb with its object ("read the header").
        action: &'static str,
        /// What the user can do about it.
        remedy: &'static str,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The HDF5 library refused something.
    #[error("{}: cannot {action}: {}; {remedy}", file.display(), one_line(reason))]
    Hdf5 {
        /// The file.
        file: PathBuf,
        /// What was tried, as a verb with its object ("open the particle set").
        action: &'static str,
        /// What the user can do about it.
        remedy: &'static str,
        /// The library's reason.
        reason: hdf5::Error,
    },
    /// The request does not make sense, whatever the files hold.
    #[error("{problem}; {remedy}")]
    Request {
        /// What was asked, and why it cannot be done.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// A GPU or its libraries refused something.
    #[error("{device}: cannot {action}: {reason}; {remedy}")]
    Device {
        /// Which one ("NVIDIA H100 (device 0)").
        device: String,
        /// What was tried, as a verb with its object ("render").
        action: String,
        /// The driver's reason.
        reason: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// A computation left the range of numbers it must stay in.
    #[error("{problem}; {remedy}")]
    Numeric {
        /// What was found, and where.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(": {at}") }
}

/// HDF5 explains itself in a stack of lines; an error of ours takes one. Names of a damaged file may be in it, and the bindings
/// take them for UTF-8 unseen.
fn one_line(error: &hdf5::Error) -> String {
    let bytes = error.to_string().into_bytes();
    let text = String::from_utf8_lossy(&bytes).replace(char::is_control, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Error {
    /// An [`Error::Input`]: `file`, the place `at` in it, what is wrong and what to do.
    pub fn input(
        file: impl AsRef<Path>,
        at: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        // What a damaged file says of itself is part of some: it may hold anything, and a message stays one line.
        let plain = |text: String| text.replace(char::is_control, " ");
        Self::Input {
            file: file.as_ref().to_path_buf(),
            at: plain(at.into()),
            problem: plain(problem.into()),
            remedy: remedy.into(),
        }
    }

    /// An [`Error::Request`].
    pub fn request(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Request { problem: problem.into(), remedy: remedy.into() }
    }

    /// An [`Error::Io`]; use as `.map_err(Error::io(path, "read the header", "check ..."))`.
    pub fn io(
        file: impl AsRef<Path>,
        action: &'static str,
        remedy: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.as_ref().to_path_buf();
        move |reason| Self::Io { file, action, remedy, reason }
    }

    /// An [`Error::Hdf5`]; use as `.map_err(Error::hdf5(path, "read /images", "check ..."))`.
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
    fn words_of_a_damaged_file_leave_a_message_in_one_line() {
        let message = Error::input("f.h5", "image 1 of a\nb", "is \u{1b}[31m\r\n", "look at it").to_string();
        assert_eq!(message, "f.h5: image 1 of a b: is  [31m  ; look at it");
    }
}
