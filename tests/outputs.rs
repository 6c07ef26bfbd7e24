//! No command overwrites what it reads, or what its inputs come from: by any name, through links.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use common::jobs::{Job, send, wait_until};
use common::{
    contents, expect_failure, fail, path, phantom, program_file, ranks_succeed, succeed, train_arguments,
};

/// Runs the program with `arguments`, which must refuse `output` because of `reason`, and change nothing in `folder`.
fn refuses(folder: &Path, arguments: &[&str], output: &str, reason: &str) {
    let before = contents(folder);
    fail(arguments, &[output, reason]);
    let after = contents(folder);
    assert!(before.keys().eq(after.keys()), "{arguments:?}: {:?}", after.keys());
    assert!(before == after, "{arguments:?} has changed a file");
}

/// A finished run in `folder`, on the set p.h5 that is made there. Returns the paths of the set and the run.
fn run(folder: &Path) -> (String, String) {
    let (set, run) = (phantom(folder, 60), path(folder, "run"));
    let options = ["--gaussians", "20", "--mixtures", "1", "--epochs", "1", "--voxel-particles", "0"];
    succeed(&train_arguments(&set, &run, &options));
    (set, run)
}

fn link(original: &str, name: &str) -> String {
    std::os::unix::fs::symlink(original, name).unwrap();
    name.to_owned()
}

#[test]
fn maps_masks_and_tables_do_not_replace_the_maps_that_they_are_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let (set, run) = run(folder.path());
    let [half1, half2, map, mixture] =
        ["half1.mrc", "half2.mrc", "map.mrc", "gmm_half1.h5"].map(|name| path(Path::new(&run), name));
    let refuses = |arguments: &[&str], output: &str, reason: &str| {
        refuses(folder.path(), arguments, output, reason);
    };

    // Copies outside the run: `-o half1` takes the name of an input.
    let (copy1, copy2) = (at("a.mrc"), at("b.mrc"));
    fs::copy(&half1, &copy1).unwrap();
    fs::copy(&half2, &copy2).unwrap();
    refuses(&["postprocess", &copy1, &copy2, "-o", &at("a")], "a.mrc", "is the first half map to read");
    refuses(
        &["postprocess", &copy1, &copy2, "-o", &at("p"), "--mask-output", &copy2],
        "b.mrc",
        "second half map",
    );
    let hard = at("p_mask.mrc");
    fs::hard_link(&copy2, &hard).unwrap();
    refuses(&["postprocess", &copy1, &copy2, "-o", &at("p")], "p_mask.mrc", "the second half map to read");
    fs::remove_file(&hard).unwrap();
    let same = at("p.mrc");
    let arguments = ["postprocess", &copy1, &copy2, "-o", &at("p"), "--mask-output", &same];
    refuses(&arguments, "p.mrc", "two outputs of this command");
    for (mask, output) in
        [("auto", copy1.as_str()), ("auto", &link(&copy1, &at("soft.mrc"))), (&copy2, &copy2)]
    {
        let arguments = ["fsc", &copy1, &copy2, "--mask", mask, "--mask-output", output];
        refuses(&arguments, output, "to read");
    }
    refuses(&["fsc", &half1, &half2, "-o", &path(Path::new(&run), "fsc")], "fsc.csv", "a file of the run in");
    refuses(
        &["fsc", &half1, &half2, "--mask", "sphere", "--mask-output", &map],
        "map.mrc",
        "a file of the run in",
    );
    refuses(&["compare", &run, "-o", &path(Path::new(&run), "fsc")], "fsc.csv", "a file of the run in");
    let arguments = ["compare", &run, "--mask", "sphere", "--mask-output", &half1];
    refuses(&arguments, "half1.mrc", "to read");

    refuses(&["voxelize", &mixture, "-o", &mixture], "gmm_half1.h5", "is the mixture to read");
    refuses(&["voxelize", &mixture, "-o", &half1], "half1.mrc", "a file of the run in");
    let arguments = ["export", "gmm", &mixture, "-o", &path(Path::new(&run), "gmm_half1.ply")];
    refuses(&arguments, "gmm_half1.ply", "a file of the run in");
    let frame = at("frame.pdb");
    fs::copy(&half1, &frame).unwrap();
    refuses(&["export", "gmm", &mixture, "-o", &frame, "--map", &frame], "frame.pdb", "the map of the frame");

    refuses(&["info", &set, "--directions", &set], "p.h5", "a file to describe");
    let soft = link(&set, &at("soft.svg"));
    refuses(&["info", &set, "--noise", &soft], "soft.svg", "a file to describe");
    refuses(&["info", &set, "--noise", &at("c.svg"), "--directions", &at("c.svg")], "c.svg", "two outputs");
    let page = path(Path::new(&run), "report.html");
    fs::remove_file(&page).unwrap();
    fs::hard_link(&set, &page).unwrap();
    refuses(&["report", &run, "--particles", &set], "report.html", "the particle file to read");
    let record = at("scaling.md");
    fs::copy(path(Path::new(&run), "run.json"), &record).unwrap();
    refuses(&["scaling", &record, "-o", &at("")], "scaling.md", "the record of a run");
    refuses(&["bench", &set, "--json", &set, "--device", "cpu"], "p.h5", "the particle file to read");
}

