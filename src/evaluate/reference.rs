//! References for a map: an atomic model or a Gaussian mixture, sampled on the grid of the map.

use std::path::Path;

use crate::error::{Error, Result};
use crate::evaluate::maps::PIXEL_SIZE_TOLERANCE;
use crate::files;
use crate::gmm::files::GmmFile;
use crate::gmm::ply;
use crate::gmm::voxelize::{Grid, MAX_GRID, map_of};
use crate::imaging::mrc::Volume;
use crate::simulate::atoms::{self, Atom, ModelChoice};
use crate::simulate::density::map_of_atoms;

/// Kind of a file, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// An MRC map.
    Map,
    /// An atomic model: text.
    Model,
    /// A Gaussian mixture: HDF5.
    Mixture,
}

pub(crate) fn file_kind(path: &Path) -> Result<FileKind> {
    // Every MRC header has a zero byte; text has none.
    let start = files::first_bytes(path, 1024)?;
    if ply::is_ply(&start) {
        return Err(Error::input(
            path,
            "",
            "is a PLY file, which holds neither a box nor a pixel size",
            "give the HDF5 file beside it",
        ));
    }
    let text = !start.is_empty() && !start.contains(&0);
    Ok(if start.starts_with(b"\x89HDF") {
        FileKind::Mixture
    } else if text || files::is_gzip(&start) {
        FileKind::Model
    } else {
        FileKind::Map
    })
}

/// The map of the atomic model in `path` on the grid of the map `first`, read from `first_path`. With `centre`, its weighted mean
/// is placed on voxel floor(D/2), as in a simulation; otherwise the model stays in the frame of the map's header. Of a file of several
/// models, `models` chooses.
///
/// Atoms are points: a blur that all atoms share has no effect on an FSC.
pub(crate) fn map_of_model(
    path: &Path,
    models: ModelChoice,
    centre: bool,
    (first_path, first): (&Path, &Volume),
) -> Result<Volume> {
    let (n, pixel_size) = (first.data.dim().0, first.pixel_size);
    let mut model = atoms::read(path, models)?;
    if centre {
        atoms::centre(&mut model);
    } else {
        let corner = first.frame.corner([pixel_size; 3]);
        for atom in &mut model {
            for (value, corner) in atom.position.iter_mut().zip(corner) {
                *value -= corner + (n / 2) as f64 * pixel_size;
            }
        }
    }
    let count = model.len();
    let inside = |atom: &Atom| {
        atom.position.iter().all(|v| (-0.5..n as f64 - 0.5).contains(&(v / pixel_size + (n / 2) as f64)))
    };
    model.retain(inside);
    let outside = count - model.len();
    let problem = format!("{outside} of its {count} atoms lie outside the box of {}", first_path.display());
    if 2 * outside > count {
        let remedy = "fit the model into the map first, or place its centre on the box's with --center-model";
        return Err(Error::input(path, "", problem, remedy));
    }
    if outside > 0 {
        tracing::warn!("{}: {problem} and are ignored", path.display());
    }
    Ok(Volume { data: map_of_atoms(&model, n, pixel_size, 0.0), ..*first })
}

/// The map of the mixture in `path` on the grid of `first`; both have their origin on voxel floor(D/2).
pub(crate) fn map_of_mixture(path: &Path, first: &Volume) -> Result<Volume> {
    let mixture = GmmFile::read(path)?;
    let (size, pixel_size) = (first.data.dim().0, first.pixel_size);
    let ratio = mixture.pixel_size / pixel_size;
    // The header of a map stores its pixel size in single precision.
    let ratio = if (ratio - 1.0).abs() < PIXEL_SIZE_TOLERANCE { 1.0 } else { ratio };
    let grid = Grid { size, per_box: mixture.box_size as f64 * ratio, box_size: mixture.box_size };
    if grid.computed() > MAX_GRID {
        return Err(Error::input(
            path,
            "",
            format!(
                "takes {} voxels of {pixel_size:.4} A along an edge, more than {MAX_GRID}",
                grid.computed()
            ),
            "check the pixel size of the map",
        ));
    }
    Ok(Volume { data: map_of(&mixture, &grid), ..*first })
}
