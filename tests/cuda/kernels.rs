//! Every kernel against the reference in f64, and the other properties of the device.

use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::cuda::{CudaDevice, CudaOptions};
use cryosplat_mpi::render::{Alone, Device, Observation, Target, energy};

use crate::cases::{
    Case, TOLERANCE, case, compare_gradients, compare_isotropic_gradients, golden, planes, seed, worst,
};
use crate::{cases, common, reference};

pub const TESTS: &[(&str, fn())] = &[
    ("projections_agree_with_the_dense_sum", projections_agree_with_the_dense_sum),
    ("needles_across_the_axes_agree_with_the_dense_sum", needles_across_the_axes_agree_with_the_dense_sum),
    ("loss_and_gradients_agree_with_the_dense_reference", loss_and_gradients_agree_with_the_dense_reference),
    ("band_limited_sampling_agrees", band_limited_sampling_agrees),
    ("weighted_frequencies_agree", weighted_frequencies_agree),
    ("the_isotropic_gradient_agrees", the_isotropic_gradient_agrees),
    ("golden_values", golden_values),
    ("many_gaussians_agree_with_the_dense_reference", many_gaussians_agree_with_the_dense_reference),
    ("a_batch_in_several_passes_agrees", a_batch_in_several_passes_agrees),
    ("prepared_resident_and_observed_images_agree", prepared_resident_and_observed_images_agree),
    ("results_repeat_to_the_bit", results_repeat_to_the_bit),
    ("checksums_depend_on_every_bit", checksums_depend_on_every_bit),
];

pub fn device_of(gmm: Gmm, case: &Case, cutoff: f64, batch: usize) -> CudaDevice {
    let options = CudaOptions { ordinal: 0, batch, kept_half: false };
    let mut device = CudaDevice::new(gmm, case.geometry(cutoff), &options).unwrap();
    device.set_noise_weights(&case.noise_weights).unwrap();
    device
}

pub fn device(case: &Case, shape: Shape, cutoff: f64) -> CudaDevice {
    device_of(planes(&case.gaussians, shape), case, cutoff, case.images.len())
}

pub fn gradient(case: &Case, shape: Shape, cutoff: f64) -> (Vec<f32>, f64) {
    let observed = case.observed();
    device(case, shape, cutoff).gradient(&case.observations(&observed)).unwrap()
}

fn projections_agree_with_the_dense_sum() {
    let seed = seed();
    for (k, d, n) in [(0, 32, 61), (1, 33, 97), (2, 50, 61), (3, 64, 300)] {
        let case = case(seed + k, d, n, 2, false);
        for cutoff in [3.0, 8.0] {
            let mut device = device(&case, Shape::Anisotropic, cutoff);
            for view in &case.views {
                let want = reference::project(&case.gaussians, &view.rotation, d, cutoff);
                let got = device.render(&view.rotation).unwrap();
                let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
                assert!(error < TOLERANCE, "seed {seed}, box {d}, cutoff {cutoff}: off by {error:.1e}");
            }
        }
    }
}

/// Large terms that cancel: in plain single precision the error of a thin splat would reach 1e-5.
fn needles_across_the_axes_agree_with_the_dense_sum() {
    let seed = seed();
    let mut case = case(seed, 64, 40, 8, false);
    for gaussian in &mut case.gaussians {
        gaussian.s = [0.0015, 0.0015, 0.3].map(|s| f64::from(softplus_inverse(s) as f32));
    }
    let mut device = device(&case, Shape::Anisotropic, 3.0);
    for view in &case.views {
        let want = reference::project(&case.gaussians, &view.rotation, 64, 3.0);
        let got = device.render(&view.rotation).unwrap();
        let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
        assert!(error < 1e-6, "seed {seed}: off by {error:.1e}");
    }
}

