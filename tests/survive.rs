//! Robustness of a run: SIGKILL at any moment, signals of the scheduler, another number of ranks, a full disk.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::jobs::{Job, alone, checkpoints, children, send, wait_until};
use common::{
    assert_same, bytes, contents, expect_failure, path, phantom, program_file, ranks_command, ranks_succeed,
    steps, succeed, text, train_arguments, undo,
};
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::run_folder::checkpoint::Checkpoint;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// The files whose bytes depend only on the input, the seed and the number of ranks.
const RESULTS: [&str; 6] = ["half1.mrc", "half2.mrc", "map.mrc", "fsc.csv", "gmm_half1.ply", "gmm_half2.ply"];
/// Checkpoints as often as possible, also within epochs.
const OFTEN: [&str; 2] = ["--checkpoint-minutes", "0.0005"];
const SIGKILL: i32 = 9;
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

/// Kills a run at random moments and resumes it each time until it ends; repeats this in new folders until it is killed `times`
/// times.
fn kill_and_resume(times: usize, ranks: usize) {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 200);
    let options = ["--gaussians", "300", "--epochs", "30", "--mixtures", "4", "--metrics-every", "1"];
    let often = [&options[..], &OFTEN, &["--resume", "auto"]].concat();
    let whole = path(folder.path(), "whole");
    let arguments = |run: &str, options: &[&str]| train_arguments(&set, run, options);
    let command = |run: &str| ranks_command(ranks, &program_file(), &arguments(run, &often));
    ranks_succeed(ranks, &arguments(&whole, &options));

    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let (mut killed, mut resumed, mut ended) = (0, 0, 0);
    while killed < times || ended == 0 {
        let run = path(folder.path(), &format!("run {ended}"));
        let before = checkpoints(&run);
        let mut child = Job::start(command(&run));
        if killed < times {
            // One in four at any time after the start; the others after a new checkpoint, so that the run makes progress.
            let limit = if random.random_range(0..4) == 0 { 500 } else { 60_000 };
            let deadline =
                Instant::now() + Duration::from_millis(random.random_range(5..=limit).max(limit / 100));
            while Instant::now() < deadline && checkpoints(&run) == before && child.runs() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(random.random_range(0..100_000)));
            let victims = if ranks == 1 { vec![child.id()] } else { children(child.id()) };
            if let Some(&victim) = victims.get(random.random_range(0..victims.len().max(1))) {
                send(SIGKILL, victim);
            }
        }
        let output = child.wait();
        resumed += usize::from(text(&output).contains("resuming after"));
        if output.status.success() {
            assert_same(&RESULTS, &whole, &run, &format!("after {killed} kills"));
            let names = |run: &str| contents(Path::new(run)).into_keys().collect::<Vec<_>>();
            let of_checkpoint = |name: &String| name.starts_with("checkpoints/");
            let (mut left, mut wanted) = (names(&run), names(&whole));
            left.retain(|name| !of_checkpoint(name));
            wanted.retain(|name| !of_checkpoint(name));
            assert_eq!(left, wanted, "no temporary files are left");
            ended += 1;
        } else {
            let said = text(&output);
            assert!(!said.contains("panicked") && !said.contains("corrupt"), "{said}");
            killed += 1;
        }
    }
    println!("{ranks} ranks: {killed} kills, {resumed} resumed, {ended} runs with the same bytes");
    assert!(
        resumed > times / 4,
        "{resumed} of {killed} were resumed: the kills came too early to test resuming"
    );
}

#[test]
fn a_run_killed_at_random_moments_resumes_to_the_same_bits() {
    let times = std::env::var("CRYOSPLAT_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    kill_and_resume(times * 7 / 10, 1);
    kill_and_resume(times - times * 7 / 10, 2);
}

#[test]
fn a_signal_stops_all_ranks_and_the_run_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    // Long epochs, so that the checkpoints are within them.
    let options = ["--gaussians", "500", "--epochs", "60", "--mixtures", "2", "--metrics-every", "1"];
    let options = [&options[..], &["--checkpoint-minutes", "0"]].concat();
    for (ranks, signal, rank) in [(1, SIGTERM, 0), (2, SIGUSR1, 1), (4, SIGTERM, 3), (3, SIGUSR1, 0)] {
        let [whole, run] = ["whole", "run"].map(|name| path(folder.path(), &format!("{name} {ranks}")));
        ranks_succeed(ranks, &train_arguments(&set, &whole, &options));
        let child = Job::start(ranks_command(ranks, &program_file(), &train_arguments(&set, &run, &options)));
        wait_until("a checkpoint", || !checkpoints(&run).is_empty());
        let processes = if ranks == 1 { vec![child.id()] } else { children(child.id()) };
        assert_eq!(processes.len(), ranks);
        send(signal, processes[rank]);
        let output = child.wait();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(75), "{ranks} ranks: {said}");
        assert!(said.contains("checkpoints are written") && said.contains("--resume auto"), "{said}");
        assert!(!Path::new(&run).join("map.mrc").exists());
        let json: Value = serde_json::from_slice(&bytes(&run, "run.json")).unwrap();
        assert_eq!(json["state"], "stopped");
        let said = ranks_succeed(
            ranks,
            &train_arguments(&set, &run, &[&options[..], &["--resume", "auto"]].concat()),
        );
        assert!(said.contains("resuming after step"), "{said}");
        assert_same(&RESULTS, &whole, &run, &format!("{ranks} ranks, stopped and resumed"));
        // Resuming a finished run does nothing.
        let before = contents(Path::new(&run));
        let said = ranks_succeed(
            ranks,
            &train_arguments(&set, &run, &[&options[..], &["--resume", "auto"]].concat()),
        );
        assert!(said.contains("is done: nothing is left to do"), "{said}");
        assert!(contents(Path::new(&run)) == before);
    }
}

