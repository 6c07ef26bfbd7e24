//! `cryosplat-mpi compare` on generated run folders.

mod common;

use std::path::{Path, PathBuf};

use common::{fail, path, succeed};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::mrc::{Volume, write_volume};
use ndarray::Array3;
use serde_json::Value;

const BOX: usize = 16;

/// A blob with noise of amplitude `noise`.
fn map(seed: usize, noise: f32) -> Volume {
    let data = Array3::from_shape_fn((BOX, BOX, BOX), |(z, y, x)| {
        let d = |a: usize, c: f32| (a as f32 - c).powi(2);
        let blob = (-(d(x, 6.0) + d(y, 9.0) + d(z, 8.0)) / 2.0).exp();
        let hash = (x * 7919 + y * 104_729 + z * 1_299_709 + seed * 15_485_863) % 1009;
        blob + noise * (hash as f32 / 1009.0 - 0.5)
    });
    Volume::new(data, 2.0)
}

/// `map` in twice the box, with the same field of view, by linear interpolation.
fn finer(map: &Volume) -> Volume {
    let at = |i: usize, side: usize| ((i + side) / 2).min(BOX - 1);
    let corners = || (0..8).map(|corner| (corner / 4, corner / 2 % 2, corner % 2));
    let data = Array3::from_shape_fn((2 * BOX, 2 * BOX, 2 * BOX), |(z, y, x)| {
        corners().map(|(a, b, c)| map.data[[at(z, a), at(y, b), at(x, c)]]).sum::<f32>() / 8.0
    });
    Volume::new(data, 0.5 * map.pixel_size)
}

fn run(folder: &Path, name: &str, noise: f32, state: &str) -> PathBuf {
    let run = folder.join(name);
    std::fs::create_dir_all(&run).unwrap();
    let (half1, half2) = (map(1, noise), map(2, noise));
    let mean = Volume::new((&half1.data + &half2.data) * 0.5, 2.0);
    for (file, map) in [("half1.mrc", &half1), ("half2.mrc", &half2), ("map.mrc", &mean)] {
        write_volume(&run.join(file), map).unwrap();
    }
    std::fs::write(run.join("run.json"), format!("{{\"state\":\"{state}\"}}")).unwrap();
    run
}

#[test]
fn runs_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (clean, noisy) =
        (run(folder.path(), "clean", 0.02, "done"), run(folder.path(), "noisy", 0.2, "done"));
    // One folder without run.json, as of another program, and one with a single map.
    std::fs::remove_file(noisy.join("run.json")).unwrap();
    let single = folder.path().join("single");
    std::fs::create_dir(&single).unwrap();
    std::fs::copy(clean.join("map.mrc"), single.join("map.mrc")).unwrap();
    let truth = path(folder.path(), "truth.mrc");
    write_volume(Path::new(&truth), &map(0, 0.0)).unwrap();
    let stem = path(folder.path(), "both");
    let runs = [&clean, &noisy, &single].map(|run| run.to_str().unwrap());

    let said = succeed(&["compare", runs[0], runs[1], runs[2], "--truth", &truth, "-o", &stem]);
    let labels = [
        "clean, half maps",
        "clean against truth",
        "noisy, half maps",
        "noisy against truth",
        "single against truth",
    ];
    let lines: Vec<&str> = said.lines().collect();
    assert!(labels.iter().zip(&lines[1..]).all(|(label, line)| line.starts_with(label)), "{said}");
    let csv = std::fs::read_to_string(folder.path().join("both.csv")).unwrap();
    assert!(csv.contains(",\"clean, half maps\",clean against truth,"), "{csv}");
    let svg = std::fs::read_to_string(folder.path().join("both.svg")).unwrap();
    // Curves of half maps are dashed, in the legend and in the plot.
    assert_eq!(svg.matches("stroke-dasharray=\"7 4\"").count(), 4, "{svg}");
    assert!(folder.path().join("both.png").exists());

    let json: Value =
        serde_json::from_str(&succeed(&["compare", runs[1], runs[0], "--truth", &truth, "--json"])).unwrap();
    let curves = json["curves"].as_array().unwrap();
    assert_eq!((curves[1]["run"].as_str(), curves[1]["against"].as_str()), (Some(runs[1]), Some("truth")));
    let expected = Fsc::between(&map(1, 0.2), &map(2, 0.2)).unwrap().mean();
    assert!((curves[0]["mean"].as_f64().unwrap() - expected).abs() < 1e-6, "{json}");
    assert!(curves[3]["mean"].as_f64() > curves[1]["mean"].as_f64(), "{json}");

    let masked: Value =
        serde_json::from_str(&succeed(&["compare", runs[1], "--mask", "sphere", "--json"])).unwrap();
    assert!(masked["curves"][0]["mean"] != curves[0]["mean"]);
}

