//! The CPU device against the method in f64: on its own random inputs, and on the golden values where they are there.

mod common;
#[path = "common/reference.rs"]
mod reference;

use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, Optics, wavelength};
use cryosplat_mpi::imaging::pose::rotation_from_quaternion;
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Device, Geometry, Observation, Target, View, energy};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use reference::{Image, Raw};

/// What DESIGN.md promises: f32 devices agree with the f64 reference to this, relative to the largest value.
const TOLERANCE: f64 = 1e-5;

const OPTICS: Optics = Optics { voltage: 300.0, spherical_aberration: 2.7, amplitude_contrast: 0.1 };

struct Case {
    d: usize,
    gaussians: Vec<Raw>,
    images: Vec<Image>,
    views: Vec<View>,
}

/// A random case with what is awkward in it: thin and wide Gaussians, some outside the box, one of amplitude near zero.
fn case(seed: u64, d: usize, n: usize, images: usize, isotropic: bool) -> Case {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Uniform in [-1, 1].
    let uniform = |random: &mut ChaCha8Rng| 2.0 * random.random::<f64>() - 1.0;
    let gaussians: Vec<Raw> = (0..n)
        .map(|i| {
            let spread = if i % 7 == 3 { 0.7 } else { 0.25 };
            // Standard deviations of 0.2 to 3.6 pixels.
            let s = [0; 3].map(|_| softplus_inverse(0.9 * 4.0f64.powf(uniform(&mut random)) / d as f64));
            let q = [0; 4].map(|_| uniform(&mut random) + 0.1);
            Raw {
                mu: [0; 3].map(|_| spread * uniform(&mut random)),
                s: match (isotropic, i % 11) {
                    (true, _) => [s[0]; 3],
                    (_, 5) => [softplus_inverse(0.002), s[1], softplus_inverse(4.0 / d as f64)],
                    // Below the smallest scale allowed: the slope is zero there.
                    (_, 7) => [softplus_inverse(0.0005), s[1], s[2]],
                    _ => s,
                },
                q: if isotropic { [1.0, 0.0, 0.0, 0.0] } else { q },
                a: if i == 2 { -20.0 } else { uniform(&mut random) },
            }
        })
        .map(|g| Raw::from_numbers(g.numbers().map(|v| f64::from(v as f32))))
        .collect();
    let pixel_size = 3.1;
    let mut made = Vec::new();
    let mut views = Vec::new();
    for k in 0..images {
        let q = [0; 4].map(|_| uniform(&mut random));
        let w = rotation_from_quaternion(q);
        let p = [14_000.0 + 900.0 * k as f64, 13_500.0, 37.0 * k as f64, 300.0, 2.7, 0.1, 10.0 * k as f64];
        let observed = (0..d * d).map(|_| f64::from(random.sample::<f32, _>(StandardNormal))).collect();
        made.push(Image { w, h: reference::ctf(d, pixel_size, wavelength(300.0), &p), observed });
        let particle = CtfParameters {
            defocus_u: p[0],
            defocus_v: p[1],
            astigmatism_angle: p[2],
            phase_shift: p[6],
            ..CtfParameters::default()
        };
        views.push(View { rotation: w, ctf: Ctf::new(&OPTICS, &particle) });
    }
    Case { d, gaussians, images: made, views }
}

fn planes(gaussians: &[Raw], shape: Shape) -> Gmm {
    let columns: &[usize] = match shape {
        Shape::Anisotropic => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        Shape::Isotropic => &[0, 1, 2, 3, 10],
    };
    let values = columns.iter().flat_map(|&c| gaussians.iter().map(move |g| g.numbers()[c] as f32)).collect();
    Gmm::from_values(shape, gaussians.len(), values)
}

fn device(case: &Case, shape: Shape, cutoff: f64) -> CpuDevice {
    let geometry = Geometry { box_size: case.d, pixel_size: 3.1, cutoff };
    CpuDevice::new(planes(&case.gaussians, shape), geometry)
}

/// The device's gradient (planes) and loss over all images of a case.
fn device_gradient(case: &Case, shape: Shape, cutoff: f64) -> (Vec<f32>, f64) {
    let mut device = device(case, shape, cutoff);
    let prepared: Vec<(Vec<f32>, f64)> = case
        .images
        .iter()
        .zip(&case.views)
        .map(|(image, view)| {
            let mut target: Vec<f32> = image.observed.iter().map(|&v| v as f32).collect();
            let energy = energy(&target);
            device.prepare(&[view.ctf], &mut target).unwrap();
            (target, energy)
        })
        .collect();
    let batch: Vec<Observation> = case
        .views
        .iter()
        .zip(&prepared)
        .map(|(&view, (target, energy))| Observation {
            view,
            target: Target::Prepared(target),
            energy: *energy,
        })
        .collect();
    device.gradient(&batch)
}

