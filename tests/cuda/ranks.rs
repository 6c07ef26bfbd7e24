//! Several ranks with GPUs: sums by NCCL and MPI, and ranks that share a GPU.

use std::path::Path;

use cryosplat_mpi::parallel::nccl;
use cryosplat_mpi::render::cuda::gpu;

use crate::common::{
    assert_same, bytes, over_mpi_with, overflow, path, phantom, program_file, steps, text, train_arguments,
};
use crate::emulator;
use crate::trainer::{RESULTS, apart, values};

pub const TESTS: &[(&str, fn())] = &[
    ("four_ranks_on_nccl_agree_with_one", four_ranks_on_nccl_agree_with_one),
    ("halves_on_four_ranks_repeat_to_the_bit", halves_on_four_ranks_repeat_to_the_bit),
    ("one_rank_of_a_node_compiles_the_kernels", one_rank_of_a_node_compiles_the_kernels),
    ("ranks_that_share_a_gpu_sum_over_mpi", ranks_that_share_a_gpu_sum_over_mpi),
    ("a_rank_alone_uses_nccl_on_request", a_rank_alone_uses_nccl_on_request),
    ("ranks_on_nccl_train_without_bad_particles", ranks_on_nccl_train_without_bad_particles),
];

/// Tests that need four GPUs.
const FOUR_GPUS: [&str; 9] = [
    "the_page_shows_gpus_and_libraries",
    "one_rank_beside_several_gpus_is_advised",
    "one_rank_of_a_node_compiles_the_kernels",
    "four_ranks_on_nccl_agree_with_one",
    "halves_on_four_ranks_repeat_to_the_bit",
    "a_bench_on_gpus_reports_the_all_reduce",
    "ranks_on_nccl_train_without_bad_particles",
    "ranks_on_nccl_densify_alike",
    "ranks_on_nccl_train_a_symmetric_particle_alike",
];
/// Further tests that need NCCL.
const WITH_NCCL: [&str; 2] = ["ranks_that_share_a_gpu_sum_over_mpi", "a_rank_alone_uses_nccl_on_request"];

/// Whether this machine, whose GPUs are real, lacks what a test needs.
pub fn is_not_possible_here(name: &str) -> bool {
    (FOUR_GPUS.contains(&name) && gpu::count() < 4)
        || ((FOUR_GPUS.contains(&name) || WITH_NCCL.contains(&name)) && !nccl::usable())
}

/// Environment with four GPUs, if they are emulated.
pub const FOUR: [(&str, &str); 1] = [("CRYOSPLAT_EMULATOR_DEVICES", "4")];

/// Trains on `ranks` ranks; returns the output.
fn train(ranks: usize, set: &str, run: &str, options: &[&str], environment: &[(&str, &str)]) -> String {
    let arguments = train_arguments(set, run, &[&["--device", "cuda"], options].concat());
    let output = over_mpi_with(ranks, &program_file(), &arguments, environment);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn four_ranks_on_nccl_agree_with_one() {
    let folder = tempfile::tempdir().unwrap();
    // 45 particles in half 1: six steps per epoch; the last one has 5 images, divided unevenly over four ranks.
    let set = phantom(folder.path(), 90);
    let usual = ["--half", "1", "--gaussians", "80", "--epochs", "4", "--mixtures", "2", "--batch", "8"];
    let usual = [&usual[..], &["--metrics-every", "1"]].concat();
    let run = |name: &str, ranks: usize, options: &[&str]| {
        let run = path(folder.path(), name);
        let options = [&usual[..], &["--learning-rate", "8e-4"], options].concat();
        let said = train(ranks, &set, &run, &options, &FOUR);
        (run, said)
    };
    let (one, said) = run("one", 1, &[]);
    assert!(!said.contains("all-reduce over"), "{said}");
    let (nccl, said) = run("nccl", 4, &["--collective", "nccl"]);
    assert!(said.contains("all-reduce over NCCL"), "{said}");
    let (mpi, said) = run("mpi", 4, &["--collective", "mpi"]);
    assert!(said.contains("all-reduce over MPI"), "{said}");
    let start = {
        let start = path(folder.path(), "start");
        let options = [&usual[..], &["--learning-rate", "1e-30"]].concat();
        train(1, &set, &start, &options, &FOUR);
        values(&start, "gmm_half1.h5")
    };
    let losses =
        |run: &str| -> Vec<f64> { steps(run).iter().map(|line| line["loss"].as_f64().unwrap()).collect() };
    let want = values(&one, "gmm_half1.h5");
    for run in [&nccl, &mpi] {
        for (a, b) in losses(&one).iter().zip(losses(run)) {
            assert!((a / b - 1.0).abs() < 1e-5, "{run}: {a} {b}");
        }
        let off = apart(&want, &values(run, "gmm_half1.h5"), &start);
        assert!(off < 1e-4, "{run}: {off:e} of the movement");
    }
}

fn halves_on_four_ranks_repeat_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let options = ["--gaussians", "60", "--epochs", "3", "--metrics-every", "1"];
    let [a, b] = ["a", "b"].map(|name| {
        let run = path(folder.path(), name);
        let said = train(4, &set, &run, &options, &FOUR);
        assert!(said.contains("all-reduce over NCCL"), "auto uses NCCL where it is possible: {said}");
        run
    });
    for name in RESULTS {
        assert!(bytes(&a, name) == bytes(&b, name), "{name}");
    }
}