#[test]
fn unusable_runs_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let sound = run(folder.path(), "sound", 0.1, "done");
    let sound = sound.to_str().unwrap();
    let other = |name: &str| path(folder.path(), name);
    fail(&["compare", sound, &other("none")], &["none", "is not a folder"]);
    run(folder.path(), "begun", 0.1, "training");
    fail(&["compare", sound, &other("begun")], &["begun", "training"]);
    std::fs::create_dir(other("empty")).unwrap();
    fail(&["compare", &other("empty"), sound], &["empty", "holds no map.mrc"]);
    run(folder.path(), "single", 0.1, "done");
    std::fs::remove_file(folder.path().join("single/half2.mrc")).unwrap();
    fail(&["compare", sound, &other("single")], &["single", "--truth"]);
    let small = Volume::new(Array3::from_shape_fn((8, 8, 8), |(z, y, x)| (z * y + x) as f32), 2.0);
    run(folder.path(), "small", 0.1, "done");
    for name in ["half1.mrc", "half2.mrc", "map.mrc"] {
        write_volume(&folder.path().join("small").join(name), &small).unwrap();
    }
    fail(&["compare", sound, &other("small")], &["small", "8 x 8 x 8", "16 x 16 x 16"]);
    let truth = other("small/map.mrc");
    fail(&["compare", sound, "--truth", &truth], &["map.mrc", "8 x 8 x 8"]);
    fail(&["compare", sound, "--radius", "10"], &["--mask sphere"]);
}

#[test]
fn runs_are_ranked_by_their_particles_and_resampled() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (run(folder.path(), "good", 0.1, "done"), run(folder.path(), "bad", 0.5, "done"));
    // The half maps of the bad run agree perfectly with each other, but not with the particles.
    std::fs::copy(bad.join("half1.mrc"), bad.join("half2.mrc")).unwrap();
    let voxels = run(folder.path(), "voxels", 0.3, "done");
    std::fs::write(voxels.join("run.json"), r#"{"state":"done","method":"backproject"}"#).unwrap();
    for (i, half) in ["half1.mrc", "half2.mrc"].into_iter().enumerate() {
        write_volume(&voxels.join(half), &map(11 + i, 0.3)).unwrap();
        // A training run keeps its own voxel maps.
        write_volume(&good.join(format!("voxels_{half}")), &map(11 + i, 0.3)).unwrap();
    }
    let runs = [&bad, &good, &voxels].map(|run| run.to_str().unwrap());
    let json: Value = serde_json::from_str(&succeed(&[
        "compare", runs[0], runs[1], runs[2], "--voxels", runs[2], "--json",
    ]))
    .unwrap();
    let ranked = json["ranking"]["runs"].as_array().unwrap();
    assert_eq!(ranked.len(), 3, "{json}");
    let place = |name: &str| ranked.iter().position(|run| run["name"] == name).unwrap();
    assert!(place("good") < place("bad"), "{json}");
    let curves = json["curves"].as_array().unwrap();
    assert_eq!(
        (curves[0]["against"].as_str(), curves[1]["against"].as_str()),
        (Some("half maps"), Some("cross-validated"))
    );

    let said = succeed(&["compare", runs[0], runs[1]]);
    assert!(
        said.contains("not ranked, without cross-validation: bad") && !said.contains("ranking by"),
        "{said}"
    );
    let said = succeed(&["compare", runs[1], runs[2]]);
    assert!(said.contains("ranking by the mean cross-validated FSC of shells 1 to"), "{said}");

    // Another box with the same field of view is resampled; its curve hardly changes.
    let fine = run(folder.path(), "fine", 0.1, "done");
    for name in ["half1.mrc", "half2.mrc", "map.mrc"] {
        let coarse = cryosplat_mpi::imaging::mrc::read_volume(&good.join(name)).unwrap();
        write_volume(&fine.join(name), &finer(&coarse)).unwrap();
    }
    let json: Value = serde_json::from_str(&succeed(&[
        "compare",
        runs[1],
        fine.to_str().unwrap(),
        "--voxels",
        runs[2],
        "--json",
    ]))
    .unwrap();
    assert!(json["notes"][0].as_str().unwrap().contains("resampled from 32 to 16 pixels"), "{json}");
    let means: Vec<f64> =
        json["ranking"]["runs"].as_array().unwrap().iter().map(|run| run["mean"].as_f64().unwrap()).collect();
    assert!((means[0] - means[1]).abs() < 0.01, "{json}");

    // A training run without voxel maps has nothing to cross-validate with.
    std::fs::write(bad.join("run.json"), r#"{"state":"done","particles":{}}"#).unwrap();
    fail(&["compare", runs[1], "--voxels", runs[0]], &["bad", "without voxels_half1.mrc"]);
}
