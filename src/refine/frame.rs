//! The frame of a model: the mean rotation and the mean move of its particles' changes.

use super::newton::{in_volume, turned};
use crate::imaging::Symmetry;
use crate::imaging::pose::{Rotation, product, rotation_from_vector};
use crate::particles::refinement::Refinement;

/// Sums over particles: weight, weighted rotation vectors in volume coordinates (3), P^T P (xx, xy, xz, yy, yz, zz) and P^T offset (3),
/// where P is the first two rows of the pose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    pub sums: [f64; 13],
}

/// How the specimen has turned and moved in the volume: by a rotation vector in radians, and in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drift {
    rotation: [f64; 3],
    shift: [f64; 3],
}

/// Entries of a symmetric matrix.
const PAIRS: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];

impl Frame {
    /// Adds the change of a particle with the stored `pose`.
    pub fn add(&mut self, change: &Refinement, pose: &Rotation, weight: f64) {
        let numbers = in_volume(change, pose);
        let now = product(&rotation_from_vector(change.rotation), pose);
        self.sums[0] += weight;
        for axis in 0..3 {
            self.sums[1 + axis] += weight * numbers[axis];
            self.sums[10 + axis] += weight * (0..2).map(|k| now[k][axis] * change.offset[k]).sum::<f64>();
        }
        for (sum, (i, j)) in self.sums[4..10].iter_mut().zip(PAIRS) {
            *sum += weight * (0..2).map(|k| now[k][i] * now[k][j]).sum::<f64>();
        }
    }

    /// The drift that `symmetry` leaves free; `None` without particles.
    pub fn drift(&self, symmetry: Symmetry) -> Option<Drift> {
        let [weight, ..] = self.sums;
        if weight.is_nan() || weight <= 0.0 {
            return None;
        }
        let mean = |group: [f64; 3]| {
            let operators = symmetry.operators();
            let count = operators.len() as f64;
            let mut sum = [0.0; 3];
            for operator in &operators {
                for (sum, row) in sum.iter_mut().zip(operator) {
                    *sum += row.iter().zip(group).map(|(a, b)| a * b).sum::<f64>() / count;
                }
            }
            sum
        };
        let rotation = [1, 2, 3].map(|i| self.sums[i] / weight);
        // The move t whose projections are nearest to the offsets: (sum of P^T P) t = sum of P^T offset.
        let shift = solve3(&self.sums[4..10], &self.sums[10..13]).unwrap_or_default();
        Some(Drift { rotation: mean(rotation), shift: mean(shift) })
    }
}

/// Solves a symmetric system of three equations; `None` where it is singular: particles of one view do not show a move along it.
fn solve3(matrix: &[f64], right: &[f64]) -> Option<[f64; 3]> {
    let mut a = [[0.0; 4]; 3];
    for (&value, (i, j)) in matrix.iter().zip(PAIRS) {
        (a[i][j], a[j][i]) = (value, value);
    }
    let trace = a[0][0] + a[1][1] + a[2][2];
    (0..3).for_each(|i| a[i][3] = right[i]);
    for i in 0..3 {
        if a[i][i].is_nan() || a[i][i] <= 1e-3 * trace {
            return None;
        }
        for j in i + 1..3 {
            let factor = a[j][i] / a[i][i];
            (i..4).for_each(|k| a[j][k] -= factor * a[i][k]);
        }
    }
    let mut x = [0.0; 3];
    for i in (0..3).rev() {
        x[i] = (a[i][3] - (i + 1..3).map(|k| a[i][k] * x[k]).sum::<f64>()) / a[i][i];
    }
    Some(x)
}

impl Drift {
    /// Takes the drift back from the change of a particle with the stored `pose`.
    pub fn undo(&self, change: &mut Refinement, pose: &Rotation) {
        let now = product(&rotation_from_vector(change.rotation), pose);
        for (offset, row) in change.offset.iter_mut().zip(&now) {
            *offset -= row.iter().zip(self.shift).map(|(a, b)| a * b).sum::<f64>();
        }
        change.rotation = turned(&change.rotation, &rotation_from_vector(self.rotation.map(|v| -v)), pose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;

    /// Changes of many poses by one rotation and one move of the specimen.
    fn drifted(rotation: [f64; 3], shift: [f64; 3]) -> Vec<(Refinement, Rotation)> {
        let of = |i: usize| {
            let at = i as f64;
            let pose = rotation_from_relion(37.0 * at, 11.0 * at % 180.0, 71.0 * at);
            let rotation = turned(&[0.0; 3], &rotation_from_vector(rotation), &pose);
            let now = product(&rotation_from_vector(rotation), &pose);
            let offset = [now[0], now[1]].map(|row| row.iter().zip(shift).map(|(a, b)| a * b).sum());
            (Refinement { rotation, offset, defocus: 0.0 }, pose)
        };
        (0..40).map(of).collect()
    }

    fn found(changes: &[(Refinement, Rotation)], symmetry: Symmetry) -> Drift {
        let mut frame = Frame::default();
        changes.iter().for_each(|(change, pose)| frame.add(change, pose, 0.7));
        frame.drift(symmetry).unwrap()
    }

    fn size(change: &Refinement) -> f64 {
        change.rotation.iter().chain(&change.offset).map(|v| v * v).sum::<f64>().sqrt()
    }

    #[test]
    fn a_drift_is_found_and_taken_back() {
        let mut changes = drifted([0.01, -0.02, 0.005], [0.5, -0.3, 0.2]);
        assert!(size(&changes[3].0) > 0.1);
        let drift = found(&changes, Symmetry::C1);
        changes.iter_mut().for_each(|(change, pose)| drift.undo(change, pose));
        assert!(changes.iter().all(|(change, _)| size(change) < 1e-9), "{changes:?}");
    }

    #[test]
    fn a_symmetric_specimen_drifts_only_along_its_axis() {
        let changes = drifted([0.01, -0.02, 0.005], [0.5, -0.3, 0.2]);
        let c4 = found(&changes, Symmetry::C(4));
        let near = |found: [f64; 3], expected: [f64; 3]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
        };
        assert!(near(c4.rotation, [0.0, 0.0, 0.005]) && near(c4.shift, [0.0, 0.0, 0.2]), "{c4:?}");
        let d2 = found(&changes, Symmetry::D(2));
        assert!(near(d2.rotation, [0.0; 3]) && near(d2.shift, [0.0; 3]), "{d2:?}");
    }

    #[test]
    fn particles_of_one_view_show_no_move_along_it() {
        let pose = rotation_from_relion(0.0, 0.0, 0.0);
        let change = Refinement { offset: [1.0, 2.0], ..Refinement::default() };
        let drift = found(&[(change, pose), (change, pose)], Symmetry::C1);
        assert_eq!(drift.shift, [0.0; 3]);
        assert!(Frame::default().drift(Symmetry::C1).is_none());
    }
}
