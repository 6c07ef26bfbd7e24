//! Symmetric assemblies of units: atoms expanded by the operators of a point group.

use super::atoms::{Atom, centre_of, move_origin};
use crate::imaging::Symmetry;
use crate::imaging::pose::Rotation;

/// How a specimen is made of units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Assembly {
    /// Point group of the specimen.
    pub symmetry: Symmetry,
    /// Centre of the unit (x, y, z) in angstrom, relative to the point where the axes meet. `None`: the unit stays where its
    /// file places it, relative to the origin of its coordinates.
    pub unit_at: Option<[f64; 3]>,
}

/// The translation that an assembly applies to its unit and to the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    /// Added to the coordinates of the file.
    unit: [f64; 3],
    /// Added to z after expansion: the axis of C_n does not fix the centre along z.
    along_z: f64,
}

impl Assembly {
    /// Where the unit `atoms` of the file goes. Without symmetry, its centre goes to the origin.
    pub(super) fn placement(&self, atoms: &[Atom]) -> Placement {
        let centre = centre_of(atoms);
        let target = match (self.symmetry, self.unit_at) {
            (_, Some(target)) => target,
            (Symmetry::C1, None) => [0.0; 3],
            (_, None) => centre,
        };
        let unit = std::array::from_fn(|axis| target[axis] - centre[axis]);
        let is_cyclic = matches!(self.symmetry, Symmetry::C(_));
        Placement { unit, along_z: if is_cyclic { -target[2] } else { 0.0 } }
    }

    /// Places and expands a unit in the coordinates of the file. Returns the largest distance of an atom from the origin in
    /// angstrom.
    pub(super) fn expand(&self, atoms: &mut Vec<Atom>, placement: Placement) -> f64 {
        let origin = placement.unit.map(|v| -v);
        let radius = move_origin(atoms, origin);
        if self.symmetry == Symmetry::C1 {
            return radius;
        }
        self.warn_of_overlap(atoms);
        *atoms = copies(atoms, self.symmetry);
        move_origin(atoms, [0.0, 0.0, -placement.along_z])
    }

    /// Warns where the copies of a unit lie on each other: its file then holds the whole assembly, or its coordinates are not
    /// relative to the axes.
    fn warn_of_overlap(&self, unit: &[Atom]) {
        let centre = centre_of(unit);
        let square = |v: [f64; 3]| v.iter().map(|v| v * v).sum::<f64>();
        let apart = |a: [f64; 3], b: [f64; 3]| square(std::array::from_fn(|axis| a[axis] - b[axis]));
        let total: f64 = unit.iter().map(|atom| atom.weight).sum();
        let spread = unit.iter().map(|atom| atom.weight * apart(atom.position, centre)).sum::<f64>() / total;
        let copies = self.symmetry.operators();
        let nearest =
            copies[1..].iter().map(|g| apart(moved(g, centre), centre)).fold(f64::INFINITY, f64::min);
        if nearest < spread {
            tracing::warn!(
                "{}: the copies of the unit overlap: their centres are {:.1} A apart, and the unit has a radius of gyration of \
                 {:.1} A; place its centre with --unit-at X,Y,Z, and give one unit, not the assembly",
                self.symmetry,
                nearest.sqrt(),
                spread.sqrt()
            );
        }
    }
}

/// The atoms of all copies of `unit`, those of the unit first.
pub(super) fn copies(unit: &[Atom], symmetry: Symmetry) -> Vec<Atom> {
    let copy = |g| unit.iter().map(move |atom| Atom { position: moved(&g, atom.position), ..*atom });
    symmetry.operators().into_iter().flat_map(copy).collect()
}

fn moved(g: &Rotation, position: [f64; 3]) -> [f64; 3] {
    g.map(|row| row.iter().zip(position).map(|(g, r)| g * r).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Vec<Atom> {
        [[30.0, 1.0, 2.0], [34.0, -1.0, 5.0], [31.0, 4.0, 8.0]]
            .map(|position| Atom { position, weight: 2.0 })
            .to_vec()
    }

    #[test]
    fn every_operator_maps_the_assembly_onto_itself() {
        for name in ["C3", "D2", "T", "O", "I"] {
            let assembly = Assembly { symmetry: name.parse().unwrap(), unit_at: None };
            let mut atoms = unit();
            let placement = assembly.placement(&atoms);
            assembly.expand(&mut atoms, placement);
            assert_eq!(atoms.len(), 3 * assembly.symmetry.order());
            assert!(centre_of(&atoms).iter().all(|v| v.abs() < 1e-9), "{name}: {:?}", centre_of(&atoms));
            for g in assembly.symmetry.operators() {
                for atom in &atoms {
                    let to = moved(&g, atom.position);
                    let matches = atoms
                        .iter()
                        .filter(|other| other.position.iter().zip(to).all(|(a, b)| (a - b).abs() < 1e-9));
                    assert_eq!(matches.count(), 1, "{name}");
                }
            }
        }
    }

    #[test]
    fn the_unit_stays_where_the_file_places_it_or_goes_where_it_is_asked_to() {
        let mut atoms = unit();
        let as_in_file = Assembly { symmetry: Symmetry::D(2), unit_at: None };
        as_in_file.expand(&mut atoms, as_in_file.placement(&unit()));
        assert_eq!(atoms[0].position, [30.0, 1.0, 2.0]);
        let mut atoms = unit();
        let placed = Assembly { symmetry: Symmetry::T, unit_at: Some([10.0, 20.0, 30.0]) };
        placed.expand(&mut atoms, placed.placement(&unit()));
        let centre = centre_of(&atoms[..3]);
        assert!(centre.iter().zip([10.0, 20.0, 30.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{centre:?}");
        // Without symmetry, the model is centred as ever.
        let mut atoms = unit();
        let radius = Assembly::default().expand(&mut atoms, Assembly::default().placement(&unit()));
        let mut centred = unit();
        assert_eq!(radius, super::super::atoms::centre(&mut centred));
        assert_eq!(atoms, centred);
    }
}
