//! What a run has refined of a particle: pose, place in its image, defocus (docs/method.md, section 15).

use crate::imaging::View;
use crate::imaging::pose::{product, rotation_from_vector};
use crate::particles::store::{Particle, Reader};

/// Changes of a particle from what its file holds. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Refinement {
    /// Rotation vector omega in radians, in view coordinates: the pose becomes exp([omega]x) W.
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

    #[test]
    fn rows_outside_are_as_in_the_file() {
        let refinements = [1.0, 2.0].map(|defocus| Refinement { defocus, ..Refinement::default() });
        let rows = RefinedRows::new(3, &refinements);
        assert_eq!([2, 3, 4, 5].map(|row| rows.of(row).defocus), [0.0, 1.0, 2.0, 0.0]);
        assert_eq!(RefinedRows::default().of(0), Refinement::default());
    }
}
