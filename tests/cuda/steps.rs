//! Outcomes of steps on the GPU, times of stages, and memory.

use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::render::{AdamStep, Alone, Device, Step, Target};

use crate::cases::{Case, case, planes};
use crate::common::{
    over_mpi_with, path, phantom, program_file, start_that_overflows, text, train_arguments,
};
use crate::kernels::device_of;
use crate::outcomes::{ADAM, Planted};
use crate::ranks::FOUR;
use crate::{emulator, outcomes};

pub const TESTS: &[(&str, fn())] = &[
    ("losses_and_norms_agree_with_the_reference", losses_and_norms_agree_with_the_reference),
    ("a_rank_without_images_adds_nothing", a_rank_without_images_adds_nothing),
    ("every_value_of_the_gradient_counts", every_value_of_the_gradient_counts),
    ("a_step_that_is_not_finite_changes_nothing", a_step_that_is_not_finite_changes_nothing),
    ("ranks_as_threads_stop_at_the_same_step", ranks_as_threads_stop_at_the_same_step),
    ("four_ranks_name_the_step_that_is_not_finite", four_ranks_name_the_step_that_is_not_finite),
    ("a_large_gradient_counts_whole", a_large_gradient_counts_whole),
    ("outcomes_of_many_steps_are_in_order", outcomes_of_many_steps_are_in_order),
    ("steps_are_timed_by_stage", steps_are_timed_by_stage),
    ("reported_memory_is_the_decrease_of_free_memory", reported_memory_is_the_decrease_of_free_memory),
];

/// Two images per pass: some steps have several passes.
fn make(gmm: Gmm, case: &Case) -> Box<dyn Device> {
    Box::new(device_of(gmm, case, 3.0, 2))
}

fn losses_and_norms_agree_with_the_reference() {
    outcomes::losses_and_norms_agree_with_the_reference(&make);
}

fn a_rank_without_images_adds_nothing() {
    outcomes::a_rank_without_images_adds_nothing(&make);
}

fn every_value_of_the_gradient_counts() {
    outcomes::every_value_counts(&make);
}

fn a_step_that_is_not_finite_changes_nothing() {
    outcomes::a_step_that_is_not_finite_changes_nothing(&make);
}

fn ranks_as_threads_stop_at_the_same_step() {
    outcomes::four_ranks_stop_at_the_same_step(&make);
}

fn four_ranks_name_the_step_that_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let (start, options) = start_that_overflows(folder.path(), &set, 12);
    for collective in ["nccl", "mpi"] {
        let run = path(folder.path(), collective);
        let more = ["--device", "cuda", "--half", "1", "--init", &start, "--collective", collective];
        let arguments = train_arguments(&set, &run, &[&options[..], &more].concat());
        let output = over_mpi_with(4, &program_file(), &arguments, &FOUR);
        let said = text(&output);
        assert!(!output.status.success() && !said.contains("panicked"), "{said}");
        assert!(said.contains("of half1 is not finite"), "{said}");
        assert!(said.contains("the particles that cause it are 13;"), "{said}");
        assert!(!std::path::Path::new(&run).join("half1.mrc").exists());
    }
}

/// More blocks of `outcome` than threads of the block that sums their parts.
fn a_large_gradient_counts_whole() {
    const COUNT: usize = 50_000;
    let case = case(36, 32, 1, 1, false);
    let observed = case.observed();
    // Small and far outside the images, so that they take little time.
    let raw = [[50.0; 3].as_slice(), &[-4.0; 3], &[1.0; 4], &[0.0]].concat();
    let values: Vec<f32> = raw.into_iter().flat_map(|value| std::iter::repeat_n(value, COUNT)).collect();
    let length = values.len();
    let start = Gmm::from_values(Shape::Anisotropic, COUNT, values);
    // Whole numbers, whose squares are summed without rounding.
    let part = |k: usize| (k % 7 + 1) as f32;
    let norm = (0..length).map(|k| f64::from(part(k)).powi(2)).sum::<f64>().sqrt() / 2.0;
    let adam = ADAM;
    let mut device = device_of(start, &case, 3.0, 1);
    assert!((257..1024).contains(&device.plan().0.norm_blocks()));
    let mut outcome = |change: &dyn Fn(&mut [f32])| {
        let plant = |buffer: &mut [f32]| {
            buffer[..length].iter_mut().enumerate().for_each(|(k, value)| *value = part(k));
            change(buffer);
        };
        let mut group = Planted(&plant);
        device.step(&case.observations(&observed), &Step { images: 2, adam }, &mut group).unwrap();
        device.outcomes(true, &mut group).unwrap()[0]
    };
    let usual = outcome(&|_| {});
    assert!((usual.gradient_norm / norm - 1.0).abs() < 1e-12, "{usual:?}, expected {norm}");
    let broken = outcome(&|buffer| buffer[length - 1] = f32::NAN);
    assert!(!broken.is_finite(), "{broken:?}");
}

