//! Cross-validation of half maps, by `train` and by `fsc --voxels`.

mod common;

use std::path::Path;

use common::{
    BOX, bytes, change_image, fail, over_mpi, path, phantom, program_file, succeed, train_arguments,
};
use serde_json::Value;

fn document(run: &str) -> Value {
    serde_json::from_slice(&bytes(run, "run.json")).unwrap()
}

/// The curve with this label in a run's fsc.csv, from shell 1 to its end.
fn curve(run: &str, label: &str) -> Vec<f64> {
    let text = String::from_utf8(bytes(run, "fsc.csv")).unwrap();
    let mut lines = text.lines();
    let column = lines.next().unwrap().split(',').position(|name| name == label).expect("the curve is there");
    lines.map_while(|line| line.split(',').nth(column).unwrap().parse().ok()).collect()
}

/// Half maps with a common bias: a model too coarse for the specimen, a training run that is too short, and a shared initial mixture.
#[test]
fn half_maps_with_a_common_bias_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 400);
    let truth = path(folder.path(), "p_truth.mrc");
    let other = path(folder.path(), "other.h5");
    let of_other = ["--box", "32", "--pixel-size", "4", "--particles", "40", "--seed", "9", "--phantom"];
    succeed(&[&["simulate", "-o", &other][..], &of_other].concat());
    let donor = path(folder.path(), "donor");
    succeed(&train_arguments(&other, &donor, &["--half", "all", "--gaussians", "100", "--epochs", "20"]));
    let shared = path(Path::new(&donor), "gmm_map.h5");
    let cases: [(&str, &[&str], bool); 4] = [
        ("sound", &["--gaussians", "300", "--epochs", "60"], true),
        ("coarse", &["--gaussians", "10", "--epochs", "60", "--isotropic", "--sampling", "points"], false),
        ("short", &["--gaussians", "200", "--epochs", "5", "--recipe", "paper"], false),
        ("shared", &["--init", &shared, "--epochs", "1", "--learning-rate", "1e-9"], false),
    ];
    for (name, options, sound) in cases {
        let run = path(folder.path(), name);
        succeed(&train_arguments(&set, &run, &[options, &["--truth", &truth]].concat()));
        let halves = curve(&run, "half maps");
        let confirmed = curve(&run, "cross-validated");
        let against = [1, 2].map(|half| curve(&run, &format!("half{half} against truth")));
        assert!(confirmed.len() >= 8, "{name}: {confirmed:?}");
        // The curve agrees with the ground truth, which it does not use; the half maps' FSC does not.
        let (mut off, mut claimed) = (0.0, 0.0);
        for shell in 0..confirmed.len() {
            let true_one = against[0][shell] * against[1][shell];
            off += (confirmed[shell] - true_one).abs() / confirmed.len() as f64;
            claimed += (halves[shell] - true_one) / confirmed.len() as f64;
        }
        assert!(off < 0.04, "{name}: {confirmed:?} is {off} off {against:?}");
        assert_eq!(claimed > 0.1, !sound, "{name}: {claimed}");
        let found = &document(&run)["cross_validation"];
        assert_eq!(found["confirms"], sound, "{name}: {found}");
        assert_eq!(found["excess"].is_null(), sound);
        let report = String::from_utf8(bytes(&run, "report.html")).unwrap();
        assert!(report.contains("cross-validated"), "{name}");
        let warns = report.contains("Warning: the half maps share a bias");
        assert_eq!(warns, !sound, "{name}");
        assert_eq!(report.contains("Cross-validation finds no bias"), sound, "{name}");
        let resolution = &document(&run)["resolution"];
        assert_eq!(resolution["evidence"], "cross-validated", "{name}: {resolution}");
        // A bias lowers the confirmed curve, but not always the shell where it crosses the threshold.
        assert!(resolution["limit"] != "unconfirmed" || !sound, "{name}: {resolution}");
    }
}

