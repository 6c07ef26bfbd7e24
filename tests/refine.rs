//! `train --refine`: poses against the truth of simulated sets, honesty of the resolution, ranks, resuming.

mod common;
#[path = "common/pose_errors.rs"]
mod pose_errors;

use std::path::Path;

use common::{assert_same, bytes, fail, path, program, ranks_succeed, succeed, text, train_arguments, undo};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::mrc::read_volume;
use pose_errors::{angle, least_median_angle, median_angle, poses, refined_poses, true_poses};

/// A short training with refinement.
const REFINED: [&str; 8] = ["--refine", "all", "--gaussians", "250", "--mixtures", "1", "--epochs", "12"];

/// A set of a phantom, p.h5 with its truth, with `more` options of simulate.
fn set(folder: &Path, more: &[&str]) -> String {
    let set = path(folder, "p.h5");
    let usual = ["simulate", "--phantom", "-o", &set, "--box", "32", "--pixel-size", "4", "--seed", "3"];
    succeed(&[&usual[..], more].concat());
    set
}

/// Trains without refinement and with it: the run folders.
fn trained(folder: &Path, set: &str) -> [String; 2] {
    let [plain, refined] = ["plain", "refined"].map(|name| path(folder, name));
    succeed(&train_arguments(set, &plain, &REFINED[2..]));
    succeed(&train_arguments(set, &refined, &REFINED));
    [plain, refined]
}

fn fsc(one: &str, other: &str) -> Fsc {
    let [one, other] = [one, other].map(|file| read_volume(Path::new(file)).unwrap());
    Fsc::between(&one, &other).unwrap()
}

/// Mean FSC of half map 1 against the truth up to two thirds of Nyquist.
fn quality(folder: &Path, run: &str) -> f64 {
    fsc(&format!("{run}/half1.mrc"), &path(folder, "p_truth.mrc")).mean_to(11)
}

#[test]
fn wrong_poses_approach_the_truth_and_so_does_the_map() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let set = set(folder, &["-n", "600", "--snr", "0.5", "--pose-error", "4", "--shift-error", "0.7"]);
    let truth = true_poses(folder);
    let [plain, refined] = trained(folder, &set);
    let before = median_angle(&poses(&set), &truth);
    let after = median_angle(&refined_poses(&set, &refined), &truth);
    let least = least_median_angle(folder, 0.5, 10);
    println!("median error {before:.2} before, {after:.2} after, {least:.2} at least");
    assert!(after < 0.5 * before && after < 1.5 * least, "{before} {after} {least}");
    let [before, after] = [&plain, &refined].map(|run| quality(folder, run));
    println!("FSC {before:.3} before, {after:.3} after");
    assert!(after > before + 0.02, "{before} {after}");
}

/// An estimate cannot be better than the bound of Cramer and Rao; where the prior holds most particles back it may be.
#[test]
fn right_poses_stay_within_what_the_noise_permits() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Errors that change nothing, for the table of the truth.
    let set = set(folder, &["-n", "600", "--snr", "0.5", "--pose-error", "1e-6"]);
    let truth = true_poses(folder);
    let least = least_median_angle(folder, 0.5, 10);
    let [plain, refined] = trained(folder, &set);
    let after = median_angle(&refined_poses(&set, &refined), &truth);
    println!("median error {after:.2}, {least:.2} at least without a prior");
    assert!(after < 1.2 * least, "{after} {least}");
    let [plain, refined] = [&plain, &refined].map(|run| quality(folder, run));
    println!("FSC {plain:.4} without, {refined:.4} with");
    assert!(refined > plain - 0.005, "{plain} {refined}");
}

/// Images of noise alone, with random poses, from starts of their own and from one that both halves share.
#[test]
fn pure_noise_shows_no_resolution() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A model of a specimen, for the start.
    set(folder, &["-n", "40", "--snr", "1"]);
    let model = path(folder, "p_truth.mrc");
    let shared = path(folder, "shared.mrc");
    std::fs::copy(model, &shared).unwrap();
    let set = set(folder, &["-n", "400", "--snr", "1e-9"]);
    for (name, start) in [("own", &[][..]), ("shared", &["--init", &shared])] {
        let run = path(folder, name);
        let said = succeed(&train_arguments(&set, &run, &[&REFINED[..], start].concat()));
        if name == "own" {
            // A model of noise fits the particles that it is made from, but not those of the other half.
            assert!(said.contains("the other half confirms too few shells"), "{said}");
            assert!(!said.contains("particles moved"), "{said}");
        }
        let table = String::from_utf8(bytes(&run, "fsc.csv")).unwrap();
        let mut lines = table.lines();
        let column = lines.next().unwrap().split(',').position(|name| name == "cross-validated");
        // A curve only as far as the voxel maps, of refined poses, correlate.
        let confirmed: Vec<f64> = column
            .map(|column| lines.map_while(|line| line.split(',').nth(column)?.parse().ok()).collect())
            .unwrap_or_default();
        assert!(confirmed.len() <= 3, "{name}: {confirmed:?}");
        if name == "own" {
            let halves = fsc(&format!("{run}/half1.mrc"), &format!("{run}/half2.mrc"));
            let beyond = &halves.shells[4..];
            let mean = beyond.iter().sum::<f64>() / beyond.len() as f64;
            assert!(mean < 0.1, "{name}: {mean}, {:?}", halves.shells);
        }
    }
}

#[test]
fn refined_poses_are_the_same_on_any_ranks_and_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let set = set(folder, &["-n", "200", "--snr", "1", "--pose-error", "3", "--shift-error", "0.5"]);
    let train = |ranks: usize, name: &str, more: &[&str]| {
        let run = path(folder, name);
        ranks_succeed(ranks, &train_arguments(&set, &run, &[&REFINED[..], more].concat()));
        run
    };
    let results = ["half1.mrc", "half2.mrc", "particles.csv", "refinement.h5"];
    let one = train(1, "one", &[]);
    // Each half on a rank of its own; particles streamed from the file: the same sums.
    assert_same(&results, &one, &train(2, "two", &[]), "one rank and two");
    let streamed = train(1, "streamed", &["--cache", "none", "--threads", "2"]);
    assert_same(&results, &one, &streamed, "resident and streamed");
    // Halves divided over ranks differ by rounding.
    let four = train(4, "four", &[]);
    let [ours, theirs] = [&one, &four].map(|run| refined_poses(&set, run));
    let apart = pose_errors::median(ours.iter().zip(&theirs).map(|(a, b)| angle(a, b)).collect());
    let moved = median_angle(&ours, &poses(&set));
    println!("one rank and four: {apart:.4} degrees of {moved:.2}");
    assert!(apart < 0.05 * moved, "{apart} {moved}");
    // From a checkpoint in the middle of the refinement.
    undo(&one, "half1");
    undo(&one, "half2");
    let again = train(1, "one", &["--resume"]);
    assert_same(&results, &again, &streamed, "a resumed run");
}

#[test]
fn other_values_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(folder.path(), &["-n", "20", "--snr", "1"]);
    let run = path(folder.path(), "run");
    for value in ["everything", "all,poses", "none,shifts", "poses shifts", ""] {
        let output = program(&train_arguments(&set, &run, &["--refine", value]));
        assert_eq!(output.status.code(), Some(2), "{value}");
        let said = text(&output);
        assert!(said.contains("--refine") && said.contains("poses, shifts, defocus, contrast"), "{said}");
    }
    fail(&train_arguments(&set, &run, &["--refine", "all", "--half", "1"]), &["--refine", "--half"]);
}
