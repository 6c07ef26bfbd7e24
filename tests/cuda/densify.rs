//! Densification on the GPU: a device that was opened for more Gaussians than it starts with.

use cryosplat_mpi::gmm::{Shape, split};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{AdamStep, Alone, Device, DeviceState, Step};

use crate::cases::{case, planes};
use crate::common::{over_mpi_with, path, phantom, program_file, steps, text, train_arguments};
use crate::kernels::device_of;
use crate::ranks::FOUR;
use crate::trainer::{RATE, apart, assert_agrees_with_the_cpu_and_resumes};

pub const TESTS: &[(&str, fn())] = &[
    ("a_device_takes_mixtures_of_other_sizes", a_device_takes_mixtures_of_other_sizes),
    ("a_densified_run_agrees_with_the_cpu_and_resumes", a_densified_run_agrees_with_the_cpu_and_resumes),
    ("ranks_on_nccl_densify_alike", ranks_on_nccl_densify_alike),
];

/// Two mixtures of two epochs, of 30 and 60 Gaussians.
const USUAL: [&str; 10] =
    ["--gaussians", "60", "--epochs", "4", "--mixtures", "2", "--densify", "1", "--metrics-every", "1"];

/// Steps before and after a change of the number of Gaussians agree with the CPU device, and with a device opened for that number.
fn a_device_takes_mixtures_of_other_sizes() {
    let case = case(31, 32, 300, 4, false).band_limited();
    let start = planes(&case.gaussians, Shape::Anisotropic);
    let observed = case.observed();
    let all = case.observations(&observed);
    let grown = split(&start);
    let mut gpu = device_of(grown.clone(), &case, 3.0, 4);
    for gmm in [start.clone(), grown.clone(), start] {
        gpu.restore(DeviceState::initial(gmm.clone())).unwrap();
        let mut cpu = CpuDevice::new(gmm.clone(), case.geometry(3.0));
        let mut own = device_of(gmm.clone(), &case, 3.0, 4);
        let step = Step { images: 4, adam: AdamStep { rate: 1e-3, ..AdamStep::IDLE } };
        for _ in 0..3 {
            for device in [&mut gpu as &mut dyn Device, &mut cpu, &mut own] {
                device.step(&all, &step, &mut Alone).unwrap();
            }
        }
        let [got, want, own] = [&mut gpu as &mut dyn Device, &mut cpu, &mut own].map(|device| {
            assert_eq!(device.outcomes(true, &mut Alone).unwrap().len(), 3);
            device.state().unwrap()
        });
        assert!(got == own, "a device of this size");
        assert!(apart(want.gmm.values(), got.gmm.values(), gmm.values()) < 1e-3);
        assert_eq!(gpu.gradient(&all).unwrap().0.len(), gmm.values().len());
    }
}

/// Particles stay on the GPU while the mixture grows; the run is resumed before a split.
fn a_densified_run_agrees_with_the_cpu_and_resumes() {
    let report = "half1 densified after epoch 3: 30 -> 60 Gaussians";
    assert_agrees_with_the_cpu_and_resumes(&USUAL, &[], report, "resuming after step 9 of half1");
}

/// The graphs of a step, which hold the all-reduce, are captured again after each split.
fn ranks_on_nccl_densify_alike() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 32);
    let run = |name: &str, ranks: usize, collective: &str| {
        let run = path(folder.path(), name);
        let options = ["--device", "cuda", "--half", "1", "--collective", collective];
        let arguments = train_arguments(&set, &run, &[&USUAL[..], &RATE, &options].concat());
        let output = over_mpi_with(ranks, &program_file(), &arguments, &FOUR);
        assert!(output.status.success(), "{}", text(&output));
        steps(&run)
    };
    let (one, four) = (run("one", 1, "mpi"), run("four", 4, "nccl"));
    assert_eq!((one.len(), four.len()), (8, 8));
    for (a, b) in one.iter().zip(&four) {
        let loss = |line: &serde_json::Value| line["loss"].as_f64().unwrap();
        assert!((loss(a) / loss(b) - 1.0).abs() < 1e-4, "{a} {b}");
    }
}
