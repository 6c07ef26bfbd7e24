//! `train --symmetry`: maps, mixture files, ranks, resuming and starts of symmetric particles.

mod common;

use std::path::Path;

use common::{
    BOX, PIXEL_SIZE, bytes, fail, path, ranks_succeed, steps, succeed, text, train_arguments, undo,
};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::gmm::{Gmm, ply};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::imaging::mrc::{Volume, read_volume, write_volume};
use cryosplat_mpi::imaging::pose::Rotation;
use ndarray::Array3;
use serde_json::Value;

/// Gaussians of the whole, and of the unit of an octahedral particle.
const WHOLE: [&str; 2] = ["--gaussians", "480"];
const UNIT: usize = 20;

/// Voxel (x, y, z) relative to the origin, voxel floor(BOX/2), after `operator`, which maps axes onto axes; `None` outside the map.
fn moved(operator: &Rotation, at: [isize; 3]) -> Option<[usize; 3]> {
    let place = |row: &[f64; 3]| {
        let sum: f64 = row.iter().zip(at).map(|(a, b)| a * b as f64).sum();
        usize::try_from(sum.round() as isize + (BOX / 2) as isize).ok().filter(|&place| place < BOX)
    };
    Some([place(&operator[0])?, place(&operator[1])?, place(&operator[2])?])
}

/// Largest difference between a map and its copies under the operators of the octahedral group, relative to its largest value.
fn asymmetry(map: &Array3<f32>) -> f32 {
    let largest = map.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let half = (BOX / 2) as isize;
    let mut worst = 0.0f32;
    for operator in Symmetry::O.operators() {
        for ((z, y, x), value) in map.indexed_iter() {
            if let Some([x, y, z]) = moved(&operator, [x, y, z].map(|i| i as isize - half)) {
                worst = worst.max((map[[z, y, x]] - value).abs());
            }
        }
    }
    worst / largest
}

/// A set of octahedral particles: two blobs of a unit, and all their equivalents. Returns the set and its truth.
fn octahedral(folder: &Path, particles: usize) -> (String, String) {
    let blobs = [([0.25, 0.10, 0.04], 0.035, 1.0), ([0.17, 0.13, 0.11], 0.025, 1.5)];
    let operators = Symmetry::O.operators();
    let density = |at: [f64; 3]| -> f32 {
        let of = |(centre, width, weight): ([f64; 3], f64, f64)| -> f64 {
            let one = |g: &Rotation| {
                let d2: f64 =
                    (0..3).map(|i| ((0..3).map(|j| g[i][j] * centre[j]).sum::<f64>() - at[i]).powi(2)).sum();
                weight * (-0.5 * d2 / (width * width)).exp()
            };
            operators.iter().map(one).sum()
        };
        blobs.into_iter().map(of).sum::<f64>() as f32
    };
    let at = |i: usize| (i as f64 - (BOX / 2) as f64) / BOX as f64;
    let map = Array3::from_shape_fn((BOX, BOX, BOX), |(z, y, x)| density([at(x), at(y), at(z)]));
    let file = path(folder, "model.mrc");
    write_volume(Path::new(&file), &Volume::new(map, PIXEL_SIZE)).unwrap();
    let (set, count) = (path(folder, "p.h5"), particles.to_string());
    let truth = path(folder, "truth.mrc");
    let grid = ["--box", "32", "--pixel-size", "4", "--snr", "0.05", "--seed", "3"];
    let words = ["simulate", "--map", &file, "-o", &set, "--truth", &truth, "-n", &count];
    succeed(&[&words[..], &grid].concat());
    (set, truth)
}

fn gmm(run: &str, name: &str) -> GmmFile {
    GmmFile::read(Path::new(&path(Path::new(run), name))).unwrap()
}

fn map(run: &str, name: &str) -> Volume {
    read_volume(Path::new(&path(Path::new(run), name))).unwrap()
}

