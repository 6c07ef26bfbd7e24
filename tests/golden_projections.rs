//! Hand, origin and axes, judged by float64 projections of a true map that another program has made.
//!
//! `RIBOSOME64` names the folder that holds its golden_projections (`golden_proj32.h5`: `truth` [z][y][x], `R`, the
//! centred projections without CTF); without it, this passes without a judgement. What every clone can judge for itself
//! is in simulate.rs and tests/judges.

use std::path::Path;

use cryosplat_mpi::gmm::voxelize::{Grid, voxelize};
use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::imaging::pose::Rotation;
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Geometry, Sampling, Weights};
use ndarray::{Array1, Array3, ArrayView1, Axis};

fn correlation<'a>(
    a: impl Iterator<Item = &'a f32> + Clone,
    b: impl Iterator<Item = &'a f32> + Clone,
) -> f64 {
    let n = a.clone().count() as f64;
    let mean = |v: &dyn Fn() -> f64| v() / n;
    let (ma, mb) =
        (mean(&|| a.clone().map(|&v| f64::from(v)).sum()), mean(&|| b.clone().map(|&v| f64::from(v)).sum()));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.zip(b) {
        let (x, y) = (f64::from(x) - ma, f64::from(y) - mb);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb).sqrt()
}

/// A Gaussian, smaller than a voxel, on every voxel of positive density.
fn points(truth: &Array3<f32>) -> Gmm {
    let d = truth.dim().0 as f64;
    let at = |i: usize| (i as f64 - (d / 2.0).floor()) / d;
    let dense: Vec<([f64; 3], f64)> = truth
        .indexed_iter()
        .filter(|&(_, &v)| v > 0.0)
        .map(|((z, y, x), &v)| ([at(x), at(y), at(z)], f64::from(v)))
        .collect();
    let scale = softplus_inverse(0.4 / d) as f32;
    let mut values = Vec::new();
    for axis in 0..3 {
        values.extend(dense.iter().map(|(position, _)| position[axis] as f32));
    }
    values.extend(std::iter::repeat_n(scale, dense.len()));
    values.extend(dense.iter().map(|(_, v)| softplus_inverse(v * 1e-3) as f32));
    Gmm::from_values(Shape::Isotropic, dense.len(), values)
}

fn mirrored(map: &Array3<f32>, axis: usize) -> Array3<f32> {
    // About the origin voxel: index i becomes (d - i) mod d.
    let d = map.dim().0;
    let indices: Vec<usize> = (0..d).map(|i| (d - i) % d).collect();
    map.select(Axis(axis), &indices)
}

#[test]
fn points_of_the_true_map_agree_with_its_golden_projections() {
    let Some(folder) = std::env::var_os("RIBOSOME64") else { return };
    let file = hdf5::File::open(Path::new(&folder).join("golden_proj32.h5")).expect("the golden projections");
    let truth: Array3<f32> =
        file.dataset("truth").unwrap().read::<f64, ndarray::Ix3>().unwrap().mapv(|v| v as f32);
    let rotations = file.dataset("R").unwrap().read::<f64, ndarray::Ix3>().unwrap();
    let golden = file.dataset("proj_centered_noctf").unwrap().read::<f64, ndarray::Ix3>().unwrap();
    let d = truth.dim().0;
    let gmm = points(&truth);

    // The points as a map: not mirrored, not moved.
    let map = voxelize(&gmm, &Grid::of_box(d));
    let agreement = correlation(map.iter(), truth.iter());
    assert!(agreement > 0.97, "{agreement}");
    for axis in 0..3 {
        let wrong = correlation(mirrored(&map, axis).iter(), truth.iter());
        assert!(wrong < 0.8, "mirrored along {axis}: {wrong}");
        let mut order: Vec<usize> = (0..d).collect();
        order.rotate_left(1);
        let moved = correlation(map.select(Axis(axis), &order).iter(), truth.iter());
        assert!(moved < agreement - 0.05, "moved along {axis}: {moved}");
    }

    // The points as projections.
    let geometry = Geometry {
        box_size: d,
        pixel_size: 6.0,
        cutoff: 5.0,
        sampling: Sampling::Points,
        weights: Weights::UNIFORM,
    };
    let mut wrong = 0.0;
    let mut device = CpuDevice::new(gmm, geometry);
    for (matrix, image) in rotations.outer_iter().zip(golden.outer_iter()) {
        let rotation: Rotation = std::array::from_fn(|i| std::array::from_fn(|j| matrix[[i, j]]));
        let transposed: Rotation = std::array::from_fn(|i| std::array::from_fn(|j| matrix[[j, i]]));
        let image: Array1<f32> = image.iter().map(|&v| v as f32).collect();
        let against = |rendered: &[f32]| correlation(ArrayView1::from(rendered).iter(), image.iter());
        let right = against(&device.render(&rotation));
        assert!(right > 0.97, "{right}");
        wrong += against(&device.render(&transposed));
    }
    // A rotation by half a turn is its own transpose, so only their mean tells.
    wrong /= golden.dim().0 as f64;
    assert!(wrong < 0.9, "transposed: {wrong}");
}
