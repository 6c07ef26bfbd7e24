//! What the integration tests share: running the program, alone and over MPI.

// Every test file is a crate of its own and uses only some of these.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs `cryosplat-mpi` with `arguments`.
pub fn program<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cryosplat-mpi"))
        .args(arguments)
        .output()
        .expect("the program was built with the tests")
}

/// Standard output and error as one text.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs the program and fails the test if it fails; returns what it printed.
pub fn succeed<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let output = program(arguments);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Runs the program and expects a failure (exit code 1, no panic) whose log has ONE line with all `fragments`.
pub fn fail<S: AsRef<std::ffi::OsStr>>(arguments: &[S], fragments: &[&str]) {
    let output = program(arguments);
    expect_failure(&output, fragments);
}

/// The judgement of [`fail`], for an output that is already there.
pub fn expect_failure(output: &Output, fragments: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        said.lines().any(|line| fragments.iter().all(|fragment| line.contains(fragment))),
        "no line with all of {fragments:?} in:\n{said}"
    );
}

/// Reference data beside the project, where it is there: `shared("golden/golden_small.h5")`.
pub fn shared(path: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    file.exists().then_some(file)
}
