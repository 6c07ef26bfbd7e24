//! Runs with a point group, noise spectra, contrast and weights of the particles on GPUs.

use crate::common::{over_mpi_with, path, phantom, program_file, steps, text, train_arguments};
use crate::ranks::FOUR;
use crate::trainer::assert_agrees_with_the_cpu_and_resumes;

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
    let report = "40 Gaussians of the asymmetric unit (D2, 160 in all)";
    assert_agrees_with_the_cpu_and_resumes(&USUAL, &["--cache", "none"], report, "resuming after step");
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