/// More steps than the rings of passes and outcomes have places, over resident particles, so that the host runs ahead.
fn outcomes_of_many_steps_are_in_order() {
    const STEPS: usize = 270;
    let case = case(37, 16, 20, 7, false);
    let observed = case.observed();
    let mut all = case.observations(&observed);
    let mut device = device_of(planes(&case.gaussians, Shape::Anisotropic), &case, 3.0, 1);
    assert!(device.reserve(7).unwrap());
    device.store(0, &mut observed.concat()).unwrap();
    all.iter_mut().enumerate().for_each(|(place, seen)| seen.target = Target::Resident(place));
    // At rate 0 the loss of an image is the same in every step.
    let adam = AdamStep { rate: 0.0, ..ADAM };
    let mut outcomes = Vec::new();
    for number in 0..STEPS {
        device.step(&all[number % 7..][..1], &Step { images: 1, adam }, &mut Alone).unwrap();
        outcomes.extend(device.outcomes(false, &mut Alone).unwrap());
    }
    outcomes.extend(device.outcomes(true, &mut Alone).unwrap());
    assert_eq!(outcomes.len(), STEPS);
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(*outcome, outcomes[number % 7], "step {number}");
        assert!(number % 7 == 0 || outcome.loss != outcomes[0].loss);
    }
}

fn steps_are_timed_by_stage() {
    let case = case(34, 32, 60, 3, false);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
    let adam = ADAM;
    let take = |device: &mut dyn Device, steps: usize| {
        for _ in 0..steps {
            device.step(&batch, &Step { images: 3, adam }, &mut Alone).unwrap();
        }
        assert_eq!(device.outcomes(true, &mut Alone).unwrap().len(), steps);
        device.times()
    };
    assert_eq!(take(device.as_mut(), 3), None, "no step was timed yet");
    let first = take(device.as_mut(), 20).unwrap();
    assert!(first.compute.as_secs_f64() > 0.0 && first.update.as_secs_f64() > 0.0, "{first:?}");
    // None of the next ten is timed: the estimate is that of the last timed step.
    let second = take(device.as_mut(), 10).unwrap();
    for (first, second) in [(first.compute, second.compute), (first.update, second.update)] {
        assert!((first.as_secs_f64() / second.as_secs_f64() - 2.0).abs() < 1e-3, "{first:?} {second:?}");
    }
    assert_eq!(take(device.as_mut(), 0).unwrap().compute.as_nanos(), 0);
}

fn reported_memory_is_the_decrease_of_free_memory() {
    let case = case(35, 48, 3000, 3, false);
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let free = |device: &cryosplat_mpi::render::cuda::CudaDevice| device.gpu().memory().unwrap().0 as u64;
    let mut device = device_of(gmm.clone(), &case, 3.0, 2);
    let (plan, work) = device.plan();
    assert_eq!(device.memory(), (plan.bytes() + work) as u64);
    let before = device.memory();
    assert!(device.reserve(100).unwrap());
    assert_eq!(device.memory() - before, 100 * 48 * 48 * 4);
    drop(device);
    // On a real GPU other processes allocate memory meanwhile, and so do concurrent tests.
    let lacks = |_: usize| {
        let mut device = device_of(gmm.clone(), &case, 3.0, 2);
        let room = free(&device);
        assert!(device.reserve(100).unwrap());
        let (kept, rest) = (room - free(&device).min(room), free(&device));
        let other = device_of(gmm.clone(), &case, 3.0, 2);
        (kept, rest - free(&other).min(rest), other.memory())
    };
    // The driver rounds allocations up.
    let right = |(kept, lacks, memory): &(u64, u64, u64)| {
        *kept == 100 * 48 * 48 * 4 && (*memory..memory + 32 * 512).contains(lacks)
    };
    if emulator::entered() {
        let seen: Vec<_> = (0..20).map(lacks).collect();
        assert!(seen.iter().any(right), "{seen:?}");
    }
}
