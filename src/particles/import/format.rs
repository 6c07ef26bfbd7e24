//! Which format a file is of, from its content, and its name where content does not tell.

use std::path::{Path, PathBuf};

use super::set::{Particles, Wanted};
use super::{cryodrgn, cryosparc, npy, relion};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::mrc;

/// The files that belong to the one that is imported, by the program that writes them so.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Companions {
    /// There are none.
    #[default]
    Alone,
    /// cryoSPARC's passthrough files.
    Passthrough(Vec<PathBuf>),
    /// cryoDRGN's pickles.
    CryoDrgn(cryodrgn::Files),
}

/// What is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Star,
    Cs,
    Stack,
    List,
}

/// How much of a file is looked at.
const PROBE: u64 = 1024;

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        // What is no file may wait for ever for its first byte; the reader of STAR files refuses it.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(Self::Star);
        }
        let begin = files::first_bytes(path, PROBE)?;
        let refuse = |problem: &str, remedy: &str| Err(Error::input(path, "", problem, remedy));
        match (&begin[..], extension.as_str()) {
            _ if files::is_gzip(&begin) => {
                refuse("is compressed by gzip", "unpack it with gunzip, and name what that writes")
            }
            ([0x93, ..], _) if begin.starts_with(npy::MAGIC) => Ok(Self::Cs),
            ([0x94, ..], _) if begin.starts_with(b"\x94CSDAT") => refuse(
                "is a stream of cryoSPARC's (CSDAT), expected its file format",
                "save it again with cryosparc-tools: Dataset.save(file, format=NUMPY_FORMAT)",
            ),
            ([0x89, b'H', b'D', b'F', ..], _) => refuse(
                "is an HDF5 file, expected particles of another program",
                "train takes particle files as they are",
            ),
            // Before pickles: a box of 128 pixels begins like one.
            _ if mrc::looks_like(&begin) || matches!(extension.as_str(), "mrc" | "mrcs") => Ok(Self::Stack),
            ([0x80, 2..=5, ..], _) | (_, "pkl") => refuse(
                "is a pickle, which names no images",
                "name the stack, and cryoDRGN's pickles with --poses and --ctf",
            ),
            (_, "txt") => Ok(Self::List),
            _ => Ok(Self::Star),
        }
    }
}

/// Reads the metadata of the file `path` and its `companions`, whatever their format.
///
/// # Errors
/// When the format is not known or the companions do not belong to it; and as the format's reader.
pub fn read(path: &Path, companions: &Companions, wanted: &Wanted) -> Result<Box<dyn Particles>> {
    let no_poses = |what: &str| {
        Err(Error::input(
            path,
            "",
            format!("the particles have no poses: this is {what}"),
            "name the STAR or .cs file of a refinement, or give cryoDRGN's poses with --poses",
        ))
    };
    let refuse = |problem: &str, remedy: &str| Err(Error::input(path, "", problem, remedy));
    match (Format::of(path)?, companions) {
        (Format::Star, Companions::Alone) => Ok(Box::new(relion::read(path, wanted)?)),
        (Format::Cs, Companions::Alone) => Ok(Box::new(cryosparc::read(path, &[], wanted)?)),
        (Format::Cs, Companions::Passthrough(files)) => Ok(Box::new(cryosparc::read(path, files, wanted)?)),
        (Format::Star, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::Star, files, wanted)?))
        }
        (Format::Stack, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::Stack, files, wanted)?))
        }
        (Format::List, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::List, files, wanted)?))
        }
        (Format::Stack, Companions::Alone) => no_poses("an MRC file"),
        (Format::List, Companions::Alone) => no_poses("a list of stacks"),
        (Format::Cs, Companions::CryoDrgn(_)) => refuse(
            "is a .cs file, to which --poses does not belong",
            "leave out --poses: the file has poses of its own",
        ),
        (_, Companions::Passthrough(_)) => {
            refuse("is no .cs file, and only to these --passthrough belongs", "leave out --passthrough")
        }
    }
}
