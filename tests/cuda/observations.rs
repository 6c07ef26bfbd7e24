//! What images have of their own: views of the asymmetric unit, optics, contrast, weight and noise; and their comparison.

use cryosplat_mpi::gmm::Shape;
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, Optics};
use cryosplat_mpi::render::{AdamStep, Alone, Device, Step, Symmetry, energy};

use crate::cases::{
    Case, assert_sums_agree, case, compare_gradients, compare_isotropic_gradients, planes, seed, worst,
};
use crate::kernels::{assert_agrees, device, device_of, gradient};
use crate::outcomes::ADAM;
use crate::reference;

pub const TESTS: &[(&str, fn())] = &[
    ("symmetric_images_agree_with_the_dense_reference", symmetric_images_agree_with_the_dense_reference),
    ("isotropic_units_agree_with_the_dense_reference", isotropic_units_agree_with_the_dense_reference),
    ("a_symmetric_batch_in_several_passes_agrees", a_symmetric_batch_in_several_passes_agrees),
    ("shifted_images_agree_with_the_dense_reference", shifted_images_agree_with_the_dense_reference),
    ("aberrated_images_agree_with_the_dense_reference", aberrated_images_agree_with_the_dense_reference),
    ("premultiplied_images_are_not_multiplied_again", premultiplied_images_are_not_multiplied_again),
    ("contrast_weight_and_noise_groups_agree", contrast_weight_and_noise_groups_agree),
    ("noise_weights_change_between_steps", noise_weights_change_between_steps),
    ("comparisons_agree_with_the_dense_reference", comparisons_agree_with_the_dense_reference),
];

/// Units of a block of Gaussians and of two, whose views together fill many tiles.
fn symmetric_images_agree_with_the_dense_reference() {
    let seed = seed();
    for (symmetry, d, n, cutoff) in [
        (Symmetry::C(3), 33, 41, 3.0),
        (Symmetry::D(2), 32, 300, 3.0),
        (Symmetry::O, 32, 21, 3.0),
        (Symmetry::I2, 33, 7, 3.0),
    ] {
        let case = || case(seed + 100, d, n, 2, false).symmetric(symmetry);
        assert_agrees(&format!("{symmetry}, points, seed {seed}"), &case(), cutoff);
        assert_agrees(&format!("{symmetry}, band-limited, seed {seed}"), &case().band_limited(), cutoff);
    }
}

fn isotropic_units_agree_with_the_dense_reference() {
    let case = case(seed(), 32, 13, 2, true).symmetric(Symmetry::O);
    let (got, _) = gradient(&case, Shape::Isotropic, 8.0);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 8.0);
    compare_isotropic_gradients(&got, &want);
}

fn a_symmetric_batch_in_several_passes_agrees() {
    let case = case(60, 32, 40, 5, false).symmetric(Symmetry::D(2)).band_limited().individual().weighted();
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let whole = device_of(gmm.clone(), &case, 3.0, 5).gradient(&batch).unwrap();
    assert_eq!(device_of(gmm.clone(), &case, 3.0, 5).gradient(&batch).unwrap(), whole, "repeats to the bit");
    // Two images per pass: the last pass has one.
    let mut device = device_of(gmm, &case, 3.0, 2);
    let parts = device.gradient(&batch).unwrap();
    assert!((whole.1 / parts.1 - 1.0).abs() < 1e-6);
    let error = worst(parts.0.iter().map(|&v| f64::from(v)), whole.0.iter().map(|&v| f64::from(v)));
    assert!(error < 1e-6, "{error:.1e}");
    assert_sums_agree("in several passes", &case, 3.0, &device.compare(&batch).unwrap());
}

fn aberrated_images_agree_with_the_dense_reference() {
    let seed = seed();
    for (k, d, cutoff) in [(0, 32, 3.0), (1, 33, 8.0)] {
        let case = || case(seed + 120 + k, d, 61, 2, false).aberrated();
        assert_agrees(&format!("points, seed {seed}"), &case(), cutoff);
        assert_agrees(&format!("band-limited, seed {seed}"), &case().band_limited(), cutoff);
    }
    let symmetric = case(seed + 122, 32, 21, 2, false).aberrated().symmetric(Symmetry::C(4));
    assert_agrees(&format!("C4, seed {seed}"), &symmetric, 3.0);
}

