//! Whether the contrast is inverted: the sign of the specimen in voxel maps of the particles.
//!
//! A specimen takes a small part of its sphere and is denser than the solvent, so the densities of a map have a positive skewness: some
//! voxels far above the mean, many slightly below. Hollow specimens and shells have it too. With inverted contrast it is negative. The
//! mixed third moment of two half maps has no bias by their noise.

use ndarray::Array3;

use super::{Outcome, Subject};
use crate::error::Result;
use crate::evaluate::Fsc;
use crate::evaluate::filter::low_pass;
use crate::run_folder::diagnosis::{Finding, Severity};

const WHAT: &str = "contrast";
/// FSC of the voxel maps that ends the shells that are looked at.
const SIGNAL: f64 = 0.5;
/// Fewest of these shells.
const FEWEST_SHELLS: usize = 3;
/// Skewness below which the contrast is inverted.
const INVERTED: f64 = -0.5;
/// Skewness above which it is right; between both it is not decided.
const RIGHT: f64 = 0.2;
/// Octants of the box whose own skewness must be negative too.
const OCTANTS: usize = 6;

/// Skewness of a density.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Skewness {
    /// Of the whole sphere.
    value: f64,
    /// Number of octants of the box whose third moment has its sign.
    octants: usize,
}

/// Tests the contrast.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let voxels = subject.voxels()?;
    let [first, second] = &voxels.maps;
    let fsc = Fsc::between(first, second)?;
    let shells = fsc.shells.iter().skip(1).take_while(|&&fsc| fsc >= SIGNAL).count();
    if shells < FEWEST_SHELLS {
        return Ok(Outcome::untested(WHAT, "the voxel maps have too little signal"));
    }
    let resolution = 1.0 / fsc.frequency(shells as f64);
    let filtered = [first, second].map(|map| low_pass(map, resolution));
    let Some(skewness) = skewness(&filtered) else {
        return Ok(Outcome::untested(WHAT, "the voxel maps do not correlate"));
    };
    let Skewness { value, octants } = skewness;
    if value >= INVERTED || octants < OCTANTS {
        let decided =
            if value >= RIGHT { "the specimen is denser than its surroundings" } else { "not decided" };
        return Ok(Outcome::sound(
            WHAT,
            format!("skewness of the density to {resolution:.0} A {value:+.1}: {decided}"),
        ));
    }
    let header = subject.store.header();
    let original =
        subject.store.imported_from().map_or("INPUT".to_owned(), |path| path.display().to_string());
    let option = if header.inverted { "" } else { " --invert" };
    let finding = Finding {
        id: "contrast-inverted".into(),
        severity: Severity::Fault,
        title: "the contrast is inverted: the specimen is darker than the solvent".into(),
        evidence: format!(
            "skewness of the density of the voxel maps to {resolution:.0} A: {value:+.1} (a specimen in solvent has a positive one), the same sign in \
             {octants} of the 8 octants of the box"
        ),
        cause: if header.inverted {
            "the images were inverted on import, although the specimen was bright already; or all defoci have the wrong sign".into()
        } else {
            "raw images with a dark specimen were imported without --invert; or all defoci have the wrong sign (underfocus is positive)".into()
        },
        cost: "Gaussians of positive density cannot describe the specimen: they fill the solvent around it, and the map is worthless".into(),
        next: vec![
            format!("cryosplat-mpi import {original}{option} -o inverted.h5"),
            "cryosplat-mpi train inverted.h5 -o run_inverted".into(),
        ],
    };
    Ok(Outcome::found(WHAT, finding))
}

/// The skewness of what two maps have in common, within the sphere that fits the box. `None` if they do not correlate.
fn skewness([a, b]: &[Array3<f32>; 2]) -> Option<Skewness> {
    let n = a.dim().0;
    let centre = (n / 2) as f64;
    let limit = (n as f64 / 2.0 - 2.0).powi(2);
    // Values within the sphere, with their octant.
    let inside: Vec<(usize, [f64; 2])> = a
        .indexed_iter()
        .filter_map(|((z, y, x), &value)| {
            let place = [x, y, z].map(|i| i as f64 - centre);
            let octant = (0..3).map(|axis| usize::from(place[axis] > 0.0) << axis).sum();
            let is_inside = place.iter().map(|v| v * v).sum::<f64>() < limit;
            is_inside.then(|| (octant, [f64::from(value), f64::from(b[[z, y, x]])]))
        })
        .collect();
    let count = inside.len() as f64;
    let means = inside.iter().fold([0.0; 2], |m, (_, v)| [m[0] + v[0] / count, m[1] + v[1] / count]);
    let (mut second, mut third, mut octants) = (0.0, 0.0, [0.0; 8]);
    for (octant, values) in &inside {
        let [a, b] = [values[0] - means[0], values[1] - means[1]];
        let cube = 0.5 * (a * a * b + a * b * b);
        second += a * b / count;
        third += cube / count;
        octants[*octant] += cube;
    }
    let value = third / second.powf(1.5);
    (second > 0.0 && value.is_finite())
        .then(|| Skewness { value, octants: octants.iter().filter(|cube| **cube * third > 0.0).count() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    const N: usize = 32;

    /// Two noisy maps of a density that is `sign` between the radii.
    fn maps(sign: f32, radii: [f64; 2]) -> [Array3<f32>; 2] {
        [1, 2].map(|seed| {
            let random = &mut stream(seed, Purpose::Noise, 0, 0);
            Array3::from_shape_fn((N, N, N), |(z, y, x)| {
                let radius = [x, y, z].iter().map(|&i| (i as f64 - 16.0).powi(2)).sum::<f64>().sqrt();
                let noise: f32 = StandardNormal.sample(random);
                0.5 * noise + if (radii[0]..radii[1]).contains(&radius) { sign } else { 0.0 }
            })
        })
    }

    #[test]
    fn solid_and_hollow_specimens_have_the_sign_of_their_contrast() {
        for radii in [[0.0, 6.0], [0.0, 9.0], [5.0, 8.0], [9.0, 11.0]] {
            let found = skewness(&maps(1.0, radii)).unwrap();
            assert!(found.value > RIGHT, "{radii:?}: {found:?}");
            let found = skewness(&maps(-1.0, radii)).unwrap();
            assert!(found.value < INVERTED && found.octants >= OCTANTS, "{radii:?}: {found:?}");
        }
    }

    #[test]
    fn noise_alone_is_not_decided() {
        let found = skewness(&maps(0.0, [0.0, 1.0]));
        assert!(found.is_none_or(|found| found.octants < 8), "{found:?}");
    }
}
