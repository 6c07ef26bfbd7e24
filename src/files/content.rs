//! What a file is, by its first bytes: so that an error can name the file that was given, and the command for it.

use std::io::Read;
use std::path::Path;

use super::open_input;
use crate::error::{Error, Result};

/// Bytes that [`Content::of`] looks at.
const PROBE: u64 = 4096;
/// Length of the header of an MRC file.
const MRC_HEADER: usize = 1024;

/// Kinds of files that people have in the same folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Empty,
    Hdf5,
    Mrc,
    Star,
    AtomicModel,
    Ply,
    Numpy,
    Pickle,
    Gzip,
    Json,
    Text,
    Unknown,
}

impl Content {
    /// The kind of a file with the first bytes `start`.
    pub(crate) fn of(start: &[u8]) -> Self {
        if start.is_empty() {
            return Self::Empty;
        }
        if start.starts_with(b"\x89HDF\r\n\x1a\n") {
            return Self::Hdf5;
        }
        if start.len() >= MRC_HEADER && start[208..].starts_with(b"MAP") {
            return Self::Mrc;
        }
        if start.starts_with(b"ply\n") || start.starts_with(b"ply\r") {
            return Self::Ply;
        }
        if start.starts_with(b"\x93NUMPY") || start.starts_with(b"\x94CSDAT") {
            return Self::Numpy;
        }
        // Magic number and method "deflate", the only one defined.
        if start.starts_with(&[0x1f, 0x8b, 8]) {
            return Self::Gzip;
        }
        if start[0] == 0x80 && start.get(1).is_some_and(|version| (2..=5).contains(version)) {
            return Self::Pickle;
        }
        if start.contains(&0) {
            return Self::Unknown;
        }
        let text = String::from_utf8_lossy(start);
        let line_starts = |words: &[&str]| {
            text.lines().any(|line| words.iter().any(|word| line.trim_start().starts_with(word)))
        };
        if text.contains("_rln") || line_starts(&["data_particles", "data_optics"]) {
            Self::Star
        } else if line_starts(&[
            "_atom_site.",
            "_entry.id",
            "_cell.",
            "ATOM  ",
            "HETATM",
            "CRYST1",
            "HEADER    ",
        ]) {
            Self::AtomicModel
        } else if text.trim_start().starts_with('{') {
            Self::Json
        } else {
            Self::Text
        }
    }

    /// "is a STAR file": the file as the beginning of an error, and what to do with it.
    fn described(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Empty => ("is empty", Some("make it again: it was not written to its end")),
            Self::Hdf5 => ("is an HDF5 file", None),
            Self::Mrc => (
                "is an MRC file",
                Some(
                    "a map goes to `fsc`, `postprocess` or `train --init`, a stack with its STAR or .cs file to `import`",
                ),
            ),
            Self::Star => (
                "is a STAR file",
                Some("make a particle file of it with `cryosplat-mpi import FILE -o particles.h5`"),
            ),
            Self::AtomicModel => (
                "is an atomic model",
                Some("`simulate --model` makes particles of it, and `fsc MAP MODEL` compares a map with it"),
            ),
            Self::Ply => (
                "is a PLY file",
                Some(
                    "a mixture goes to `voxelize`, `export gmm` or `train --init`, with --box and --pixel-size",
                ),
            ),
            Self::Numpy => (
                "is a .cs or .npy file",
                Some("make a particle file of it with `cryosplat-mpi import FILE -o particles.h5`"),
            ),
            Self::Pickle => (
                "is a pickle",
                Some(
                    "make a particle file with `cryosplat-mpi import STACK --poses FILE --ctf FILE -o particles.h5`",
                ),
            ),
            Self::Gzip => ("is compressed with gzip", Some("decompress it first (gunzip)")),
            Self::Json => ("is a JSON file", None),
            Self::Text => ("is a text file", None),
            Self::Unknown => ("is no file that this program knows", None),
        }
    }
}

/// The first `count` bytes of a file, or all bytes of a shorter one.
///
/// # Errors
/// When the file cannot be read.
pub fn first_bytes(path: &Path, count: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let outcome = open_input(path).and_then(|file| file.take(count).read_to_end(&mut bytes));
    outcome.map_err(Error::io(path, "read the file", "check the path"))?;
    Ok(bytes)
}

/// True if `start`, the first bytes of a file, belong to gzip.
pub fn is_gzip(start: &[u8]) -> bool {
    Content::of(start) == Content::Gzip
}

/// An error for a file that is not `expected` ("a particle file"). `remedy` counts where the kind of the file suggests none.
pub(crate) fn unexpected(path: &Path, expected: &str, remedy: &str) -> Result<Error> {
    let content = Content::of(&first_bytes(path, PROBE)?);
    let (is, own_remedy) = content.described();
    Ok(Error::input(path, "", format!("{is}, expected {expected}"), own_remedy.unwrap_or(remedy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let mut mrc = vec![0; 1024];
        mrc[208..212].copy_from_slice(b"MAP ");
        for (start, expected) in [
            (&b""[..], Content::Empty),
            (b"\x89HDF\r\n\x1a\n\0\0", Content::Hdf5),
            (&mrc, Content::Mrc),
            (b"data_optics\n\nloop_\n_rlnOpticsGroup #1\n", Content::Star),
            (b"data_X\n#\nloop_\n_atom_site.id\n", Content::AtomicModel),
            (b"MODEL        1\nATOM      1  CA  ALA A   1\n", Content::AtomicModel),
            (b"ply\r\nformat ascii 1.0\r\n", Content::Ply),
            (b"\x93NUMPY\x01\0", Content::Numpy),
            (b"\x80\x04\x95", Content::Pickle),
            (b"\x1f\x8b\x08\0", Content::Gzip),
            (b"{\"state\": 1}", Content::Json),
            (b"# notes\n", Content::Text),
            (b"\x01\0\x02", Content::Unknown),
        ] {
            assert_eq!(Content::of(start), expected, "{start:?}");
        }
    }
}
