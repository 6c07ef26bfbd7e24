//! Fits of images to slices of a reference, and searches.

use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::cuda::{CudaDevice, CudaOptions};
use cryosplat_mpi::render::{Device, Observation, OffsetGrid, Target};

use crate::cases::seed;
use crate::fits::{self, FitCase, all_results, fit_case, fit_cases, fit_error};
use crate::trainer::assert_agrees_with_the_cpu_and_resumes;

pub const TESTS: &[(&str, fn())] = &[
    ("fits_agree_with_direct_sums", fits_agree_with_direct_sums),
    ("searches_agree_with_direct_sums", searches_agree_with_direct_sums),
    ("of_equal_candidates_the_first_is_found", of_equal_candidates_the_first_is_found),
    ("fits_and_searches_agree_with_the_cpu_device", fits_and_searches_agree_with_the_cpu_device),
    ("fits_do_not_depend_on_where_images_are", fits_do_not_depend_on_where_images_are),
    ("a_new_reference_frees_the_memory_of_the_last", a_new_reference_frees_the_memory_of_the_last),
    ("a_run_that_refines_agrees_and_resumes", a_run_that_refines_agrees_and_resumes),
];

fn of_batch(case: &FitCase, batch: usize) -> CudaDevice {
    let options = CudaOptions { ordinal: 0, batch, kept_half: false };
    let mut device = CudaDevice::new(case.gmm(), case.geometry(), &options).unwrap();
    case.set_up(&mut device);
    device
}

/// Three images per pass: the last pass has one.
fn make(case: &FitCase) -> Box<dyn Device> {
    Box::new(of_batch(case, 3))
}

fn fits_agree_with_direct_sums() {
    fits::fits_agree(seed(), &make);
}

fn searches_agree_with_direct_sums() {
    fits::searches_agree(seed(), &make);
}

fn of_equal_candidates_the_first_is_found() {
    fits::the_first_of_equals_is_found(&make);
}

fn fits_and_searches_agree_with_the_cpu_device() {
    for case in fit_cases(seed()) {
        let mut cpu = CpuDevice::new(case.gmm(), case.geometry());
        case.set_up(&mut cpu);
        let (fits, found) = all_results(&case, &mut cpu);
        let mut device = make(&case);
        let got = all_results(&case, device.as_mut());
        for (k, (got, want)) in got.0.iter().zip(&fits).enumerate() {
            let error = fit_error(got, want, &case.sizes(k));
            println!("image {k}: off by {error:.1e} from the CPU device");
            assert!(error < 1e-5, "{error:.1e}");
        }
        for (got, want) in got.1.iter().zip(&found) {
            assert_eq!((got.rotation, got.offset), (want.rotation, want.offset));
            assert!((got.gain / want.gain - 1.0).abs() < 1e-5, "{got:?} {want:?}");
        }
        assert_eq!(all_results(&case, device.as_mut()), got, "repeats to the bit");
        assert_eq!(all_results(&case, make(&case).as_mut()), got, "on a new device");
    }
}

/// Images on their way, prepared ahead, and on the device, also in half precision.
fn fits_do_not_depend_on_where_images_are() {
    let case = fit_case(75, 24, 10);
    let observations = case.observations();
    let want = of_batch(&case, 4).fit(&observations).unwrap();
    let pixels: Vec<f32> = case.images.iter().flat_map(|image| image.observed.clone()).collect();
    let mut prepared = pixels.clone();
    let mut device = of_batch(&case, 4);
    device.prepare(&mut prepared).unwrap();
    let with = |targets: Vec<Target<'static>>| -> Vec<Observation<'static>> {
        let replace = |(seen, target): (&Observation, Target<'static>)| Observation {
            target,
            contrast: seen.contrast,
            noise_group: seen.noise_group,
            ..Observation::new(seen.view, target, seen.energy)
        };
        observations.iter().zip(targets).map(replace).collect()
    };
    let prepared: &'static [f32] = prepared.leak();
    let ahead = with(prepared.chunks(24 * 24).map(Target::Prepared).collect());
    assert_eq!(device.fit(&ahead).unwrap(), want);

    for (kept_half, tolerance) in [(false, 0.0), (true, 2e-3)] {
        let options = CudaOptions { ordinal: 0, batch: 4, kept_half };
        let mut device = CudaDevice::new(case.gmm(), case.geometry(), &options).unwrap();
        assert!(device.reserve(4).unwrap());
        device.store(0, &mut pixels.clone()).unwrap();
        case.set_up(&mut device);
        let got = device.fit(&with((0..4).map(Target::Resident).collect())).unwrap();
        for (k, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = fit_error(got, want, &case.sizes(k));
            assert!(error <= tolerance, "half precision {kept_half}: {error:.1e}");
            assert_eq!(error > 0.0, kept_half);
        }
    }
}

fn a_new_reference_frees_the_memory_of_the_last() {
    let (small, large) = (fit_case(76, 24, 8), fit_case(76, 24, 12));
    let mut device = CudaDevice::new(
        small.gmm(),
        small.geometry(),
        &CudaOptions { ordinal: 0, batch: 4, kept_half: false },
    )
    .unwrap();
    let before = device.memory();
    let mut set = |case: &FitCase| {
        device.set_reference(&case.reference).unwrap();
        device.memory() - before
    };
    let of_values = |case: &FitCase| size_of_val(&case.reference.values[..]) as u64;
    let (first, second) = (set(&small), set(&large));
    assert!((of_values(&small)..of_values(&small) + 100_000).contains(&first), "{first}");
    assert!((of_values(&large)..of_values(&large) + 100_000).contains(&second), "{second}");
    assert_eq!(set(&small), first);
    let offsets = OffsetGrid { step: 1.0, radius: 1 };
    let search = |device: &mut CudaDevice| {
        device.search(&small.observations(), &[fits::rotations(1).0[0]], &[0.0], &offsets, 0.0).unwrap();
    };
    // With the staging buffers of the first images.
    small.set_up(&mut device);
    search(&mut device);
    small.set_up(&mut device);
    let unsearched = device.memory();
    search(&mut device);
    assert!(device.memory() > unsearched, "the buffers of a search count");
    small.set_up(&mut device);
    assert_eq!(device.memory(), unsearched);
}

/// Two rounds, a search of the whole sample in each. The resumed run streams its images.
fn a_run_that_refines_agrees_and_resumes() {
    const USUAL: [&str; 6] = ["--refine", "all", "--gaussians", "60", "--epochs", "2"];
    let report = "refined after epoch 2";
    assert_agrees_with_the_cpu_and_resumes(&USUAL, &["--cache", "none"], report, "resuming after step");
}