fn shifted_images_agree_with_the_dense_reference() {
    let seed = seed();
    let case = |k, d| case(seed + 130 + k, d, 61, 3, false);
    assert_agrees(&format!("points, seed {seed}"), &case(0, 33).shifted(), 8.0);
    let all = case(1, 32).aberrated().symmetric(Symmetry::C(3)).band_limited().individual().shifted();
    assert_agrees(&format!("band-limited C3, seed {seed}"), &all, 3.0);
    let observed = all.observed();
    let got = device(&all, Shape::Anisotropic, 3.0).compare(&all.observations(&observed)).unwrap();
    assert_sums_agree(&format!("seed {seed}"), &all, 3.0, &got);
}

fn premultiplied_images_are_not_multiplied_again() {
    let case = case(61, 32, 50, 3, false);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 3.0);
    let multiplied: Vec<Vec<f32>> = case
        .images
        .iter()
        .map(|image| reference::filter(&image.observed, 32, &image.h, 32, 32))
        .map(|image| image.into_iter().map(|pixel| pixel as f32).collect())
        .collect();
    let mut batch = case.observations(&multiplied);
    for (k, image) in batch.iter_mut().enumerate() {
        image.view.ctf = premultiplied(k);
        image.energy = energy(&multiplied[k]);
    }
    let (got, _) = device(&case, Shape::Anisotropic, 3.0).gradient(&batch).unwrap();
    compare_gradients("premultiplied", &got, &want);
}

/// The CTF of image `k` of a case, as that of an image that is already multiplied by it.
fn premultiplied(k: usize) -> Ctf {
    let optics = Optics { premultiplied: true, ..Optics::new(300.0, 2.7, 0.1) };
    let k = k as f64;
    let particle = CtfParameters {
        defocus_u: 14_000.0 + 900.0 * k,
        defocus_v: 13_500.0,
        astigmatism_angle: 37.0 * k,
        phase_shift: 10.0 * k,
        ..CtfParameters::default()
    };
    Ctf::new(&optics, &particle)
}

fn contrast_weight_and_noise_groups_agree() {
    let seed = seed();
    let case = |k, d| case(seed + 140 + k, d, 61, 3, false);
    assert_agrees(&format!("points, seed {seed}"), &case(0, 33).individual(), 8.0);
    assert_agrees(&format!("band-limited, seed {seed}"), &case(1, 32).band_limited().individual(), 3.0);
    assert_agrees(&format!("weighted, seed {seed}"), &case(2, 32).individual().weighted(), 3.0);
}

/// The graphs of earlier steps hold the address of the earlier weights.
fn noise_weights_change_between_steps() {
    let case: Case = case(62, 32, 40, 2, false).individual();
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let still = Step { images: 2, adam: AdamStep { rate: 0.0, ..ADAM } };
    let norm = |device: &mut dyn Device| {
        device.step(&batch, &still, &mut Alone).unwrap();
        device.outcomes(true, &mut Alone).unwrap()[0].gradient_norm
    };
    let fresh = norm(&mut device_of(gmm.clone(), &case, 3.0, 2));
    let mut device = device_of(gmm, &case, 3.0, 2);
    let before = device.memory();
    device.set_noise_weights(&[vec![1.0], vec![0.5, 2.0], vec![3.0]]).unwrap();
    assert_eq!(device.memory() - before, 32 * 4, "a further group");
    let other = norm(&mut device);
    assert!((other / fresh - 1.0).abs() > 0.01, "{other} {fresh}");
    device.set_noise_weights(&case.noise_weights).unwrap();
    assert_eq!(norm(&mut device), fresh);
}

fn comparisons_agree_with_the_dense_reference() {
    let seed = seed();
    let plain = || case(seed + 160, 33, 61, 3, false);
    let symmetric = || case(seed + 161, 32, 20, 3, false).symmetric(Symmetry::C(4));
    for case in [plain(), plain().individual(), symmetric().band_limited().individual().weighted()] {
        let observed = case.observed();
        let mut device = device(&case, Shape::Anisotropic, 3.0);
        let got = device.compare(&case.observations(&observed)).unwrap();
        assert_sums_agree(&format!("seed {seed}"), &case, 3.0, &got);
    }
}
