//! The options of an import.

use std::path::PathBuf;

use super::format::Companions;
use super::selected::Selection;
use crate::particles::store::Dtype;

/// Options of an import.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Further metadata files of the same set.
    pub companions: Companions,
    /// Folder to search for stacks; `None` for the paths in the metadata.
    pub datadir: Option<PathBuf>,
    /// Box size of the stored images in pixels; `None` for that of the raw images.
    pub box_size: Option<usize>,
    /// Pixel size in angstrom to which all images are resampled before they are cropped to `box_size`; `None` for the commonest.
    pub pixel_size: Option<f64>,
    /// Invert the contrast of all images. Otherwise, only images with dark specimen according to the metadata are inverted.
    pub invert: bool,
    /// Normalise the background to mean 0 and standard deviation 1.
    pub normalize: bool,
    /// The background lies outside a circle of this radius in output pixels; `None` for 37.5 % of the box, as in RELION.
    pub background_radius: Option<f64>,
    /// How pixels are stored.
    pub dtype: Dtype,
    /// Seed of the random halves, for metadata without halves.
    pub seed: u64,
    /// Draw random halves even if the metadata has halves.
    pub redraw_halves: bool,
    /// Number of worker threads; `None` for one per core.
    pub threads: Option<usize>,
    /// Number of particles to import, from the first one of each half; `None` for all.
    pub first: Option<usize>,
    /// The class whose particles are imported; `None` for all.
    pub class: Option<i64>,
    /// Which of them are imported.
    pub selection: Selection,
}