#[test]
fn a_symmetric_run_makes_a_symmetric_map_better_than_one_without_symmetry() {
    let folder = tempfile::tempdir().unwrap();
    let (set, truth) = octahedral(folder.path(), 100);
    let (run, plain) = (path(folder.path(), "run"), path(folder.path(), "plain"));
    let usual = [&WHOLE[..], &["--epochs", "30", "--mixtures", "1", "--truth", &truth]].concat();
    let log = succeed(&train_arguments(&set, &run, &[&usual[..], &["--symmetry", "o"]].concat()));
    assert!(log.contains("20 Gaussians of the asymmetric unit (O, 480 in all)"), "{log}");
    succeed(&train_arguments(&set, &plain, &usual));

    let truth = read_volume(Path::new(&truth)).unwrap();
    let [ours, theirs] = [&run, &plain].map(|run| map(run, "map.mrc"));
    let mean = |map: &Volume| Fsc::between(map, &truth).unwrap().mean_to(BOX / 3);
    let [symmetric, asymmetric] = [&ours, &theirs].map(mean);
    assert!(symmetric > 0.9 && symmetric > asymmetric + 0.05, "{symmetric} {asymmetric}");
    assert!(asymmetry(&ours.data) < 1e-5, "{}", asymmetry(&ours.data));
    assert!(asymmetry(&theirs.data) > 0.05, "{}", asymmetry(&theirs.data));

    let run_json: Value = serde_json::from_slice(&bytes(&run, "run.json")).unwrap();
    assert_eq!(run_json["settings"]["symmetry"], "O");
    assert_eq!(run_json["settings"]["gaussians"], UNIT);
    let report = String::from_utf8(bytes(&run, "report.html")).unwrap();
    assert!(report.contains("20 of the asymmetric unit (O)"));
    let file = gmm(&run, "gmm_half1.h5");
    assert_eq!((file.gmm.len(), file.symmetry), (UNIT, Symmetry::O));
    let unit = ply::read(Path::new(&path(Path::new(&run), "gmm_half1.ply"))).unwrap();
    assert_eq!((unit.0.values(), unit.1), (file.gmm.values(), Symmetry::O));
    files_keep_the_group_and_make_the_same_map(&run);
}

/// Files of the unit and of the whole have the map of the run.
fn files_keep_the_group_and_make_the_same_map(run: &str) {
    let want = map(run, "half1.mrc");
    let file = |name: &str| path(Path::new(run), name);
    let (source, ply, atoms, whole) =
        (file("gmm_half1.h5"), file("gmm_half1.ply"), file("unit.cif"), file("whole.h5"));
    let log = succeed(&["export", "gmm", &source, "-o", &atoms]);
    assert!(log.contains("20 Gaussians of the asymmetric unit"), "{log}");
    let log = succeed(&["export", "gmm", &ply, "-o", &whole, "--whole", "--box", "32", "--pixel-size", "4"]);
    assert!(log.contains("480 Gaussians:"), "{log}");
    let read = GmmFile::read(Path::new(&whole)).unwrap();
    assert_eq!((read.gmm.len(), read.symmetry), (480, Symmetry::C1));
    let grid = ["--box", "32", "--pixel-size", "4"];
    for (input, options, tolerance) in
        [(&source, &[][..], 0.0), (&ply, &grid[..], 0.0), (&whole, &[][..], 0.0), (&atoms, &[][..], 1e-4)]
    {
        let out = file("again.mrc");
        succeed(&[&["voxelize", input, "-o", &out], options].concat());
        let got = read_volume(Path::new(&out)).unwrap();
        let largest = want.data.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let pairs = got.data.iter().zip(&want.data);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
        assert!(worst <= tolerance, "{input}: {worst}");
    }
    let info = succeed(&["info", &source]);
    assert!(info.contains("20 Gaussians of the asymmetric unit (O, 480 in all)"), "{info}");
}

