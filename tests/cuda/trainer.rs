//! The trainer on the CUDA device against the CPU device, step by step, and against itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cryosplat_mpi::gmm::Shape;
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::recipe::{Choices, Clock};
use cryosplat_mpi::recipe::{Recipe, Settings};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Alone, Device, Step};
use serde_json::Value;

use crate::cases::{case, planes};
use crate::common::{
    assert_same, bytes, fail, path, phantom, program_file, steps, succeed, train_arguments, undo,
};
use crate::kernels::device_of;

pub const TESTS: &[(&str, fn())] = &[
    ("fifty_steps_agree_with_the_cpu_device", fifty_steps_agree_with_the_cpu_device),
    (
        "the_result_does_not_depend_on_where_particles_are_kept",
        the_result_does_not_depend_on_where_particles_are_kept,
    ),
    ("both_halves_on_one_gpu_and_the_device_in_run_json", both_halves_on_one_gpu_and_the_device_in_run_json),
    ("a_run_resumes_to_the_same_bits", a_run_resumes_to_the_same_bits),
    (
        "a_run_stopped_within_an_epoch_resumes_to_the_same_bits",
        a_run_stopped_within_an_epoch_resumes_to_the_same_bits,
    ),
    ("a_rate_that_is_too_high_does_not_hang", a_rate_that_is_too_high_does_not_hang),
];

/// Files of a run that depend on its input, seed and device only.
pub const RESULTS: [&str; 4] = ["half1.mrc", "half2.mrc", "gmm_half1.ply", "gmm_half2.ply"];

/// All parameters of a mixture of a run.
pub fn values(run: &str, name: &str) -> Vec<f32> {
    GmmFile::read(Path::new(&path(Path::new(run), name))).unwrap().gmm.values().to_vec()
}

/// Distance of two mixtures, relative to the movement of the first from `start`.
pub fn apart(a: &[f32], b: &[f32], start: &[f32]) -> f64 {
    let norm = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
    };
    let moved = norm(a, start);
    assert!(moved > 0.0);
    norm(a, b) / moved
}

/// The learning rate of [`assert_agrees_with_the_cpu_and_resumes`].
pub const RATE: [&str; 2] = ["--learning-rate", "8e-4"];

/// Checks runs with the options `usual`: the GPU agrees with the CPU and logs `report`; a run with the options `other` too that is
/// resumed, and logs `resumed`, has the same bits.
pub fn assert_agrees_with_the_cpu_and_resumes(usual: &[&str], other: &[&str], report: &str, resumed: &str) {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = |name: &str, options: &[&[&str]]| {
        let run = path(folder.path(), name);
        let said = succeed(&train_arguments(&set, &run, &[&[usual], options].concat().concat()));
        (run, said)
    };
    let gpu_options: [&[&str]; 2] = [&["--device", "cuda"], &RATE];
    let (cpu, _) = run("cpu", &[&["--device", "cpu"], &RATE]);
    let (start, _) = run("start", &[&["--device", "cpu", "--learning-rate", "1e-30"]]);
    let (gpu, said) = run("gpu", &[&gpu_options[..], &[&["--cache", "device"]]].concat());
    assert!(said.contains(report), "{said}");
    for name in ["gmm_half1.h5", "gmm_half2.h5"] {
        let off = apart(&values(&cpu, name), &values(&gpu, name), &values(&start, name));
        assert!(off < 1e-3, "{name}: {off:e} of the movement");
    }
    let options = [&gpu_options[..], &[other]].concat();
    let (again, _) = run("again", &options);
    undo(&again, "half1");
    let (_, said) = run("again", &[&options[..], &[&["--resume"]]].concat());
    assert!(said.contains(resumed), "{said}");
    assert_same(&RESULTS, &gpu, &again, "resumed");
}

fn fifty_steps_agree_with_the_cpu_device() {
    let case = case(21, 32, 120, 10, false).band_limited();
    let gmm = planes(&case.gaussians, Shape::Anisotropic);
    let observed = case.observed();
    let all = case.observations(&observed);
    let (epochs, learning_rate, mixtures) = (Some(20), Some(1.6e-4), Some(1));
    let choices = Choices { epochs, learning_rate, mixtures, ..Choices::default() };
    let settings = Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 10, 32);
    let mut cpu = CpuDevice::new(gmm.clone(), case.geometry(3.0));
    let mut gpu = device_of(gmm.clone(), &case, 3.0, 4);
    let mut clock = Clock::default();
    for step in 0..50 {
        // Four images, or one: a short batch.
        let first = step % 7;
        let batch = &all[first..first + if step % 5 == 4 { 1 } else { 4 }];
        let images = batch.len() as u64;
        let step = Step { images, adam: clock.advance(&settings, images, 10) };
        cpu.step(batch, &step, &mut Alone).unwrap();
        gpu.step(batch, &step, &mut Alone).unwrap();
    }
    let want = cpu.outcomes(true, &mut Alone).unwrap();
    let got = gpu.outcomes(true, &mut Alone).unwrap();
    assert_eq!((got.len(), want.len()), (50, 50));
    for (step, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got.loss / want.loss - 1.0).abs() < 1e-5, "step {step}: {got:?} {want:?}");
        // The parameters differ slightly after some steps: see below.
        let norms = (got.gradient_norm / want.gradient_norm - 1.0).abs();
        assert!(norms < 1e-3, "step {step}: {got:?} {want:?}");
    }
    let (gpu, cpu) = (gpu.state().unwrap(), cpu.state().unwrap());
    let off = apart(cpu.gmm.values(), gpu.gmm.values(), gmm.values());
    // Rounding, which Adam amplifies, as for sums in another order.
    assert!(off < 1e-3, "{off:e} of the movement");
    println!("{off:e} of the movement");
    let zeros = vec![0.0; gpu.first.len()];
    assert!(apart(&cpu.first, &gpu.first, &zeros) < 1e-3);
    assert!(apart(&cpu.second, &gpu.second, &zeros) < 1e-3);
}

