//! `train --densify`: Gaussians that become two after some epochs, over ranks, through checkpoints, in both recipes.

mod common;

use std::path::Path;

use common::{assert_same, bytes, fail, path, phantom, ranks_succeed, steps, succeed, train_arguments, undo};
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::run_folder::checkpoint::Checkpoint;
use serde_json::Value;

/// Files of a run that depend on its input, seed and number of ranks only.
const RESULTS: [&str; 5] = ["half1.mrc", "half2.mrc", "map.mrc", "gmm_half1.ply", "gmm_half2.ply"];
/// Two mixtures of three epochs: 50, 100 and 200 Gaussians in each.
const USUAL: [&str; 10] =
    ["--gaussians", "200", "--epochs", "6", "--mixtures", "2", "--densify", "1,2", "--metrics-every", "1"];

fn gaussians(run: &str, name: &str) -> usize {
    GmmFile::read(Path::new(&path(Path::new(run), name))).unwrap().gmm.len()
}

/// Step, and numbers before and after, of the densifications in the metrics of half 1.
fn densified(run: &str) -> Vec<(u64, u64, u64)> {
    let text = String::from_utf8(bytes(run, "metrics_half1.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |line: Value| {
        let number = |value: &Value| value.as_u64().unwrap();
        let grown = line.get("densified")?;
        Some((number(&line["step"]), number(&grown["from"]), number(&grown["to"])))
    };
    lines.filter_map(of).collect()
}

#[test]
fn ranks_and_threads_split_alike() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 96);
    let run = |ranks: usize, name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let options = [&USUAL[..], &["--learning-rate", "8e-4"], options].concat();
        let said = ranks_succeed(ranks, &train_arguments(&set, &run, &options));
        (run, said)
    };
    let (one, said) = run(1, "one", &[]);
    assert!(said.contains("2 mixtures of 200 Gaussians, from 50 by doubling after epochs 1 and 2"), "{said}");
    for (epoch, from, to) in [(1, 50, 100), (2, 100, 200), (4, 50, 100), (5, 100, 200)] {
        assert!(said.contains(&format!("half1 densified after epoch {epoch}: {from} -> {to}")), "{said}");
    }
    // 48 particles in steps of 8; the mixture of a half holds both of its mixtures.
    assert_eq!(densified(&one), [(7, 50, 100), (13, 100, 200), (25, 50, 100), (31, 100, 200)]);
    assert_eq!(gaussians(&one, "gmm_half1.h5"), 400);
    let json: Value = serde_json::from_slice(&bytes(&one, "run.json")).unwrap();
    assert_eq!((&json["settings"]["gaussians"], &json["settings"]["densify"]), (&200.into(), &[1, 2].into()));
    let report = String::from_utf8(bytes(&one, "report.html")).unwrap();
    assert!(report.contains("after doubling at the end of epochs 1, 2"));

    let (two, _) = run(2, "two", &["--threads", "2"]);
    assert_same(&RESULTS, &one, &two, "two ranks of two threads");
    // On four ranks sums are in another order: the first steps agree, and rounding grows.
    let (four, _) = run(4, "four", &[]);
    let (want, got) = (steps(&one), steps(&four));
    assert_eq!((want.len(), got.len()), (72, 72));
    for (want, got) in want.iter().zip(&got) {
        let loss = |line: &Value| line["loss"].as_f64().unwrap();
        assert_eq!((&want["model"], &want["step"]), (&got["model"], &got["step"]));
        assert!((loss(want) / loss(got) - 1.0).abs() < 1e-4, "{want} {got}");
    }
    // A split changes the loss little: the pair has the moments of the original.
    let loss = |step: u64| {
        let at = |line: &&Value| line["model"] == "half1" && line["step"] == step;
        want.iter().find(at).unwrap()["loss"].as_f64().unwrap()
    };
    assert!((loss(7) / loss(6) - 1.0).abs() < 0.2, "{} {}", loss(6), loss(7));
}

