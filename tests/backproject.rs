//! `cryosplat-mpi backproject`: quality of the maps and its dependence on poses and CTFs, ranks and threads, errors.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{
    BOX, bytes, change_image, contents, corrupt, edit, expect_failure, fail, over_mpi, path, phantom,
    program_file, ranks_succeed, succeed, train_arguments,
};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::mrc::{Volume, read_volume};
use ndarray::Array3;
use serde_json::Value;

const MAPS: [&str; 4] = ["half1.mrc", "half2.mrc", "map.mrc", "fsc.csv"];

fn arguments(set: &str, run: &str, options: &[&str]) -> Vec<String> {
    ["backproject", set, "-o", run].iter().chain(options).map(|&argument| argument.to_owned()).collect()
}

fn volume(run: &str, name: &str) -> Volume {
    read_volume(&Path::new(run).join(name)).unwrap()
}

/// Mean FSC against the truth over the inner half of the shells.
fn quality(map: &Volume, truth: &Path) -> f64 {
    let truth = Volume { pixel_size: map.pixel_size, ..read_volume(truth).unwrap() };
    Fsc::between(map, &truth).unwrap().mean_to(BOX / 4)
}

#[test]
fn a_run_reconstructs_the_truth_and_writes_all_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 300);
    let truth = folder.path().join("p_truth.mrc");
    let run = path(folder.path(), "run");
    succeed(&arguments(&set, &run, &["--truth", truth.to_str().unwrap()]));
    let names: BTreeSet<String> = contents(Path::new(&run)).into_keys().collect();
    let expected = "half1.mrc half2.mrc map.mrc mask.mrc fsc.csv fsc.svg fsc.png slices.png run.json report.html log.txt view.cxc";
    assert_eq!(names, expected.split_whitespace().map(str::to_owned).collect());
    for name in ["half1.mrc", "half2.mrc", "map.mrc"] {
        let found = quality(&volume(&run, name), &truth);
        assert!(found > 0.98, "{name}: {found}");
    }
    let json: Value = serde_json::from_slice(&bytes(&run, "run.json")).unwrap();
    assert_eq!((json["state"].as_str(), json["method"].as_str()), (Some("done"), Some("backproject")));
    assert_eq!(json["particles"]["models"][1]["particles"], 150);
    let means = ["map", "half1", "half2"]
        .map(|map| json["fsc"][format!("{map} against truth")]["mean"].as_f64().unwrap());
    // The map of all particles is better than the half maps.
    assert!(means[0] > 0.9 && means[0] > means[1] + 0.01 && means[0] > means[2] + 0.01, "{means:?}");
    let report = String::from_utf8(bytes(&run, "report.html")).unwrap();
    assert!(report.contains("Fourier shell correlation") && report.contains("data:image/png"));
}

#[test]
fn the_wiener_filter_improves_noisy_maps() {
    let folder = tempfile::tempdir().unwrap();
    let (set, truth) = (path(folder.path(), "noisy.h5"), path(folder.path(), "noisy_truth.mrc"));
    let options = "--box 32 --pixel-size 4 -n 300 --snr 0.1 --seed 3".split(' ');
    succeed(&["simulate", "--phantom", "-o", &set].into_iter().chain(options).collect::<Vec<_>>());
    let means = |options: &[&str]| {
        let run = path(folder.path(), &format!("run{}", options.len()));
        succeed(&arguments(&set, &run, &[options, &["--truth", &truth]].concat()));
        let json: Value = serde_json::from_slice(&bytes(&run, "run.json")).unwrap();
        ["map", "half1", "half2"]
            .map(|map| json["fsc"][format!("{map} against truth")]["mean"].as_f64().unwrap())
    };
    let (filtered, plain) = (means(&[]), means(&["--no-wiener"]));
    // Mean over all shells: a filter applied before the spherical mask would be 0.006 worse than no filter.
    for (filtered, plain) in filtered.iter().zip(plain) {
        assert!(*filtered > plain + 0.004, "{filtered} and {plain}");
    }
    // The map of all particles is better than the half maps.
    assert!([filtered, plain].iter().all(|[map, half1, half2]| *map > half1.max(*half2) + 0.01));
    // The FSC does not depend on the gain of a shell, which suppresses its noise; the real-space correlation does.
    let truth = read_volume(Path::new(&truth)).unwrap().data;
    for (map, limit) in [("map.mrc", 0.85), ("half1.mrc", 0.8), ("half2.mrc", 0.8)] {
        let map = volume(&path(folder.path(), "run0"), map).data;
        let dot = |a: &Array3<f32>, b: &Array3<f32>| (a * b).sum();
        let correlation = dot(&map, &truth) / (dot(&map, &map) * dot(&truth, &truth)).sqrt();
        assert!(correlation > limit, "{correlation}");
    }
}

