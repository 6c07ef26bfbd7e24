//! Rotations that a search tries.

use std::f64::consts::TAU;

use crate::imaging::pose::{Rotation, product, rotation_from_vector, vector_from_rotation};

/// Rotations of a search, with the squared angle of each in radians: about the pose in view coordinates.
#[derive(Clone, Debug, Default)]
pub(crate) struct RotationGrid {
    pub rotations: Vec<Rotation>,
    pub squared_angles: Vec<f64>,
}

impl RotationGrid {
    /// Rotation vectors on a body-centred cubic grid with nearest neighbours `spacing` apart, up to the length `radius`, in radians; the
    /// smallest first.
    pub fn ball(radius: f64, spacing: f64) -> Self {
        let edge = spacing * 2.0 / 3f64.sqrt();
        let steps = (radius / edge).ceil() as i32;
        let mut vectors = Vec::new();
        for centre in [0.0, 0.5] {
            for z in -steps..=steps {
                for y in -steps..=steps {
                    for x in -steps..=steps {
                        let vector = [x, y, z].map(|v| (f64::from(v) + centre) * edge);
                        if square(vector) <= radius * radius {
                            vectors.push(vector);
                        }
                    }
                }
            }
        }
        vectors.sort_by(|a, b| square(*a).total_cmp(&square(*b)));
        Self {
            squared_angles: vectors.iter().map(|&v| square(v)).collect(),
            rotations: vectors.into_iter().map(rotation_from_vector).collect(),
        }
    }

    /// All in-plane angles about `spacing` apart, each after tilts of up to `tilt`, in radians.
    pub fn in_plane(tilt: f64, spacing: f64) -> Self {
        let count = (TAU / spacing).ceil() as i32;
        let steps = (tilt / spacing).ceil() as i32;
        let mut tilts = Vec::new();
        for y in -steps..=steps {
            for x in -steps..=steps {
                let vector = [f64::from(x) * spacing, f64::from(y) * spacing, 0.0];
                if square(vector) <= tilt * tilt {
                    tilts.push(rotation_from_vector(vector));
                }
            }
        }
        let turn = |i: i32| rotation_from_vector([0.0, 0.0, TAU * f64::from(i) / f64::from(count)]);
        let rotations: Vec<Rotation> =
            (0..count).flat_map(|i| tilts.iter().map(move |tilt| product(&turn(i), tilt))).collect();
        let squared_angles = rotations.iter().map(|w| square(vector_from_rotation(w))).collect();
        Self { rotations, squared_angles }
    }
}

fn square(v: [f64; 3]) -> f64 {
    v.iter().map(|x| x * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ball_holds_the_identity_first_and_no_gap() {
        let grid = RotationGrid::ball(0.5, 0.1);
        assert_eq!(grid.squared_angles[0], 0.0);
        assert!(grid.squared_angles.is_sorted() && grid.squared_angles.last().unwrap().sqrt() > 0.45);
        // Volume of the ball over that of a cell of the grid, half of the cube's.
        let expected = 4.19 * 0.5f64.powi(3) / (0.5 * (0.2 / 3f64.sqrt()).powi(3));
        assert!(
            (grid.rotations.len() as f64 / expected - 1.0).abs() < 0.1,
            "{} {expected}",
            grid.rotations.len()
        );
    }
}
