//! Where a map lies in the coordinate frame of an atomic model.

use std::fmt;

/// The words of an MRC header that place a map: NXSTART, NYSTART, NZSTART and ORIGIN. Zero by default, as in RELION's maps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Frame {
    /// Position (x, y, z) of the first voxel in the unit cell, in voxels.
    pub start: [i32; 3],
    /// Position (x, y, z) of the first voxel in angstrom. If not zero, `start` has no effect, as in ChimeraX.
    pub origin: [f64; 3],
}

impl Frame {
    /// Position (x, y, z) of the first voxel in angstrom, for voxels of `voxel_size` angstrom.
    pub fn corner(&self, voxel_size: [f64; 3]) -> [f64; 3] {
        if self.origin != [0.0; 3] {
            return self.origin;
        }
        std::array::from_fn(|axis| f64::from(self.start[axis]) * voxel_size[axis])
    }
}

impl fmt::Display for Frame {
    /// "NXSTART -16 -16 -16, ORIGIN 0 0 0".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers hold single precision.
        let ([a, b, c], [x, y, z]) = (self.start, self.origin.map(|v| (v * 1e3).round() / 1e3));
        write!(f, "NXSTART {a} {b} {c}, ORIGIN {x} {y} {z}")
    }
}
