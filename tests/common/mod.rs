//! Helpers of the integration tests: running the program, alone and over MPI.

// Each test file is a separate crate and uses only some of these.
#![allow(dead_code)]

pub mod jobs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryosplat_mpi::gmm::{Gmm, Shape, ply};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Block, Store};
use hdf5::H5Type;
use ndarray::{Array2, s};

/// Environment variable with the path of the program; needed by a test program that was copied to another machine.
const PROGRAM: &str = "CRYOSPLAT_TEST_PROGRAM";
/// Environment variable with the folder of the reference data.
const SHARED: &str = "CRYOSPLAT_TEST_SHARED";
/// Names the file that lists skipped tests, one per line.
const SKIPPED: &str = "CRYOSPLAT_TEST_SKIPPED";

/// Path of `cryosplat-mpi`: `CRYOSPLAT_TEST_PROGRAM`, or cargo's build.
pub fn program_file() -> String {
    std::env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_cryosplat-mpi").to_owned())
}

/// Locked while an HDF5 file is open in this process, and while a program starts: a program started by another test meanwhile
/// would inherit the file and hold its lock.
static HDF5: Mutex<()> = Mutex::new(());

/// Lock to hold while a test has an HDF5 file open that a program opens later.
pub fn alone() -> MutexGuard<'static, ()> {
    HDF5.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `command` and returns its output.
fn output(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _alone = alone();
        command.spawn()?
    };
    child.wait_with_output()
}

/// Runs `cryosplat-mpi` with `arguments`.
pub fn program<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    program_with(arguments, &[])
}

/// [`program`] with `environment` set.
pub fn program_with<S: AsRef<std::ffi::OsStr>>(arguments: &[S], environment: &[(&str, &str)]) -> Output {
    output(Command::new(program_file()).args(arguments).envs(environment.iter().copied()))
        .expect("the program was built with the tests")
}

/// Standard output and error as one text.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs the program, which must succeed. Returns its output.
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

/// Checks an output as [`fail`] does.
pub fn expect_failure(output: &Output, fragments: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        said.lines().any(|line| fragments.iter().all(|fragment| line.contains(fragment))),
        "no line with all of {fragments:?} in:\n{said}"
    );
}

/// Reference data in `CRYOSPLAT_TEST_SHARED` or beside the project: `shared("golden/golden_small.h5")`. `None` where it does not
/// exist: the test then returns, and counts as skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(SHARED)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let file = folder.join(path);
    if file.exists() {
        return Some(file);
    }
    report_skipped(&format!("{} does not exist", file.display()));
    None
}

/// Reports that this test checks nothing, for the closing line of `make test`: cargo knows only passed and failed tests.
pub fn report_skipped(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let Some(file) = std::env::var_os(SKIPPED) else {
        eprintln!("skipped: {test}: {reason}");
        return;
    };
    let mut open = std::fs::OpenOptions::new();
    let mut file = open.create(true).append(true).open(file).expect("the list of skipped tests");
    // One test may miss several files: it is counted once per process.
    file.write_all(format!("{}\t{test}\t{reason}\n", std::process::id()).as_bytes()).unwrap();
}

/// Changes all values of a data set of the file.
pub fn edit<T: H5Type + Clone>(set: &str, name: &str, change: impl FnOnce(&mut Vec<T>)) {
    let _alone = alone();
    let file = hdf5::File::open_rw(set).unwrap();
    let data = file.dataset(name).unwrap();
    let mut values: Vec<T> = data.read_raw().unwrap();
    change(&mut values);
    data.write_raw(&values).unwrap();
    file.close().unwrap();
}

/// A path as text, for arguments.
pub fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// All particles of a set with their images, all of which must be valid.
pub fn whole(store: &Store) -> Block {
    let mut block = Block::default();
    store.reader().read(store.rows(Subset::All), &mut block).unwrap();
    assert_eq!(block.defects, []);
    block
}