/// Compares images, loss and gradients with the reference.
pub fn assert_agrees(label: &str, case: &Case, cutoff: f64) {
    let mut rendering = device(case, Shape::Anisotropic, cutoff);
    cases::assert_agrees(
        label,
        case,
        cutoff,
        |view| rendering.render(&view.rotation).unwrap(),
        || gradient(case, Shape::Anisotropic, cutoff),
    );
}

fn band_limited_sampling_agrees() {
    let seed = seed();
    for (k, d, cutoff) in [(0, 32, 3.0), (1, 33, 8.0)] {
        assert_agrees(&format!("seed {seed}"), &case(seed + 60 + k, d, 61, 2, false).band_limited(), cutoff);
    }
}

fn weighted_frequencies_agree() {
    let seed = seed();
    let case = |k, d| case(seed + 80 + k, d, 61, 2, false);
    assert_agrees(&format!("points, seed {seed}"), &case(0, 33).weighted(), 8.0);
    assert_agrees(&format!("band-limited, seed {seed}"), &case(1, 32).band_limited().weighted(), 3.0);
}

fn loss_and_gradients_agree_with_the_dense_reference() {
    let seed = seed();
    // Moments take 2 columns a lane, or 1 in an odd box.
    for (k, d, cutoff) in
        [(0, 32, 3.0), (1, 33, 3.0), (2, 32, 8.0), (3, 33, 8.0), (4, 48, 3.0), (5, 132, 3.0)]
    {
        let case = case(seed + 10 + k, d, 61, 3, false);
        let (got, loss) = gradient(&case, Shape::Anisotropic, cutoff);
        let want = reference::loss(&case.gaussians, &case.images, d, cutoff);
        assert!((loss / want - 1.0).abs() < TOLERANCE, "seed {seed}: loss {loss}, expected {want}");
        let want = reference::gradient(&case.gaussians, &case.images, d, cutoff);
        compare_gradients(&format!("seed {seed}, box {d}, cutoff {cutoff}"), &got, &want);
    }
}

fn the_isotropic_gradient_agrees() {
    let case = case(seed(), 32, 40, 2, true);
    let (got, _) = gradient(&case, Shape::Isotropic, 8.0);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 8.0);
    compare_isotropic_gradients(&got, &want);
}

fn golden_values() {
    let Some(path) = common::shared("golden/golden_small.h5") else { return };
    for golden in golden(&path) {
        let (name, case) = (golden.name, &golden.case);
        let mut device = device(case, Shape::Anisotropic, 9.0);
        for (view, want) in case.views.iter().zip(golden.projections.chunks(case.d * case.d)) {
            let got = device.render(&view.rotation).unwrap();
            let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
            assert!(error < TOLERANCE, "{name}: {error:.1e}");
        }
        let (got, loss) = gradient(case, Shape::Anisotropic, 9.0);
        assert!((loss / golden.loss - 1.0).abs() < TOLERANCE, "{name} loss {loss}, expected {}", golden.loss);
        compare_gradients(name, &got, &golden.gradient);
    }
}

/// Lists of tiles longer than a block processes at once, and more Gaussians than threads of a block; and enough splats in all
/// images that few lanes share one in `moments`.
fn many_gaussians_agree_with_the_dense_reference() {
    let seed = seed();
    for (d, n, images) in [(40, 5_003, 1), (24, 300, 40)] {
        let case = case(seed, d, n, images, false);
        let (got, loss) = gradient(&case, Shape::Anisotropic, 3.0);
        let want = reference::loss(&case.gaussians, &case.images, d, 3.0);
        assert!((loss / want - 1.0).abs() < TOLERANCE, "seed {seed}: loss {loss}, expected {want}");
        let want = reference::gradient(&case.gaussians, &case.images, d, 3.0);
        compare_gradients(&format!("seed {seed}, {n} Gaussians"), &got, &want);
    }
}

