//! What a run has found out about the particles of a set, for exports.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::imaging::pose::{Rotation, relion_from_rotation};
use crate::particles::refinement::Refinement;
use crate::particles::store::{Block, Particle, Store};

/// Number of values per block of images: 16 MiB.
const BLOCK_VALUES: usize = 1 << 22;

/// How a particle fits the model of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunColumns {
    /// Gain in log-likelihood that the model brings (`rlnLogLikeliContribution`).
    pub gain: f64,
    /// Weight in the loss, 0 to 1 (`rlnParticleFigureOfMerit`).
    pub weight: f64,
    /// Contrast, a factor of the CTF (in `rlnCtfScalefactor`).
    pub contrast: f64,
}

/// What a run has found out about the particles of a set. The default: nothing.
#[derive(Debug, Default)]
pub struct RunResults {
    /// Rows that it excluded.
    pub excluded: BTreeSet<usize>,
    /// What it has refined of each row; empty if nothing.
    pub refined: Vec<Refinement>,
    /// How each row fits its model; empty if it has not compared them.
    pub columns: Vec<RunColumns>,
}

impl RunResults {
    /// What the run has refined of the particle in `row`.
    pub fn refinement(&self, row: usize) -> Refinement {
        self.refined.get(row).copied().unwrap_or_default()
    }

    /// The `particle` in `row` with its refined pose, shift and defocus, and with its contrast as a factor of the scale of the CTF.
    pub fn particle(&self, row: usize, particle: &Particle) -> Particle {
        let mut found = self.refinement(row).of(particle);
        found.ctf.scale *= self.columns.get(row).map_or(1.0, |columns| columns.contrast);
        found
    }

    /// Whether it has refined the defocus of a particle.
    pub fn has_defoci(&self) -> bool {
        self.refined.iter().any(|refined| refined.defocus != 0.0)
    }

    /// Checks that particles of `store` are left.
    ///
    /// # Errors
    /// If all are excluded.
    pub fn check_left(&self, store: &Store) -> Result<()> {
        if self.excluded.len() < store.len() {
            return Ok(());
        }
        let problem = "all of its particles are excluded";
        Err(Error::input(store.path(), "", problem, "exclude fewer particles"))
    }

    /// Checks that the images of a block of `store` are sound, but for excluded particles.
    ///
    /// # Errors
    /// Names the first damaged image.
    pub fn check_images(&self, store: &Store, block: &Block) -> Result<()> {
        match block.defects.iter().find(|(row, _)| !self.excluded.contains(row)) {
            Some(&(row, defect)) => Err(store.image_error(row, defect)),
            None => Ok(()),
        }
    }
}

/// Checks that the pose `found` at `at` of the file `original` is `expected`, that of the set: a refinement is a change of it.
///
/// # Errors
/// If it differs by more than the rounding of single precision.
pub fn check_pose(original: &Path, at: String, found: &Rotation, expected: &Rotation) -> Result<()> {
    const TOLERANCE: f64 = 1e-4;
    let pairs = found.as_flattened().iter().zip(expected.as_flattened());
    if pairs.clone().all(|(found, expected)| (found - expected).abs() <= TOLERANCE) {
        return Ok(());
    }
    let [found, expected] = [found, expected].map(relion_from_rotation);
    let problem = format!(
        "has the pose (rot, tilt, psi) {found:.3?}, but the particle file, which the run has refined, has {expected:.3?}"
    );
    Err(Error::input(original, at, problem, "give the file with the poses that were imported"))
}

/// Blocks of the rows of a set, of 16 MiB of images each.
pub fn blocks(store: &Store) -> impl Iterator<Item = Range<usize>> {
    let (all, size) = (store.len(), (BLOCK_VALUES / store.header().pixels()).max(1));
    (0..all).step_by(size).map(move |first| first..all.min(first + size))
}