#[test]
fn a_run_does_not_replace_its_particles_its_truth_or_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let (set, run) = run(folder.path());
    let in_run = |name: &str| path(Path::new(&run), name);
    let refuses = |arguments: &[String], output: &str, reason: &str| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refuses(folder.path(), &arguments, output, reason);
    };
    fs::create_dir(at("new")).unwrap();
    let truth = at("new/map.mrc");
    fs::copy(at("p_truth.mrc"), &truth).unwrap();
    refuses(
        &train_arguments(&set, &at("new"), &["--truth", &truth]),
        "new/map.mrc",
        "the ground truth to read",
    );
    let backproject = |set: &str, run: &str, truth: &str| {
        ["backproject", set, "-o", run, "--truth", truth, "--overwrite"].map(str::to_owned)
    };
    refuses(&backproject(&set, &at("new"), &truth), "new/map.mrc", "the ground truth to read");
    for name in ["gmm_half1.h5", "half2.mrc"] {
        let arguments = train_arguments(&set, &run, &["--overwrite", "--init", &in_run(name)]);
        refuses(&arguments, name, "the file of --init to read");
    }
    // The particle file has the name of a mixture of the run.
    let named = in_run("gmm_half2.h5");
    fs::remove_file(&named).unwrap();
    fs::hard_link(&set, &named).unwrap();
    refuses(&train_arguments(&set, &run, &["--overwrite"]), "gmm_half2.h5", "the particle file to read");
    refuses(&backproject(&set, &run, &at("p_truth.mrc")), "gmm_half2.h5", "the particle file to read");
}

