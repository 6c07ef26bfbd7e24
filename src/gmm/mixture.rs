//! Reads a mixture from a file of any supported format.

use std::path::Path;

use super::files::GmmFile;
use super::{Gmm, atoms, ply};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::Symmetry;

/// Bytes read to detect the format of a file.
const PROBE: u64 = 4096;

/// A mixture, and the grid it was trained on if the file stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// The mixture: the asymmetric unit.
    pub gmm: Gmm,
    /// Point group of the whole.
    pub symmetry: Symmetry,
    /// Box size in pixels and pixel size in angstrom; `None` for PLY files.
    pub grid: Option<(usize, f64)>,
}

impl From<GmmFile> for Mixture {
    fn from(file: GmmFile) -> Self {
        Self { gmm: file.gmm, symmetry: file.symmetry, grid: Some((file.box_size, file.pixel_size)) }
    }
}

/// Reads a mixture: HDF5 ([`GmmFile`]), PLY ([`ply`]), or pseudo-atoms of this program ([`atoms`]), by content.
///
/// # Errors
/// When the format is not supported, or as the reader of the format.
pub fn read(path: &Path) -> Result<Mixture> {
    let start = files::first_bytes(path, PROBE)?;
    if ply::is_ply(&start) {
        let (gmm, symmetry) = ply::read(path)?;
        Ok(Mixture { gmm, symmetry, grid: None })
    } else if atoms::is_pseudo_atoms(&start) {
        atoms::read(path).map(Mixture::from)
    } else if !start.is_empty() && !start.contains(&0) {
        let remedy = "give a mixture of `cryosplat-mpi train`, or a file of `cryosplat-mpi export gmm`";
        Err(files::unexpected(path, "a mixture or pseudo-atoms of this program", remedy)?)
    } else {
        GmmFile::read(path).map(Mixture::from)
    }
}

/// Reads a mixture with its grid. `box_size` in pixels and `pixel_size` in angstrom are those of the particles, for PLY files,
/// which do not store them; other files ignore them.
///
/// # Errors
/// As [`read`], and when the grid of a PLY file is not given.
pub(crate) fn read_with_grid(
    path: &Path,
    box_size: Option<usize>,
    pixel_size: Option<f64>,
) -> Result<GmmFile> {
    let Mixture { gmm, symmetry, grid } = read(path)?;
    match grid.or(box_size.zip(pixel_size)) {
        Some((box_size, pixel_size)) => Ok(GmmFile { gmm, symmetry, box_size, pixel_size }),
        None => Err(Error::input(
            path,
            "",
            "is a PLY file, which holds neither a box nor a pixel size",
            "give those of the particles with --box and --pixel-size, or the HDF5 file beside it",
        )),
    }
}