fn a_batch_in_several_passes_agrees() {
    let case = case(3, 32, 100, 5, false);
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let whole = device_of(gmm.clone(), &case, 3.0, 5).gradient(&batch).unwrap();
    // Two images per pass: the last pass has one.
    let parts = device_of(gmm, &case, 3.0, 2).gradient(&batch).unwrap();
    assert!((whole.1 / parts.1 - 1.0).abs() < 1e-6);
    let error = worst(parts.0.iter().map(|&v| f64::from(v)), whole.0.iter().map(|&v| f64::from(v)));
    assert!(error < 1e-6, "{error:.1e}");
}

fn prepared_resident_and_observed_images_agree() {
    for d in [32, 33] {
        let case = case(4, d, 50, 3, false).weighted();
        let gmm = planes(&case.gaussians, Shape::Anisotropic);
        let observed = case.observed();
        let energies: Vec<f64> = observed.iter().map(|image| energy(image)).collect();
        let with = |targets: Vec<Target<'static>>| -> Vec<Observation<'static>> {
            case.views
                .iter()
                .zip(targets)
                .zip(&energies)
                .map(|((&view, target), &energy)| Observation::new(view, target, energy))
                .collect()
        };
        let want = device_of(gmm.clone(), &case, 3.0, 3).gradient(&case.observations(&observed)).unwrap();

        // With the CPU device's transform and with the GPU's.
        let mut by_cpu = observed.concat();
        CpuDevice::new(gmm.clone(), case.geometry(3.0)).prepare(&mut by_cpu).unwrap();
        // The same batch size as below, because another one may round differently.
        let mut device = device_of(gmm.clone(), &case, 3.0, 3);
        let mut prepared = observed.concat();
        device.prepare(&mut prepared).unwrap();
        // The GPU stores rows first, the CPU device columns.
        let transposed = (0..prepared.len()).map(|at| by_cpu[at / (d * d) * d * d + at % d * d + at / d % d]);
        let error = worst(prepared.iter().map(|&v| f64::from(v)), transposed.map(f64::from));
        assert!(error < 1e-6, "box {d}: {error:.1e}");
        let prepared: &'static [f32] = prepared.leak();
        let targets = prepared.chunks(d * d).map(Target::Prepared).collect();
        let mut device = device_of(gmm.clone(), &case, 3.0, 3);
        assert_eq!(device.gradient(&with(targets)).unwrap(), want, "prepared ahead");

        for (kept_half, tolerance) in [(false, 0.0), (true, 2e-3)] {
            let options = CudaOptions { ordinal: 0, batch: 3, kept_half };
            let mut device = CudaDevice::new(gmm.clone(), case.geometry(3.0), &options).unwrap();
            assert!(device.reserve(4).unwrap());
            // In two calls, with the first particle in the last place.
            device.store(1, &mut observed[1..].concat()).unwrap();
            device.store(3, &mut observed[0].clone()).unwrap();
            let got = device.gradient(&with([3, 1, 2].map(Target::Resident).to_vec())).unwrap();
            let error = worst(got.0.iter().map(|&v| f64::from(v)), want.0.iter().map(|&v| f64::from(v)));
            assert!(error <= tolerance, "box {d}, in half precision {kept_half}: {error:.1e}");
            assert_eq!(error > 0.0, kept_half, "targets in half precision differ");
        }
    }
}

fn results_repeat_to_the_bit() {
    let case = case(seed(), 64, 700, 3, false);
    assert_eq!(gradient(&case, Shape::Anisotropic, 3.0), gradient(&case, Shape::Anisotropic, 3.0));
}

fn checksums_depend_on_every_bit() {
    let case = case(5, 32, 30, 1, false);
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let sum = |gmm: &Gmm| device_of(gmm.clone(), &case, 3.0, 1).checksum(&mut Alone).unwrap();
    let one = sum(&gmm);
    assert_eq!(one, sum(&gmm));
    let mut other = gmm.clone();
    other.values_mut()[329] = f32::from_bits(other.values()[329].to_bits() ^ 1);
    assert_ne!(one, sum(&other));
    other = gmm.clone();
    other.values_mut().swap(3, 200);
    assert_ne!(one, sum(&other), "the same values in other positions");
}