#[test]
fn wrong_poses_centres_or_ctfs_degrade_the_map() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("p_truth.mrc");
    let sound = phantom(folder.path(), 300);
    let altered = |name: &str, alter: &dyn Fn(&str)| {
        let set = path(folder.path(), &format!("{name}.h5"));
        std::fs::copy(&sound, &set).unwrap();
        alter(&set);
        let run = path(folder.path(), name);
        succeed(&arguments(&set, &run, &["--no-wiener"]));
        quality(&volume(&run, "map.mrc"), &truth)
    };
    let as_it_is = altered("sound", &|_| ());
    assert!(as_it_is > 0.98, "{as_it_is}");
    let transposed = altered("transposed", &|set| {
        edit::<f64>(set, "pose/rotation", |all| {
            for w in all.chunks_exact_mut(9) {
                for (a, b) in [(1, 3), (2, 6), (5, 7)] {
                    w.swap(a, b);
                }
            }
        });
    });
    let moved = altered("moved", &|set| {
        (0..300).for_each(|row| change_image(set, row, |image| image.rotate_right(BOX + 1)));
    });
    // The other sign of the CTF, and another defocus.
    let negative = altered("negative", &|set| {
        edit::<f64>(set, "ctf/phase_shift", |all| all.iter_mut().for_each(|v| *v += 180.0));
    });
    let unfocused = altered("unfocused", &|set| {
        for name in ["ctf/defocus_u", "ctf/defocus_v"] {
            edit::<f64>(set, name, |all| all.iter_mut().for_each(|v| *v *= 1.6));
        }
    });
    assert!(negative < -0.98, "{negative}");
    for (what, found) in [("transposed", transposed), ("moved", moved), ("unfocused", unfocused)] {
        assert!(found < 0.9, "{what}: {found}");
    }
}

#[test]
fn maps_agree_between_ranks_and_have_the_same_bits_between_threads_and_launches() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 61);
    for options in [&[][..], &["--no-wiener"], &["--no-wiener", "--symmetry", "D3"]] {
        let name = |what: &str| path(folder.path(), &format!("{what}{}", options.len()));
        let run = |what: &str, ranks: usize, threads: &str| {
            let run = name(what);
            let arguments = arguments(&set, &run, &[options, &["--threads", threads]].concat());
            if ranks == 1 {
                succeed(&arguments)
            } else {
                ranks_succeed(ranks, &arguments)
            };
            run
        };
        let one = run("one", 1, "1");
        // With one rank per half no sum is over ranks.
        for other in [run("threads", 1, "3"), run("two", 2, "1")] {
            for file in MAPS {
                assert!(bytes(&one, file) == bytes(&other, file), "{other}: {file} differs");
            }
        }
        let (four, again) = (run("four", 4, "1"), run("again", 4, "2"));
        for file in MAPS {
            assert!(bytes(&four, file) == bytes(&again, file), "{file} differs between launches");
        }
        for file in ["half1.mrc", "half2.mrc", "map.mrc"] {
            let (a, b) = (volume(&one, file).data, volume(&four, file).data);
            let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let apart = a.iter().zip(&b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            // The map is 0 outside the sphere, but for what the gain of the filter spreads there.
            let beyond = if options.is_empty() { 1e-3 } else { 0.0 };
            assert!(a[[0, 0, 0]].abs() <= beyond * largest && a[[0, 16, 16]] != 0.0, "{}", a[[0, 0, 0]]);
            // Sums in single precision, in another order.
            assert!(apart < 1e-4 * largest, "{file}: {apart} of {largest}");
        }
    }
}

#[test]
fn a_refused_run_does_not_change_an_older_run() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 12);
    let run = path(folder.path(), "run");
    succeed(&train_arguments(&set, &run, &["--gaussians", "20", "--epochs", "2"]));
    let before = contents(Path::new(&run));
    let refuse = |set: &str, options: &[&str], fragments: &[&str]| {
        let all = arguments(set, &run, &[options, &["--threads", "1"]].concat());
        fail(&all, fragments);
        let output = over_mpi(2, &program_file(), &all);
        assert!(!output.status.success());
        let said = common::text(&output);
        assert!(said.lines().any(|line| fragments.iter().all(|f| line.contains(f))), "{said}");
        assert!(contents(Path::new(&run)) == before, "{fragments:?}: the older run changed");
    };
    refuse(&set, &[], &["run", "holds a run already", "--overwrite"]);
    let broken = path(folder.path(), "broken.h5");
    let with = |alter: &dyn Fn(&str)| {
        std::fs::copy(&set, &broken).unwrap();
        alter(&broken);
        broken.as_str()
    };
    let overwrite = ["--overwrite"];
    refuse(&path(folder.path(), "missing.h5"), &overwrite, &["missing.h5", "No such file"]);
    let shifted = with(&|set| edit::<f64>(set, "pose/shift", |all| all[5] = 1.5));
    refuse(shifted, &overwrite, &["broken.h5", "particle 3", "still to apply"]);
    refuse(with(&|set| corrupt(set, 7)), &overwrite, &["broken.h5", "particle 8", "checksum"]);
    let not_finite = with(&|set| common::overflow(set, 7));
    refuse(not_finite, &overwrite, &["broken.h5", "particle 8", "not finite"]);
    let truth = path(folder.path(), "p.h5");
    refuse(&set, &["--overwrite", "--truth", &truth], &["p.h5"]);
    let crowd = over_mpi(14, &program_file(), &arguments(&set, &run, &overwrite));
    assert!(common::text(&crowd).contains("7 ranks are to backproject half1 with 6 particles"));
    assert!(contents(Path::new(&run)) == before);

    // With --overwrite, no file of the older run stays.
    succeed(&arguments(&set, &run, &overwrite));
    let names: Vec<String> = contents(Path::new(&run)).into_keys().collect();
    assert!(
        !names.iter().any(|name| name.contains("gmm") || name.contains("step") || name.contains("jsonl"))
    );
    expect_failure(&common::program(&train_arguments(&set, &run, &[])), &["holds a run that is done"]);
}