#[test]
fn a_run_resumes_to_the_same_bits_before_and_after_a_split() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let last = |run: &str, step: u64| {
        let file = format!("checkpoints/half1_step{step:09}.h5");
        Checkpoint::read(Path::new(&path(Path::new(run), &file))).unwrap()
    };
    let usual = [&USUAL[..6], &["--metrics-every", "1"]].concat();
    // Half 1 has 3 steps per epoch. The last checkpoint but one is at the end of epoch 5, the second of the second mixture.
    for (name, epochs, count) in [("before", "1,2", 100), ("after", "1", 200)] {
        let (whole, run) = (path(folder.path(), "whole"), path(folder.path(), name));
        let options = [&usual[..], &["--densify", epochs]].concat();
        succeed(&train_arguments(&set, &whole, &[&options[..], &["--overwrite"]].concat()));
        succeed(&train_arguments(&set, &run, &options));
        undo(&run, "half1");
        assert_eq!(last(&run, 15).state.gmm.len(), count);
        let said = succeed(&train_arguments(&set, &run, &[&options[..], &["--resume"]].concat()));
        assert!(said.contains("resuming after step 15 of half1"), "{said}");
        assert_eq!(said.contains("half1 densified after epoch 5: 100 -> 200"), count == 100, "{said}");
        assert_same(&RESULTS, &whole, &run, name);
        assert_eq!(steps(&whole), steps(&run));
        assert_eq!(densified(&whole), densified(&run), "no line twice");
    }
    let other = [&usual[..], &["--densify", "2", "--resume"]].concat();
    fail(
        &train_arguments(&set, &path(folder.path(), "after"), &other),
        &["run.json", "densify was [1] and is [2]"],
    );
}

#[test]
fn both_recipes_shapes_and_starts_grow() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = |name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let usual = ["--half", "1", "--epochs", "2", "--densify", "1", "--voxel-particles", "0"];
        (run.clone(), succeed(&train_arguments(&set, &run, &[&usual, options].concat())))
    };
    for (name, options) in [
        ("paper", &["--recipe", "paper", "--gaussians", "61"][..]),
        ("isotropic", &["--isotropic", "--gaussians", "61"]),
    ] {
        let (run, said) = run(name, options);
        assert!(said.contains("60 Gaussians, from 30 by doubling after epoch 1,"), "{said}");
        assert_eq!(gaussians(&run, "gmm_half1.h5"), 60, "rounded down");
    }
    let paper = path(folder.path(), "paper");
    let file = path(Path::new(&paper), "gmm_half1.h5");
    let (start, _) = run("start", &["--init", &file]);
    assert_eq!(gaussians(&start, "gmm_half1.h5"), 120, "the file is the start");
    let info = succeed(&["info", &path(Path::new(&start), "checkpoints/half1_step000000003.h5")]);
    assert!(info.contains("120, from 60 by doubling after epoch 1"), "{info}");
}

#[test]
fn epochs_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let run = path(folder.path(), "run");
    let refuse = |options: &[&str], fragments: &[&str]| {
        let usual = ["--gaussians", "40", "--learning-rate", "1e-3"];
        fail(&train_arguments(&set, &run, &[&usual, options].concat()), fragments);
    };
    refuse(&["--densify", "3,2", "--mixtures", "1"], &["--densify 3,2 is not in ascending order", ";"]);
    refuse(&["--densify", "2,2", "--mixtures", "1"], &["--densify 2,2 is not in ascending order"]);
    let last = ["--epochs", "7", "--densify", "1,3", "--mixtures"];
    refuse(&[&last[..], &["2"]].concat(), &["--densify 3", "the shortest of 2 mixtures has 3", "--mixtures"]);
    refuse(&["--epochs", "3", "--densify", "3", "--mixtures", "1"], &["--densify 3", "the run has 3"]);
    let often: Vec<String> = (1..=17).map(|epoch| epoch.to_string()).collect();
    refuse(
        &["--epochs", "30", "--mixtures", "1", "--densify", &often.join(",")],
        &["at most 16 are allowed"],
    );
    assert!(!Path::new(&run).join("run.json").exists());
}
