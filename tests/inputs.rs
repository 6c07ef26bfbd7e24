//! Inputs from the outside world: file systems without locks, HDF5 files that lead to other files, named pipes, texts that change the
//! terminal.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{
    alone, expect_failure, fail, path, phantom, program, program_with, report_skipped, succeed, text,
    train_arguments,
};
use hdf5::types::FixedUnicode;

/// Options of a training that takes a second.
const SHORT: [&str; 8] = ["--gaussians", "20", "--mixtures", "1", "--epochs", "1", "--voxel-particles", "0"];

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// Builds a library to preload from tests/shims; `None` without a C compiler.
fn shim(name: &str, folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shims").join(format!("{name}.c"));
    let library = folder.join(format!("{name}.so"));
    let output =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    match output {
        Ok(output) => assert!(output.status.success(), "{}", text(&output)),
        Err(_) => {
            report_skipped("there is no C compiler (cc)");
            return None;
        }
    }
    Some(library)
}

#[test]
fn file_systems_that_refuse_locks_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = shim("refuse_locks", folder.path()) else { return };
    let library = library.display().to_string();
    // EAGAIN, ENOLCK, EOPNOTSUPP and, from NFS, ENOTSUPP.
    for (index, number) in ["11", "37", "95", "524"].into_iter().enumerate() {
        let at = |name: &str| path(folder.path(), &format!("{number}-{name}"));
        let run = |arguments: &[String]| {
            let output =
                program_with(arguments, &[("LD_PRELOAD", library.as_str()), ("REFUSED_LOCKS", number)]);
            assert!(output.status.success(), "{number}: {arguments:?}\n{}", text(&output));
        };
        let set = at("p.h5");
        let size = ["-n", "40", "--box", "16", "--pixel-size", "8"];
        run(&strings(&[&["simulate", "--phantom", "-o", &set, "--star", &at("star")], &size[..]].concat()));
        run(&train_arguments(&set, &at("run"), &SHORT));
        run(&strings(&["info", &set, &at("run/gmm_half1.h5")]));
        if index > 0 {
            continue;
        }
        // Once is enough for the commands that share their ways of reading and writing.
        let (star, mixture) = (at("star/particles.star"), at("run/gmm_half1.h5"));
        run(&strings(&["import", &star, "-o", &at("i.h5")]));
        run(&strings(&["export", "particles", &set, "--run", &at("run"), "-o", &at("e.h5")]));
        run(&strings(&["export", "star", &set, "--run", &at("run"), "-o", &at("e.star")]));
        run(&strings(&["export", "gmm", &mixture, "-o", &at("copy.h5")]));
        run(&strings(&["voxelize", &mixture, "-o", &at("m.mrc")]));
        run(&strings(&["backproject", &set, "-o", &at("voxels")]));
        run(&strings(&["report", &at("run")]));
        run(&train_arguments(&set, &at("run"), &[&SHORT[..], &["--resume"]].concat()));
    }
    // The user's own setting stays.
    let set = path(folder.path(), "11-p.h5");
    let variables =
        [("LD_PRELOAD", library.as_str()), ("REFUSED_LOCKS", "37"), ("HDF5_USE_FILE_LOCKING", "TRUE")];
    expect_failure(&program_with(&["info", &set], &variables), &["11-p.h5", "lock"]);
}

/// What the error must name, and how a sound file is edited.
type Case<'a> = (&'a str, &'a dyn Fn(&hdf5::File));

/// A copy of the file `source` for each `change` of it, which the command must refuse with the `fragment` in its error.
fn refused(folder: &Path, source: &str, arguments: &dyn Fn(&str) -> Vec<String>, cases: &[Case]) {
    for (index, (fragment, change)) in cases.iter().enumerate() {
        let copy = path(folder, &format!("copy{index}.h5"));
        fs::copy(source, &copy).unwrap();
        {
            let _alone = alone();
            let file = hdf5::File::open_rw(&copy).unwrap();
            change(&file);
            file.close().unwrap();
        }
        fail(&arguments(&copy), &[&copy, fragment]);
    }
}

