//! A mixture as pseudo-atoms, one a Gaussian, for programs that show or fit atomic models: PDB ([`pdb`]) and mmCIF ([`cif`]).
//!
//! An atom lies at its Gaussian's mean, in angstrom from the first voxel of the map: where ChimeraX shows the map of a run,
//! it shows the atoms in it. Its anisotropic displacement U is the covariance, in square angstrom, and its B factor
//! 8 pi^2 / 3 trace(U), which is 8 pi^2 sigma^2 of a round one. Its occupancy is the amplitude as a share of the largest.
//! Residues are UNX, one an atom, so that nothing is bonded. What else the way back needs is in the header of the file, under
//! names that begin with `cryosplat.`.

pub mod cif;
mod header;
pub mod pdb;

use std::f64::consts::PI;
use std::path::Path;

use super::covariance::{Symmetric, axes, covariance};
use super::files::GmmFile;
use super::{Gmm, Shape, softplus_inverse};
use crate::error::{Error, Result};

pub use header::is_ours;

/// What to do about a file that cannot be read back.
const REMEDY: &str = "export the mixture again, or give its HDF5 file";

/// B factor per square angstrom of variance.
const B_FACTOR: f64 = 8.0 * PI * PI;

/// The smallest amplitude that a file gives back, as a share of the largest: one rounded to zero has no raw parameter.
const LEAST: f64 = 1e-9;

/// A Gaussian as an atom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Atom {
    /// Where its mean lies (x, y, z), in angstrom.
    pub position: [f64; 3],
    /// Its amplitude as a share of the largest.
    pub occupancy: f64,
    /// Its covariance in square angstrom.
    pub displacement: Symmetric,
}

impl Atom {
    /// Its B factor in square angstrom.
    fn b_factor(&self) -> f64 {
        let [xx, yy, zz, ..] = self.displacement;
        B_FACTOR / 3.0 * (xx + yy + zz)
    }
}

/// What a round Gaussian of this B factor has for a displacement.
fn round(b_factor: f64) -> Symmetric {
    let variance = b_factor / B_FACTOR;
    [variance, variance, variance, 0.0, 0.0, 0.0]
}

/// A mixture as atoms, and what leads back from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Round Gaussians have a B factor alone.
    pub shape: Shape,
    /// Box of the particles in pixels.
    pub box_size: usize,
    /// Their pixel size in angstrom.
    pub pixel_size: f64,
    /// Where the mixture's origin lies (x, y, z), in angstrom.
    pub centre: [f64; 3],
    /// The amplitude that occupancy 1 stands for.
    pub amplitude: f64,
    /// The atoms.
    pub atoms: Vec<Atom>,
}

impl Model {
    /// The atoms of a mixture whose origin is to lie at `centre` (x, y, z) in angstrom; `None`: where the map of its run has it,
    /// on the voxel floor(box/2) of a map that begins at zero.
    pub fn of(file: &GmmFile, centre: Option<[f64; 3]>) -> Self {
        let GmmFile { gmm, box_size, pixel_size } = file;
        let centre = centre.unwrap_or([(box_size / 2) as f64 * pixel_size; 3]);
        let edge = *box_size as f64 * pixel_size;
        let amplitudes: Vec<f64> = gmm.amplitudes().collect();
        let largest = amplitudes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let atom = |i: usize| Atom {
            position: [0, 1, 2].map(|axis| centre[axis] + edge * f64::from(gmm.plane(axis)[i])),
            occupancy: amplitudes[i] / largest,
            displacement: covariance(gmm, i).map(|entry| entry * edge * edge),
        };
        Self {
            shape: gmm.shape(),
            box_size: *box_size,
            pixel_size: *pixel_size,
            centre,
            amplitude: largest,
            atoms: (0..gmm.len()).map(atom).collect(),
        }
    }

    /// The mixture that the atoms stand for.
    pub fn mixture(&self) -> GmmFile {
        let n = self.atoms.len();
        let edge = self.box_size as f64 * self.pixel_size;
        let mut values = vec![0.0f32; self.shape.planes() * n];
        for (i, atom) in self.atoms.iter().enumerate() {
            let mut put = |plane: usize, value: f64| values[plane * n + i] = value as f32;
            for axis in 0..3 {
                put(axis, (atom.position[axis] - self.centre[axis]) / edge);
            }
            let (scales, q) = axes(&atom.displacement.map(|entry| entry / (edge * edge)));
            match self.shape {
                Shape::Anisotropic => {
                    (0..3).for_each(|k| put(3 + k, softplus_inverse(scales[k])));
                    (0..4).for_each(|k| put(6 + k, q[k]));
                }
                Shape::Isotropic => put(3, softplus_inverse(scales[0])),
            }
            let amplitude = self.amplitude * atom.occupancy.max(LEAST);
            put(self.shape.planes() - 1, softplus_inverse(amplitude));
        }
        let gmm = Gmm::from_values(self.shape, n, values);
        GmmFile { gmm, box_size: self.box_size, pixel_size: self.pixel_size }
    }
}

/// Reads the mixture in a PDB or mmCIF file that [`pdb::write`] or [`cif::write`] wrote.
///
/// # Errors
/// When the file cannot be read, is not of this program, is cut short, or holds an atom that is no Gaussian. The message names
/// the line.
pub fn read(path: &Path) -> Result<GmmFile> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read the pseudo-atoms", REMEDY))?;
    let model = if text.starts_with(cif::START) { cif::parse(&text, path) } else { pdb::parse(&text, path) }?;
    let mixture = model.mixture();
    match mixture.gmm.values().iter().position(|v| !v.is_finite()) {
        None => Ok(mixture),
        Some(i) => Err(Error::input(
            path,
            format!("atom {}", i % mixture.gmm.len() + 1),
            "is too far away, too wide or too strong for single precision",
            REMEDY,
        )),
    }
}

#[cfg(test)]
mod tests;
