//! Who may write to a run folder, what may be replaced in it, and what a resumed run must share.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::jobs::{Job, alone, checkpoints, send, wait_until};
use common::{
    contents, edit, expect_failure, fail, over_mpi, path, phantom, program_file, ranks_succeed, succeed,
    text, train_arguments, undo,
};
use serde_json::Value;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// A run that does not end by itself, and one that ends at once.
const ENDLESS: [&str; 6] = ["--gaussians", "100", "--epochs", "100000", "--mixtures", "1"];
const SHORT: [&str; 6] = ["--gaussians", "100", "--epochs", "2", "--mixtures", "1"];

fn record(run: &str) -> String {
    path(Path::new(run), "owner.json")
}

/// Starts a run that does not end by itself; waits until it has written checkpoints.
fn start_endless(set: &str, run: &str, environment: &[(&str, &str)]) -> Job {
    let options = [&ENDLESS[..], &["--checkpoint-minutes", "1e-9"]].concat();
    let mut command = alone(&train_arguments(set, run, &options));
    command.envs(environment.iter().copied());
    let job = Job::start(command);
    wait_until("a checkpoint", || !checkpoints(run).is_empty());
    job
}

#[test]
fn a_folder_in_use_is_refused_until_its_job_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "run"));
    let mut first = start_endless(&set, &run, &[]);
    let held = std::fs::read_to_string(record(&run)).unwrap();
    let owner: Value = serde_json::from_str(&held).unwrap();
    assert_eq!(owner["pid"], first.id());
    let who = format!("is held by a running job: process {}", first.id());
    for more in [&[][..], &["--resume"], &["--resume", "auto"], &["--overwrite"]] {
        fail(
            &train_arguments(&set, &run, &[&SHORT[..], more].concat()),
            &["run", &who, "since 2", "wait for its end"],
        );
    }
    fail(&["backproject", &set, "-o", &run, "--overwrite", "--threads", "1"], &["run", &who]);
    let two =
        over_mpi(2, &program_file(), &train_arguments(&set, &run, &[&SHORT[..], &["--overwrite"]].concat()));
    assert!(!two.status.success() && text(&two).contains(&who), "{}", text(&two));
    assert_eq!(
        std::fs::read_to_string(record(&run)).unwrap()[20..],
        held[20..],
        "only the heartbeat changes"
    );
    assert!(first.runs());
    // A suspended job still holds its folder.
    send(SIGSTOP, first.id());
    fail(&train_arguments(&set, &run, &[&SHORT[..], &["--overwrite"]].concat()), &[&who]);
    send(SIGKILL, first.id());
    // Its process may be there until this test has asked for its exit code: the program is not misled.
    let said = succeed(&train_arguments(&set, &run, &[&SHORT[..], &["--overwrite"]].concat()));
    assert!(said.contains("which has ended without releasing it: taken over"), "{said}");
    assert!(!Path::new(&record(&run)).exists() && Path::new(&run).join("map.mrc").exists());
    first.wait();
}

#[test]
fn a_job_that_lost_its_folder_stops_without_writing() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "run"));
    let job = start_endless(&set, &run, &[]);
    send(SIGSTOP, job.id());
    // As another machine would, that has seen no heartbeat.
    let held = std::fs::read_to_string(record(&run)).unwrap();
    let mut owner: Value = serde_json::from_str(&held).unwrap();
    for (key, value) in [("token", "0123456789abcdef0123456789abcdef"), ("host", "node7"), ("job", "4711")] {
        owner[key] = value.into();
    }
    let other = path(folder.path(), "other.json");
    std::fs::write(&other, owner.to_string()).unwrap();
    std::fs::rename(&other, record(&run)).unwrap();
    // The step that it was in may be about to write the checkpoint that was checked before, and to log its epoch.
    let mut before = contents(Path::new(&run));
    send(SIGCONT, job.id());
    let output = job.wait();
    expect_failure(
        &output,
        &["was taken over by process", "on node7, job 4711", "nothing more is written by this job"],
    );
    let mut after = contents(Path::new(&run));
    for files in [&mut before, &mut after] {
        files.retain(|name, _| {
            !name.starts_with("checkpoints/") && !name.starts_with("metrics_") && name != "log.txt"
        });
    }
    assert!(before == after, "{:?} and {:?}", before.keys(), after.keys());
}

