//! Unusable particles: named in the error, or excluded with `--skip-bad-particles`, alike on any number of ranks.

mod common;

use std::path::Path;

use common::{
    assert_same, bytes, corrupt, expect_failure, fail, over_mpi, overflow, path, phantom, program_file,
    ranks_succeed, start_that_overflows, steps, succeed, train_arguments, undo,
};
use serde_json::Value;

const RESULTS: [&str; 5] = ["half1.mrc", "half2.mrc", "gmm_half1.ply", "gmm_half2.ply", "skipped_half1.csv"];

/// The lines of a run's list of excluded particles for `model`, without the header.
fn skipped(run: &str, model: &str) -> Vec<String> {
    let text = String::from_utf8(bytes(run, &format!("skipped_{model}.csv"))).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "particle,stack,image,reason,step");
    lines
}

#[test]
fn damaged_images_end_the_run_or_are_excluded() {
    let folder = tempfile::tempdir().unwrap();
    // Rows 0 to 49 are half 1.
    let set = phantom(folder.path(), 100);
    corrupt(&set, 7);
    corrupt(&set, 80);
    let options = ["--gaussians", "60", "--epochs", "3", "--metrics-every", "1"];
    let run = |name: &str| path(folder.path(), name);
    for cache in ["host", "none"] {
        let arguments = train_arguments(&set, &run("refused"), &[&options[..], &["--cache", cache]].concat());
        fail(&arguments, &["p.h5", "particle 8", "does not match its checksum"]);
        let output = over_mpi(2, &program_file(), &arguments);
        expect_failure(&output, &["rank", " on ", "p.h5", "does not match its checksum"]);
    }
    let allowed = [&options[..], &["--skip-bad-particles", "1"]].concat();
    let said = succeed(&train_arguments(&set, &run("one"), &allowed));
    assert!(said.contains("1 particle is excluded") && said.contains("skipped_half1.csv"), "{said}");
    assert_eq!(
        skipped(&run("one"), "half1")[0].split(',').take(4).collect::<Vec<_>>(),
        ["8", "", "", "checksum"]
    );
    assert!(skipped(&run("one"), "half2")[0].starts_with("81,"));
    let json: Value = serde_json::from_slice(&bytes(&run("one"), "run.json")).unwrap();
    assert_eq!(json["particles"]["models"][0]["left_out"], 1);
    // The same with any cache and number of ranks.
    succeed(&train_arguments(&set, &run("none"), &[&allowed[..], &["--cache", "none"]].concat()));
    assert_same(&RESULTS[..4], &run("one"), &run("none"), "read in every epoch");
    ranks_succeed(4, &train_arguments(&set, &run("four"), &allowed));
    for (a, b) in steps(&run("one")).iter().zip(&steps(&run("four"))) {
        let loss = |line: &Value| line["loss"].as_f64().unwrap();
        assert!((loss(a) / loss(b) - 1.0).abs() < 1e-3, "{a} {b}");
    }
    assert_eq!(skipped(&run("four"), "half1").len(), 1);
    // One more than allowed. With resident particles this is an error before the older run is removed.
    corrupt(&set, 9);
    let before = bytes(&run("one"), "half1.mrc");
    for (ranks, cache) in [(1, "host"), (4, "host"), (1, "none"), (4, "none")] {
        let name = if cache == "host" { "one" } else { "many" };
        let more = [&allowed[..], &["--cache", cache, "--overwrite"]].concat();
        let output = over_mpi(ranks, &program_file(), &train_arguments(&set, &run(name), &more));
        expect_failure(&output, &["2 particles are unusable", "--skip-bad-particles allows only 1"]);
    }
    assert!(bytes(&run("one"), "half1.mrc") == before);
    assert_eq!(skipped(&run("one"), "half1").len(), 1);
}

#[test]
fn a_particle_whose_ctf_overflows_is_named_or_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 100);
    overflow(&set, 7);
    let options = ["--gaussians", "60", "--epochs", "3", "--metrics-every", "1", "--batch", "4"];
    let run = |name: &str| path(folder.path(), name);
    for ranks in [1, 4] {
        let output = over_mpi(ranks, &program_file(), &train_arguments(&set, &run("refused"), &options));
        expect_failure(&output, &["p.h5", "particle 8", "CTF", "B factor"]);
        assert!(!Path::new(&run("refused")).join("half1.mrc").exists());
    }
    let allowed = [&options[..], &["--skip-bad-particles", "1"]].concat();
    succeed(&train_arguments(&set, &run("one"), &allowed));
    let lines = skipped(&run("one"), "half1");
    assert!(lines.len() == 1 && lines[0].starts_with("8,,,ctf,"), "{lines:?}");
    // 13 steps in each of 3 epochs: none is missing.
    assert_eq!(steps(&run("one")).iter().filter(|line| line["model"] == "half1").count(), 39);
    succeed(&train_arguments(&set, &run("none"), &[&allowed[..], &["--cache", "none"]].concat()));
    assert_same(&RESULTS[..4], &run("one"), &run("none"), "read in every epoch");
    // After resuming it is still excluded, and the results are the same.
    ranks_succeed(1, &train_arguments(&set, &run("again"), &allowed));
    undo(&run("again"), "half1");
    succeed(&train_arguments(&set, &run("again"), &[&allowed[..], &["--resume"]].concat()));
    assert_same(&RESULTS, &run("one"), &run("again"), "resumed");
    ranks_succeed(4, &train_arguments(&set, &run("four"), &allowed));
    assert_eq!(skipped(&run("four"), "half1"), lines);
}

#[test]
fn a_step_that_is_not_finite_names_the_particle_that_causes_it() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 100);
    let (start, options) = start_that_overflows(folder.path(), &set, 7);
    for ranks in [1, 4] {
        for cache in ["host", "none"] {
            let run = path(folder.path(), "run");
            let more = ["--init", &start, "--cache", cache, "--skip-bad-particles", "9", "--overwrite"];
            let arguments = train_arguments(&set, &run, &[&options[..], &more].concat());
            let output = over_mpi(ranks, &program_file(), &arguments);
            expect_failure(&output, &["of half1 is not finite", "the particles that cause it are 8;"]);
            assert!(!Path::new(&run).join("half1.mrc").exists());
        }
    }
}
