//! What a run has refined of a particle: pose, place in its image, defocus (docs/method.md, section 15).

use std::f64::consts::TAU;

use crate::imaging::View;
use crate::imaging::pose::{product, rotation_from_vector};
use crate::particles::store::{Particle, Reader};

/// Changes of a particle from what its file holds. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Refinement {
    /// Rotation vector omega in radians, in view coordinates: the pose becomes `exp([omega]x) W`.
    pub rotation: [f64; 3],
    /// Where the image shows the specimen's origin, relative to the box's ([`View::offset`]): (x, y) in pixels. Less this, the shift of
    /// the image centres the particle.
    pub offset: [f64; 2],
    /// Change of both defocus values, in angstrom.
    pub defocus: f64,
}

impl Refinement {
    /// The particle with its refined pose, shift and defocus.
    #[must_use]
    pub fn of(&self, particle: &Particle) -> Particle {
        if *self == Self::default() {
            return *particle;
        }
        let mut refined = *particle;
        refined.rotation = product(&rotation_from_vector(self.rotation), &particle.rotation);
        refined.shift = [0, 1].map(|axis| particle.shift[axis] - self.offset[axis]);
        refined.ctf.defocus_u += self.defocus;
        refined.ctf.defocus_v += self.defocus;
        refined
    }

    /// The view of a particle of `reader`'s set, as refined.
    pub fn view(&self, reader: &Reader, particle: &Particle) -> View {
        View { offset: self.offset, ..reader.view(&self.of(particle)) }
    }

    /// The rotation in degrees: in the image plane (about the view axis, positive from x to y), of the view axis, and in all.
    pub fn angles(&self) -> RotationAngles {
        let [x, y, z] = self.rotation;
        let angle = x.hypot(y).hypot(z);
        // The quaternion, whose part about z is the turn in the plane.
        let (sin, cos) = (0.5 * angle).sin_cos();
        let scale = if angle > 0.0 { sin / angle } else { 0.5 };
        let (across, along) = (scale * x.hypot(y), scale * z);
        let in_plane = 2.0 * along.atan2(cos);
        RotationAngles {
            in_plane: (in_plane - TAU * (in_plane / TAU).round()).to_degrees(),
            tilt: (2.0 * across.atan2(along.hypot(cos))).to_degrees(),
            total: angle.to_degrees(),
        }
    }
}

/// A change of a pose in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotationAngles {
    /// In the image plane, -180 to 180.
    pub in_plane: f64,
    /// Of the view axis, 0 to 180.
    pub tilt: f64,
    /// The angle of the rotation.
    pub total: f64,
}

/// The refinements of consecutive rows of a particle file. Rows outside are as in the file, and so are all by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefinedRows<'a> {
    /// The first row.
    first: usize,
    /// One for each row.
    refinements: &'a [Refinement],
}

impl<'a> RefinedRows<'a> {
    /// The `refinements` of the rows from `first` on.
    pub fn new(first: usize, refinements: &'a [Refinement]) -> Self {
        Self { first, refinements }
    }

    /// The refinement of `row`.
    pub fn of(&self, row: usize) -> Refinement {
        row.checked_sub(self.first).and_then(|at| self.refinements.get(at)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::vector_from_rotation;

    fn angles(rotation: [f64; 3]) -> [f64; 3] {
        let RotationAngles { in_plane, tilt, total } =
            Refinement { rotation, ..Refinement::default() }.angles();
        [in_plane, tilt, total]
    }

    #[test]
    fn rotations_split_into_turn_and_tilt() {
        let agree = |found: [f64; 3], expected: [f64; 3]| {
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near, "{found:?} {expected:?}");
        };
        agree(angles([0.0; 3]), [0.0; 3]);
        agree(angles([0.0, 0.0, -0.2]), [-0.2f64.to_degrees(), 0.0, 0.2f64.to_degrees()]);
        agree(angles([0.3, -0.4, 0.0]), [0.0, 0.5f64.to_degrees(), 0.5f64.to_degrees()]);
        // A turn in the plane, then a tilt, in the rotation as a matrix.
        let (turn, tilt) = (rotation_from_vector([0.0, 0.0, 2.5]), rotation_from_vector([-0.6, 0.3, 0.0]));
        let both = product(&tilt, &turn);
        let found = angles(vector_from_rotation(&both));
        agree([found[0], found[1], 0.0], [2.5f64.to_degrees(), both[2][2].acos().to_degrees(), 0.0]);
        // Tiny rotations keep their digits.
        agree(angles([0.0, 1e-8, 1e-8]).map(|v| v * 1e8), [1.0, 1.0, 2f64.sqrt()].map(f64::to_degrees));
        // Beyond half a turn.
        agree(angles([0.0, 0.0, 4.0]), [(4.0 - TAU).to_degrees(), 0.0, 4f64.to_degrees()]);
    }

    #[test]
    fn rows_outside_are_as_in_the_file() {
        let refinements = [1.0, 2.0].map(|defocus| Refinement { defocus, ..Refinement::default() });
        let rows = RefinedRows::new(3, &refinements);
        assert_eq!([2, 3, 4, 5].map(|row| rows.of(row).defocus), [0.0, 1.0, 2.0, 0.0]);
        assert_eq!(RefinedRows::default().of(0), Refinement::default());
    }
}