#[test]
fn an_hdf5_file_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let set = phantom(folder.path(), 40);
    succeed(&train_arguments(&set, &at("run"), &SHORT));
    // A link to a named pipe would wait for a writer.
    let pipe = at("pipe.h5");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    let moved = |file: &hdf5::File, name: &str, target: &str| {
        file.unlink(name).unwrap();
        file.link_external(target, name, name).unwrap();
    };
    let outside = |file: &hdf5::File, name: &str| {
        let shape = file.dataset(name).unwrap().shape();
        file.unlink(name).unwrap();
        let make = file.new_dataset::<f64>().shape(shape);
        make.with_dcpl(|properties| properties.external(&pipe, 0, 0)).create(name).unwrap();
    };
    let cases: [Case; 6] = [
        ("images is a link to another file", &|file| moved(file, "images", &pipe)),
        ("optics is a link to another file", &|file| moved(file, "optics", &set)),
        ("voltage is a link to another file", &|file| moved(file, "optics/voltage", &set)),
        ("rotation is a soft link", &|file| {
            file.relink("pose/rotation", "pose/other").unwrap();
            file.link_soft("/pose/other", "pose/rotation").unwrap();
        }),
        ("of /optics/voltage are in another file", &|file| outside(file, "optics/voltage")),
        ("of /ctf/defocus_u are in another file", &|file| outside(file, "ctf/defocus_u")),
    ];
    refused(folder.path(), &set, &|file| strings(&["info", file]), &cases);
    let mixture = at("run/gmm_half1.h5");
    let cases: [Case; 2] = [
        ("mean_x is a link to another file", &|file| moved(file, "mean_x", &pipe)),
        ("mean_x is a soft link", &|file| {
            file.relink("mean_x", "x").unwrap();
            file.link_soft("/x", "mean_x").unwrap();
        }),
    ];
    let voxelize = |file: &str| strings(&["voxelize", file, "-o", &at("m.mrc")]);
    refused(folder.path(), &mixture, &voxelize, &cases);
    let checkpoints = fs::read_dir(at("run/checkpoints")).unwrap();
    let checkpoint = checkpoints.map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    let cases: [Case; 1] = [("gmm is a link to another file", &|file| moved(file, "gmm", &pipe))];
    refused(folder.path(), &checkpoint.display().to_string(), &|file| strings(&["info", file]), &cases);
}

#[test]
fn named_pipes_are_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let set = phantom(folder.path(), 20);
    let truth = at("p_truth.mrc");
    let pipe = at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let out = at("out.h5");
    let run = at("run");
    let size = ["--box", "32", "--pixel-size", "4", "-n", "4"];
    for arguments in [
        &["info", &pipe][..],
        &["import", &pipe, "-o", &out],
        &["import", &truth, "--poses", &pipe, "--no-ctf", "-o", &out],
        &["train", &pipe, "-o", &run],
        &["train", &set, "-o", &run, "--truth", &pipe],
        &["train", &set, "-o", &run, "--init", &pipe],
        &["backproject", &pipe, "-o", &run],
        &["voxelize", &pipe, "-o", &out],
        &["export", "gmm", &pipe, "-o", &out],
        &["export", "star", &set, "--original", &pipe, "-o", &at("o.star")],
        &["export", "cs", &set, "--original", &pipe, "-o", &at("o.cs")],
        &["fsc", &truth, &pipe],
        &["fsc", &pipe, &truth],
        &["fsc", &truth, &truth, "--mask", &pipe],
        &["postprocess", &truth, &pipe, "-o", &at("post")],
        &["scaling", &pipe, "-o", &at("study")],
        &["bench", &pipe],
        &[&["simulate", "--model", &pipe, "-o", &out], &size[..]].concat(),
        &[&["simulate", "--map", &pipe, "-o", &out], &size[..]].concat(),
        &[&["simulate", "--phantom", "--noise-spectrum", &pipe, "-o", &out], &size[..]].concat(),
    ] {
        fail(arguments, &[&pipe, "named pipe"]);
    }
    fail(&["info", "/dev/zero"], &["/dev/zero", "device"]);
}

#[test]
fn texts_of_files_do_not_reach_the_terminal_raw() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 20);
    let escape = "\u{1b}]0;title\u{7}\u{1b}[31m\n  checksums  all match";
    {
        let _alone = alone();
        let file = hdf5::File::open_rw(&set).unwrap();
        // Read as the name of an optics group and of a stack.
        for name in ["optics/name", "source/files"] {
            file.unlink(name).unwrap();
            let value: FixedUnicode<64> = escape.parse().unwrap();
            file.new_dataset_builder().with_data(&[value]).create(name).unwrap();
        }
        file.close().unwrap();
    }
    let odd = path(folder.path(), "a\u{1b}[31m\nb.h5");
    fs::copy(&set, &odd).unwrap();
    for arguments in [&["info", &odd][..], &["info", "--json", &odd], &["voxelize", &odd, "-o", "m.mrc"]] {
        let output = program(arguments);
        let said = text(&output);
        assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
        assert!(!said.lines().any(|line| line.trim_start().starts_with("checksums")), "{said:?}");
    }
}
