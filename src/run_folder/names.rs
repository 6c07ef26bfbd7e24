//! The names of the files in a run's folder.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::evaluate::compare;

/// The job that holds the folder, while it runs.
pub(crate) const OWNER: &str = "owner.json";
/// Beginning of the name of the file whose maker may replace an owner that has ended.
pub(crate) const NEXT_OWNER: &str = ".owner.json-after-";
/// Beginning of the name of a file with which a rank proves that it can write.
pub(crate) const TRIAL: &str = ".trial-";
/// Settings, times and results.
pub(crate) const RUN: &str = "run.json";
/// The mean of the half maps, or the map of all particles.
pub(crate) const MAP: &str = "map.mrc";
/// The automatic mask of that map.
pub(crate) const MASK: &str = "mask.mrc";
/// The log of all jobs of the run.
pub(crate) const LOG: &str = "log.txt";
/// The run on one page.
pub(crate) const REPORT: &str = "report.html";
/// What seems wrong with the run, and the verdict.
pub(crate) const DIAGNOSIS: &str = "diagnosis.json";
/// The FSC curves as a table.
pub(crate) const FSC_TABLE: &str = "fsc.csv";
/// Power of the noise of each optics group.
pub(crate) const NOISE: &str = "noise.csv";
/// Contrast, score and weight of each particle.
pub(crate) const PARTICLES: &str = "particles.csv";
/// Refined poses, shifts and defoci of the particles.
pub(crate) const REFINEMENT: &str = "refinement.h5";
/// Copies of the metadata that the set was imported from, with what the run has refined: of RELION, and of cryoSPARC.
pub(crate) const ORIGINALS: [(&str, &str); 2] = [("star", "particles.star"), ("cs", "particles.cs")];
/// Slices and projections of the maps.
pub(crate) const SLICES: &str = "slices.png";

/// Shows the maps in ChimeraX.
pub(crate) const VIEW: &str = "view.cxc";
/// Voxel half maps of a training run, for cross-validation.
pub(crate) const VOXELS: [&str; 2] = compare::VOXELS;

/// Outputs that do not belong to one model.
pub(crate) const OUTPUTS: [&str; 14] = [
    VOXELS[0], VOXELS[1], MAP, MASK, FSC_TABLE, "fsc.svg", "fsc.png", SLICES, NOISE, PARTICLES, REFINEMENT,
    REPORT, DIAGNOSIS, VIEW,
];

/// The folder of the checkpoints.
pub(crate) fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

/// The map of a model: of half 1, half 2, or all particles.
pub(crate) fn map(model: impl Display) -> String {
    format!("{model}.mrc")
}

/// The Gaussians of a model, in HDF5.
pub(crate) fn mixture(model: impl Display) -> String {
    format!("gmm_{model}.h5")
}

/// The Gaussians of a model, in PLY.
pub(crate) fn mixture_ply(model: impl Display) -> String {
    format!("gmm_{model}.ply")
}

/// The outputs of a model.
pub(crate) fn of_model(model: impl Display) -> [String; 3] {
    [map(&model), mixture(&model), mixture_ply(&model)]
}

/// Files in `folder` that a killed run has left while it took the folder and tried to write there.
pub(crate) fn made_before_training(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(TRIAL) || name.starts_with(NEXT_OWNER)
    };
    entries.filter(is_one).collect()
}