/// Changes the image in `row` of a set (stored in 32 bits), and updates its checksum and energy.
pub fn change_image(set: &str, row: usize, change: impl FnOnce(&mut [f32])) {
    let _alone = alone();
    let file = hdf5::File::open_rw(set).unwrap();
    let images = file.dataset("images").unwrap();
    let mut image: Array2<f32> = images.read_slice(s![row, .., ..]).unwrap();
    change(image.as_slice_mut().unwrap());
    let bytes: Vec<u8> = image.iter().flat_map(|value| value.to_le_bytes()).collect();
    images.write_slice(&image, s![row, .., ..]).unwrap();
    let checksums = file.dataset("source/checksum").unwrap();
    checksums.write_slice(&[crc32fast::hash(&bytes)], s![row..row + 1]).unwrap();
    let energies = file.dataset("source/energy").unwrap();
    let energy = cryosplat_mpi::imaging::energy(image.as_slice().unwrap());
    energies.write_slice(&[energy], s![row..row + 1]).unwrap();
    file.close().unwrap();
}

/// Sets a CTF that overflows in row `row` of a set.
pub fn overflow(set: &str, row: usize) {
    change_ctf(set, row, "b_factor", -1e9);
}

/// Sets the CTF parameter `name` in row `row` of a set.
pub fn change_ctf(set: &str, row: usize, name: &str, value: f64) {
    let _alone = alone();
    let file = hdf5::File::open_rw(set).unwrap();
    file.dataset(&format!("ctf/{name}")).unwrap().write_slice(&[value], s![row..row + 1]).unwrap();
    file.close().unwrap();
}

/// Makes a mixture so bright in `folder`, and a CTF in row `row` of `set` so strong, that the loss of this particle alone is not
/// finite; the mixture's file, and options to train from it.
pub fn start_that_overflows(folder: &Path, set: &str, row: usize) -> (String, [&'static str; 6]) {
    change_ctf(set, row, "scale", 9e11);
    // Mean, raw scales, quaternion, raw amplitude.
    let values = vec![0.0, 0.0, 0.0, -2.5, -2.5, -2.5, 1.0, 0.0, 0.0, 0.0, 1e15];
    let file = folder.join("bright.ply");
    ply::write(&Gmm::from_values(Shape::Anisotropic, 1, values), Symmetry::C1, &file).unwrap();
    (file.display().to_string(), ["--batch", "4", "--epochs", "2", "--learning-rate", "1e-6"])
}

/// Changes one byte of the image in row `row` of a set, as a failing disk does.
pub fn corrupt(set: &str, row: usize) {
    let _alone = alone();
    let file = hdf5::File::open(set).unwrap();
    let offset = file.dataset("images").unwrap().offset().unwrap();
    file.close().unwrap();
    let mut bytes = std::fs::read(set).unwrap();
    bytes[offset as usize + row * BOX * BOX * 4 + 100] ^= 0x40;
    std::fs::write(set, bytes).unwrap();
}

/// Box size of the sets of [`phantom`], in pixels.
pub const BOX: usize = 32;
/// Pixel size of the sets of [`phantom`], in angstrom.
pub const PIXEL_SIZE: f64 = 4.0;

/// Simulates `particles` images of the phantom to p.h5 in `folder`, with the true map in p_truth.mrc. Returns the path of the set.
pub fn phantom(folder: &Path, particles: usize) -> String {
    let set = path(folder, "p.h5");
    let (box_size, pixel_size) = (BOX.to_string(), PIXEL_SIZE.to_string());
    let count = particles.to_string();
    succeed(&[
        "simulate",
        "--phantom",
        "-o",
        &set,
        "--box",
        &box_size,
        "--pixel-size",
        &pixel_size,
        "-n",
        &count,
        "--snr",
        "1",
        "--seed",
        "3",
    ]);
    set
}

/// Arguments of `train SET -o RUN` with `options`; by default on the CPU device with one thread per rank.
pub fn train_arguments(set: &str, run: &str, options: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train", set, "-o", run];
    if !options.contains(&"--threads") {
        arguments.extend(["--threads", "1"]);
    }
    if !options.contains(&"--device") {
        arguments.extend(["--device", "cpu"]);
    }
    arguments.extend(options);
    // A test that wants it runs `diagnose`, or train without this.
    if !options.contains(&"--no-diagnosis") {
        arguments.push("--no-diagnosis");
    }
    arguments.into_iter().map(str::to_owned).collect()
}

/// Runs `program` on `ranks` MPI ranks of this machine. A time limit turns a hang into a failure.
pub fn over_mpi(ranks: usize, program: &str, arguments: &[String]) -> Output {
    over_mpi_with(ranks, program, arguments, &[])
}

/// [`over_mpi`] with `environment` set.
pub fn over_mpi_with(
    ranks: usize,
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
) -> Output {
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        "60",
        "mpirun",
        "--allow-run-as-root",
        "--oversubscribe",
        "--bind-to",
        "none",
    ]);
    command.args(["-n", &ranks.to_string(), program]).args(arguments);
    // Without this, mpirun sometimes hangs on a loaded machine while it collects the messages of aborted ranks.
    command.env("OMPI_MCA_orte_base_help_aggregate", "0");
    command.envs(environment.iter().copied());
    let started = std::time::Instant::now();
    let output = output(&mut command).expect("mpirun and timeout are installed");
    // mpirun also returns 137 when a rank was killed.
    let hangs = match output.status.code() {
        Some(124) => true,
        Some(137) => started.elapsed().as_secs() >= 60,
        _ => false,
    };
    assert!(!hangs, "hangs:\n{}", text(&output));
    output
}