#[test]
fn runs_on_several_ranks_and_resumed_runs_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (set, _) = octahedral(folder.path(), 60);
    let options = [&WHOLE[..], &["--epochs", "4", "--mixtures", "1", "--sym", "O"]].concat();
    let run = |name: &str| path(folder.path(), name);
    let arguments =
        |name: &str, more: &[&str]| train_arguments(&set, &run(name), &[&options[..], more].concat());
    succeed(&arguments("one", &[]));
    ranks_succeed(4, &arguments("four", &[]));
    let [one, four] = ["one", "four"].map(|name| map(&run(name), "map.mrc").data);
    let largest = one.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let worst = one.iter().zip(&four).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
    assert!(worst < 1e-3, "{worst}");

    let before = [bytes(&run("one"), "map.mrc"), bytes(&run("one"), "gmm_half2.ply")];
    let steps_before = steps(&run("one"));
    undo(&run("one"), "half1");
    // Another group is another run.
    let other = train_arguments(&set, &run("one"), &[&options[..6], &["--sym", "D4", "--resume"]].concat());
    fail(&other, &["symmetry was \"O\" and is \"D4\""]);
    let without = train_arguments(&set, &run("one"), &[&options[..6], &["--resume"]].concat());
    fail(&without, &["symmetry was \"O\" and is null"]);
    succeed(&arguments("one", &["--resume"]));
    assert!([bytes(&run("one"), "map.mrc"), bytes(&run("one"), "gmm_half2.ply")] == before);
    assert!(steps(&run("one")) == steps_before);
}

#[test]
fn starts_of_another_symmetry_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let (set, _) = octahedral(folder.path(), 20);
    let run = |name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let usual = ["--epochs", "1", "--half", "1", "--learning-rate", "1e-9"];
        let output = succeed(&train_arguments(&set, &run, &[&usual, options].concat()));
        (path(Path::new(&run), "gmm_half1.h5"), output)
    };
    let total = |file: &str| {
        let GmmFile { gmm, symmetry, .. } = GmmFile::read(Path::new(file)).unwrap();
        (gmm.len(), symmetry, gmm.amplitudes().sum::<f64>() * symmetry.order() as f64)
    };
    let (unit, _) = run("unit", &[&WHOLE[..], &["--symmetry", "O"]].concat());
    let (count, symmetry, mass) = total(&unit);
    assert_eq!((count, symmetry), (UNIT, Symmetry::O));
    // The same group: the unit as it is.
    let (same, _) = run("same", &["--symmetry", "O", "--init", &unit]);
    let near = |a: &Gmm, b: &Gmm| a.values().iter().zip(b.values()).all(|(a, b)| (a - b).abs() < 1e-6);
    let read = |file: &str| GmmFile::read(Path::new(file)).unwrap().gmm;
    assert!(near(&read(&same), &read(&unit)));
    // A subgroup: more of the whole. No symmetry: all of it. The whole: its unit again.
    for (name, group, start, wanted) in [
        ("sub", "D4", &unit, 60),
        ("all", "C1", &unit, 480),
        ("again", "O", &path(folder.path(), "all/gmm_half1.h5"), UNIT),
    ] {
        let (file, log) = run(name, &["--symmetry", group, "--init", start]);
        let (count, symmetry, sum) = total(&file);
        assert_eq!((count, symmetry.to_string().as_str()), (wanted, group), "{log}");
        assert!((sum / mass - 1.0).abs() < 1e-4, "{name}: {sum} {mass}");
    }
    // A number of Gaussians that the file does not have.
    let more = ["--epochs", "1", "--symmetry", "O", "--init", &unit, "--gaussians", "960"];
    fail(
        &train_arguments(&set, &path(folder.path(), "more"), &more),
        &["20 Gaussians of the asymmetric unit", "960"],
    );
    let output = common::program(&train_arguments(&set, &path(folder.path(), "q"), &["--symmetry", "Q7"]));
    assert!(text(&output).contains("Q7") && output.status.code() == Some(2), "{}", text(&output));
}