#[test]
fn a_set_does_not_replace_what_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let simulate = |output: &str, further: &[&str]| {
        let mut arguments = vec!["simulate", "-n", "20", "--box", "16", "--pixel-size", "8", "-o"];
        arguments.push(output);
        arguments.extend(further);
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let refuses = |arguments: &[String], output: &str, reason: &str| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refuses(folder.path(), &arguments, output, reason);
    };
    succeed(&simulate(&at("sim.h5"), &["--phantom", "--star", &at("relion")]));
    let [star, stack, truth] =
        ["particles.star", "particles.mrcs", "truth.mrc"].map(|name| at("relion/") + name);
    let input = |output: &str| ["import", &star, "-o", output].map(str::to_owned);
    for output in [&star, &stack, &link(&stack, &at("soft.h5"))] {
        refuses(&input(output), output, "of this import");
    }
    for output in [&star, &stack, &link(&stack, &at("soft.html"))] {
        refuses(&["info", &star, "--pictures", output].map(str::to_owned), output, "to read");
    }
    let set = at("imported.h5");
    succeed(&input(&set));
    refuses(&input(&at("relion/particles.star/")), "particles.star", "");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    succeed(&words(&["backproject", &set, "-o", &at("voxels")]));

    for (output, what) in [(&star, "imported from"), (&stack, "a stack of the particles"), (&set, "to read")]
    {
        let page = at("voxels/report.html");
        fs::remove_file(&page).unwrap();
        fs::hard_link(output, &page).unwrap();
        refuses(&words(&["report", &at("voxels")]), "report.html", what);
        refuses(&words(&["check", &set, "--json", output]), output, what);
        refuses(&words(&["info", &set, "--directions", output]), output, what);
        refuses(&words(&["info", &set, "--noise", output]), output, what);
        refuses(&words(&["info", &set, "--pictures", output]), output, what);
        let bench =
            ["bench", &set, "--gaussians", "10", "--device", "cpu", "--threads", "1", "--json", output];
        refuses(&words(&bench), output, what);
    }

    // The export's stack has the name of the raw one.
    let export = |output: &str, further: &[&str]| {
        let mut arguments = vec!["export", "star", &set, "-o", output];
        arguments.extend(further);
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    refuses(&export(&star, &[]), "particles.star", "the metadata that the particles were imported from");
    refuses(&export(&star, &["--overwrite"]), "particles.star", "imported from");
    refuses(&export(&star, &["--original", &star]), "particles.star", "imported from");
    fs::hard_link(&stack, at("raw.mrcs")).unwrap();
    refuses(&export(&at("raw.star"), &["--overwrite"]), "raw.mrcs", "a stack of the particles to read");
    let original = at("p.cs");
    fs::copy(&star, &original).unwrap();
    let arguments = ["export", "cs", &set, "--original", &original, "-o", &original].map(str::to_owned);
    refuses(&arguments, "p.cs", "the original to read");
    let arguments = ["export", "particles", &set, "--run", &at("relion"), "-o", &set].map(str::to_owned);
    refuses(&arguments, "imported.h5", "the particle file to read");

    // Another program's stack has the name of an output that was not typed.
    let foreign = at("foreign.mrcs");
    let mut bytes = fs::read(&stack).unwrap();
    bytes[224..234].copy_from_slice(b"EMAN, 2026");
    fs::write(&foreign, &bytes).unwrap();
    refuses(&export(&at("foreign.star"), &[]), "foreign.mrcs", "not written by this program");
    succeed(&export(&at("foreign.star"), &["--overwrite"]));
    succeed(&export(&at("foreign.star"), &[]));
    let model = ["--map", truth.as_str(), "--star"];
    refuses(
        &simulate(&at("b.h5"), &[&model[..], &[&at("relion")]].concat()),
        "truth.mrc",
        "the input map to read",
    );
    let arguments = simulate(&at("b.h5"), &["--map", &truth, "--truth", &truth]);
    refuses(&arguments, "truth.mrc", "the input map to read");
    refuses(&simulate(&truth, &["--map", &truth]), "truth.mrc", "the input map to read");
    let arguments = simulate(&at("b.h5"), &["--phantom", "--truth", &at("b.h5")]);
    refuses(&arguments, "b.h5", "two outputs");
    fs::write(&stack, &bytes).unwrap();
    let arguments = simulate(&at("b.h5"), &["--phantom", "--star", &at("relion")]);
    refuses(&arguments, "particles.mrcs", "not written by this program");
    [at("soft.h5"), at("soft.html"), stack.clone()].iter().for_each(|file| fs::remove_file(file).unwrap());
    refuses(&arguments, "particles.star", "not written by this program");
    succeed(&[&arguments[..], &["--overwrite".to_owned()]].concat());
}