#[test]
fn a_requeued_job_waits_for_its_own_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "run"));
    let job = [("SLURM_JOB_ID", "77")];
    let first = start_endless(&set, &run, &job);
    let options = [&ENDLESS[..], &["--resume", "auto", "--checkpoint-minutes", "1e-9"]].concat();
    let mut command = alone(&train_arguments(&set, &run, &options));
    command.envs(job);
    let second = Job::start(command);
    wait_until("the second run waits", || {
        second.said().contains("of this job: waiting up to 60 s for it to end")
    });
    let of = |process: u32| {
        let text = std::fs::read_to_string(record(&run)).unwrap_or_default();
        serde_json::from_str::<Value>(&text).unwrap_or_default()["pid"] == process
    };
    assert!(of(first.id()), "the second one waits");
    send(SIGTERM, first.id());
    assert_eq!(first.wait().status.code(), Some(75));
    wait_until("the second run resumes", || second.said().contains("resuming after step"));
    assert!(of(second.id()));
    send(SIGTERM, second.id());
    assert_eq!(second.wait().status.code(), Some(75));
    assert!(!Path::new(&record(&run)).exists());
}

#[test]
fn files_of_others_are_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    for name in
        ["map.mrc", "half1.mrc", "mask.mrc", "gmm_half2.ply", "run.json", "particles.csv", "report.html"]
    {
        let run = path(folder.path(), "run");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(Path::new(&run).join(name), "mine").unwrap();
        for more in [&[][..], &["--overwrite"], &["--resume", "auto"]] {
            let arguments = train_arguments(&set, &run, &[&SHORT[..], more].concat());
            fail(&arguments, &[name, "is not of a run of this program", "choose another folder"]);
        }
        fail(&["backproject", &set, "-o", &run, "--overwrite"], &[name, "is not of a run of this program"]);
        let left = contents(Path::new(&run));
        assert!(left.len() == 1 && left[name] == b"mine", "{:?}", left.keys());
        std::fs::remove_dir_all(&run).unwrap();
    }
    // A record that is a link, or another program's, is neither followed nor removed.
    let (run, target) = (path(folder.path(), "run"), path(folder.path(), "target"));
    std::fs::create_dir(&run).unwrap();
    std::fs::write(&target, "mine").unwrap();
    symlink(&target, record(&run)).unwrap();
    fail(&train_arguments(&set, &run, &SHORT), &["owner.json", "does not record who holds the run folder"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
}

#[test]
fn a_refused_command_leaves_the_folder_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "a/b/run"));
    fail(
        &train_arguments(&set, &run, &[&SHORT[..], &["--resume"]].concat()),
        &["no checkpoint to resume from"],
    );
    assert!(!folder.path().join("a").exists());
    let run = path(folder.path(), "run");
    succeed(&train_arguments(&set, &run, &SHORT));
    let before = contents(Path::new(&run));
    fail(&train_arguments(&set, &run, &SHORT), &["holds a run already"]);
    fail(
        &train_arguments(&set, &run, &[&SHORT[..], &["--resume", "--seed", "9"]].concat()),
        &["seed was 0 and is 9"],
    );
    assert!(contents(Path::new(&run)) == before);
}

#[test]
fn a_resumed_run_shares_everything_that_decides_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "run"));
    succeed(&train_arguments(&set, &run, &SHORT));
    undo(&run, "half2");
    let original = std::fs::read(&set).unwrap();
    let resume = || train_arguments(&set, &run, &[&SHORT[..], &["--resume"]].concat());
    let refused = |part: &str| {
        let message = format!("(what differs: {part})");
        fail(
            &resume(),
            &["half1_step", "is of another run: particle set was", &message, "use the same particles"],
        );
        std::fs::write(&set, &original).unwrap();
    };
    let numbers = [
        ("ctf/defocus_u", "defocus", 10.0),
        ("ctf/astigmatism_angle", "defocus", 0.01),
        ("ctf/phase_shift", "phase shifts", 0.01),
        ("ctf/b_factor", "B factors", 1.0),
        ("ctf/scale", "scales of CTFs", -0.1),
        ("optics/voltage", "optics", -100.0),
        ("optics/spherical_aberration", "optics", 0.1),
        ("optics/amplitude_contrast", "optics", 0.01),
        ("optics/even_aberration", "optics", 0.01),
        ("optics/magnification", "optics", 0.001),
        ("optics/resolution_limit", "optics", 20.0),
    ];
    for (name, part, change) in numbers {
        edit::<f64>(&set, name, |values| *values.last_mut().unwrap() += change);
        refused(part);
    }
    edit::<u8>(&set, "optics/premultiplied", |values| values[0] = 1);
    refused("optics");
    edit::<f64>(&set, "pose/rotation", |values| values[..6].iter_mut().for_each(|value| *value = -*value));
    refused("poses");
    common::change_image(&set, 7, |image| image[3] += 0.5);
    refused("images");
    {
        let _alone = common::alone();
        let file = hdf5::File::open_rw(&set).unwrap();
        file.dataset("images").unwrap().attr("pixel_size").unwrap().write_scalar(&4.25f64).unwrap();
        file.close().unwrap();
    }
    refused("pixel size");
    // Where the raw images came from does not count.
    edit::<u64>(&set, "source/index", |values| values[0] += 1);
    let said = succeed(&resume());
    assert!(said.contains("resuming after"), "{said}");
}

