//! The true maps of a simulation: of the specimen, and of its other state where it has one.

use std::path::{Path, PathBuf};

use ndarray::Array3;

use super::assembly::Assembly;
use super::atoms::ModelChoice;
use super::{atoms, density, phantom};
use crate::error::{Error, Result};
use crate::imaging::{projection, resample};

/// Source of the true map.
#[derive(Clone, Debug, PartialEq)]
pub enum TruthSource {
    /// The chosen models of an mmCIF or PDB file, blurred by a B factor in square angstrom.
    Model(PathBuf, ModelChoice, f64),
    /// An MRC map.
    Map(PathBuf),
    /// The built-in phantom.
    Phantom,
}

/// True maps of one scale, in which that of the specimen has a standard deviation of 1.
pub struct TrueMaps {
    /// Map of the specimen.
    pub specimen: Array3<f32>,
    /// Map of its other state.
    pub other: Option<Array3<f32>>,
}

impl TruthSource {
    /// The true maps in a box of `box_size` pixels. `other` is the file of the other state: an atomic model in the coordinates of
    /// the first one, or a map beside a map. Models are units of the `assembly`; maps are averaged over its operators.
    ///
    /// # Errors
    /// When a model or map cannot be used.
    pub fn maps(
        &self,
        other: Option<&Path>,
        assembly: &Assembly,
        box_size: usize,
        pixel_size: f64,
    ) -> Result<TrueMaps> {
        let (mut specimen, mut other) = match self {
            Self::Model(path, models, b_factor) => {
                let model = atoms::read(path, *models)?;
                let placement = assembly.placement(&model);
                let map = |path: &Path, mut model: Vec<atoms::Atom>| {
                    let radius = assembly.expand(&mut model, placement);
                    tracing::info!("{}: {} atoms, {:.1} A across", path.display(), model.len(), 2.0 * radius);
                    density::check_fit(radius, box_size, pixel_size)?;
                    Ok(density::map_of_atoms(&model, box_size, pixel_size, *b_factor))
                };
                let specimen = map(path, model)?;
                let other = other.map(|path| map(path, atoms::read(path, *models)?)).transpose()?;
                (specimen, other)
            }
            Self::Map(path) => {
                let map = |path: &Path| {
                    let map = resample::read(path, box_size, pixel_size)?;
                    Ok(projection::symmetrized(map, assembly.symmetry))
                };
                (map(path)?, other.map(map).transpose()?)
            }
            Self::Phantom if other.is_some() => {
                return Err(Error::request(
                    "--other has no coordinates to share with --phantom",
                    "use it with --model or --map",
                ));
            }
            Self::Phantom => (phantom::map(assembly.symmetry, box_size, pixel_size), None),
        };
        let deviation = density::scale_to_unit_deviation(&mut specimen, &self.name())?;
        if let Some(other) = &mut other {
            other.mapv_inplace(|v| (f64::from(v) / deviation) as f32);
        }
        Ok(TrueMaps { specimen, other })
    }

    fn name(&self) -> String {
        match self {
            Self::Model(path, ..) | Self::Map(path) => format!("the map of {}", path.display()),
            Self::Phantom => "the phantom".into(),
        }
    }
}