#[test]
fn only_regular_files_are_inputs_and_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let pipe = at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let simulate = ["simulate", "--phantom", "-n", "4", "--box", "16", "--pixel-size", "8", "-o"];
    for (output, reason) in [(pipe.as_str(), "named pipe"), ("/dev/null", "a device"), (&at(""), "folder")] {
        fail(&[&simulate[..], &[output]].concat(), &[output, reason]);
    }
    // To a file that the shell has opened, or a pipe: never replaced.
    for output in ["/dev/stdout", "/proc/self/fd/1", "/dev/shm/../nothing.h5"] {
        fail(&[&simulate[..], &[output]].concat(), &[output]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn outputs_have_a_name_and_a_folder_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let (set, map, star) = (phantom(folder.path(), 8), at("p_truth.mrc"), at("star"));
    let simulate = ["simulate", "--phantom", "-n", "4", "--box", "16", "--pixel-size", "8"];
    succeed(&[&simulate[..], &["-o", &at("other.h5"), "--star", &star]].concat());
    let particles = path(Path::new(&star), "particles.star");
    // A typed name, and the end of the file that is made of it.
    let stems = [
        &["fsc", &map, &map][..],
        &["postprocess", &map, &map, "--mask", "sphere"],
        &["compare", folder.path().to_str().unwrap(), "--mask", "none"],
    ];
    let files = [&["import", &particles][..], &simulate, &["export", "star", &set]];
    for command in stems.iter().chain(&files) {
        for (typed, problem) in
            [("none/new.star", "none does not exist"), ("new.star/", "is the name of a folder")]
        {
            let typed = at(typed);
            let arguments = [command, &["-o", typed.as_str()][..]].concat();
            let shown = typed.trim_end_matches('/');
            refuses(folder.path(), &arguments, shown, problem);
        }
    }
    for option in ["--directions", "--noise"] {
        refuses(folder.path(), &["info", &set, option, &at("none/a")], "none/a", "none does not exist");
    }
}

#[test]
fn names_that_are_not_utf_8_keep_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| folder.path().join(OsStr::from_bytes(name)).into_os_string();
    let words = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
    let simulate = ["simulate", "--phantom", "-n", "4", "--box", "16", "--pixel-size", "8", "-o"];
    succeed(&[words(&simulate), vec![at(b"a\xff.h5")]].concat());
    let map = at(b"a\xff_truth.mrc");
    succeed(&[words(&["fsc"]), vec![map.clone(), map.clone(), "-o".into(), at(b"f\xfe")]].concat());
    let mut expected: Vec<&[u8]> =
        vec![b"a\xff.h5", b"a\xff_truth.mrc", b"f\xfe.csv", b"f\xfe.svg", b"f\xfe.png"];
    expected.sort_unstable();
    let mut found: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort_unstable();
    assert!(found.iter().map(|name| name.as_bytes()).eq(expected), "{found:?}");
    // Commands that record how they were called. HDF5 takes no such names.
    let set = phantom(folder.path(), 8);
    succeed(&[words(&["backproject", &set, "-o"]), vec![at(b"v\xfe")]].concat());
    let record = fs::read_to_string(Path::new(&at(b"v\xfe")).join("run.json")).unwrap();
    assert!(record.contains("v\u{fffd}"), "{record}");
    let train = [words(&["train", &set, "--device", "cpu", "-o"]), vec![at(b"r\xfe")]].concat();
    fail(&train, &["is a name that is not UTF-8", "choose another name"]);
    assert!(!Path::new(&at(b"r\xfe")).exists());
}

#[test]
fn json_lines_name_rank_and_host() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 8);
    let all = ["backproject", &set, "-o", &path(folder.path(), "voxels"), "--log-format", "json"];
    let all = all.map(str::to_owned);
    let said = ranks_succeed(2, &all);
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let ranks: Vec<_> = lines
        .filter(|line| line["level"].is_string())
        .map(|line| {
            assert!(line["host"].as_str().is_some_and(|host| !host.is_empty()), "{line}");
            assert!(line["fields"]["message"].is_string(), "{line}");
            line["rank"].as_u64().unwrap()
        })
        .collect();
    assert!(ranks.contains(&0) && ranks.iter().all(|&rank| rank < 2), "{said}");
}

#[test]
fn a_full_standard_output_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (set, map) = (phantom(folder.path(), 8), path(folder.path(), "p_truth.mrc"));
    for arguments in [&["info", &set][..], &["fsc", &map, &map], &["check"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let refused = Command::new(program_file()).args(arguments).stdout(full).output().unwrap();
        expect_failure(&refused, &["standard output: cannot print the result", "not full"]);
    }
}

/// Temporary files in `folder`.
fn partial(folder: &Path) -> Vec<String> {
    let names =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".partial")).collect()
}

#[test]
fn a_stopped_command_leaves_no_temporary_file_and_the_next_removes_those_of_a_killed_one() {
    const SIGKILL: i32 = 9;
    let folder = tempfile::tempdir().unwrap();
    let set = path(folder.path(), "p.h5");
    fs::write(&set, b"precious").unwrap();
    let start = || {
        let mut command = Command::new(program_file());
        // Minutes of work.
        command.args([
            "simulate",
            "--phantom",
            "-n",
            "100000",
            "--box",
            "128",
            "--pixel-size",
            "2",
            "-o",
            &set,
        ]);
        command.args(["--threads", "1"]);
        let job = Job::start(command);
        wait_until("a temporary file", || !partial(folder.path()).is_empty());
        job
    };
    for signal in [1, 2, 15] {
        let job = start();
        send(signal, job.id());
        let output = job.wait();
        assert_eq!(output.status.code(), Some(128 + signal));
        assert_eq!(partial(folder.path()), Vec::<String>::new());
        assert_eq!(fs::read(&set).unwrap(), b"precious");
    }
    let job = start();
    send(SIGKILL, job.id());
    job.wait();
    let left = partial(folder.path());
    assert!(!left.is_empty());
    // The process has ended, but its number may be taken again.
    phantom(folder.path(), 20);
    assert_eq!(partial(folder.path()), Vec::<String>::new(), "of {left:?}");
}
