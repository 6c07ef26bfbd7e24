//! Recognises the format of a file, by its content or, if that is ambiguous, by its name.

use std::path::{Path, PathBuf};

use super::set::{ParticleSet, ReadOptions};
use super::{cryodrgn, cryosparc, npy, relion};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::mrc;

/// Further metadata files of the set, by the program that writes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Companions {
    /// No further files.
    #[default]
    Alone,
    /// Passthrough files of cryoSPARC.
    Passthrough(Vec<PathBuf>),
    /// Pickles of cryoDRGN.
    CryoDrgn(cryodrgn::Files),
}

/// The recognised formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Star,
    Cs,
    Stack,
    List,
}

/// Number of bytes that decide the format.
const PROBE: u64 = 1024;

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        // Reading from a pipe could block forever. The STAR reader refuses it.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(Self::Star);
        }
        let begin = files::first_bytes(path, PROBE)?;
        let refuse = |problem: &str, remedy: &str| Err(Error::input(path, "", problem, remedy));
        match (&begin[..], extension.as_str()) {
            _ if files::is_gzip(&begin) => {
                refuse("is compressed by gzip", "decompress it with gunzip, and give the decompressed file")
            }
            ([0x93, ..], _) if begin.starts_with(npy::MAGIC) => Ok(Self::Cs),
            ([0x94, ..], _) if begin.starts_with(b"\x94CSDAT") => refuse(
                "is in cryoSPARC's stream format (CSDAT), expected its file format",
                "save it again with cryosparc-tools: Dataset.save(file, format=NUMPY_FORMAT)",
            ),
            ([0x89, b'H', b'D', b'F', ..], _) => refuse(
                "is an HDF5 file, expected a particle set of another program",
                "give particle files to `train` directly",
            ),
            // Tested before pickles: an MRC file with a box of 128 pixels starts with the same byte.
            _ if mrc::looks_like(&begin) || matches!(extension.as_str(), "mrc" | "mrcs") => Ok(Self::Stack),
            ([0x80, 2..=5, ..], _) | (_, "pkl") => refuse(
                "is a pickle, which does not contain images",
                "give the stack, and cryoDRGN's pickles with --poses and --ctf",
            ),
            (_, "txt") => Ok(Self::List),
            _ => Ok(Self::Star),
        }
    }
}

/// Reads the metadata in the file `path` and its `companions`.
///
/// # Errors
/// If the format is unknown or does not match the companions; and the errors of the format's reader.
pub fn read(path: &Path, companions: &Companions, options: &ReadOptions) -> Result<Box<dyn ParticleSet>> {
    let no_poses = |what: &str| {
        Err(Error::input(
            path,
            "",
            format!("the particles have no poses: the file is {what}"),
            "give the STAR or .cs file of a refinement, or cryoDRGN's poses with --poses",
        ))
    };
    let refuse = |problem: &str, remedy: &str| Err(Error::input(path, "", problem, remedy));
    match (Format::of(path)?, companions) {
        (Format::Star, Companions::Alone) => Ok(Box::new(relion::read(path, options)?)),
        (Format::Cs, Companions::Alone) => Ok(Box::new(cryosparc::read(path, &[], options)?)),
        (Format::Cs, Companions::Passthrough(files)) => Ok(Box::new(cryosparc::read(path, files, options)?)),
        (Format::Star, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::Star, files, options)?))
        }
        (Format::Stack, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::Stack, files, options)?))
        }
        (Format::List, Companions::CryoDrgn(files)) => {
            Ok(Box::new(cryodrgn::read(path, cryodrgn::Images::List, files, options)?))
        }
        (Format::Stack, Companions::Alone) => no_poses("an MRC file"),
        (Format::List, Companions::Alone) => no_poses("a list of stacks"),
        (Format::Cs, Companions::CryoDrgn(_)) => refuse(
            "is a .cs file, which cannot be combined with --poses",
            "omit --poses: the file contains the poses",
        ),
        (_, Companions::Passthrough(_)) => {
            refuse("is not a .cs file, but --passthrough is for .cs files only", "omit --passthrough")
        }
    }
}
