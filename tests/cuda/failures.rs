//! Everything that can fail on the way, made to fail: a clear message, an exit code, no hang, nothing lost.

use std::path::Path;

use crate::common::{
    contents, expect_failure, over_mpi_with, path, phantom, program_file, program_with, text, train_arguments,
};
use crate::ranks::FOUR;

pub const TESTS: &[(&str, fn())] = &[
    (
        "a_device_that_is_too_small_is_refused_with_the_numbers",
        a_device_that_is_too_small_is_refused_with_the_numbers,
    ),
    ("calls_that_fail_are_told", calls_that_fail_are_told),
    ("a_failure_on_one_rank_ends_all", a_failure_on_one_rank_ends_all),
    ("ranks_do_not_wait_for_ever", ranks_do_not_wait_for_ever),
    ("without_gpus_auto_computes_on_processors", without_gpus_auto_computes_on_processors),
    ("libraries_are_found_under_versioned_names", libraries_are_found_under_versioned_names),
    ("mixed_ranks_compute_alike", mixed_ranks_compute_alike),
];

const FAIL: &str = "CRYOSPLAT_EMULATOR_FAIL";

/// A set, and the arguments that train half 1 of it on GPUs.
fn prepared(folder: &Path) -> Vec<String> {
    let set = phantom(folder, 40);
    let options = ["--device", "cuda", "--half", "1", "--gaussians", "50", "--epochs", "2"];
    train_arguments(&set, &path(folder, "run"), &options)
}

fn a_device_that_is_too_small_is_refused_with_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = prepared(folder.path());
    let output = program_with(&arguments, &[("CRYOSPLAT_EMULATOR_MEMORY", "60000")]);
    expect_failure(&output, &["(device 0)", "50 Gaussians", "MiB", "--gaussians"]);
    assert!(contents(&folder.path().join("run")).is_empty(), "nothing was begun");
    // Room for the mixture, and none for the particles: they stay elsewhere.
    let room = [("CRYOSPLAT_EMULATOR_MEMORY", "30000000")];
    let output = program_with(&arguments, &room);
    assert!(output.status.success(), "{}", text(&output));
    let insisting = [&arguments[..], &["--cache".into(), "device".into(), "--overwrite".into()]].concat();
    expect_failure(&program_with(&insisting, &room), &["no room for the 20 particles", "--cache"]);
}

fn calls_that_fail_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = prepared(folder.path());
    let output = program_with(&arguments, &[]);
    assert!(output.status.success(), "{}", text(&output));
    let before = contents(&folder.path().join("run"));
    let again = [&arguments[..], &["--overwrite".into()]].concat();
    for (injected, fragments) in [
        ("alloc:3", &["(device 0)", "cannot hold the"][..]),
        ("load", &["(device 0)", "cannot load the kernels"]),
        ("memcpy:2", &["(device 0)", "cannot"]),
    ] {
        expect_failure(&program_with(&again, &[(FAIL, injected)]), fragments);
        assert!(contents(&folder.path().join("run")) == before, "{injected}: the older run is as it was");
    }
    let fresh = tempfile::tempdir().unwrap();
    let fresh_cache = fresh.path().display().to_string();
    let output = program_with(&again, &[(FAIL, "compile"), ("XDG_CACHE_HOME", &fresh_cache)]);
    expect_failure(&output, &["NVRTC cannot compile the kernels", "--device cpu"]);
    // In the middle of the training: what is written is the checkpoints until then, and no map.
    for kernel in ["moments", "adam", "draw"] {
        let injected = format!("launch:{kernel}:4");
        let output = program_with(&again, &[(FAIL, &injected)]);
        expect_failure(&output, &["(device 0)", "cannot", "CUDA_ERROR_LAUNCH_FAILED"]);
        assert!(!folder.path().join("run/half1.mrc").exists(), "{kernel}");
    }
    // A kept kernel that was damaged on the disk is made anew.
    let output = program_with(&again, &[("XDG_CACHE_HOME", &fresh_cache)]);
    assert!(output.status.success(), "{}", text(&output));
    for entry in std::fs::read_dir(fresh.path().join("cryosplat-mpi/kernels")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"not a kernel at all, but longer than its checksum").unwrap();
    }
    let output = program_with(&again, &[("XDG_CACHE_HOME", &fresh_cache)]);
    assert!(output.status.success(), "{}", text(&output));
}

