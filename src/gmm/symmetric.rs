//! The whole of a symmetric mixture from its asymmetric unit, and a unit from a whole (docs/method.md, section 2).

use super::covariance::quaternion;
use super::{Gmm, Shape};
use crate::imaging::Symmetry;
use crate::imaging::pose::Rotation;

/// A direction that no operator of any group leaves in place. The unit of a whole lies around it.
const DIRECTION: [f64; 3] = [0.3017, 0.1403, 0.9430];

/// All Gaussians of the particle whose asymmetric unit is `unit`, `[operator][gaussian]`: those of the unit first.
pub fn whole(unit: &Gmm, symmetry: Symmetry) -> Gmm {
    let operators = symmetry.operators();
    let (shape, count) = (unit.shape(), unit.len());
    let total = operators.len() * count;
    let mut values = vec![0.0; shape.planes() * total];
    for (number, operator) in operators.iter().enumerate() {
        let turn = quaternion(operator);
        for i in 0..count {
            let at = |plane: usize| unit.plane(plane)[i];
            let mut set = |plane: usize, value: f32| values[plane * total + number * count + i] = value;
            (0..shape.planes()).for_each(|plane| set(plane, at(plane)));
            if number == 0 {
                // The identity rounds nothing.
                continue;
            }
            let mean = moved(operator, [0, 1, 2].map(|axis| f64::from(at(axis))));
            (0..3).for_each(|axis| set(axis, mean[axis] as f32));
            if shape == Shape::Anisotropic {
                let turned = multiplied(turn, [6, 7, 8, 9].map(|plane| f64::from(at(plane))));
                (0..4).for_each(|k| set(6 + k, turned[k] as f32));
            }
        }
    }
    Gmm::from_values(shape, total, values)
}

/// The Gaussians of `whole` whose means are nearer to a certain direction than all their equivalents: of a whole with |G| equivalents of
/// each Gaussian, one of them. `None` if there are none.
pub fn unit_of(whole: &Gmm, symmetry: Symmetry) -> Option<Gmm> {
    let operators = symmetry.operators();
    let along = |operator: &Rotation, mean: [f64; 3]| -> f64 {
        moved(operator, mean).iter().zip(DIRECTION).map(|(a, b)| a * b).sum()
    };
    let is_inside = |i: &usize| {
        let mean = [0, 1, 2].map(|axis| f64::from(whole.plane(axis)[*i]));
        let here = along(&operators[0], mean);
        operators.iter().all(|operator| along(operator, mean) <= here)
    };
    let inside: Vec<usize> = (0..whole.len()).filter(is_inside).collect();
    let values =
        (0..whole.shape().planes()).flat_map(|plane| inside.iter().map(move |&i| whole.plane(plane)[i]));
    (!inside.is_empty()).then(|| Gmm::from_values(whole.shape(), inside.len(), values.collect()))
}

/// "3000 Gaussians", or "125 Gaussians of the asymmetric unit (O, 3000 in all)", for a unit of `count`.
pub(crate) fn described(count: usize, symmetry: Symmetry) -> String {
    match symmetry {
        Symmetry::C1 => format!("{count} Gaussians"),
        _ => format!(
            "{count} Gaussians of the asymmetric unit ({symmetry}, {} in all)",
            count * symmetry.order()
        ),
    }
}

fn moved(operator: &Rotation, mean: [f64; 3]) -> [f64; 3] {
    operator.map(|row| row.iter().zip(mean).map(|(a, b)| a * b).sum())
}

/// The product of two quaternions (w, x, y, z).
fn multiplied([a, b, c, d]: [f64; 4], [w, x, y, z]: [f64; 4]) -> [f64; 4] {
    [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::covariance::covariance;
    use crate::random::{Purpose, stream};

    /// Random Gaussians, of which the anisotropic ones have unlike scales and orientations.
    fn random(shape: Shape, count: usize) -> Gmm {
        let mut gmm = Gmm::random(count, shape, &mut stream(5, Purpose::Start, 1, 0));
        let means: Vec<f32> = gmm.values()[..3 * count].to_vec();
        for (value, mean) in gmm.values_mut()[3 * count..].iter_mut().zip(means.iter().cycle()) {
            *value += 5.0 * mean;
        }
        gmm
    }

    #[test]
    fn the_whole_has_the_turned_means_and_covariances_of_the_unit() {
        for (shape, symmetry) in [(Shape::Anisotropic, Symmetry::I2), (Shape::Isotropic, Symmetry::D(3))] {
            let unit = random(shape, 3);
            let all = whole(&unit, symmetry);
            assert_eq!(all.len(), 3 * symmetry.order());
            let full = |[xx, yy, zz, xy, xz, yz]: [f64; 6]| [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]];
            for (number, g) in symmetry.operators().iter().enumerate() {
                for i in 0..3 {
                    let (c, got) = (full(covariance(&unit, i)), full(covariance(&all, 3 * number + i)));
                    for (a, row) in got.iter().enumerate() {
                        for (b, value) in row.iter().enumerate() {
                            let want: f64 = (0..9).map(|k| g[a][k / 3] * c[k / 3][k % 3] * g[b][k % 3]).sum();
                            assert!((value - want).abs() < 1e-6 * (c[0][0] + c[1][1] + c[2][2]));
                        }
                        let want = moved(g, [0, 1, 2].map(|axis| f64::from(unit.plane(axis)[i])))[a];
                        assert!((f64::from(all.plane(a)[3 * number + i]) - want).abs() < 1e-7);
                    }
                }
            }
        }
    }

    #[test]
    fn a_unit_of_the_whole_makes_the_same_whole() {
        for symmetry in [Symmetry::C1, Symmetry::C(5), Symmetry::D(7), Symmetry::T, Symmetry::O, Symmetry::I3]
        {
            let unit = random(Shape::Anisotropic, 40);
            let again = unit_of(&whole(&unit, symmetry), symmetry).unwrap();
            assert_eq!(again.len(), 40, "{symmetry}");
            let total = |gmm: &Gmm| gmm.amplitudes().sum::<f64>();
            assert!((total(&again) / total(&unit) - 1.0).abs() < 1e-12, "{symmetry}");
            // Another unit of the same whole is the same unit.
            let third = unit_of(&whole(&again, symmetry), symmetry).unwrap();
            assert_eq!(third.values()[..3 * 40], again.values()[..3 * 40], "{symmetry}");
        }
    }
}