/// The command that runs `program` on `ranks` ranks of this machine; without a launcher for one rank.
pub fn ranks_command(ranks: usize, program: &str, arguments: &[String]) -> Command {
    if ranks == 1 {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    }
    let mut command = Command::new("mpirun");
    command.args([
        "--allow-run-as-root",
        "--oversubscribe",
        "--bind-to",
        "none",
        "-n",
        &ranks.to_string(),
        program,
    ]);
    command.args(arguments).env("OMPI_MCA_orte_base_help_aggregate", "0");
    command
}

/// [`over_mpi`] for `cryosplat-mpi`, which must succeed. Returns its output.
pub fn ranks_succeed(ranks: usize, arguments: &[String]) -> String {
    let output = over_mpi(ranks, &program_file(), arguments);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Content of a file of a run folder.
pub fn bytes(run: &str, name: &str) -> Vec<u8> {
    let file = Path::new(run).join(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Content of all files in a folder and its subfolders, by relative path.
pub fn contents(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut all = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

/// The step records of a run's metrics, by model, without times: input, seed, ranks and device determine them.
pub fn steps(run: &str) -> Vec<serde_json::Value> {
    const DECIDED: [&str; 7] = ["model", "step", "epoch", "loss", "gradient_norm", "rate", "images"];
    let mut lines = Vec::new();
    for model in ["half1", "half2", "map"] {
        let Ok(text) = std::fs::read_to_string(Path::new(run).join(format!("metrics_{model}.jsonl"))) else {
            continue;
        };
        for line in text.lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line.get("loss").is_some() {
                line.as_object_mut().unwrap().retain(|key, _| DECIDED.contains(&key.as_str()));
                lines.push(line);
            }
        }
    }
    assert!(!lines.is_empty(), "{run} has no metrics");
    lines
}

/// Asserts that two runs have equal files `names` and equal metrics, apart from times.
pub fn assert_same(names: &[&str], run: &str, other: &str, what: &str) {
    for name in names {
        assert!(bytes(run, name) == bytes(other, name), "{what}: {name} differs");
    }
    assert!(steps(run) == steps(other), "{what}: the metrics differ");
    assert_eq!(epoch_losses(run), epoch_losses(other), "{what}");
}

/// Model, number and loss of each epoch in the metrics of a run.
pub fn epoch_losses(run: &str) -> Vec<(String, u64, f64)> {
    let mut losses = Vec::new();
    for model in ["half1", "half2", "map"] {
        let text = std::fs::read_to_string(Path::new(run).join(format!("metrics_{model}.jsonl")));
        for line in text.unwrap_or_default().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(summary) = line.get("summary") {
                let (epoch, loss) = (summary["epoch"].as_u64().unwrap(), summary["loss"].as_f64().unwrap());
                losses.push((model.to_owned(), epoch, loss));
            }
        }
    }
    losses
}

/// Turns a finished run into one that was interrupted before the last checkpoint of `model`.
pub fn undo(run: &str, model: &str) {
    let checkpoints = Path::new(run).join("checkpoints");
    let mut names: Vec<String> = contents(&checkpoints).into_keys().collect();
    names.retain(|name| name.starts_with(model));
    std::fs::remove_file(checkpoints.join(names.last().unwrap())).unwrap();
    std::fs::write(Path::new(run).join("run.json"), r#"{"state":"training"}"#).unwrap();
}