fn a_failure_on_one_rank_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&prepared(folder.path())[..], &["--overwrite".into()]].concat();
    for (injected, rank, fragments) in [
        ("launch:draw:3", "2", &["rank 2", "(device 2)", "cannot"][..]),
        ("alloc:4", "1", &["rank 1", "(device 1)", "cannot hold"]),
        ("nccl-error:1:5", "1", &["rank 1", "NCCL", "sum the gradient"]),
        ("nccl-init:3", "3", &["rank 3", "NCCL", "cannot connect the ranks"]),
    ] {
        let environment = [FOUR[0], (FAIL, injected), ("CRYOSPLAT_EMULATOR_FAIL_RANK", rank)];
        let output = over_mpi_with(4, &program_file(), &arguments, &environment);
        assert!(!output.status.success(), "{injected}");
        let said = text(&output);
        assert!(!said.contains("panicked"), "{said}");
        assert!(
            said.lines().any(|line| fragments.iter().all(|fragment| line.contains(fragment))),
            "{injected}: no line with all of {fragments:?} in:\n{said}"
        );
        assert!(!folder.path().join("run/half1.mrc").exists(), "{injected}");
    }
}

fn ranks_do_not_wait_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        [&prepared(folder.path())[..], &["--timeout", "3", "--overwrite"].map(String::from)].concat();
    // One that lives on and never comes: the others' patience ends.
    let vanished = [FOUR[0], (FAIL, "nccl-vanish:1:4"), ("CRYOSPLAT_EMULATOR_FAIL_RANK", "1")];
    let output = over_mpi_with(4, &program_file(), &arguments, &vanished);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("another rank has stopped"), "{said}");
    // One that dies: the launcher or NCCL notices at once.
    let died = [FOUR[0], (FAIL, "nccl-die:1:4"), ("CRYOSPLAT_EMULATOR_FAIL_RANK", "1")];
    let output = over_mpi_with(4, &program_file(), &arguments, &died);
    assert!(!output.status.success(), "{}", text(&output));
    assert!(!folder.path().join("run/half1.mrc").exists());
}

fn without_gpus_auto_computes_on_processors() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let options = ["--half", "1", "--gaussians", "50", "--epochs", "1", "--overwrite"];
    let with = |more: &[&str]| train_arguments(&set, &run, &[&options[..], more].concat());
    let (auto, cuda) = (with(&["--device", "auto"]), with(&["--device", "cuda"]));
    let missing = tempfile::tempdir().unwrap();
    for environment in [
        // A driver without a device, and no driver at all.
        vec![("CUDA_VISIBLE_DEVICES", "")],
        vec![("LD_LIBRARY_PATH", missing.path().to_str().unwrap())],
    ] {
        let output = program_with(&auto, &environment);
        assert!(output.status.success() && text(&output).contains("CPU, 1 thread"), "{}", text(&output));
        expect_failure(&program_with(&cuda, &environment), &["sees no GPU", "--device cpu"]);
    }
    let nccl = with(&["--device", "cpu", "--collective", "nccl"]);
    expect_failure(&program_with(&nccl, &[]), &["NCCL adds up between GPUs"]);
    let kept = with(&["--device", "cpu", "--cache", "device"]);
    expect_failure(&program_with(&kept, &[]), &["no room for the 20 particles"]);
}

/// As Python's packages and many modules have them.
fn libraries_are_found_under_versioned_names() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = prepared(folder.path());
    let libraries = folder.path().join("libraries");
    std::fs::create_dir(&libraries).unwrap();
    let emulator = std::env::var("LD_LIBRARY_PATH").unwrap();
    for (name, link) in [
        ("libcuda.so.1", "libcuda.so.1"),
        ("libcufft.so", "libcufft.so.11"),
        ("libnccl.so", "libnccl.so.2"),
        ("libnvrtc.so", "libnvrtc.so.13"),
    ] {
        std::os::unix::fs::symlink(Path::new(&emulator).join(name), libraries.join(link)).unwrap();
    }
    let libraries = libraries.display().to_string();
    let environment = [FOUR[0], ("LD_LIBRARY_PATH", &libraries)];
    let output = over_mpi_with(2, &program_file(), &arguments, &environment);
    let said = text(&output);
    assert!(output.status.success() && said.contains("all-reduce over NCCL"), "{said}");
}

/// A rank that sees no GPU beside one that does: on processors all, since models on both would drift apart.
fn mixed_ranks_compute_alike() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let with = |device: &str| {
        let options =
            ["--half", "1", "--gaussians", "50", "--epochs", "1", "--overwrite", "--device", device];
        train_arguments(&set, &run, &options)
    };
    // What a launcher that binds GPUs to ranks may do wrong.
    let script = folder.path().join("bound.sh");
    let text_of = format!(
        "#!/bin/sh\nif [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then export CUDA_VISIBLE_DEVICES=; fi\nexec {} \"$@\"\n",
        program_file()
    );
    std::fs::write(&script, text_of).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let script = script.display().to_string();
    let output = over_mpi_with(2, &script, &with("auto"), &FOUR);
    let said = text(&output);
    assert!(output.status.success() && said.contains("1 of 2 ranks can use a GPU"), "{said}");
    let output = over_mpi_with(2, &script, &with("cuda"), &FOUR);
    let said = text(&output);
    assert!(
        !output.status.success()
            && said.contains("rank 1 of 2 on ")
            && said.contains("this rank sees no GPU"),
        "{said}"
    );
}
