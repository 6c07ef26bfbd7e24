//! `cryosplat-mpi import`: which rows are imported (`--class`, `--first`, `--where`, `--rows`, `--random`), and where stacks are looked for.

#[path = "common/arrays.rs"]
mod arrays;
mod common;
#[path = "common/noise_set.rs"]
mod noise_set;

use std::process::Command;

use arrays::Column;
use cryosplat_mpi::particles::store::Particle;
use noise_set::{Folder, IMAGES, cs, line, star};

/// The images of the particles, from 1, in file order.
fn images(particles: &[(usize, Particle)]) -> Vec<u64> {
    let mut images: Vec<u64> = particles.iter().map(|(_, p)| p.source.unwrap().index + 1).collect();
    images.sort_unstable();
    images
}

#[test]
fn first_takes_from_both_halves_of_a_sorted_file() {
    let folder = Folder::new();
    let half = |i: usize| if i < IMAGES / 2 { "1" } else { "2" };
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, half(i))).collect();
    folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    let (particles, said) = folder.import("p.star", &["--first", "5"]);
    assert_eq!(images(&particles), [1, 2, 3, 7, 8]);
    assert!(!said.contains("WARN"), "{said}");
    assert_eq!(images(&folder.import("p.star", &["--first", "4", "--redraw-halves"]).0), [1, 2, 3, 4]);
    let split: Vec<u32> = (0..IMAGES as u32).map(|i| u32::from(i >= 6)).collect();
    folder.write("p.cs", cs(&(0..IMAGES as u32).collect::<Vec<_>>(), Some(&split), &[]));
    assert_eq!(images(&folder.import("p.cs", &["--first", "4"]).0), [1, 2, 7, 8]);
}

#[test]
fn a_class_of_a_star_file_is_imported() {
    let folder = Folder::new();
    let class = |i: usize| ["3 1", "3 2", "5 1", "3 1", "5 2", "5 1"][i % 6];
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, class(i))).collect();
    folder.write("p.star", star(&["_rlnClassNumber", "_rlnRandomSubset"], &rows));
    let (particles, said) = folder.import("p.star", &[]);
    assert_eq!(particles.len(), IMAGES);
    assert!(said.contains("WARN") && said.contains("6 in class 3, 6 in class 5"), "{said}");
    let (particles, said) = folder.import("p.star", &["--class", "3"]);
    assert_eq!(images(&particles), [1, 2, 4, 7, 8, 10]);
    assert!(!said.contains("WARN"), "{said}");
    assert_eq!(images(&folder.import("p.star", &["--class", "5", "--first", "2"]).0), [3, 5]);
    folder.refuse("p.star", &["--class", "4"], &["no particle of class 4", "6 in class 5"]);
    // Rows of other classes are not looked at, and their optics groups are not needed.
    folder.write(
        "p.star",
        star(&["_rlnClassNumber", "_rlnRandomSubset"], &rows).replace("3@s.mrcs 2 ", "3@s.mrcs x "),
    );
    assert_eq!(folder.import("p.star", &["--class", "3"]).0.len(), 6);
    folder.refuse("p.star", &["--class", "5"], &[&line(2, 2), "_rlnAngleRot is `x`"]);
    folder.write("p.star", star(&[], &rows.iter().map(|&(i, a, _)| (i, a, "")).collect::<Vec<_>>()));
    folder.refuse("p.star", &["--class", "3"], &["p.star", "has no classes", "--class"]);
}

#[test]
fn particles_are_selected_by_conditions_rows_and_chance() {
    let folder = Folder::new();
    let half = |i: usize| if i.is_multiple_of(2) { "1" } else { "2" };
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, half(i))).collect();
    folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    let selected = |options: &[&str]| images(&folder.import("p.star", options).0);
    assert_eq!(selected(&["--where", "image <= 4 or image == 7"]), [1, 2, 3, 4, 7]);
    assert_eq!(selected(&["--where", "image > 3 and half == 1"]), [5, 7, 9, 11]);
    folder.write("rows.txt", "7\n\n 2\n12\n3\n");
    let list = folder.path("rows.txt").display().to_string();
    let (particles, said) = folder.import("p.star", &["--rows", &list, "--where", "not image == 3"]);
    assert_eq!(images(&particles), [2, 7, 12]);
    assert!(said.contains("3 of 12 rows, where not image == 3, rows of"), "{said}");
    let drawn = selected(&["--random", "6", "--seed", "3"]);
    assert_eq!((drawn.len(), &drawn), (6, &selected(&["--random", "6", "--seed", "3"])));
    assert_ne!(drawn, selected(&["--random", "6", "--seed", "4"]));
    assert_eq!(selected(&["--random", "50"]).len(), IMAGES);
    folder.refuse("p.star", &["--where", "image > 12"], &["no particle with image > 12", "--where"]);
    folder.write("rows.txt", "4\n13\n");
    folder.refuse("p.star", &["--rows", &list], &["rows.txt", "line 2", "`13`", "from 1 to 12"]);
}

fn floats(name: &'static str, shape: &str, value: impl Fn(usize) -> Vec<f32>) -> Column {
    let bytes = |i| value(i).iter().flat_map(|v| v.to_le_bytes()).collect();
    Column(name, format!("'<f4'{shape}"), (0..IMAGES).map(bytes).collect())
}

