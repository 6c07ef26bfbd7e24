//! Injected failures: each ends with a clear message and an exit code, without a hang or lost files.

use std::path::Path;

use crate::common::jobs::{Job, checkpoints, children, rank_process, send, wait_until};
use crate::common::{
    contents, expect_failure, over_mpi_with, path, phantom, program_file, program_with, ranks_command, text,
    train_arguments,
};
use crate::ranks::FOUR;

pub const TESTS: &[(&str, fn())] = &[
    ("too_little_memory_is_refused_with_the_numbers", too_little_memory_is_refused_with_the_numbers),
    ("failed_calls_are_reported", failed_calls_are_reported),
    ("a_failure_on_one_rank_ends_all", a_failure_on_one_rank_ends_all),
    ("ranks_do_not_wait_forever", ranks_do_not_wait_forever),
    ("a_stopped_rank_ends_the_job", a_stopped_rank_ends_the_job),
    ("without_gpus_auto_uses_the_cpu", without_gpus_auto_uses_the_cpu),
    ("a_driver_that_cannot_start_is_named_with_its_code", a_driver_that_cannot_start_is_named_with_its_code),
    ("libraries_are_found_under_versioned_names", libraries_are_found_under_versioned_names),
    ("ranks_with_and_without_gpus_all_use_the_cpu", ranks_with_and_without_gpus_all_use_the_cpu),
];

const FAIL: &str = "CRYOSPLAT_EMULATOR_FAIL";

/// A set, and the arguments that train half 1 of it on GPUs.
fn prepared(folder: &Path) -> Vec<String> {
    let set = phantom(folder, 40);
    let options = ["--device", "cuda", "--half", "1", "--gaussians", "50", "--epochs", "2"];
    train_arguments(&set, &path(folder, "run"), &options)
}

fn too_little_memory_is_refused_with_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = prepared(folder.path());
    let output = program_with(&arguments, &[("CRYOSPLAT_EMULATOR_MEMORY", "60000")]);
    expect_failure(&output, &["(device 0)", "50 Gaussians", "MiB", "--gaussians"]);
    assert!(!folder.path().join("run").exists(), "the run has not started");
    // Memory for the mixture and not for the particles, which are kept elsewhere.
    let limited = [("CRYOSPLAT_EMULATOR_MEMORY", "30000000")];
    let output = program_with(&arguments, &limited);
    assert!(output.status.success(), "{}", text(&output));
    let insisting = [&arguments[..], &["--cache".into(), "device".into(), "--overwrite".into()]].concat();
    expect_failure(&program_with(&insisting, &limited), &["no room for the 20 particles", "--cache"]);
}

fn failed_calls_are_reported() {
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
        assert!(contents(&folder.path().join("run")) == before, "{injected}: the older run is unchanged");
    }
    let fresh = tempfile::tempdir().unwrap();
    let fresh_cache = fresh.path().display().to_string();
    let output = program_with(&again, &[(FAIL, "compile"), ("XDG_CACHE_HOME", &fresh_cache)]);
    expect_failure(&output, &["NVRTC cannot compile the kernels", "--device cpu"]);
    // During training: earlier checkpoints are written, and no map.
    for kernel in ["moments", "adam", "draw"] {
        let injected = format!("launch:{kernel}:4");
        let output = program_with(&again, &[(FAIL, &injected)]);
        expect_failure(&output, &["(device 0)", "cannot", "CUDA_ERROR_LAUNCH_FAILED"]);
        assert!(!folder.path().join("run/half1.mrc").exists(), "{kernel}");
    }
    // Damaged files of the kernel cache are replaced.
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

fn ranks_do_not_wait_forever() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        [&prepared(folder.path())[..], &["--timeout", "3", "--overwrite"].map(String::from)].concat();
    // A rank that hangs: the others reach their timeout.
    let vanished = [FOUR[0], (FAIL, "nccl-vanish:1:4"), ("CRYOSPLAT_EMULATOR_FAIL_RANK", "1")];
    let output = over_mpi_with(4, &program_file(), &arguments, &vanished);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    let named = said.lines().any(|line| line.contains("rank 1 on ") && line.contains("3 s"));
    assert!(named && said.contains("while models are trained"), "{said}");
    // A rank that dies: the launcher or NCCL notices at once.
    let died = [FOUR[0], (FAIL, "nccl-die:1:4"), ("CRYOSPLAT_EMULATOR_FAIL_RANK", "1")];
    let output = over_mpi_with(4, &program_file(), &arguments, &died);
    assert!(!output.status.success(), "{}", text(&output));
    assert!(!folder.path().join("run/half1.mrc").exists());
}

fn a_stopped_rank_ends_the_job() {
    const SIGSTOP: i32 = 19;
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    for collective in ["nccl", "mpi"] {
        let run = path(folder.path(), collective);
        let options = ["--device", "cuda", "--half", "1", "--gaussians", "60", "--epochs", "200"];
        let more = ["--timeout", "3", "--collective", collective];
        let arguments = train_arguments(&set, &run, &[&options[..], &more].concat());
        let mut command = ranks_command(3, &program_file(), &arguments);
        command.env(FOUR[0].0, FOUR[0].1);
        let job = Job::start(command);
        wait_until("a checkpoint", || !checkpoints(&run).is_empty());
        send(SIGSTOP, rank_process(&children(job.id()), 1));
        let output = job.wait();
        let said = text(&output);
        let named = said
            .lines()
            .any(|line| line.contains("rank 1 on ") && line.contains("has given no sign of life for 3 s"));
        assert!(!output.status.success() && named, "{collective}: {said}");
    }
}

fn a_driver_that_cannot_start_is_named_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let demanded = [prepared(folder.path()), vec!["--overwrite".into()]].concat();
    let automatic: Vec<String> =
        demanded.iter().map(|word| if word == "cuda" { "auto".into() } else { word.clone() }).collect();
    for (code, remedy) in [
        ("34", "stubs"),
        ("802", "nvidia-fabricmanager"),
        ("803", "restart the node"),
        ("804", "compat"),
        ("999", "nvidia-smi"),
    ] {
        let environment = [("CRYOSPLAT_EMULATOR_INIT", code)];
        let said = format!("the GPU driver cannot start: error {code}, ");
        expect_failure(&program_with(&demanded, &environment), &[&said, remedy]);
        if code == "802" {
            let output = program_with(&automatic, &environment);
            let text = text(&output);
            assert!(output.status.success(), "{text}");
            let warned = |line: &str| line.contains(&said) && line.contains("all use the CPU device");
            assert!(text.lines().any(warned), "{text}");
        }
    }
}

fn without_gpus_auto_uses_the_cpu() {
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
    expect_failure(&program_with(&nccl, &[]), &["--collective nccl needs GPUs"]);
    let kept = with(&["--device", "cpu", "--cache", "device"]);
    expect_failure(&program_with(&kept, &[]), &["no room for the 20 particles"]);
}

/// Python packages and many modules install versioned names only.
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

/// If one rank sees no GPU, all use the CPU: replicas on both kinds of device would diverge.
fn ranks_with_and_without_gpus_all_use_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let with = |device: &str| {
        let options =
            ["--half", "1", "--gaussians", "50", "--epochs", "1", "--overwrite", "--device", device];
        train_arguments(&set, &run, &options)
    };
    // As by a launcher that binds GPUs to ranks incorrectly.
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
