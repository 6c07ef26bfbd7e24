//! Runs that are interrupted by hand, that go on after their end, and what they leave for the next program.

mod common;

use std::fs;
use std::path::Path;

use common::jobs::{Job, alone, checkpoints, send, wait_until};
use common::{
    assert_same, bytes, expect_failure, path, phantom, program, program_file, ranks_command, ranks_succeed,
    succeed, text, train_arguments,
};

const SIGINT: i32 = 2;

fn read(run: &str, name: &str) -> String {
    fs::read_to_string(Path::new(run).join(name)).unwrap()
}

#[test]
fn the_first_ctrl_c_names_the_command_that_continues_and_the_second_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 120);
    let run = path(folder.path(), "run");
    let options = ["--gaussians", "500", "--epochs", "100000", "--checkpoint-minutes", "0.0005"];
    let job = Job::start(alone(&train_arguments(&set, &run, &options)));
    wait_until("a checkpoint", || !checkpoints(&run).is_empty());
    send(SIGINT, job.id());
    let output = job.wait();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("Ctrl-C: training stops at the next step"), "{said}");
    let command = said.lines().find(|line| line.contains("--checkpoint-minutes")).unwrap();
    assert!(command.ends_with(" --resume auto") && command.contains(&set), "{command}");

    let resumed = [&options[..], &["--resume", "auto"]].concat();
    let job = Job::start(alone(&train_arguments(&set, &run, &resumed)));
    wait_until("training", || job.said().contains("resuming after"));
    send(SIGINT, job.id());
    assert_eq!(job.wait().status.code(), Some(75));
    let log = read(&run, "log.txt");
    assert_eq!(log.matches("cryosplat-mpi 0.").count(), 2, "{log}");
    assert!(log.contains("Ctrl-C") && log.contains("resuming after") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_second_ctrl_c_ends_a_job_that_cannot_stop() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 2000);
    let run = path(folder.path(), "run");
    // A step takes seconds at least.
    let options = ["--gaussians", "20000", "--epochs", "1", "--batch", "1000", "--weigh-particles=no"];
    let job = Job::start(alone(&train_arguments(&set, &run, &options)));
    wait_until("training", || job.said().contains("1 rank, 1 in the group of half1"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    send(SIGINT, job.id());
    std::thread::sleep(std::time::Duration::from_millis(500));
    send(SIGINT, job.id());
    let output = job.wait();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("ended by a second Ctrl-C"), "{}", text(&output));
    let left = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".partial")));
    assert!(!Path::new(&run).join("owner.json").exists(), "the folder is released");
}

/// With a constant rate, epochs that are added later are those of a longer run.
#[test]
fn a_finished_run_is_extended_to_the_bits_of_a_longer_one() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 80);
    let [whole, run] = ["whole", "run"].map(|name| path(folder.path(), name));
    let options = [
        "--gaussians",
        "100",
        "--no-diagnosis",
        "--learning-rate",
        "1e-3",
        "--schedule",
        "constant",
        "--weigh-particles=no",
    ];
    let with = |epochs, more: &[&'static str]| {
        [&options[..], &["--mixtures", "1", "--epochs", epochs], more].concat()
    };
    let train = |run: &str, options: &[&str]| succeed(&train_arguments(&set, run, options));
    train(&whole, &with("5", &[]));
    train(&run, &with("2", &[]));
    let extend = |epochs: &'static str| with("2", &["--resume", "auto", "--extend-epochs", epochs]);
    let diagnosis = Path::new(&run).join("diagnosis.json");
    fs::write(&diagnosis, "of the run before").unwrap();
    assert!(train(&run, &extend("1")).contains("epochs 3 to 3"));
    assert!(!diagnosis.exists(), "the diagnosis of the shorter run stays");
    assert!(train(&run, &extend("3")).contains("epochs 4 to 5"));
    assert_same(&["half1.mrc", "half2.mrc", "map.mrc", "gmm_half1.ply"], &whole, &run, "extended twice");
    assert!(read(&run, "run.json").contains("extensions"));
    // The same command again, and one without the option, find nothing to do.
    for options in [extend("3"), with("2", &["--resume"])] {
        assert!(train(&run, &options).contains("is done: nothing is left to do"));
    }
    let refuse = |run: &str, options: &[&str], fragments: &[&str]| {
        expect_failure(&program(&train_arguments(&set, run, options)), fragments);
    };
    refuse(&run, &extend("2"), &["was extended by 3 epochs already", "--extend-epochs 3 or more"]);
    refuse(&path(folder.path(), "none"), &extend("1"), &["holds no run that could be extended"]);
    let other = [&extend("4")[..], &["--batch", "4"]].concat();
    refuse(&run, &other, &["batch was 8 and is 4"]);
    fs::remove_dir_all(Path::new(&run).join("checkpoints")).unwrap();
    refuse(&run, &extend("4"), &["holds no checkpoint from which the run could be extended"]);
}

