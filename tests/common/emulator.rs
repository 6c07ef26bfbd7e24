//! Starts programs under the emulator of tests/emulator, whose stand-ins for the CUDA libraries come first in the search path.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in processes that run under the emulator.
const ENTERED: &str = "CRYOSPLAT_EMULATED";
/// Set to 1 to build the emulator with sanitizers.
const SANITIZE: &str = "CRYOSPLAT_EMULATOR_SANITIZE";

/// Behaviour that a real device permits but rarely shows: blocks and threads in any order, slow streams. Leaked resources fail the
/// program.
const HARSH: [(&str, &str); 3] = [
    ("CRYOSPLAT_EMULATOR_ORDER", "shuffle"),
    ("CRYOSPLAT_EMULATOR_JITTER", "30"),
    ("CRYOSPLAT_EMULATOR_STRICT", "1"),
];

/// True if this process runs under the emulator.
pub fn entered() -> bool {
    std::env::var_os(ENTERED).is_some()
}

/// True if the emulator has sanitizers.
pub fn sanitized() -> bool {
    std::env::var_os(SANITIZE).is_some_and(|value| value == "1")
}

/// Builds the emulator and restarts this program under it, since the library path is read at process start. Does not return.
pub fn enter() -> ! {
    let program = std::env::current_exe().expect("this program is a file");
    let error = Command::new(program).args(std::env::args_os().skip(1)).envs(environment()).exec();
    panic!("this program cannot start itself: {error}");
}

/// Builds the emulator if needed, and returns the environment of programs under it.
fn environment() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join(if sanitized() { "emulator-sanitized" } else { "emulator" });
    let mut build = Command::new(root.join("tests/emulator/build.sh"));
    build.arg(&folder);
    if sanitized() {
        build.arg("--sanitize");
    }
    let output = build.output().expect("tests/emulator/build.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = folder.join("environment");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let set = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain([
            // The user's kernel cache may contain kernels of real devices.
            set("XDG_CACHE_HOME", &folder.join("cache")),
            (ENTERED.to_owned(), "1".to_owned()),
        ])
        .chain(HARSH.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}
