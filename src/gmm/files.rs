//! HDF5 files of a mixture (`cryosplat-gmm`).

use std::path::Path;

use hdf5::types::FixedUnicode;

use super::symmetric::{described, whole};
use super::{Gmm, Shape};
use crate::error::{Error, Result};
use crate::files;
use crate::hdf5::{
    bool_attribute, check_format, fixed_text_attribute, numeric_dataset, open, scalar_attribute, write_format,
};
use crate::imaging::Symmetry;

/// Value of the root attribute `format`.
pub const FORMAT: &str = "cryosplat-gmm";
/// Value of the root attribute `version`.
pub const VERSION: u32 = 1;

const REMEDY_GIVE: &str = "give a mixture of `cryosplat-mpi train`, such as gmm_half1.h5 of its run folder";
const REMEDY_READ: &str = "write the file again with `cryosplat-mpi train`";

/// Attribute of the point group; absent for C1.
const SYMMETRY: &str = "symmetry";
/// The name of a point group in a file.
type Name = FixedUnicode<4>;

/// A mixture and the grid that it was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct GmmFile {
    /// The mixture: the asymmetric unit.
    pub gmm: Gmm,
    /// Point group of the whole.
    pub symmetry: Symmetry,
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
}

/// Names of the data sets, one per plane, in the order of [`Shape`].
fn names(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Anisotropic => &[
            "mean_x",
            "mean_y",
            "mean_z",
            "raw_scale_0",
            "raw_scale_1",
            "raw_scale_2",
            "quaternion_w",
            "quaternion_x",
            "quaternion_y",
            "quaternion_z",
            "raw_amplitude",
        ],
        Shape::Isotropic => &["mean_x", "mean_y", "mean_z", "raw_scale", "raw_amplitude"],
    }
}

/// Writes each plane of a mixture as a data set of `group`, and the attribute `isotropic`.
pub(crate) fn write_planes(group: &hdf5::Group, gmm: &Gmm) -> hdf5::Result<()> {
    group.new_attr::<bool>().create("isotropic")?.write_scalar(&(gmm.shape() == Shape::Isotropic))?;
    for (index, name) in names(gmm.shape()).iter().enumerate() {
        group.new_dataset_builder().with_data(gmm.plane(index)).create(*name)?;
    }
    Ok(())
}

/// Reads a mixture that [`write_planes`] wrote.
pub(crate) fn read_planes(group: &hdf5::Group, file: &Path) -> Result<Gmm> {
    let fail = || Error::hdf5(file, "read the Gaussians", REMEDY_READ);
    let isotropic = bool_attribute(group, "isotropic").map_err(fail())?;
    let shape = if isotropic { Shape::Isotropic } else { Shape::Anisotropic };
    let mut values = Vec::new();
    let mut count = 0;
    for (index, name) in names(shape).iter().enumerate() {
        let plane: Vec<f32> = numeric_dataset(group, name).map_err(fail())?;
        if index == 0 {
            count = plane.len();
        }
        if plane.len() != count || count == 0 {
            let problem = format!("holds {} values, expected {}", plane.len(), count.max(1));
            return Err(Error::input(file, format!("/{name}"), problem, REMEDY_READ));
        }
        if let Some(i) = plane.iter().position(|v| !v.is_finite()) {
            let problem = format!("value {} is {}", i + 1, plane[i]);
            return Err(Error::input(file, format!("/{name}"), problem, REMEDY_READ));
        }
        values.extend(plane);
    }
    Ok(Gmm::from_values(shape, count, values))
}

impl GmmFile {
    /// The mixture of the whole, without symmetry.
    pub fn into_whole(self) -> Self {
        Self { gmm: whole(&self.gmm, self.symmetry), symmetry: Symmetry::C1, ..self }
    }

    /// "3000 Gaussians", or "125 Gaussians of the asymmetric unit (O, 3000 in all)".
    pub fn count(&self) -> String {
        described(self.gmm.len(), self.symmetry)
    }

    /// Writes the mixture as HDF5, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_hdf5(path, "write the Gaussians", |file| {
            write_format(file, FORMAT, VERSION)?;
            file.new_attr::<u64>().create("box_size")?.write_scalar(&(self.box_size as u64))?;
            file.new_attr::<f64>().create("pixel_size")?.write_scalar(&self.pixel_size)?;
            if self.symmetry != Symmetry::C1 {
                let name: Name = self.symmetry.to_string().parse().expect("names are short");
                file.new_attr::<Name>().create(SYMMETRY)?.write_scalar(&name)?;
            }
            write_planes(file, &self.gmm)
        })
    }

    /// Reads a file that [`GmmFile::write`] wrote.
    ///
    /// # Errors
    /// When the file is missing, has another format or version, or contains non-finite values.
    pub fn read(path: &Path) -> Result<Self> {
        let file = open(path, "a mixture", REMEDY_GIVE)?;
        check_format(&file, path, FORMAT, VERSION, REMEDY_GIVE)?;
        let fail = || Error::hdf5(path, "read the attributes", REMEDY_READ);
        let box_size: u64 = scalar_attribute(&file, "box_size").map_err(fail())?;
        let pixel_size: f64 = scalar_attribute(&file, "pixel_size").map_err(fail())?;
        if !((4..=65_535).contains(&box_size) && pixel_size.is_finite() && pixel_size > 0.0) {
            let problem = format!(
                "has a box of {box_size} pixels of {pixel_size} A, expected 4 to 65535 pixels of more than 0 A"
            );
            return Err(Error::input(path, "", problem, REMEDY_READ));
        }
        let symmetry = match file.attr_names().map_err(fail())?.iter().any(|name| name == SYMMETRY) {
            true => {
                let name = fixed_text_attribute(&file, SYMMETRY).map_err(fail())?.unwrap_or_default();
                name.parse().map_err(|_| {
                    let problem = format!("is {name:?}, which is no point group of rotations");
                    Error::input(path, format!("attribute {SYMMETRY}"), problem, REMEDY_READ)
                })?
            }
            false => Symmetry::C1,
        };
        Ok(Self { gmm: read_planes(&file, path)?, symmetry, box_size: box_size as usize, pixel_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn both_shapes_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.h5");
        for shape in [Shape::Anisotropic, Shape::Isotropic] {
            for symmetry in [Symmetry::C1, Symmetry::O] {
                let gmm = Gmm::random(7, shape, &mut stream(1, Purpose::Start, 1, 0));
                let file = GmmFile { gmm, symmetry, box_size: 64, pixel_size: 6.0 };
                file.write(&path).unwrap();
                assert_eq!(GmmFile::read(&path).unwrap(), file);
            }
        }
    }

    #[test]
    fn non_finite_values_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.h5");
        let mut gmm = Gmm::random(7, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
        gmm.values_mut()[9] = f32::NAN;
        GmmFile { gmm, symmetry: Symmetry::C1, box_size: 64, pixel_size: 6.0 }.write(&path).unwrap();
        let message = GmmFile::read(&path).unwrap_err().to_string();
        assert!(message.contains("/mean_y") && message.contains("value 3"), "{message}");
    }
}
