//! The CPU device against the method in f64: on its own random inputs, and on the golden values where they are there.

#[path = "common/cases.rs"]
mod cases;
mod common;
#[path = "common/fits.rs"]
mod fits;
#[path = "common/outcomes.rs"]
mod outcomes;
#[path = "common/reference.rs"]
mod reference;

use cases::{Case, TOLERANCE, case, compare_gradients, compare_isotropic_gradients, golden, planes, worst};
use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Device, ImageSums, Observation, Sampling, Symmetry, Target, energy};
use reference::{Raw, Support};

fn device(case: &Case, shape: Shape, cutoff: f64) -> CpuDevice {
    let mut device = CpuDevice::new(planes(&case.gaussians, shape), case.geometry(cutoff));
    device.set_noise_weights(&case.noise_weights).unwrap();
    device
}

/// The device's gradient (planes) and loss over all images of a case.
fn device_gradient(case: &Case, shape: Shape, cutoff: f64) -> (Vec<f32>, f64) {
    let observed = case.observed();
    device(case, shape, cutoff).gradient(&case.observations(&observed)).unwrap()
}

/// The sums of all images of a case.
fn compared(case: &Case) -> Vec<ImageSums> {
    let observed = case.observed();
    device(case, Shape::Anisotropic, 3.0).compare(&case.observations(&observed)).unwrap()
}

#[test]
fn projections_agree_with_the_dense_sum() {
    for (seed, d) in [(1, 32), (2, 33), (3, 48)] {
        let case = case(seed, d, 61, 3, false);
        // 3 is the default support; 8 contains all of a splat.
        for cutoff in [3.0, 8.0] {
            let mut device = device(&case, Shape::Anisotropic, cutoff);
            for view in &case.views {
                let want = reference::project(&case.gaussians, &view.rotation, d, cutoff);
                let got = device.render(&view.rotation);
                let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
                assert!(error < TOLERANCE, "box {d}, cutoff {cutoff}: off by {error:.1e}");
            }
        }
    }
}

#[test]
fn loss_and_gradients_agree_with_the_dense_reference() {
    // The last three have splats so thin that their moments need f64.
    for (seed, d, cutoff) in
        [(4, 32, 3.0), (5, 33, 3.0), (6, 32, 8.0), (7, 33, 8.0), (20, 32, 8.0), (22, 33, 8.0), (18, 32, 8.0)]
    {
        let case = case(seed, d, 61, 3, false);
        let (got, loss) = device_gradient(&case, Shape::Anisotropic, cutoff);
        let want = reference::loss(&case.gaussians, &case.images, d, cutoff);
        assert!((loss / want - 1.0).abs() < TOLERANCE, "loss {loss}, expected {want}");
        let want = reference::gradient(&case.gaussians, &case.images, d, cutoff);
        compare_gradients(&format!("seed {seed}, box {d}, cutoff {cutoff}"), &got, &want);
    }
}

/// Compares images, loss and gradients with the reference.
fn assert_agrees(label: &str, case: &Case, cutoff: f64) {
    let mut rendering = device(case, Shape::Anisotropic, cutoff);
    cases::assert_agrees(
        label,
        case,
        cutoff,
        |view| rendering.render(&view.rotation),
        || device_gradient(case, Shape::Anisotropic, cutoff),
    );
}

#[test]
fn band_limited_sampling_agrees_with_the_dense_reference() {
    for (seed, d, cutoff) in [(30, 32, 3.0), (31, 33, 3.0), (32, 32, 8.0), (33, 33, 8.0)] {
        assert_agrees(&format!("seed {seed}"), &case(seed, d, 61, 3, false).band_limited(), cutoff);
    }
}

#[test]
fn weighted_frequencies_agree_with_the_dense_reference() {
    assert_both_samplings_agree(36, Case::weighted);
}

#[test]
fn contrast_weight_and_noise_groups_agree_with_the_dense_reference() {
    assert_both_samplings_agree(40, Case::individual);
    assert_agrees("with weighted frequencies", &case(42, 32, 61, 3, false).individual().weighted(), 3.0);
}

#[test]
fn symmetric_images_agree_with_the_dense_reference() {
    for (symmetry, d, n, cutoff) in [
        (Symmetry::C(3), 33, 41, 3.0),
        (Symmetry::D(2), 32, 41, 8.0),
        (Symmetry::O, 32, 11, 3.0),
        (Symmetry::I2, 33, 5, 3.0),
    ] {
        let case = || case(50, d, n, 2, false).symmetric(symmetry);
        assert_agrees(&format!("{symmetry}, points"), &case(), cutoff);
        assert_agrees(&format!("{symmetry}, band-limited"), &case().band_limited(), cutoff);
    }
    let all = case(51, 33, 30, 3, false).symmetric(Symmetry::D(3)).band_limited().individual().weighted();
    assert_agrees("D3 with all weights", &all, 3.0);
}