#[test]
fn resuming_within_an_epoch_or_from_an_older_checkpoint_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 160);
    let options = ["--gaussians", "100", "--epochs", "3", "--metrics-every", "1", "--batch", "4"];
    let (whole, run) = (path(folder.path(), "whole"), path(folder.path(), "run"));
    succeed(&train_arguments(&set, &whole, &options));
    // A checkpoint at every opportunity.
    let every = [&options[..], &["--checkpoint-minutes", "1e-9"]].concat();
    succeed(&train_arguments(&set, &run, &every));
    assert_same(&RESULTS, &whole, &run, "checkpoints change nothing");
    for _ in 0..3 {
        undo(&run, "half2");
        let again = [&options[..], &["--resume"]].concat();
        let said = succeed(&train_arguments(&set, &run, &again));
        assert!(said.contains("resuming after step 60 of half1 and step "), "{said}");
        assert_same(&RESULTS, &whole, &run, "resumed");
    }
    // A damaged checkpoint is reported, and the one before it is used.
    undo(&run, "half1");
    let newest = Path::new(&run).join("checkpoints/half2_step000000060.h5");
    let sound = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &sound[..sound.len() / 2]).unwrap();
    let said = succeed(&train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert!(
        said.contains("half2_step000000060.h5") && said.contains("resuming from the one before it"),
        "{said}"
    );
    assert_same(&RESULTS, &whole, &run, "resumed past a damaged checkpoint");
}

#[test]
fn resuming_on_another_number_of_ranks_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    let options = [
        "--gaussians",
        "100",
        "--epochs",
        "6",
        "--metrics-every",
        "1",
        "--learning-rate",
        "8e-4",
        "--half",
        "1",
    ];
    let (whole, run) = (path(folder.path(), "whole"), path(folder.path(), "run"));
    ranks_succeed(2, &train_arguments(&set, &whole, &options));
    ranks_succeed(2, &train_arguments(&set, &run, &options));
    undo(&run, "half1");
    let said = ranks_succeed(4, &train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert!(said.contains("used 2 ranks for half1 before and now uses 4"), "{said}");
    let values =
        |run: &str| GmmFile::read(&Path::new(run).join("gmm_half1.h5")).unwrap().gmm.values().to_vec();
    let (one, two) = (values(&whole), values(&run));
    let off = one.iter().zip(&two).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let size = one.iter().map(|&a| f64::from(a).powi(2)).sum::<f64>().sqrt();
    assert!(off < 1e-4 * size, "{off:e} of {size}");
    let steps_of = |run: &str| steps(run).iter().map(|line| line["step"].clone()).collect::<Vec<_>>();
    assert_eq!(steps_of(&whole), steps_of(&run), "no step is missing, and none comes twice");
}

/// Limits files that `process` writes to `bytes`, as on a full disk.
fn limit(process: u32, bytes: usize) {
    let pid = process.to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:{bytes}")]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_full_disk_is_reported_and_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 300);
    let options = ["--gaussians", "600", "--epochs", "20", "--metrics-every", "1"];
    let (whole, run) = (path(folder.path(), "whole"), path(folder.path(), "run"));
    succeed(&train_arguments(&set, &whole, &options));
    // A checkpoint takes 80 kB, a map 130 kB, the log less: after its first checkpoint the run can write neither.
    let run_on_full_disk = |options: &[&str], before: &[String]| {
        let child =
            Job::start(alone(&train_arguments(&set, &run, &[options, &["--resume", "auto"]].concat())));
        wait_until("a checkpoint", || checkpoints(&run) != before);
        limit(child.id(), 70_000);
        let kept = checkpoints(&run);
        let output = child.wait();
        let said = text(&output);
        expect_failure(&output, &["half1.mrc", "cannot write", "disk is not full"]);
        assert!(
            said.contains("NO CHECKPOINT of half1 after step") && said.contains("Training continues"),
            "{said}"
        );
        for name in kept.iter().rev().take(2) {
            Checkpoint::read(&Path::new(&run).join("checkpoints").join(name)).unwrap();
        }
        assert!(!Path::new(&run).join("half1.mrc").exists() && !Path::new(&run).join("map.mrc").exists());
    };
    run_on_full_disk(&options, &[]);
    run_on_full_disk(&options, &checkpoints(&run));
    let said = succeed(&train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert!(said.contains("resuming"), "{said}");
    assert_same(&RESULTS, &whole, &run, "resumed with room on the disk");
}

#[test]
fn a_run_without_its_checkpoint_folder_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 100);
    let run = path(folder.path(), "run");
    let options = ["--gaussians", "500", "--epochs", "40", "--metrics-every", "1"];
    let child = Job::start(alone(&train_arguments(&set, &run, &options)));
    wait_until("a checkpoint", || !checkpoints(&run).is_empty());
    let (checkpoints, aside) = (Path::new(&run).join("checkpoints"), folder.path().join("aside"));
    std::fs::rename(&checkpoints, &aside).unwrap();
    std::fs::write(&checkpoints, "not a folder").unwrap();
    let kept: Vec<String> = contents(&aside).into_keys().filter(|name| !name.starts_with('.')).collect();
    let output = child.wait();
    let said = text(&output);
    assert!(output.status.success() && said.contains("NO CHECKPOINT of"), "{said}");
    assert!(Path::new(&run).join("map.mrc").exists());
    for name in kept {
        Checkpoint::read(&aside.join(name)).unwrap();
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let mut command = alone(&train_arguments(&set, &run, &["--gaussians", "50", "--epochs", "2"]));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = command.stdout(Stdio::null()).stderr(full).status().unwrap();
    assert!(status.success() && Path::new(&run).join("map.mrc").exists(), "{status}");
}
