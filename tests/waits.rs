//! Ranks that wait in vain: a stopped rank ends the job, a suspended job goes on, and signals are heard wherever a rank is.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::jobs::{Job, alone, checkpoints, children, rank_process, send, wait_until};
use common::{
    assert_same, contents, over_mpi, path, phantom, program_file, ranks_command, ranks_succeed, text,
    train_arguments,
};
use cryosplat_mpi::parallel::World;

const SIGCONT: i32 = 18;
const SIGINT: i32 = 2;
const SIGSTOP: i32 = 19;
const SIGTERM: i32 = 15;

/// Long epochs, whose checkpoints show that steps are under way.
const OPTIONS: [&str; 6] = ["--gaussians", "400", "--epochs", "40", "--mixtures", "2"];
const RESULTS: [&str; 3] = ["half1.mrc", "map.mrc", "fsc.csv"];

/// Starts a run on `ranks` ranks, and waits for its first checkpoint.
fn training(set: &str, run: &str, ranks: usize, options: &[&str]) -> (Job, Vec<u32>) {
    let arguments = train_arguments(set, run, &[&OPTIONS, options].concat());
    let job = Job::start(ranks_command(ranks, &program_file(), &arguments));
    wait_until("a checkpoint", || !checkpoints(run).is_empty());
    let processes = children(job.id());
    assert_eq!(processes.len(), ranks);
    (job, processes)
}

#[test]
fn a_stopped_rank_ends_the_job_within_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    let host = World::host();
    for (ranks, stopped) in [(3, 2), (2, 0), (4, 1)] {
        let run = path(folder.path(), &format!("run {ranks}"));
        let (job, processes) = training(&set, &run, ranks, &["--timeout", "3"]);
        let process = rank_process(&processes, stopped);
        send(SIGSTOP, process);
        let started = Instant::now();
        let output = job.wait();
        let (said, took) = (text(&output), started.elapsed());
        assert!(!output.status.success(), "{said}");
        let wanted = format!("rank {stopped} on {host} has given no sign of life for 3 s");
        let line = said.lines().find(|line| line.contains(&wanted));
        let line = line.unwrap_or_else(|| panic!("no line with {wanted:?} after {took:?}:\n{said}"));
        let waiting = (0..ranks).filter(|&rank| rank != stopped).all(|rank| {
            line.contains(&format!("rank {rank} on {host} wait"))
                || line.contains(&format!("rank {rank} on {host},"))
                || line.contains(&format!("rank {rank} on {host} and"))
        });
        assert!(waiting && line.contains("while models are trained"), "{line}");
        // What was saved before is whole.
        let left = contents(&Path::new(&run).join("checkpoints"));
        assert!(left.keys().any(|name| name.ends_with(".h5") && !name.starts_with('.')), "{:?}", left.keys());
    }
}

#[test]
fn a_job_that_was_suspended_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    let [whole, run] = ["whole", "run"].map(|name| path(folder.path(), name));
    let options = [&OPTIONS[..], &["--metrics-every", "1"]].concat();
    ranks_succeed(2, &train_arguments(&set, &whole, &options));
    let (job, processes) = training(&set, &run, 2, &["--timeout", "4", "--metrics-every", "1"]);
    processes.iter().for_each(|&process| send(SIGSTOP, process));
    // Longer than the timeout.
    std::thread::sleep(Duration::from_secs(6));
    processes.iter().for_each(|&process| send(SIGCONT, process));
    let output = job.wait();
    assert!(output.status.success(), "{}", text(&output));
    assert_same(&RESULTS, &whole, &run, "suspended");
}

#[test]
fn a_signal_before_the_first_step_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 600);
    for ranks in [1, 2] {
        let run = path(folder.path(), &format!("run {ranks}"));
        let arguments = train_arguments(&set, &run, &OPTIONS);
        let job = Job::start(ranks_command(ranks, &program_file(), &arguments));
        let process = if ranks == 1 {
            job.id()
        } else {
            wait_until("the ranks", || children(job.id()).len() == ranks);
            children(job.id())[0]
        };
        // Its handlers are installed.
        wait_until("its handlers", || catches(process, SIGTERM));
        send(SIGTERM, process);
        let output = job.wait();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(75), "{said}");
        // On a fast machine the first step may have come before the signal was seen.
        let none = said.contains("before the first step: no checkpoint is written");
        assert!(none || said.contains("checkpoints are written"), "{said}");
        assert_eq!(checkpoints(&run).is_empty(), none, "{said}");
    }
}

/// Whether `process` has a handler for `signal`.
fn catches(process: u32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[test]
fn each_line_of_another_rank_names_it_and_its_host() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let options = ["--gaussians", "50", "--epochs", "1", "--log-all-ranks"];
    let said = ranks_succeed(2, &train_arguments(&set, &path(folder.path(), "run"), &options));
    let name = format!(" s rank 1 on {}  INFO ", World::host());
    assert!(said.contains(&name) && !said.contains("rank 0 on"), "{said}");
}

#[test]
fn ctrl_c_writes_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    let run = path(folder.path(), "run");
    let job = Job::start(alone(&train_arguments(&set, &run, &OPTIONS)));
    wait_until("a checkpoint", || !checkpoints(&run).is_empty());
    send(SIGINT, job.id());
    let output = job.wait();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("checkpoints are written"), "{said}");
}

#[test]
fn a_command_of_one_process_refuses_a_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let set = path(folder.path(), "p.h5");
    let arguments = ["simulate", "--phantom", "-o", &set, "--box", "32", "--pixel-size", "4", "-n", "10"];
    let arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    let output = over_mpi(3, &program_file(), &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(text(&output).matches("runs in one process").count(), 1, "{}", text(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let output = over_mpi(1, &program_file(), &arguments);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_signal_after_the_training_leaves_out_the_diagnosis() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 400);
    let run = path(folder.path(), "run");
    let mut arguments =
        train_arguments(&set, &run, &["--gaussians", "50", "--epochs", "1", "--mixtures", "1"]);
    arguments.retain(|argument| argument != "--no-diagnosis");
    let job = Job::start(alone(&arguments));
    let log = Path::new(&run).join("log.txt");
    let said_so = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("the run is diagnosed"));
    wait_until("a diagnosis", said_so);
    send(SIGTERM, job.id());
    let output = job.wait();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in ["SIGTERM: the training is over", "the diagnosis was stopped; cryosplat-mpi diagnose "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let names = contents(Path::new(&run));
    assert!(names.contains_key("report.html") && !names.contains_key("diagnosis.json"), "{:?}", names.keys());
    assert!(std::fs::read_to_string(Path::new(&run).join("run.json")).unwrap().contains("\"done\""));
}