/// A subset of the particles, on any number of ranks, without those that the training excluded.
#[test]
fn voxel_maps_use_the_requested_number_of_particles() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 400);
    let usual = ["--gaussians", "100", "--epochs", "3"];
    let run = |name: &str, ranks: usize, options: &[&str]| -> Vec<f64> {
        let run = path(folder.path(), name);
        let arguments = train_arguments(&set, &run, &[&usual[..], options].concat());
        let output = over_mpi(ranks, &program_file(), &arguments);
        assert!(output.status.success(), "{}", common::text(&output));
        if document(&run)["cross_validation"].is_null() { Vec::new() } else { curve(&run, "cross-validated") }
    };
    let all = run("all", 1, &[]);
    assert!(all.len() > BOX / 4, "{all:?}");
    let on_ranks = run("ranks", 3, &[]);
    // Models and voxel maps differ by rounding.
    assert!(all.iter().zip(&on_ranks).take(8).all(|(a, b)| (a - b).abs() < 0.01), "{all:?} {on_ranks:?}");
    let few = run("few", 1, &["--voxel-particles", "50"]);
    assert!(few != all && few.iter().zip(&all).take(4).all(|(a, b)| (a - b).abs() < 0.1), "{few:?} {all:?}");
    assert_eq!(run("none", 1, &["--voxel-particles", "0"]), [0.0; 0]);
    // If this particle were not excluded, it would dominate the voxel map.
    change_image(&set, 5, |image| image.iter_mut().step_by(3).for_each(|pixel| *pixel = 1e30));
    let without = run("without", 1, &["--skip-bad-particles", "8", "--batch", "1"]);
    assert!(without.len() > BOX / 4, "{without:?}");
}

#[test]
fn fsc_cross_validates_with_voxels_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 200);
    let voxels = path(folder.path(), "voxels");
    succeed(&["backproject", &set, "-o", &voxels]);
    let [first, second] = ["half1.mrc", "half2.mrc"].map(|name| path(Path::new(&voxels), name));
    let fsc = |options: &[&str]| -> Value {
        let output = common::program(&[&["fsc", &first, &second, "--json"][..], options].concat());
        assert!(output.status.success(), "{}", common::text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for mask in ["none", "sphere"] {
        let found = fsc(&["--mask", mask, "--voxels", &voxels]);
        let shells = |label: &str| -> Vec<f64> {
            let curves = found["curves"].as_array().unwrap();
            let curve = curves.iter().find(|curve| curve["label"] == label).expect("the curve is there");
            curve["shells"].as_array().unwrap().iter().map(|shell| shell.as_f64().unwrap()).collect()
        };
        // Voxel maps cross-validated with themselves: FSC^2 / FSC.
        let own = shells(if mask == "none" { "no mask" } else { "spherical mask" });
        let confirmed = shells("cross-validated");
        assert!(confirmed.len() > 4);
        assert!(
            confirmed.iter().zip(&own).skip(1).all(|(a, b)| (a - b).abs() < 1e-9),
            "{confirmed:?} {own:?}"
        );
        assert_eq!(found["cross_validation"]["confirms"], true);
    }
    assert!(fsc(&[])["cross_validation"].is_null());
    assert!(fsc(&[])["resolution"]["evidence"] == "half-maps");
    let said = succeed(&["fsc", &first, &second, "--voxels", &voxels]);
    assert!(said.contains("cross-validation finds no bias") && said.contains("resolution: "), "{said}");

    let elsewhere = path(folder.path(), "elsewhere");
    fail(&["fsc", &first, &second, "--voxels", &elsewhere], &["elsewhere/half1.mrc", "No such file"]);
    std::fs::create_dir(&elsewhere).unwrap();
    let other = path(folder.path(), "other");
    succeed(&[
        "simulate",
        "-o",
        &path(folder.path(), "o.h5"),
        "--phantom",
        "--box",
        "24",
        "--pixel-size",
        "4",
        "-n",
        "20",
    ]);
    succeed(&["backproject", &path(folder.path(), "o.h5"), "-o", &other]);
    fail(&["fsc", &first, &second, "--voxels", &other], &["other/half1.mrc", "24"]);
    let refused = common::program(&["fsc", &first, &second, "--reference", "--voxels", &voxels]);
    assert_eq!(refused.status.code(), Some(2), "{}", common::text(&refused));
}
