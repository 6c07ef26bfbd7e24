//! What the GPU tells of its steps, of their time and of its memory.

use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::render::{AdamStep, Alone, Device, Step};

use crate::cases::{Case, case, planes};
use crate::common::{over_mpi_with, overflow, path, phantom, program_file, text, train_arguments};
use crate::kernels::device_of;
use crate::ranks::FOUR;
use crate::{emulator, outcomes};

pub const TESTS: &[(&str, fn())] = &[
    ("losses_and_norms_agree_with_the_reference", losses_and_norms_agree_with_the_reference),
    ("every_value_of_the_gradient_counts", every_value_of_the_gradient_counts),
    ("a_step_that_is_not_finite_changes_nothing", a_step_that_is_not_finite_changes_nothing),
    ("ranks_as_threads_break_and_mend_together", ranks_as_threads_break_and_mend_together),
    ("four_ranks_name_the_step_that_is_not_finite", four_ranks_name_the_step_that_is_not_finite),
    ("steps_are_timed_by_stage", steps_are_timed_by_stage),
    ("memory_is_what_the_device_lacks_then", memory_is_what_the_device_lacks_then),
];

/// Two images at a time: some steps are of several passes.
fn make(gmm: Gmm, case: &Case) -> Box<dyn Device> {
    Box::new(device_of(gmm, case, 3.0, 2))
}

fn losses_and_norms_agree_with_the_reference() {
    outcomes::losses_and_norms_agree_with_the_reference(&make);
}

fn every_value_of_the_gradient_counts() {
    outcomes::every_value_counts(&make);
}

fn a_step_that_is_not_finite_changes_nothing() {
    outcomes::a_step_that_is_not_finite_changes_nothing(&make);
}

fn ranks_as_threads_break_and_mend_together() {
    outcomes::four_ranks_break_and_mend_together(&make);
}

fn four_ranks_name_the_step_that_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    overflow(&set, 12);
    for collective in ["nccl", "mpi"] {
        let run = path(folder.path(), collective);
        let options = ["--device", "cuda", "--half", "1", "--gaussians", "50", "--epochs", "20"];
        let arguments = train_arguments(&set, &run, &[&options[..], &["--collective", collective]].concat());
        let output = over_mpi_with(4, &program_file(), &arguments, &FOUR);
        let said = text(&output);
        assert!(!output.status.success() && !said.contains("panicked"), "{said}");
        assert!(said.contains("of half1 is not finite") && said.contains("13"), "{said}");
        assert!(!std::path::Path::new(&run).join("half1.mrc").exists());
    }
}

fn steps_are_timed_by_stage() {
    let case = case(34, 32, 60, 3, false);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
    let adam =
        AdamStep { rate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-15, correction1: 0.1, correction2: 0.01 };
    let take = |device: &mut dyn Device, steps: usize| {
        for _ in 0..steps {
            device.step(&batch, &Step { images: 3, adam }, &mut Alone).unwrap();
        }
        assert_eq!(device.outcomes(true, &mut Alone).unwrap().len(), steps);
        device.times()
    };
    assert_eq!(take(device.as_mut(), 3), None, "nothing was measured yet");
    let first = take(device.as_mut(), 20).unwrap();
    assert!(first.compute.as_secs_f64() > 0.0 && first.update.as_secs_f64() > 0.0, "{first:?}");
    // None of the next ten is measured: they are as long as that one was.
    let second = take(device.as_mut(), 10).unwrap();
    for (first, second) in [(first.compute, second.compute), (first.update, second.update)] {
        assert!((first.as_secs_f64() / second.as_secs_f64() - 2.0).abs() < 1e-3, "{first:?} {second:?}");
    }
    assert_eq!(take(device.as_mut(), 0).unwrap().compute.as_nanos(), 0);
}

fn memory_is_what_the_device_lacks_then() {
    let case = case(35, 48, 3000, 3, false);
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let free = |device: &cryosplat_mpi::render::cuda::CudaDevice| device.card().memory().unwrap().0 as u64;
    let mut device = device_of(gmm.clone(), &case, 3.0, 2);
    let (plan, work) = device.plan();
    assert_eq!(device.memory(), (plan.bytes() + work) as u64);
    let before = device.memory();
    assert!(device.keep(100).unwrap());
    assert_eq!(device.memory() - before, 100 * 48 * 48 * 4);
    drop(device);
    // On a real GPU others may take memory meanwhile, and so may tests beside this one, sometimes.
    let lacks = |_: usize| {
        let mut device = device_of(gmm.clone(), &case, 3.0, 2);
        let room = free(&device);
        assert!(device.keep(100).unwrap());
        let (kept, rest) = (room - free(&device).min(room), free(&device));
        let other = device_of(gmm.clone(), &case, 3.0, 2);
        (kept, rest - free(&other).min(rest), other.memory())
    };
    // Allocations are rounded up.
    let right = |(kept, lacks, memory): &(u64, u64, u64)| {
        *kept == 100 * 48 * 48 * 4 && (*memory..memory + 32 * 512).contains(lacks)
    };
    if emulator::entered() {
        let seen: Vec<_> = (0..20).map(lacks).collect();
        assert!(seen.iter().any(right), "{seen:?}");
    }
}