fn the_result_does_not_depend_on_where_particles_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 42);
    let run = |name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let usual = ["--device", "cuda", "--gaussians", "60", "--epochs", "2", "--metrics-every", "1"];
        succeed(&train_arguments(&set, &run, &[&usual, options].concat()));
        run
    };
    let kept = run("device", &["--cache", "device"]);
    for (name, options) in
        [("again", ["--cache", "auto"]), ("host", ["--cache", "host"]), ("none", ["--cache", "none"])]
    {
        let other = run(name, &options);
        for file in RESULTS {
            assert!(bytes(&kept, file) == bytes(&other, file), "{name}: {file}");
        }
    }
    // With targets in half precision the result differs slightly.
    let halves = run("halves", &["--cache", "device", "--cache-half"]);
    let start = run("start", &["--learning-rate", "1e-30"]);
    let of = |run: &str| values(run, "gmm_half1.h5");
    let off = apart(&of(&kept), &of(&halves), &of(&start));
    assert!(off > 0.0 && off < 0.05, "{off}");
}

fn both_halves_on_one_gpu_and_the_device_in_run_json() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let usual = ["--gaussians", "50", "--epochs", "2", "--mixtures", "2", "--metrics-every", "1"];
    let run = |name: &str, device: &str| {
        let run = path(folder.path(), name);
        let options = ["--learning-rate", "8e-4", "--device", device];
        let said = succeed(&train_arguments(&set, &run, &[&usual[..], &options].concat()));
        (run, said)
    };
    let (gpu, said) = run("gpu", "auto");
    assert!(said.contains("(device 0)"), "{said}");
    let json: Value = serde_json::from_slice(&bytes(&gpu, "run.json")).unwrap();
    assert!(json["device"].as_str().unwrap().contains("(device 0)"), "{json}");
    let (cpu, said) = run("cpu", "cpu");
    assert!(!said.contains("(device 0)"), "{said}");
    let (start, _) = {
        let run = path(folder.path(), "start");
        let options = ["--learning-rate", "1e-30", "--device", "cpu"];
        (run.clone(), succeed(&train_arguments(&set, &run, &[&usual[..], &options].concat())))
    };
    for name in ["gmm_half1.h5", "gmm_half2.h5"] {
        let off = apart(&values(&cpu, name), &values(&gpu, name), &values(&start, name));
        assert!(off < 1e-3, "{name}: {off:e} of the movement");
    }
}

fn a_run_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let options =
        ["--device", "cuda", "--gaussians", "50", "--epochs", "4", "--mixtures", "2", "--batch", "3"];
    let options = [&options[..], &["--metrics-every", "1"]].concat();
    succeed(&train_arguments(&set, &run, &options));
    let before = RESULTS.map(|name| bytes(&run, name));
    let curve = steps(&run);
    undo(&run, "half1");
    let said = succeed(&train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert!(said.contains("resuming after step 21 of half1 and step 28 of half2"), "{said}");
    for (name, before) in RESULTS.iter().zip(before) {
        assert!(bytes(&run, name) == before, "{name}");
    }
    assert!(steps(&run) == curve);
}

/// The host is ahead of the GPU when the signal comes: enqueued steps must end first.
fn a_run_stopped_within_an_epoch_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 80);
    let (whole, run) = (path(folder.path(), "whole"), path(folder.path(), "run"));
    let options =
        ["--device", "cuda", "--gaussians", "50", "--epochs", "4", "--mixtures", "2", "--batch", "3"];
    let options = [&options[..], &["--metrics-every", "1"]].concat();
    succeed(&train_arguments(&set, &whole, &options));
    let mut child = Command::new(program_file())
        .args(train_arguments(&set, &run, &options))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Half 2 starts when half 1 has ended an epoch and written its checkpoint.
    while checkpoints(&run) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended before the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let said = succeed(&train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert!(said.contains("resuming after step"), "{said}");
    assert_same(&RESULTS, &whole, &run, "stopped and resumed");
}

/// Complete checkpoints of a run.
fn checkpoints(run: &str) -> usize {
    let entries = std::fs::read_dir(Path::new(run).join("checkpoints")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("half")).count()
}

fn a_rate_that_is_too_high_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    // Means a million box sizes away, and scales whose squares overflow f32.
    let options = [
        "--device",
        "cuda",
        "--gaussians",
        "50",
        "--epochs",
        "30",
        "--recipe",
        "paper",
        "--schedule",
        "constant",
        "--learning-rate",
        "1",
    ];
    let arguments = train_arguments(&set, &run, &options);
    // It may end with an error or with finite values; it must not hang or write maps that are not finite.
    let output = crate::common::program(&arguments);
    if !output.status.success() {
        crate::common::expect_failure(&output, &["not finite", "--learning-rate"]);
        assert!(!Path::new(&run).join("half1.mrc").exists() && !Path::new(&run).join("map.mrc").exists());
    } else {
        for name in ["gmm_half1.h5", "gmm_half2.h5"] {
            assert!(values(&run, name).iter().all(|v| v.is_finite()), "{name}");
        }
    }
    let set = path(folder.path(), "absent.h5");
    fail(&train_arguments(&set, &run, &["--device", "cuda", "--overwrite"]), &["absent.h5"]);
}
