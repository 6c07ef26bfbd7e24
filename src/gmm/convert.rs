//! Conversion of a mixture to another file format.

use std::path::Path;

use super::atoms::{PseudoAtomModel, cif, pdb};
use super::mixture::{self, Mixture};
use super::ply;
use super::symmetric::{described, whole};
use crate::error::{Error, Result};
use crate::imaging::Symmetry;
use crate::imaging::mrc::Stack;

/// Formats of a mixture, by file name extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MixtureFormat {
    Ply,
    Hdf5,
    Pdb,
    Cif,
}

impl MixtureFormat {
    /// The format that the extension of `path` names.
    pub(crate) fn from_extension(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match &extension[..] {
            "ply" => Ok(Self::Ply),
            "h5" => Ok(Self::Hdf5),
            "pdb" | "ent" => Ok(Self::Pdb),
            "cif" | "mmcif" => Ok(Self::Cif),
            _ => Err(Error::input(
                path,
                "",
                format!("ends in \".{extension}\", but mixtures are written as .pdb, .cif, .ply or .h5"),
                "name the file so that it ends in one of these",
            )),
        }
    }

    pub(crate) fn is_atoms(self) -> bool {
        matches!(self, Self::Pdb | Self::Cif)
    }
}

/// Reads the mixture in `input` and writes it to `output`, as its asymmetric unit or, if `as_whole`, all of it without symmetry; returns
/// a description of what was written. `box_size` and `pixel_size` are those of
/// the particles, for PLY input. Pseudo-atoms are placed in the frame of the map in the file `map`, or in that of the run.
pub(crate) fn convert(
    input: &Path,
    output: &Path,
    format: MixtureFormat,
    (box_size, pixel_size): (Option<usize>, Option<f64>),
    map: Option<&Path>,
    as_whole: bool,
) -> Result<String> {
    if format == MixtureFormat::Ply {
        let Mixture { gmm, symmetry, .. } = mixture::read(input)?;
        let (gmm, symmetry) = if as_whole { (whole(&gmm, symmetry), Symmetry::C1) } else { (gmm, symmetry) };
        ply::write(&gmm, symmetry, output)?;
        return Ok(described(gmm.len(), symmetry));
    }
    let file = mixture::read_with_grid(input, box_size, pixel_size)?;
    let file = if as_whole { file.into_whole() } else { file };
    if format == MixtureFormat::Hdf5 {
        file.write(output)?;
        return Ok(file.count());
    }
    let model = PseudoAtomModel::new(&file, map.map(centre_of).transpose()?);
    if format == MixtureFormat::Cif { cif::write(&model, output) } else { pdb::write(&model, output) }?;
    Ok(file.count())
}

/// Position of voxel floor(n/2) of a map in the frame of its header, (x, y, z) in angstrom.
fn centre_of(map: &Path) -> Result<[f64; 3]> {
    let stack = Stack::open(map)?;
    let header = stack.header();
    if header.voxel_size.contains(&0.0) {
        return Err(Error::input(map, "", "has no pixel size in its header", "write it into the header"));
    }
    let mut centre = header.corner();
    for (&size, &axis) in header.size.iter().zip(&header.axes) {
        centre[axis] += (size / 2) as f64 * header.voxel_size[axis];
    }
    Ok(centre)
}
