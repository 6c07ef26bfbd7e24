//! Runs with a point group, noise spectra, contrast and weights of the particles on GPUs.

use crate::common::{
    assert_same, over_mpi_with, path, phantom, program_file, steps, succeed, text, train_arguments, undo,
};
use crate::ranks::FOUR;
use crate::trainer::{RESULTS, apart, values};

pub const TESTS: &[(&str, fn())] = &[
    ("a_symmetric_weighted_run_agrees_with_the_cpu_and_resumes", a_symmetric_run_agrees_and_resumes),
    ("ranks_on_nccl_train_a_symmetric_particle_alike", ranks_on_nccl_train_a_symmetric_particle_alike),
];

const USUAL: [&str; 15] = [
    "--symmetry",
    "D2",
    "--gaussians",
    "160",
    "--epochs",
    "4",
    "--mixtures",
    "2",
    "--metrics-every",
    "1",
    "--noise",
    "spectrum",
    "--contrast",
    "estimated",
    "--weigh-particles",
];

fn a_symmetric_run_agrees_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = |name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let said = succeed(&train_arguments(&set, &run, &[&USUAL, options].concat()));
        (run, said)
    };
    let (cpu, _) = run("cpu", &["--device", "cpu", "--learning-rate", "8e-4"]);
    let (start, _) = run("start", &["--device", "cpu", "--learning-rate", "1e-30"]);
    let (gpu, said) = run("gpu", &["--device", "cuda", "--cache", "device", "--learning-rate", "8e-4"]);
    assert!(said.contains("40 Gaussians of the asymmetric unit (D2, 160 in all)"), "{said}");
    for name in ["gmm_half1.h5", "gmm_half2.h5"] {
        let off = apart(&values(&cpu, name), &values(&gpu, name), &values(&start, name));
        assert!(off < 1e-3, "{name}: {off:e} of the movement");
    }
    let streamed = ["--device", "cuda", "--cache", "none", "--learning-rate", "8e-4"];
    let (again, _) = run("again", &streamed);
    undo(&again, "half1");
    let (_, said) = run("again", &[&streamed[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step"), "{said}");
    assert_same(&RESULTS, &gpu, &again, "resumed, with particles elsewhere");
}

fn ranks_on_nccl_train_a_symmetric_particle_alike() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let run = |name: &str, ranks: usize| {
        let run = path(folder.path(), name);
        let options = ["--device", "cuda", "--half", "1", "--batch", "8"];
        let arguments = train_arguments(&set, &run, &[&USUAL[..], &options].concat());
        let output = over_mpi_with(ranks, &program_file(), &arguments, &FOUR);
        assert!(output.status.success(), "{}", text(&output));
        steps(&run)
    };
    let (one, two) = (run("one", 1), run("two", 2));
    assert_eq!(one.len(), two.len());
    for (a, b) in one.iter().zip(&two) {
        let loss = |line: &serde_json::Value| line["loss"].as_f64().unwrap();
        assert!((loss(a) / loss(b) - 1.0).abs() < 1e-4, "{a} {b}");
    }
}
