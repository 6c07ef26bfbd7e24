//! Tests that run the CUDA device: kernels, trainer, ranks and failures. They run on the emulator (tests/emulator), which this
//! program builds before it restarts itself under it; with CRYOSPLAT_TEST_GPU=1, on the machine's GPUs, without injected errors.

mod bench;
#[path = "../common/cases.rs"]
mod cases;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod densify;
#[path = "../common/emulator.rs"]
mod emulator;
mod failures;
#[path = "../common/fits.rs"]
mod fits;
mod kernels;
mod observations;
#[path = "../common/outcomes.rs"]
mod outcomes;
mod ranks;
#[path = "../common/reference.rs"]
mod reference;
mod refinement;
mod specimen;
mod steps;
mod trainer;

use libtest_mimic::{Arguments, Trial};

/// Tests that also run under the sanitizers, which are slow: every kernel, and every path of the particles, once.
const SANITIZED: [&str; 10] = [
    "projections_agree_with_the_dense_sum",
    "the_isotropic_gradient_agrees",
    "a_batch_in_several_passes_agrees",
    "a_symmetric_batch_in_several_passes_agrees",
    "comparisons_agree_with_the_dense_reference",
    "fits_and_searches_agree_with_the_cpu_device",
    "prepared_resident_and_observed_images_agree",
    "a_step_that_is_not_finite_changes_nothing",
    "fifty_steps_agree_with_the_cpu_device",
    "the_result_does_not_depend_on_where_particles_are_kept",
];

fn main() {
    let arguments = Arguments::from_args();
    let on_gpu = std::env::var_os("CRYOSPLAT_TEST_GPU").is_some_and(|value| value == "1");
    if !on_gpu && !emulator::entered() {
        emulator::enter();
    }
    let mut all: Vec<(&'static str, fn())> = Vec::new();
    all.extend(kernels::TESTS);
    all.extend(observations::TESTS);
    all.extend(refinement::TESTS);
    all.extend(steps::TESTS);
    all.extend(trainer::TESTS);
    all.extend(ranks::TESTS);
    all.extend(densify::TESTS);
    all.extend(specimen::TESTS);
    all.extend(bench::TESTS);
    all.extend(check::TESTS);
    if !on_gpu {
        all.extend(failures::TESTS);
    }
    if emulator::sanitized() {
        all.retain(|(name, _)| SANITIZED.contains(name));
    }
    let trials = all
        .into_iter()
        .map(|(name, test)| {
            let beyond = on_gpu && ranks::is_not_possible_here(name);
            Trial::test(name, move || {
                test();
                Ok(())
            })
            .with_ignored_flag(beyond)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