#[test]
fn a_checkpoint_of_the_other_half_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (phantom(folder.path(), 60), path(folder.path(), "run"));
    succeed(&train_arguments(&set, &run, &SHORT));
    undo(&run, "half2");
    let all = checkpoints(&run);
    let at = |name: &str| Path::new(&run).join("checkpoints").join(name);
    // Only those of half 2 are left, under the names of half 1.
    for name in all.iter().filter(|name| name.starts_with("half1")) {
        std::fs::remove_file(at(name)).unwrap();
    }
    for name in all.iter().filter(|name| name.starts_with("half2")) {
        std::fs::copy(at(name), at(&name.replace("half2", "half1"))).unwrap();
    }
    let before = contents(Path::new(&run));
    let resume = train_arguments(&set, &run, &[&SHORT[..], &["--resume"]].concat());
    fail(&resume, &["half1_step", "is the checkpoint of half2 after step", "under another name"]);
    assert!(contents(Path::new(&run)) == before);
}

/// Runs `train` on two ranks of which each first runs `prepare` in a shell, where $rank is its number.
fn train_on_two(prepare: &str, set: &str, run: &str) -> std::process::Output {
    let script = format!("rank=$OMPI_COMM_WORLD_RANK; {prepare}; exec \"$0\" \"$@\"");
    let mut arguments = vec!["-c".to_owned(), script, program_file()];
    arguments.extend(train_arguments(set, run, &SHORT));
    over_mpi(2, "sh", &arguments)
}

#[test]
fn a_rank_that_cannot_write_its_half_is_found_before_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let at = folder.path().display();
    // Each rank sees another folder under the same name, as if it was local to a node.
    for rank in 0..2 {
        std::fs::create_dir(folder.path().join(format!("node{rank}"))).unwrap();
    }
    let output = train_on_two(&format!("cd {at}/node$rank"), &set, "run");
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("rank 1 of 2 on") && said.contains("is not the folder of that name that rank 0 sees"),
        "{said}"
    );
    for rank in 0..2 {
        assert_eq!(contents(&folder.path().join(format!("node{rank}"))).len(), 0, "{said}");
    }
    // The leader of half 2 may not write files as large as a checkpoint.
    let run = path(folder.path(), "run");
    let output = train_on_two("[ $rank = 0 ] || ulimit -f 8", &set, &run);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("rank 1 of 2 on"), "{said}");
    assert!(said.contains("the limit of this process is") && said.contains("ulimit -f"), "{said}");
    assert!(!Path::new(&run).exists(), "{said}");
    // Nothing is wrong.
    ranks_succeed(2, &train_arguments(&set, &run, &SHORT));
    assert!(contents(Path::new(&run)).keys().all(|name| !name.contains("trial") && !name.contains("owner")));
}

#[test]
fn a_small_disk_is_refused_before_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let disk = path(folder.path(), "disk");
    std::fs::create_dir(&disk).unwrap();
    // In a mount namespace of its own, which not every machine allows.
    let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh", &disk]);
    let run = path(Path::new(&disk), "run");
    command.arg(program_file()).args(train_arguments(&set, &run, &SHORT));
    let Ok(output) = command.output() else { return common::report_skipped("unshare is missing") };
    let said = text(&output);
    if said.contains("unshare:") || said.contains("mount:") {
        return common::report_skipped("no mount namespace may be made");
    }
    expect_failure(&output, &["GiB of free space, but the run writes about", "free space"]);
}