#[test]
fn shifted_images_agree_with_the_dense_reference() {
    assert_both_samplings_agree(46, Case::shifted);
    let all = case(48, 32, 30, 3, false).aberrated().symmetric(Symmetry::C(3)).band_limited().shifted();
    assert_agrees("aberrated C3", &all, 3.0);
    let case = case(49, 33, 61, 3, false).band_limited().individual().shifted();
    let observed = case.observed();
    let got = device(&case, Shape::Anisotropic, 3.0).compare(&case.observations(&observed)).unwrap();
    cases::assert_sums_agree("shifted", &case, 3.0, &got);
}

#[test]
fn isotropic_gaussians_of_a_symmetric_particle_agree_with_the_dense_reference() {
    let case = case(52, 32, 13, 2, true).symmetric(Symmetry::O);
    let (got, _) = device_gradient(&case, Shape::Isotropic, 8.0);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 8.0);
    compare_isotropic_gradients(&got, &want);
}

/// The image of a symmetric particle does not depend on which of the equivalent poses it has; nor do those of its whole, written out.
#[test]
fn equivalent_poses_show_the_same_image() {
    let case = case(53, 32, 20, 1, false).symmetric(Symmetry::T);
    let mut device = device(&case, Shape::Anisotropic, 5.0);
    let w = case.views[0].rotation;
    let want = device.render(&w);
    for view in reference::views(&w, &Symmetry::T.operators()) {
        let got = device.render(&view);
        let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().map(|&v| f64::from(v)));
        assert!(error < 2.0 * TOLERANCE, "{error:.1e}");
    }
}

#[test]
fn comparisons_agree_with_the_dense_reference() {
    for (seed, d, cutoff) in [(44, 32, 3.0), (45, 33, 8.0)] {
        let plain = || case(seed, d, 61, 3, false);
        let symmetric = || case(seed, d, 20, 3, false).symmetric(Symmetry::C(4));
        for case in [
            plain(),
            plain().weighted(),
            plain().individual(),
            symmetric().band_limited().individual().weighted(),
        ] {
            let observed = case.observed();
            let got =
                device(&case, Shape::Anisotropic, cutoff).compare(&case.observations(&observed)).unwrap();
            cases::assert_sums_agree(&format!("seed {seed}"), &case, cutoff, &got);
        }
    }
}

/// Tests `change` of a random case with an even and an odd box, each with both kinds of sampling.
fn assert_both_samplings_agree(first: u64, change: fn(Case) -> Case) {
    for (seed, d, cutoff) in [(first, 32, 3.0), (first + 1, 33, 8.0)] {
        let case = || case(seed, d, 61, 3, false);
        assert_agrees(&format!("points, seed {seed}"), &change(case()), cutoff);
        assert_agrees(&format!("band-limited, seed {seed}"), &change(case().band_limited()), cutoff);
    }
}

/// A Gaussian much narrower than a pixel has the phases of a point at its position, up to Nyquist.
#[test]
fn band_limited_sampling_keeps_the_subpixel_position() {
    let d = 32;
    let mut case = case(34, d, 1, 1, false).band_limited();
    let s = softplus_inverse(0.05 / d as f64);
    case.gaussians = vec![Raw { mu: [0.011, -0.023, 0.0], s: [s; 3], q: [1.0, 0.0, 0.0, 0.0], a: 1.0 }];
    let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // A fine grid has no aliasing below the Nyquist frequency of the coarse one.
    let fine = 8 * d;
    let blur = reference::BLUR * d as f64 / Sampling::BandLimited.grid(d) as f64;
    let wide = Support { cutoff: 9.0, grid: None, blur: 8.0 * blur };
    let exact = reference::project(&case.gaussians, &identity, fine, wide);
    let at = |image: &[f64], n: usize, k: (f64, f64)| {
        let (mut re, mut im) = (0.0, 0.0);
        for (i, value) in image.iter().enumerate() {
            let place = |i: usize| (i as f64 - (n / 2) as f64) / n as f64;
            let phase = -std::f64::consts::TAU * (k.0 * place(i % n) + k.1 * place(i / n));
            re += value * phase.cos() / (n * n) as f64;
            im += value * phase.sin() / (n * n) as f64;
        }
        (re, im)
    };
    let mut off = |sampling: Sampling| {
        case.sampling = sampling;
        let got: Vec<f64> =
            device(&case, Shape::Anisotropic, 8.0).render(&identity).iter().map(|&v| f64::from(v)).collect();
        let frequencies = [(12.0, 0.0), (0.0, 12.0), (8.0, -8.0), (3.0, 5.0)];
        let worst = |(x, y): (f64, f64)| {
            let (want, got) = (at(&exact, fine, (x, y)), at(&got, d, (x, y)));
            let blur = (-2.0 * (std::f64::consts::PI * blur / d as f64).powi(2) * (x * x + y * y)).exp();
            let want = (want.0 / blur, want.1 / blur);
            (want.0 - got.0).hypot(want.1 - got.1) / want.0.hypot(want.1)
        };
        frequencies.into_iter().map(worst).fold(0.0, f64::max)
    };
    let (band, points) = (off(Sampling::BandLimited), off(Sampling::Points));
    println!("at three quarters of Nyquist, off by {band:.3} band-limited, {points:.3} at points");
    assert!(band < 0.1 && points > 0.9, "{band} {points}");
}

