//! `cryosplat-mpi check`: the page for one and several ranks, and with everything broken that it asks.

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{over_mpi, path, phantom, program, program_file, program_with, report_skipped, text};

/// The page, which must end with `code`, and its lines about `topic`.
fn page(output: &Output, code: i32) -> String {
    let said = text(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Whether `page` has a line that begins with `level` and `topic`, and has all `fragments`.
fn has(page: &str, level: &str, topic: &str, fragments: &[&str]) {
    let is = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some(level)
            && words.next() == Some(topic)
            && fragments.iter().all(|part| line.contains(part))
    };
    assert!(page.lines().any(|line| is(&line)), "no {level} about {topic} with {fragments:?}:\n{page}");
}

#[test]
fn one_rank_shows_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 30);
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    let (out, json) = (folder.path().display().to_string(), path(folder.path(), "check.json"));
    let said = page(&program(&["check", &set, "-o", &out, "--scratch", &out, "--json", &json]), 0);
    assert!(said.starts_with("cryosplat-mpi ") && said.contains("1 rank on 1 node"), "{said}");
    has(&said, "ok", "MPI", &["starts"]);
    has(&said, "ok", "outputs", &[&out, "GiB free", "files can be locked"]);
    has(
        &said,
        "ok",
        "particles",
        &["p.h5: 30 of 32 pixels of 4.000 A", "opened in", "MB/s", "fit the memory"],
    );
    assert!(said.trim_end().contains("0 problems"), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(document["ranks"].as_array().unwrap().len(), 1);
    assert_eq!(document["ranks"][0]["particles"][1]["Ok"]["count"], 30);
    assert!(document["findings"].as_array().unwrap().len() > 5);
    // It leaves nothing behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files + 1);
}

#[test]
fn all_ranks_are_on_the_page() {
    let said = page(&over_mpi(3, &program_file(), &["check".to_owned()]), 0);
    assert!(said.contains("3 ranks on 1 node"), "{said}");
    has(&said, "ok", "MPI", &["all 3 ranks see each other"]);
    for rank in ["   0  ", "   1  ", "   2  "] {
        assert_eq!(said.lines().filter(|line| line.starts_with(rank)).count(), 1, "{said}");
    }
}

#[test]
fn what_is_broken_is_a_problem_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let set = path(folder.path(), "p.h5");
    std::fs::write(&set, b"no particles").unwrap();
    let said = page(&program(&["check", &set, "-o", "/proc", "--scratch", "/none"]), 1);
    has(&said, "problem", "particles", &["p.h5"]);
    has(&said, "problem", "outputs", &["/proc: cannot be written", "-o"]);
    has(&said, "warning", "scratch", &["/none: cannot be written", "--scratch"]);
    assert!(said.contains("2 problems"), "{said}");
}

/// Builds a driver of the GPU that ends the process when it is initialised; `None` without a compiler.
fn driver_that_crashes(folder: &Path) -> Option<String> {
    let source = folder.join("driver.c");
    std::fs::write(&source, "#include <stdlib.h>\nint cuInit(unsigned flags) { abort(); }\nint cuDriverGetVersion(int *v) { *v = 12040; return 0; }\n").unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(folder.join("libcuda.so.1")).arg(&source);
    let library = folder.join("libcuda.so");
    if !compile.status().is_ok_and(|status| status.success()) {
        report_skipped("there is no C compiler");
        return None;
    }
    std::fs::copy(folder.join("libcuda.so.1"), library).unwrap();
    Some(folder.display().to_string())
}

#[test]
fn a_driver_that_crashes_does_not_end_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let Some(libraries) = driver_that_crashes(folder.path()) else { return };
    let said = page(&program_with(&["check"], &[("LD_LIBRARY_PATH", &libraries)]), 1);
    has(&said, "problem", "GPUs", &["do not answer", "signal: 6", "--device cpu"]);
    has(&said, "ok", "MPI", &[]);
}

#[test]
fn the_time_limit_of_a_job_is_shown() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (seconds, level) in [(7200, "ok"), (300, "warning")] {
        let end = (now + seconds).to_string();
        let job = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_END_TIME", &end)];
        has(&page(&program_with(&["check"], &job), 0), level, "job", &["end"]);
    }
    // The scheduler is asked where the variable is missing; here it is a script.
    let folder = tempfile::tempdir().unwrap();
    let squeue = folder.path().join("squeue");
    for (answer, level, fragment) in [
        ("echo 1-02:00:00", "ok", "26 h"),
        ("echo INVALID", "warning", "not known"),
        ("echo no such job >&2; exit 1", "warning", "no such job"),
    ] {
        std::fs::write(&squeue, format!("#!/bin/sh\n{answer}\n")).unwrap();
        std::fs::set_permissions(&squeue, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let search = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let job = [("SLURM_JOB_ID", "7"), ("PATH", search.as_str())];
        has(&page(&program_with(&["check"], &job), 0), level, "job", &[fragment]);
    }
}