/// The first angle of the pose of each particle.
fn angle(particle: &Particle) -> f64 {
    // W = [[cos, sin, 0], ...] for a rotation about z.
    particle.rotation[0][1].atan2(particle.rotation[0][0])
}

#[test]
fn a_class_of_a_cryosparc_file_is_imported_with_its_poses() {
    let folder = Folder::new();
    let all: Vec<u32> = (0..IMAGES as u32).collect();
    let none = Column("alignments3D/pose", String::new(), Vec::new());
    // Class 1 has every third particle, and a pose of -0.2 i about z; class 0 has the others, with +0.1 i.
    let posterior = |i: usize| if i.is_multiple_of(3) { [0.2, 0.8] } else { [0.9, 0.1] };
    let poses = |i: usize| [[0.0, 0.0, 0.1 * i as f32], [0.0, 0.0, -0.2 * i as f32]];
    let shifts = |i: usize| vec![0.0, 0.0, i as f32, 0.0];
    let multi = [
        none.clone(),
        floats("alignments3D_multi/pose", ", (2, 3)", |i| poses(i).concat()),
        floats("alignments3D_multi/shift", ", (2, 2)", shifts),
        floats("alignments3D_multi/class_posterior", ", (2,)", |i| posterior(i).to_vec()),
    ];
    let apart = [
        none,
        floats("alignments_class_0/pose", ", (3,)", |i| poses(i)[0].to_vec()),
        floats("alignments_class_1/pose", ", (3,)", |i| poses(i)[1].to_vec()),
        floats("alignments_class_0/class_posterior", "", |i| vec![posterior(i)[0]]),
        floats("alignments_class_1/class_posterior", "", |i| vec![posterior(i)[1]]),
    ];
    for further in [&multi[..], &apart] {
        folder.write("p.cs", cs(&all, None, further));
        folder.refuse("p.cs", &[], &["poses of 2 classes (8 in class 0, 4 in class 1)", "--class"]);
        folder.refuse("p.cs", &["--class", "2"], &["p.cs", "no class 2"]);
        let (particles, _) = folder.import("p.cs", &["--class", "1"]);
        assert_eq!(images(&particles), [1, 4, 7, 10]);
        for (_, particle) in &particles {
            let expected = -0.2 * particle.source.unwrap().index as f64;
            // The file has 32-bit numbers.
            assert!((angle(particle) + expected).abs() < 1e-6 || (angle(particle) - expected).abs() < 1e-6);
            assert!((angle(particle).abs() - expected.abs()).abs() < 1e-6);
        }
        assert_eq!(folder.import("p.cs", &["--class", "0"]).0.len(), 8);
    }
    // One pose, and the number of the class.
    let class = (0..IMAGES as u32).map(|i| (i % 2).to_le_bytes().to_vec()).collect();
    folder.write("p.cs", cs(&all, None, &[Column("alignments3D/class", "'<u4'".into(), class)]));
    let (particles, said) = folder.import("p.cs", &[]);
    assert!(particles.len() == IMAGES && said.contains("6 in class 0, 6 in class 1"), "{said}");
    assert_eq!(images(&folder.import("p.cs", &["--class", "1"]).0), [2, 4, 6, 8, 10, 12]);
}

#[test]
fn stacks_are_found_in_a_relion_project() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("Extract/job010/mics")).unwrap();
    std::fs::create_dir_all(folder.path("Refine3D/job025")).unwrap();
    std::fs::rename(folder.path("s.mrcs"), folder.path("Extract/job010/mics/s.mrcs")).unwrap();
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, "")).collect();
    let text = star(&[], &rows).replace("@s.mrcs", "@Extract/job010/mics/s.mrcs");
    folder.write("Refine3D/job025/run_data.star", &text);
    // From anywhere, and in the project folder.
    assert_eq!(folder.import("Refine3D/job025/run_data.star", &[]).0.len(), IMAGES);
    let elsewhere = tempfile::tempdir().unwrap();
    let star = elsewhere.path().join("run_data.star");
    std::fs::write(&star, &text).unwrap();
    let mut here = Command::new(common::program_file());
    let output = here.current_dir(folder.path(".")).args(["import", "-o", "here.h5"]).arg(&star).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", common::text(&output));
    let star = star.display().to_string();
    let other = elsewhere.path().join("o.h5").display().to_string();
    common::fail(
        &["import", &star, "-o", &other],
        &["run_data.star", "not found", "working directory", "--datadir"],
    );
}

#[test]
fn stacks_of_subtomograms_are_named_as_such() {
    let folder = Folder::new();
    let text = star(&["_rlnTomoParticleName"], &[(1, 1, "T/1"), (2, 1, "T/2")]).replace("1@s.mrcs", "s.mrcs");
    folder.write("p.star", text);
    folder.refuse(
        "p.star",
        &[],
        &["p.star", "subtomograms", "_rlnTomoParticleName", "one image per particle"],
    );
    let general = "data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n";
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, "")).collect();
    folder.write("p.star", general.to_owned() + &star(&[], &rows));
    folder.refuse("p.star", &[], &["subtomograms", "_rlnTomoSubTomosAre2DStacks"]);
}