#[test]
fn the_isotropic_gradient_is_the_sum_of_the_three_scales() {
    let case = case(8, 32, 40, 2, true);
    let (got, _) = device_gradient(&case, Shape::Isotropic, 8.0);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 8.0);
    compare_isotropic_gradients(&got, &want);
}

#[test]
fn the_reference_gradient_is_the_slope_of_the_reference_loss() {
    let plain = || case(9, 16, 12, 2, false);
    let symmetric = case(9, 16, 12, 2, false).symmetric(Symmetry::D(2)).individual().shifted();
    for case in [plain(), plain().band_limited(), symmetric] {
        slopes_agree(case);
    }
}

fn slopes_agree(mut case: Case) {
    let (d, support) = (case.d, case.support(8.0));
    let analytic = reference::gradient(&case.gaussians, &case.images, d, support);
    for kind in 0..11 {
        let size = analytic.iter().map(|g| g[kind].abs()).fold(0.0, f64::max);
        for i in [0, 1, 4] {
            let original = case.gaussians[i];
            let h = 1e-5;
            let mut at = |delta: f64| {
                let mut numbers = original.numbers();
                numbers[kind] += delta;
                case.gaussians[i] = Raw::from_numbers(numbers);
                reference::loss(&case.gaussians, &case.images, d, support)
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            case.gaussians[i] = original;
            // A central difference errs by h^2 times the third derivative, here up to 1e-6 of the slope.
            assert!(
                (slope - analytic[i][kind]).abs() < 1e-5 * size,
                "{kind} {i}: {slope} {}",
                analytic[i][kind]
            );
        }
    }
}

#[test]
fn results_have_the_same_bits_for_any_number_of_threads() {
    // Bundles of one and two images; the last case has more images than threads take at once.
    let groups = [(3000, 1, Symmetry::C1), (3000, 9, Symmetry::C1), (200, 70, Symmetry::C1)];
    for (count, images, symmetry) in groups.into_iter().chain([(100, 9, Symmetry::D(3))]) {
        let case = case(10, 64, count, images, false).symmetric(symmetry).individual();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                // 2 and 4 threads take bundles, 5 and 12 images or, with fewer images than threads, bands of them.
                (
                    device_gradient(&case, Shape::Anisotropic, 3.0),
                    device(&case, Shape::Anisotropic, 3.0).render(&case.views[0].rotation),
                    compared(&case),
                    outcomes::outcome_of(&mut device(&case, Shape::Anisotropic, 3.0), &case),
                )
            })
        };
        let one = on(1);
        for threads in [2, 4, 5, 12] {
            assert_eq!(one, on(threads), "{images} images, {threads} threads, {symmetry}");
        }
    }
}

fn make(gmm: Gmm, case: &Case) -> Box<dyn Device> {
    Box::new(CpuDevice::new(gmm, case.geometry(3.0)))
}

#[test]
fn losses_and_norms_agree_with_the_reference() {
    outcomes::losses_and_norms_agree_with_the_reference(&make);
}

#[test]
fn a_rank_without_images_adds_nothing() {
    outcomes::a_rank_without_images_adds_nothing(&make);
}

#[test]
fn every_value_of_the_gradient_counts() {
    outcomes::every_value_counts(&make);
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    outcomes::a_step_that_is_not_finite_changes_nothing(&make);
}

#[test]
fn four_ranks_stop_at_the_same_step() {
    outcomes::four_ranks_stop_at_the_same_step(&make);
}

#[test]
fn memory_is_the_size_of_the_buffers() {
    // With several threads, the number of their buffers depends on which is idle.
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(check_memory);
}