fn one_rank_of_a_node_compiles_the_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let cache = path(folder.path(), "cache");
    let options = ["--gaussians", "40", "--epochs", "1", "--log-all-ranks"];
    let environment = [FOUR[0], ("XDG_CACHE_HOME", &cache)];
    let said = train(4, &set, &path(folder.path(), "run"), &options, &environment);
    assert_eq!(said.matches("compiling the kernels").count(), 1, "{said}");
}

fn ranks_that_share_a_gpu_sum_over_mpi() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let options = ["--half", "1", "--gaussians", "40", "--epochs", "1"];
    let one_device = [("CRYOSPLAT_EMULATOR_DEVICES", "1"), ("CUDA_VISIBLE_DEVICES", "0")];
    let said = train(2, &set, &run, &options, &one_device);
    assert!(said.contains("all-reduce over MPI") && said.contains("two ranks have the same GPU"), "{said}");
    assert!(Path::new(&run).join("half1.mrc").exists());

    let arguments = train_arguments(
        &set,
        &run,
        &[&options[..], &["--device", "cuda", "--collective", "nccl", "--overwrite"]].concat(),
    );
    let output = over_mpi_with(2, &program_file(), &arguments, &one_device);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("two ranks have the same GPU") && said.contains("--collective mpi"), "{said}");

    // The version of a real library cannot be set.
    if emulator::entered() || nccl::version().is_some_and(|version| version >= 23_000) {
        let newer = [
            one_device[0],
            one_device[1],
            ("CRYOSPLAT_EMULATOR_NCCL_VERSION", "23000"),
            ("NCCL_MULTI_RANK_GPU_ENABLE", "1"),
        ];
        let output = over_mpi_with(2, &program_file(), &arguments, &newer);
        let said = text(&output);
        assert!(output.status.success() && said.contains("all-reduce over NCCL"), "{said}");
    }
}

/// With one rank, too, NCCL is loaded, captured in the graph of a step, and finalised.
fn a_rank_alone_uses_nccl_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let options = ["--half", "1", "--gaussians", "40", "--epochs", "2", "--metrics-every", "1"];
    let run = |name: &str, collective: &str| {
        let run = path(folder.path(), name);
        let said = train(1, &set, &run, &[&options[..], &["--collective", collective]].concat(), &[]);
        assert_eq!(said.contains("all-reduce over NCCL"), collective == "nccl", "{said}");
        run
    };
    let (nccl, none) = (run("nccl", "nccl"), run("none", "auto"));
    assert_same(&["half1.mrc", "gmm_half1.ply"], &nccl, &none, "NCCL for one rank");
}

/// A particle that one rank finds while the devices are steps ahead is excluded on all.
fn ranks_on_nccl_train_without_bad_particles() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    overflow(&set, 12);
    let options =
        ["--half", "1", "--gaussians", "40", "--epochs", "3", "--metrics-every", "1", "--batch", "4"];
    let run = |name: &str, collective: &str| {
        let run = path(folder.path(), name);
        let more = ["--collective", collective, "--skip-bad-particles", "1"];
        train(4, &set, &run, &[&options[..], &more].concat(), &FOUR);
        run
    };
    let (nccl, again, mpi) = (run("nccl", "nccl"), run("again", "nccl"), run("mpi", "mpi"));
    let names = ["half1.mrc", "gmm_half1.ply", "skipped_half1.csv"];
    assert_same(&names, &nccl, &again, "repeated");
    // 30 particles: eight steps per epoch.
    assert_eq!(steps(&nccl).len(), 24);
    let lines = |run: &str| String::from_utf8(bytes(run, "skipped_half1.csv")).unwrap();
    assert!(lines(&nccl).lines().count() == 2 && lines(&nccl).contains("\n13,"), "{}", lines(&nccl));
    assert_eq!(lines(&nccl), lines(&mpi));
}
