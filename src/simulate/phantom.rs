//! A built-in phantom: an asymmetric, chiral body of Gaussian blobs.

use std::f64::consts::{PI, TAU};

use ndarray::Array3;

use super::assembly::copies;
use super::atoms::{Atom, centre};
use super::density::map_of_atoms;
use crate::imaging::Symmetry;

/// Blobs along the helix.
const HELIX: usize = 240;
/// Standard deviation of a blob, in box edges.
const BLOB: f64 = 0.018;
/// Lobes next to the helix: centre (box edges), radius (box edges), weight per blob. All differ.
const LOBES: [([f64; 3], f64, f64); 4] = [
    ([0.17, 0.05, 0.12], 0.075, 1.5),
    ([-0.14, 0.16, -0.03], 0.055, 2.0),
    ([0.04, -0.19, -0.16], 0.065, 1.2),
    ([-0.10, -0.08, 0.22], 0.040, 2.5),
];
/// Blobs in a lobe.
const LOBE: usize = 48;

/// The blobs of the phantom as centred point scatterers, for a box edge of `edge` angstrom.
///
/// A right-handed helix of 2 3/4 turns whose radius grows, and four different lobes: no rotation or reflection maps the phantom
/// onto itself. All blobs are within 0.4 box edges of the centre.
pub fn blobs(edge: f64) -> Vec<Atom> {
    let mut blobs = Vec::with_capacity(HELIX + LOBES.len() * LOBE);
    for i in 0..HELIX {
        let t = i as f64 / (HELIX - 1) as f64;
        let (sin, cos) = (TAU * 2.75 * t).sin_cos();
        let radius = 0.08 + 0.10 * t;
        let position = [radius * cos, radius * sin, -0.26 + 0.46 * t];
        blobs.push(Atom { position: position.map(|v| v * edge), weight: 1.0 });
    }
    // Points distributed evenly in a ball: a golden-angle spiral on shells of equal volume.
    let golden = PI * (3.0 - 5.0f64.sqrt());
    for (lobe_centre, radius, weight) in LOBES {
        for i in 0..LOBE {
            let fraction = (i as f64 + 0.5) / LOBE as f64;
            let height = 1.0 - 2.0 * ((i as f64 * 0.618_033_988_75 + 0.5).fract());
            let ring = (1.0 - height * height).sqrt();
            let (sin, cos) = (golden * i as f64).sin_cos();
            let shell = radius * fraction.cbrt();
            let offset = [shell * ring * cos, shell * ring * sin, shell * height];
            let position = std::array::from_fn(|axis| (lobe_centre[axis] + offset[axis]) * edge);
            blobs.push(Atom { position, weight });
        }
    }
    centre(&mut blobs);
    blobs
}

/// The map `[z][y][x]` of the phantom, unscaled. The phantom scales with the box, for any pixel size. As the unit of a symmetric
/// specimen, it overlaps its copies.
pub fn map(symmetry: Symmetry, box_size: usize, pixel_size: f64) -> Array3<f32> {
    let edge = box_size as f64 * pixel_size;
    // exp(-B k^2/4) is the transform of a Gaussian of variance B / (8 pi^2).
    let b_factor = 8.0 * (PI * BLOB * edge).powi(2);
    map_of_atoms(&copies(&blobs(edge), symmetry), box_size, pixel_size, b_factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phantom_fits_the_box_and_has_no_symmetry() {
        let reach =
            blobs(1.0).iter().map(|b| b.position.iter().map(|v| v * v).sum::<f64>()).fold(0.0, f64::max);
        assert!(reach.sqrt() < 0.4, "{}", reach.sqrt());

        // The grid of an odd box is invariant under all 48 symmetries of a cube.
        let n = 33;
        let map = map(Symmetry::C1, n, 2.0);
        let mean = map.mean().unwrap();
        let correlation = |axes: [usize; 3], signs: usize| {
            let (mut cross, mut own) = (0.0f64, 0.0f64);
            for ((z, y, x), &value) in map.indexed_iter() {
                let at = [z, y, x];
                let rotated: [usize; 3] =
                    std::array::from_fn(
                        |i| if signs >> i & 1 == 1 { n - 1 - at[axes[i]] } else { at[axes[i]] },
                    );
                cross += f64::from((value - mean) * (map[rotated] - mean));
                own += f64::from(value - mean).powi(2);
            }
            cross / own
        };
        for axes in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8 {
                let likeness = correlation(axes, signs);
                let itself = axes == [0, 1, 2] && signs == 0;
                assert_eq!(likeness > 0.8, itself, "{axes:?} {signs:03b}: {likeness:.3}");
            }
        }
    }
}
