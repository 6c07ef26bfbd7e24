//! Densification: each Gaussian of a mixture becomes two (docs/method.md, section 7).

use super::parameters::scaled_amplitude;
use super::{Gmm, S_MIN, Shape, softplus, softplus_inverse};
use crate::imaging::pose::rotation_from_quaternion;

/// Distance of each of the two from the mean of the original, in its standard deviations along the longest axis: the square root of
/// 3/4, with which that axis halves. With a half step, mixtures that are split twice stay too wide (benches/results/notebook.md, 62).
const STEP: f64 = 0.866_025_403_784_438_6;

/// The mixture with each Gaussian split into two of half its amplitude. The means move by 0.87 standard deviations in both
/// directions along the longest axis, and that axis halves, so that the pair has the mean and the covariance of the original
/// (up to [`S_MIN`]).
///
/// An isotropic Gaussian has no longest axis: Gaussian i moves along axis i mod 3, and the pair has the trace of its covariance.
///
/// Planes hold first all Gaussians that moved forward, then all that moved back, in the order of `gmm`.
pub fn split(gmm: &Gmm) -> Gmm {
    let (shape, count) = (gmm.shape(), gmm.len());
    let mut values: Vec<f32> = (0..shape.planes()).flat_map(|plane| gmm.plane(plane).repeat(2)).collect();
    for i in 0..count {
        let value = |plane: usize| f64::from(gmm.plane(plane)[i]);
        let scale = |plane: usize| softplus(value(plane)).max(S_MIN);
        let (longest, direction) = match shape {
            Shape::Isotropic => (3, std::array::from_fn(|axis| f64::from(u8::from(axis == i % 3)))),
            Shape::Anisotropic => {
                let longest = (4..6).fold(3, |a, b| if scale(b) > scale(a) { b } else { a });
                let r = rotation_from_quaternion([6, 7, 8, 9].map(value));
                (longest, r.map(|row| row[longest - 3]))
            }
        };
        let axes = if shape == Shape::Isotropic { 3.0 } else { 1.0 };
        let length = scale(longest);
        let narrower = (length * (1.0 - STEP * STEP / axes).sqrt()).max(S_MIN);
        let amplitude = shape.planes() - 1;
        for (twin, step) in [(i, STEP * length), (count + i, -STEP * length)] {
            let mut set = |plane: usize, value: f64| values[2 * plane * count + twin] = value as f32;
            for (axis, along) in direction.into_iter().enumerate() {
                set(axis, value(axis) + step * along);
            }
            set(longest, softplus_inverse(narrower));
            set(amplitude, scaled_amplitude(value(amplitude), 0.5));
        }
    }
    Gmm::from_values(shape, 2 * count, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::covariance::covariance;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    /// A mixture whose Gaussians all differ, with axes of 0.4 to 4 times 0.01 box units.
    fn mixture(shape: Shape, count: usize) -> Gmm {
        let random = &mut stream(4, Purpose::Start, 0, 0);
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        let planes = (0..shape.planes()).flat_map(|plane| {
            (0..count)
                .map(|_| match plane {
                    plane if plane < 3 => 0.1 * normal(),
                    plane if shape.scales().contains(&plane) => {
                        softplus_inverse(0.01 * (0.7 * normal()).clamp(-0.9, 1.4).exp())
                    }
                    plane if plane + 1 == shape.planes() => -10.0 + normal(),
                    _ => normal(),
                } as f32)
                .collect::<Vec<f32>>()
        });
        Gmm::from_values(shape, count, planes.collect())
    }

    /// Amplitude, mean and second moments about the origin of Gaussian `i`.
    fn moments(gmm: &Gmm, i: usize) -> (f64, [f64; 3], [f64; 6]) {
        let amplitude = gmm.amplitudes().nth(i).unwrap();
        let m: [f64; 3] = std::array::from_fn(|axis| f64::from(gmm.plane(axis)[i]));
        let c = covariance(gmm, i);
        let products = [m[0] * m[0], m[1] * m[1], m[2] * m[2], m[0] * m[1], m[0] * m[2], m[1] * m[2]];
        (amplitude, m, std::array::from_fn(|k| c[k] + products[k]))
    }

    #[test]
    fn a_pair_has_the_moments_of_the_original() {
        for shape in [Shape::Anisotropic, Shape::Isotropic] {
            let before = mixture(shape, 300);
            let after = split(&before);
            assert_eq!((after.shape(), after.len()), (shape, 600));
            for i in 0..300 {
                let original = moments(&before, i);
                let [one, two] = [moments(&after, i), moments(&after, 300 + i)];
                // Raw parameters are single precision: relative errors of 1e-7 of raw values of about 10.
                assert!(((one.0 + two.0) / original.0 - 1.0).abs() < 3e-6);
                assert_eq!(one.0, two.0);
                let near = |a: f64, b: f64| (a - b).abs() < 3e-8;
                assert!((0..3).all(|k| near(0.5 * (one.1[k] + two.1[k]), original.1[k])));
                let pair: [f64; 6] = std::array::from_fn(|k| 0.5 * (one.2[k] + two.2[k]));
                let same = match shape {
                    Shape::Anisotropic => (0..6).all(|k| near(pair[k], original.2[k])),
                    Shape::Isotropic => near(pair[..3].iter().sum(), original.2[..3].iter().sum()),
                };
                assert!(same, "{pair:?} {original:?}");
                let apart: f64 =
                    (0..3).map(|k| (one.1[k] - two.1[k]).powi(2)).sum::<f64>().sqrt() / (2.0 * STEP);
                let axes = shape.scales().map(|plane| softplus(f64::from(before.plane(plane)[i])));
                let longest = axes.fold(0.0, f64::max);
                assert!((apart / longest - 1.0).abs() < 1e-4, "{apart} {longest}");
            }
        }
    }

    #[test]
    fn the_narrowest_gaussians_move_apart_too() {
        let mut gmm = mixture(Shape::Anisotropic, 1);
        gmm.set_scale(0.5 * S_MIN);
        let after = split(&gmm);
        let apart: f64 =
            (0..3).map(|k| f64::from(after.plane(k)[0] - after.plane(k)[1]).powi(2)).sum::<f64>().sqrt();
        assert!((apart / (2.0 * STEP * S_MIN) - 1.0).abs() < 1e-3, "{apart}");
    }
}