#[test]
fn an_extension_is_resumed_and_an_unfinished_run_is_not_extended() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 80);
    let [whole, run] = ["whole", "run"].map(|name| path(folder.path(), name));
    let options = [
        "--gaussians",
        "100",
        "--no-diagnosis",
        "--mixtures",
        "2",
        "--epochs",
        "2",
        "--checkpoint-minutes",
        "0.0005",
    ];
    let extend =
        |epochs: &'static str| [&options[..], &["--resume", "auto", "--extend-epochs", epochs]].concat();
    for run in [&whole, &run] {
        ranks_succeed(2, &train_arguments(&set, run, &options));
    }
    ranks_succeed(2, &train_arguments(&set, &whole, &extend("14")));
    // Killed in the extension, and resumed by the same command and by one without the option.
    let before = checkpoints(&run);
    let mut job = Job::start(ranks_command(2, &program_file(), &train_arguments(&set, &run, &extend("14"))));
    wait_until("a checkpoint of the extension", || checkpoints(&run) != before || !job.runs());
    job.kill();
    let state = read(&run, "run.json");
    assert!(state.contains("training") || state.contains("done"), "{state}");
    let refused = program(&train_arguments(&set, &run, &extend("15")));
    if state.contains("training") {
        // Killed between the first checkpoints of both halves, one of them is of the run before.
        let said = text(&refused);
        let reasons = ["only a finished run can be extended", "extensions was [14] and is [15]"];
        assert!(!refused.status.success() && reasons.iter().any(|reason| said.contains(reason)), "{said}");
    }
    ranks_succeed(2, &train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
    assert_same(&["half1.mrc", "half2.mrc", "map.mrc"], &whole, &run, "an extension that was killed");
}

#[test]
fn a_run_is_voxelised_as_a_whole_and_shown_in_chimerax() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 80);
    let [run, voxels] = ["run", "voxels"].map(|name| path(folder.path(), name));
    let said =
        succeed(&train_arguments(&set, &run, &["--gaussians", "100", "--epochs", "1", "--no-diagnosis"]));
    assert!(said.contains("next: chimerax") && said.contains("next: cryosplat-mpi postprocess"), "{said}");
    let map = path(folder.path(), "mean.mrc");
    succeed(&["voxelize", &run, "-o", &map]);
    let data = |file: &[u8]| file[1024..].to_vec();
    assert!(data(&fs::read(&map).unwrap()) == data(&bytes(&run, "map.mrc")));
    assert!(read(&run, "view.cxc").contains("open half2.mrc"));
    succeed(&["voxelize", &run, "-o", &map, "--pixel-size", "2"]);
    succeed(&["backproject", &set, "-o", &voxels]);
    expect_failure(&program(&["voxelize", &voxels, "-o", &map]), &["holds no mixture"]);
    assert!(read(&voxels, "view.cxc").contains("open map.mrc"));
    // A run that replaces it has a log of its own; the terminal's copy in the same file is left alone.
    let first = read(&run, "log.txt");
    assert!(first.starts_with("cryosplat-mpi ") && first.contains("done in"), "{first}");
    let replaced = ["--gaussians", "100", "--epochs", "1", "--no-diagnosis", "--overwrite"];
    succeed(&train_arguments(&set, &run, &replaced));
    assert_eq!(read(&run, "log.txt").matches("cryosplat-mpi 0.").count(), 1);
    let file = fs::File::create(Path::new(&run).join("log.txt")).unwrap();
    let status = alone(&train_arguments(&set, &run, &replaced)).stderr(file).status().unwrap();
    assert!(status.success());
    assert_eq!(read(&run, "log.txt").matches("done in").count(), 1);
}

#[test]
fn a_run_of_one_half_or_with_files_lost_is_not_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let [run, half, map] = ["run", "half", "map.mrc"].map(|name| path(folder.path(), name));
    let short = ["--gaussians", "50", "--epochs", "1", "--no-diagnosis"];
    succeed(&train_arguments(&set, &run, &short));
    let said = succeed(&train_arguments(&set, &half, &[&short[..], &["--half", "2"]].concat()));
    assert!(!said.contains("next: cryosplat-mpi postprocess"), "{said}");
    let refuses = |arguments: &[&str], fragments: &[&str]| expect_failure(&program(arguments), fragments);
    refuses(&["diagnose", &half], &["half1.mrc: is missing", "both halves"]);
    succeed(&["voxelize", &half, "-o", &map]);
    fs::remove_file(Path::new(&run).join("gmm_half1.h5")).unwrap();
    refuses(&["voxelize", &run, "-o", &map], &["gmm_half1.h5: is missing", "gmm_half2.h5"]);

    let verdict = r#"{"verdict": {"severity": "note", "line": "a line"}, "findings": [], "tested": []}"#;
    let diagnosis = Path::new(&run).join("diagnosis.json");
    fs::write(&diagnosis, verdict).unwrap();
    assert!(succeed(&["info", &run]).contains("note: a line"));
    fs::write(&diagnosis, &verdict[..20]).unwrap();
    refuses(&["info", &run], &["diagnosis.json: ", "run `diagnose` again"]);
    fs::remove_file(&diagnosis).unwrap();

    let dry = ["train", &set, "--dry-run", "--device", "cpu"];
    refuses(&[&dry[..], &["--box", "16"]].concat(), &["p.h5: is imported already", "--box"]);
    fs::rename(&set, path(folder.path(), "moved.h5")).unwrap();
    for command in ["diagnose", "report"] {
        refuses(&[command, &run], &["run.json: particles.file", "p.h5", "--particles"]);
    }
    fs::write(Path::new(&run).join("run.json"), "[]").unwrap();
    refuses(&["info", &run], &["run.json: state: is null"]);
}