fn check_memory() {
    let case_of = |count| case(13, 32, count, 2, false);
    let case = case_of(1000);
    let mut device = device(&case, Shape::Anisotropic, 3.0);
    // Parameters, moments and gradient (11 planes of f32 each), activated mixture and sums (10 planes of f64 each), slopes (12).
    let at_rest = 1000 * (4 * 11 * 4 + (2 * 10 + 12) * 8);
    assert!((at_rest..at_rest + 50_000).contains(&device.memory()), "{}", device.memory());
    outcomes::outcome_of(&mut device, &case);
    // For each image, splats, three planes of f64 and six of f32, and more.
    assert!(device.memory() > at_rest + 2 * 1000 * (3 * 8 + 6 * 4), "{}", device.memory());

    // With symmetry, splats and moments are as many as without, and all else is divided by the order.
    let whole = device.memory();
    let case = case_of(125).symmetric(Symmetry::D(4));
    let mut device = self::device(&case, Shape::Anisotropic, 3.0);
    assert!(device.memory() < at_rest / 8 + 50_000, "{}", device.memory());
    outcomes::outcome_of(&mut device, &case);
    assert!(device.memory() + at_rest * 7 / 10 < whole, "{} {whole}", device.memory());
}

#[test]
fn error_of_the_default_cutoff() {
    let case = case(11, 64, 200, 4, false);
    let (near, far) = (
        device(&case, Shape::Anisotropic, 3.0).render(&case.views[0].rotation),
        reference::project(&case.gaussians, &case.views[0].rotation, 64, f64::INFINITY),
    );
    let rms = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let lost =
        rms(&mut near.iter().zip(&far).map(|(a, b)| f64::from(*a) - b)) / rms(&mut far.iter().copied());
    println!("cutoff 3 leaves out {lost:.2e} of a projection (rms)");
    // 1 - erf(3/sqrt 2)^2 = 0.5% of each Gaussian's mass lies outside its support box.
    assert!(lost > 1e-4 && lost < 1e-2, "{lost}");
}

fn fitting(case: &fits::FitCase) -> Box<dyn Device> {
    let mut device = CpuDevice::new(case.gmm(), case.geometry());
    case.set_up(&mut device);
    Box::new(device)
}

#[test]
fn fits_agree_with_direct_sums() {
    fits::fits_agree(70, &fitting);
}

#[test]
fn searches_agree_with_direct_sums() {
    fits::searches_agree(72, &fitting);
}

#[test]
fn of_equal_candidates_the_first_is_found() {
    fits::the_first_of_equals_is_found(&fitting);
}

#[test]
fn fits_and_searches_have_the_same_bits_for_any_number_of_threads() {
    let case = fits::fit_case(74, 25, 12);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fits::all_results(&case, fitting(&case).as_mut()))
    };
    let one = on(1);
    assert_eq!(one, on(1));
    assert_eq!(one, on(4));
}

#[test]
fn images_prepared_before_a_step_give_the_same_gradient() {
    let case = case(12, 33, 20, 3, false);
    let observed = case.observed();
    let on_the_way = device(&case, Shape::Anisotropic, 3.0).gradient(&case.observations(&observed)).unwrap();
    let mut device = device(&case, Shape::Anisotropic, 3.0);
    let mut prepared = observed.concat();
    device.prepare(&mut prepared).unwrap();
    let batch: Vec<Observation> = case
        .views
        .iter()
        .zip(prepared.chunks(33 * 33).zip(&observed))
        .map(|(&view, (target, image))| Observation::new(view, Target::Prepared(target), energy(image)))
        .collect();
    assert_eq!(device.gradient(&batch).unwrap(), on_the_way);
}

#[test]
fn golden_values() {
    let Some(path) = common::shared("golden/golden_small.h5") else { return };
    for golden in golden(&path) {
        let (name, case) = (golden.name, &golden.case);
        let d = case.d;
        for (k, view) in case.views.iter().enumerate() {
            let mut h = vec![0.0f32; (d / 2 + 1) * d];
            view.ctf.half_plane(d, 4.0, &mut h);
            for kx in 0..=d / 2 {
                for ky in 0..d {
                    let (row, column) = ((ky + d / 2) % d, (kx + d / 2) % d);
                    let want = golden.ctf[(k * d + row) * d + column];
                    let got = f64::from(h[kx * d + ky]);
                    assert!(
                        (got - want).abs() < 1e-6,
                        "{name} CTF of image {k} at ({kx}, {ky}): {got} {want}"
                    );
                }
            }
        }
        let mut device = device(case, Shape::Anisotropic, 9.0);
        for (k, view) in case.views.iter().enumerate() {
            let got = device.render(&view.rotation);
            let want = &golden.projections[k * d * d..(k + 1) * d * d];
            let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
            assert!(error < TOLERANCE, "{name} projection {k}: {error:.1e}");
        }
        let (got, loss) = device_gradient(case, Shape::Anisotropic, 9.0);
        assert!((loss / golden.loss - 1.0).abs() < TOLERANCE, "{name} loss {loss}, expected {}", golden.loss);
        compare_gradients(name, &got, &golden.gradient);
    }
}