/// Largest difference relative to the largest value, over one kind of parameter.
fn worst(got: impl Iterator<Item = f64>, want: impl Iterator<Item = f64>) -> f64 {
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (g, w) in got.zip(want) {
        assert!(g.is_finite());
        difference = difference.max((g - w).abs());
        size = size.max(w.abs());
    }
    difference / size
}

const KINDS: [(&str, std::ops::Range<usize>); 4] =
    [("mean", 0..3), ("scale", 3..6), ("quaternion", 6..10), ("amplitude", 10..11)];

fn compare_gradients(label: &str, got: &[f32], want: &[[f64; 11]]) {
    let n = want.len();
    for (kind, range) in KINDS {
        let pairs = range.flat_map(|c| (0..n).map(move |i| (c, i)));
        let error =
            worst(pairs.clone().map(|(c, i)| f64::from(got[c * n + i])), pairs.map(|(c, i)| want[i][c]));
        assert!(error < TOLERANCE, "{label}: {kind} gradient off by {error:.1e}");
    }
}

#[test]
fn projections_agree_with_the_dense_sum() {
    for (seed, d) in [(1, 32), (2, 33), (3, 48)] {
        let case = case(seed, d, 61, 3, false);
        // 3: the default support; 8: nothing that matters is left out.
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
    for (seed, d, cutoff) in [(4, 32, 3.0), (5, 33, 3.0), (6, 32, 8.0), (7, 33, 8.0)] {
        let case = case(seed, d, 61, 3, false);
        let (got, loss) = device_gradient(&case, Shape::Anisotropic, cutoff);
        let want = reference::loss(&case.gaussians, &case.images, d, cutoff);
        assert!((loss / want - 1.0).abs() < TOLERANCE, "loss {loss}, expected {want}");
        let want = reference::gradient(&case.gaussians, &case.images, d, cutoff);
        compare_gradients(&format!("box {d}, cutoff {cutoff}"), &got, &want);
    }
}

#[test]
fn the_isotropic_gradient_is_the_sum_of_the_three_scales() {
    let case = case(8, 32, 40, 2, true);
    let (got, _) = device_gradient(&case, Shape::Isotropic, 8.0);
    let want = reference::gradient(&case.gaussians, &case.images, 32, 8.0);
    let n = want.len();
    let error = worst((0..n).map(|i| f64::from(got[3 * n + i])), want.iter().map(|g| g[3] + g[4] + g[5]));
    assert!(error < TOLERANCE, "{error:.1e}");
}

#[test]
fn the_reference_gradient_is_the_slope_of_the_reference_loss() {
    let d = 16;
    let mut case = case(9, d, 12, 2, false);
    let analytic = reference::gradient(&case.gaussians, &case.images, d, 8.0);
    for kind in 0..11 {
        let size = analytic.iter().map(|g| g[kind].abs()).fold(0.0, f64::max);
        for i in [0, 1, 4] {
            let original = case.gaussians[i];
            let h = 1e-5;
            let mut at = |delta: f64| {
                let mut numbers = original.numbers();
                numbers[kind] += delta;
                case.gaussians[i] = Raw::from_numbers(numbers);
                reference::loss(&case.gaussians, &case.images, d, 8.0)
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
fn results_are_the_same_to_the_bit_for_any_number_of_threads() {
    let case = case(10, 64, 3000, 5, false);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            // Five images on two threads; one image on five threads is cut into bands and chunks.
            (
                device_gradient(&case, Shape::Anisotropic, 3.0),
                device(&case, Shape::Anisotropic, 3.0).render(&case.views[0].rotation),
            )
        })
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(7));
}

#[test]
fn what_the_default_cutoff_costs() {
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

#[test]
fn golden_values() {
    let Some(path) = common::shared("golden/golden_small.h5") else {
        eprintln!("no golden values here: the dense reference above tests the same");
        return;
    };
    let file = hdf5::File::open(path).unwrap();
    for (name, d) in [("D32", 32usize), ("D33", 33)] {
        let group = file.group(name).unwrap();
        let read = |key: &str| group.dataset(key).unwrap().read_raw::<f64>().unwrap();
        let (mu, s, q, a) = (read("mu"), read("raw_s"), read("q"), read("raw_a"));
        let n = a.len();
        let gaussians: Vec<Raw> = (0..n)
            .map(|i| Raw {
                mu: [mu[3 * i], mu[3 * i + 1], mu[3 * i + 2]],
                s: [s[3 * i], s[3 * i + 1], s[3 * i + 2]],
                q: [q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3]],
                a: a[i],
            })
            .collect();
        let (w, parameters) = (read("W"), read("ctf_params"));
        let (projections, observed) = (read("noflip/proj"), read("noflip/obs"));
        // cryoDRGN's constants of the wavelength, which the golden values were made with.
        let lambda = 12.2639 / (300e3f64 + 0.97845e-6 * 300e3 * 300e3).sqrt();
        let (mut views, mut images) = (Vec::new(), Vec::new());
        for (k, p) in parameters.chunks_exact(7).enumerate() {
            let m = &w[9 * k..9 * k + 9];
            let rotation = [[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]];
            let optics = Optics { voltage: p[3], spherical_aberration: p[4], amplitude_contrast: p[5] };
            let particle = CtfParameters {
                defocus_u: p[0],
                defocus_v: p[1],
                astigmatism_angle: p[2],
                phase_shift: p[6],
                ..CtfParameters::default()
            };
            views.push(View { rotation, ctf: Ctf::with_wavelength(lambda, &optics, &particle) });
            let observed = observed[k * d * d..(k + 1) * d * d].to_vec();
            images.push(Image { w: rotation, h: Vec::new(), observed });
        }

        // The CTF itself, symmetrised, on the centred full grid.
        let ctf = read("ctf");
        for (k, view) in views.iter().enumerate() {
            let mut h = vec![0.0f32; (d / 2 + 1) * d];
            view.ctf.half_plane(d, 4.0, &mut h);
            for kx in 0..=d / 2 {
                for ky in 0..d {
                    let (row, column) = ((ky + d / 2) % d, (kx + d / 2) % d);
                    let want = ctf[(k * d + row) * d + column];
                    let got = f64::from(h[kx * d + ky]);
                    assert!(
                        (got - want).abs() < 1e-6,
                        "{name} CTF of image {k} at ({kx}, {ky}): {got} {want}"
                    );
                }
            }
        }

        let case = Case { d, gaussians, images, views };
        let geometry = Geometry { box_size: d, pixel_size: 4.0, cutoff: 9.0 };
        let mut device = CpuDevice::new(planes(&case.gaussians, Shape::Anisotropic), geometry);
        for (k, view) in case.views.iter().enumerate() {
            let got = device.render(&view.rotation);
            let want = &projections[k * d * d..(k + 1) * d * d];
            let error = worst(got.iter().map(|&v| f64::from(v)), want.iter().copied());
            assert!(error < TOLERANCE, "{name} projection {k}: {error:.1e}");
        }
        let prepared: Vec<(Vec<f32>, f64)> = case
            .images
            .iter()
            .zip(&case.views)
            .map(|(image, view)| {
                let mut target: Vec<f32> = image.observed.iter().map(|&v| v as f32).collect();
                let energy = energy(&target);
                device.prepare(&[view.ctf], &mut target).unwrap();
                (target, energy)
            })
            .collect();
        let batch: Vec<Observation> = case
            .views
            .iter()
            .zip(&prepared)
            .map(|(&view, (target, energy))| Observation {
                view,
                target: Target::Prepared(target),
                energy: *energy,
            })
            .collect();
        let (got, loss) = device.gradient(&batch);
        let want = read("noflip/loss")[0];
        assert!((loss / want - 1.0).abs() < TOLERANCE, "{name} loss {loss}, expected {want}");
        let (dmu, ds, dq, da) =
            (read("noflip/d_mu"), read("noflip/d_raw_s"), read("noflip/d_q"), read("noflip/d_raw_a"));
        let want: Vec<[f64; 11]> = (0..n)
            .map(|i| {
                Raw {
                    mu: [dmu[3 * i], dmu[3 * i + 1], dmu[3 * i + 2]],
                    s: [ds[3 * i], ds[3 * i + 1], ds[3 * i + 2]],
                    q: [dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]],
                    a: da[i],
                }
                .numbers()
            })
            .collect();
        compare_gradients(name, &got, &want);
    }
}
