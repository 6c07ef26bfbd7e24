//! A mixture as pseudo-atoms, one per Gaussian, for programs that show or fit atomic models: PDB ([`pdb`]) and mmCIF ([`cif`]).
//!
//! The position of a pseudo-atom is its Gaussian's mean, in angstrom from the first voxel of the map, so that ChimeraX shows the
//! atoms inside the map of the run. The anisotropic displacement U is the covariance in square angstrom. The B factor is
//! 8 pi^2 / 3 trace(U), which is 8 pi^2 sigma^2 for an isotropic Gaussian. The occupancy is the amplitude divided by the largest
//! amplitude. Each atom is a residue UNX of its own, so that viewers draw no bonds. The header of the file holds what else is
//! needed to read the mixture back, under names that start with `cryosplat.`.

pub mod cif;
mod header;
pub mod pdb;

use std::f64::consts::PI;
use std::path::Path;

use super::covariance::{Symmetric, axes, covariance};
use super::files::GmmFile;
use super::{Gmm, Shape, softplus_inverse};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::Symmetry;

pub use header::is_pseudo_atoms;

const REMEDY: &str = "export the mixture again, or give its HDF5 file";

/// B factor of an isotropic variance of 1 square angstrom.
const B_FACTOR: f64 = 8.0 * PI * PI;

/// Smallest occupancy that is read: softplus reaches no amplitude of zero.
const MIN_OCCUPANCY: f64 = 1e-9;

/// A Gaussian as a pseudo-atom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PseudoAtom {
    /// Mean (x, y, z) in angstrom.
    pub position: [f64; 3],
    /// Amplitude divided by the largest amplitude.
    pub occupancy: f64,
    /// Covariance in square angstrom.
    pub displacement: Symmetric,
}

impl PseudoAtom {
    /// B factor in square angstrom.
    fn b_factor(&self) -> f64 {
        let [xx, yy, zz, ..] = self.displacement;
        B_FACTOR / 3.0 * (xx + yy + zz)
    }
}

/// The displacement of an isotropic Gaussian with this B factor.
fn isotropic(b_factor: f64) -> Symmetric {
    let variance = b_factor / B_FACTOR;
    [variance, variance, variance, 0.0, 0.0, 0.0]
}

/// A mixture as pseudo-atoms, with all that is needed to convert it back.
#[derive(Clone, Debug, PartialEq)]
pub struct PseudoAtomModel {
    /// Isotropic Gaussians have only a B factor.
    pub shape: Shape,
    /// Point group of the whole, of which the pseudo-atoms are the asymmetric unit.
    pub symmetry: Symmetry,
    /// Box size of the particles in pixels.
    pub box_size: usize,
    /// Pixel size of the particles in angstrom.
    pub pixel_size: f64,
    /// Position of the mixture's origin (x, y, z) in angstrom.
    pub centre: [f64; 3],
    /// Amplitude of an atom with occupancy 1.
    pub amplitude: f64,
    /// The pseudo-atoms, in the order of the Gaussians.
    pub atoms: Vec<PseudoAtom>,
}

impl PseudoAtomModel {
    /// Converts a mixture whose origin is at `centre` (x, y, z) in angstrom. `None` means the origin in the map of the run: voxel
    /// floor(box/2) of a map that starts at zero.
    pub fn new(file: &GmmFile, centre: Option<[f64; 3]>) -> Self {
        let GmmFile { gmm, symmetry, box_size, pixel_size } = file;
        let centre = centre.unwrap_or([(box_size / 2) as f64 * pixel_size; 3]);
        let edge = *box_size as f64 * pixel_size;
        let amplitudes: Vec<f64> = gmm.amplitudes().collect();
        let largest = amplitudes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let atom = |i: usize| PseudoAtom {
            position: [0, 1, 2].map(|axis| centre[axis] + edge * f64::from(gmm.plane(axis)[i])),
            occupancy: amplitudes[i] / largest,
            displacement: covariance(gmm, i).map(|entry| entry * edge * edge),
        };
        Self {
            shape: gmm.shape(),
            symmetry: *symmetry,
            box_size: *box_size,
            pixel_size: *pixel_size,
            centre,
            amplitude: largest,
            atoms: (0..gmm.len()).map(atom).collect(),
        }
    }

    /// Converts the pseudo-atoms to a mixture.
    pub fn to_mixture(&self) -> GmmFile {
        let n = self.atoms.len();
        let edge = self.box_size as f64 * self.pixel_size;
        let mut values = vec![0.0f32; self.shape.planes() * n];
        for (i, atom) in self.atoms.iter().enumerate() {
            let mut set = |plane: usize, value: f64| values[plane * n + i] = value as f32;
            for axis in 0..3 {
                set(axis, (atom.position[axis] - self.centre[axis]) / edge);
            }
            let (scales, q) = axes(&atom.displacement.map(|entry| entry / (edge * edge)));
            match self.shape {
                Shape::Anisotropic => {
                    (0..3).for_each(|k| set(3 + k, softplus_inverse(scales[k])));
                    (0..4).for_each(|k| set(6 + k, q[k]));
                }
                Shape::Isotropic => set(3, softplus_inverse(scales[0])),
            }
            let amplitude = self.amplitude * atom.occupancy.max(MIN_OCCUPANCY);
            set(self.shape.planes() - 1, softplus_inverse(amplitude));
        }
        let gmm = Gmm::from_values(self.shape, n, values);
        GmmFile { gmm, symmetry: self.symmetry, box_size: self.box_size, pixel_size: self.pixel_size }
    }
}

/// Reads a mixture from a PDB or mmCIF file that [`pdb::write`] or [`cif::write`] wrote.
///
/// # Errors
/// When the file cannot be read, was not written by this program, is truncated, or contains an atom with invalid values. The
/// message names the line.
pub fn read(path: &Path) -> Result<GmmFile> {
    let text = files::read_text(path).map_err(Error::io(path, "read the pseudo-atoms", REMEDY))?;
    let model = if text.starts_with(cif::START) { cif::parse(&text, path) } else { pdb::parse(&text, path) }?;
    let mixture = model.to_mixture();
    match mixture.gmm.values().iter().position(|v| !v.is_finite()) {
        None => Ok(mixture),
        Some(i) => Err(Error::input(
            path,
            format!("atom {}", i % mixture.gmm.len() + 1),
            "is too far away, too wide or too strong for single precision (not finite)",
            REMEDY,
        )),
    }
}

#[cfg(test)]
mod tests;
