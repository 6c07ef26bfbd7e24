//! `cryosplat-mpi export --run` of a run that refined: the file of each kind, imported again, is the refined particle file.

#[path = "common/arrays.rs"]
mod arrays;
mod common;
#[path = "common/noise_set.rs"]
mod noise_set;

use std::f64::consts::TAU;
use std::path::Path;

use arrays::Column;
use common::{alone, fail, path, phantom, succeed, whole};
use cryosplat_mpi::imaging::mrc::write_stack;
use cryosplat_mpi::imaging::pose::{product, rotation_from_vector};
use cryosplat_mpi::particles::refinement::Refinement;
use cryosplat_mpi::particles::selection::{Models, SubsetRows};
use cryosplat_mpi::particles::store::{Block, DataSetId, Store};
use cryosplat_mpi::run_folder::finished;
use cryosplat_mpi::run_folder::refinement::{RefinementState, RoundSummary};

use noise_set::{Folder, IMAGES, cs};

/// Box size of the raw images, and of the set.
const BOXES: [usize; 2] = [32, 24];
/// Row of the set that the run has left as it was.
const UNREFINED: usize = 3;

/// What the run has refined of a row.
fn refinement(row: usize) -> Refinement {
    if row == UNREFINED {
        return Refinement::default();
    }
    let wave = |k: usize| ((row * 7 + k * 3 + 1) as f64 * 0.37 % 1.0 - 0.5) * 2.0;
    Refinement {
        rotation: [0.3 * wave(0), 0.2 * wave(1), 0.4 * wave(2)],
        offset: [1.5 * wave(3), 2.5 * wave(4)],
        defocus: 300.0 * wave(5),
    }
}

/// Writes the folder of a run on `set` that refined. Returns its path.
fn refined_run(folder: &Path, set: &str, identity: Option<DataSetId>) -> String {
    let run = folder.join("run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("run.json"), r#"{"state":"done"}"#).unwrap();
    let _alone = alone();
    let store = Store::open(Path::new(set)).unwrap();
    let identity = identity.unwrap_or(store.validate().unwrap());
    let models = SubsetRows::of(&store, Models::Both);
    let states: Vec<RefinementState> = models
        .iter()
        .map(|model| RefinementState {
            rounds: vec![RoundSummary::default()],
            particles: model.rows.clone().map(refinement).collect(),
        })
        .collect();
    let models: Vec<_> = models.iter().zip(&states).collect();
    finished::write_refinement(&run, &store, identity, &models).unwrap();
    run.display().to_string()
}

fn read(set: &str) -> Block {
    let _alone = alone();
    whole(&Store::open(Path::new(set)).unwrap())
}

/// Checks that two sets have the same particles, up to `rounding`.
fn assert_near(set: &str, expected: &str, rounding: f64, what: &str) {
    let (found, expected) = (read(set), read(expected));
    assert_eq!(found.particles.len(), expected.particles.len());
    for (row, (a, b)) in found.particles.iter().zip(&expected.particles).enumerate() {
        let entries = a.rotation.as_flattened().iter().zip(b.rotation.as_flattened());
        assert!(entries.clone().all(|(a, b)| (a - b).abs() < rounding), "{what} {row}: {a:?} {b:?}");
        let defoci = [a.ctf.defocus_u - b.ctf.defocus_u, a.ctf.defocus_v - b.ctf.defocus_v];
        assert!(defoci.iter().all(|d| d.abs() < 1e4 * rounding), "{what} {row}: {defoci:?}");
        assert_eq!((a.shift, b.shift), ([0.0; 2], [0.0; 2]));
    }
    let most = expected.images.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let worst = found.images.iter().zip(&expected.images[..]).fold(0.0f32, |w, (a, b)| w.max((a - b).abs()));
    assert!(worst < 3e-6 * most, "{what}: the images differ by {worst} of {most}");
}

#[test]
fn the_particle_file_has_refined_poses_and_centred_images() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let run = refined_run(folder.path(), &set, None);
    let refined = path(folder.path(), "refined.h5");
    let said = succeed(&["export", "particles", &set, "-o", &refined, "--run", &run]);
    assert!(said.contains("60 particles, with the refinement of the run"), "{said}");
    let (before, after) = (read(&set), read(&refined));
    let d = common::BOX;
    for (row, (old, new)) in before.particles.iter().zip(&after.particles).enumerate() {
        let Refinement { rotation, offset, defocus } = refinement(row);
        assert_eq!(new.rotation, product(&rotation_from_vector(rotation), &old.rotation));
        assert_eq!(new.ctf.defocus_u, old.ctf.defocus_u + defocus);
        assert_eq!((new.shift, new.source, new.optics_group), ([0.0; 2], old.source, old.optics_group));
        // Frequency (3, -2) of the image, whose origin was at `offset`.
        let coefficient = |images: &[f32]| {
            let image = &images[row * d * d..(row + 1) * d * d];
            image.iter().enumerate().fold([0.0; 2], |sum, (i, &v)| {
                let phase = -TAU * (3.0 * (i % d) as f64 - 2.0 * (i / d) as f64) / d as f64;
                [sum[0] + f64::from(v) * phase.cos(), sum[1] + f64::from(v) * phase.sin()]
            })
        };
        let ([a, b], [c, e]) = (coefficient(&before.images), coefficient(&after.images));
        let turn = TAU * (3.0 * offset[0] - 2.0 * offset[1]) / d as f64;
        let moved = [a * turn.cos() - b * turn.sin(), a * turn.sin() + b * turn.cos()];
        let size = a.hypot(b).max(1.0);
        assert!((moved[0] - c).hypot(moved[1] - e) < 1e-4 * size, "{row}: {moved:?} {c} {e}");
    }
    // Through RELION's format, and without an excluded particle.
    let (star, again) = (path(folder.path(), "x.star"), path(folder.path(), "again.h5"));
    succeed(&["export", "star", &set, "-o", &star, "--run", &run]);
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    assert_near(&again, &refined, 1e-12, "stored images");
    // The same refinement once more: the shifts that were applied add up.
    let twice = path(folder.path(), "twice.h5");
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = refined_run(&other, &again, None);
    succeed(&["export", "particles", &again, "-o", &twice, "--run", &other]);
    let shifts = [&again, &twice].map(|set| {
        let _alone = alone();
        Store::open(Path::new(set)).unwrap().reader().applied_shifts(0..60).unwrap().unwrap()
    });
    assert!(shifts[0].iter().any(|shift| shift[0].abs() > 0.1), "{:?}", shifts[0]);
    for (row, (one, two)) in shifts[0].iter().zip(&shifts[1]).enumerate() {
        let offset = refinement(row).offset;
        assert!(
            (0..2).all(|axis| (one[axis] + offset[axis] as f32).abs() < 1e-4),
            "{row}: {one:?} {offset:?}"
        );
        assert!((0..2).all(|axis| (two[axis] - 2.0 * one[axis]).abs() < 1e-4), "{row}: {one:?} {two:?}");
    }
    let list = folder.path().join("run/skipped_half1.csv");
    std::fs::write(list, "particle,stack,image,reason,step\n5,,,checksum,1\n").unwrap();
    for (kind, output) in [("particles", &refined), ("star", &star)] {
        let said = succeed(&["export", kind, &set, "-o", output, "--run", &run]);
        assert!(said.contains("59 particles (1 excluded), with the refinement"), "{said}");
    }
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    assert_near(&again, &refined, 1e-12, "without one");
    // A run on other particles.
    refined_run(folder.path(), &set, Some(DataSetId::from_bytes([7; 32])));
    let output = path(folder.path(), "no.h5");
    fail(
        &["export", "particles", &set, "-o", &output, "--run", &run],
        &["refinement.h5", "belongs to particle set 0707", "give the folder"],
    );
    assert!(!Path::new(&output).exists());
}

/// Angles, origin in pixels of the raw images, and defocus of a row of the metadata.
fn given(row: usize) -> ([f64; 3], [f64; 2], f64) {
    let at = row as f64;
    ([10.0 * at, 20.0 + 7.0 * at, 30.0], [0.4 * at - 2.0, 1.1 - 0.3 * at], 15000.0 + 10.0 * at)
}

/// Pixel size of the raw images.
const RAW: f64 = 2.0;

/// A STAR file of RELION 3.1 or 3.0, with origins or without.
fn star_file(version: &str, with_origins: bool) -> String {
    let optics = ["_rlnVoltage", "_rlnSphericalAberration", "_rlnAmplitudeContrast"];
    let [before, of_row, unit, suffix] = match version {
        "3.1" => [
            format!(
                "data_optics\n\nloop_\n_rlnOpticsGroup\n{}\n_rlnImagePixelSize\n_rlnImageSize\n1 300 2.7 0.1 {RAW} 32\n\n",
                optics.join("\n")
            ),
            "1".into(),
            RAW.to_string(),
            "Angst".into(),
        ],
        _ => [String::new(), "300 2.7 0.1 5 25000".into(), "1".into(), String::new()],
    };
    let group: &[&str] = match version {
        "3.1" => &["_rlnOpticsGroup"],
        _ => &[
            "_rlnVoltage",
            "_rlnSphericalAberration",
            "_rlnAmplitudeContrast",
            "_rlnDetectorPixelSize",
            "_rlnMagnification",
        ],
    };
    let origins = [format!("_rlnOriginX{suffix}"), format!("_rlnOriginY{suffix}")];
    let mut labels = vec!["_rlnAngleRot", "_rlnAngleTilt", "_rlnNote", "_rlnAnglePsi", "_rlnImageName"];
    labels.extend(group);
    labels.extend(["_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle"]);
    if with_origins {
        labels.extend(origins.iter().map(String::as_str));
    }
    let mut text = format!("{before}data_particles\n\nloop_\n{}\n", labels.join("\n"));
    let unit: f64 = unit.parse().unwrap();
    for row in 0..IMAGES {
        let ([rot, tilt, psi], [x, y], defocus) = given(row);
        text += &format!(
            "{rot} {tilt} 'a note {row}' {psi} {}@s.mrcs {of_row} {defocus} {} 40",
            row + 1,
            defocus - 500.0
        );
        if with_origins {
            text += &format!(" {} {}", x * unit, y * unit);
        }
        text += "\n";
    }
    text
}

/// A folder with a stack of noise in a box of 32 pixels.
fn raw_folder() -> Folder {
    let folder = Folder::new();
    let image = |i: usize| -> Vec<f32> {
        let pixels = 0..BOXES[0] * BOXES[0];
        pixels.map(|k| ((k * (2 * i + 3) * 7919 + i * 104_729) % 1009) as f32 / 500.0 - 1.0).collect()
    };
    let images: Vec<_> = (0..IMAGES).map(image).collect();
    write_stack(&folder.path("s.mrcs"), BOXES[0], RAW, images.iter().map(Vec::as_slice)).unwrap();
    folder
}

/// Imports `original`, exports it with the refinement of a run as `kind`, and imports that: as the refined particle file.
fn round_trip(folder: &Folder, kind: &str, original: &str, rounding: f64) -> String {
    let path = |name: &str| folder.path(name).display().to_string();
    // A crop, so that pixels of the set are not those of the files.
    let options = ["--no-normalize", "--box", &BOXES[1].to_string(), "--seed", "4"];
    let import = |from: &str, to: &str| {
        succeed(&[&["import", &path(from), "-o", &path(to)], &options[..]].concat());
    };
    import(original, "set.h5");
    let run = refined_run(&folder.path(""), &path("set.h5"), None);
    succeed(&["export", "particles", &path("set.h5"), "-o", &path("refined.h5"), "--run", &run]);
    let output = format!("x.{kind}");
    let [set, original] = [path("set.h5"), path(original)];
    let said = succeed(&["export", kind, &set, "--original", &original, "-o", &path(&output), "--run", &run]);
    assert!(said.contains("12 particles, with the refinement of the run"), "{said}");
    // The run itself has written the same.
    let [exported, of_run] =
        [&output, &format!("run/particles.{kind}")].map(|name| std::fs::read(folder.path(name)).unwrap());
    assert!(exported == of_run, "{original}");
    import(&output, "again.h5");
    assert_near(&path("again.h5"), &path("refined.h5"), rounding, &original);
    output
}

#[test]
fn star_files_keep_their_columns_with_refined_values() {
    let folder = raw_folder();
    for (version, with_origins) in [("3.1", true), ("3.0", true), ("3.1", false), ("3.0", false)] {
        let text = star_file(version, with_origins);
        folder.write("p.star", &text);
        let output = round_trip(&folder, "star", "p.star", 1e-9);
        let found = std::fs::read_to_string(folder.path(&output)).unwrap();
        let rows = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains('@')).map(str::to_owned).collect()
        };
        let unrefined = whole(&Store::open(&folder.path("set.h5")).unwrap()).particles[UNREFINED];
        for (index, (new, old)) in rows(&found).iter().zip(rows(&text)).enumerate() {
            assert!(new.contains(&format!(" 'a note {index}' ")) && new.contains(" 40"), "{new}");
            let added = if with_origins { 1 } else { 3 };
            assert_eq!(new.split(' ').count(), old.split(' ').count() + added, "{new}");
            if unrefined.source.unwrap().index == index as u64 {
                assert!(new.starts_with(&old), "{new} {old}");
            }
        }
        let origins = if version == "3.1" { "_rlnOriginXAngst" } else { "_rlnOriginX" };
        assert_eq!(found.lines().filter(|line| line.split(' ').next() == Some(origins)).count(), 1);
    }
    // A file with other poses than those that were imported.
    let path = |name: &str| folder.path(name).display().to_string();
    let other = star_file("3.1", true).replace("\n0 20 'a", "\n0 20.5 'a").replace("\n110 97", "\n110 98");
    folder.write("other.star", other);
    let [set, original, output, run] = ["set.h5", "other.star", "no.star", "run"].map(path);
    fail(
        &["export", "star", &set, "--original", &original, "-o", &output, "--run", &run],
        &["other.star: line ", "has the pose", "that were imported"],
    );
    assert!(!Path::new(&output).exists());
}

#[test]
fn records_of_cryosparc_have_refined_values() {
    let folder = raw_folder();
    let images: Vec<u32> = (0..IMAGES as u32).collect();
    let floats = |count: usize, value: &dyn Fn(usize, usize) -> f32| -> Vec<Vec<u8>> {
        (0..IMAGES).map(|i| (0..count).flat_map(|k| value(i, k).to_le_bytes()).collect()).collect()
    };
    let shape = vec![[BOXES[0] as u32; 2].map(u32::to_le_bytes).concat(); IMAGES];
    let split: Vec<u32> = images.iter().map(|i| i % 2).collect();
    // Shifts in pixels of an alignment that was binned, or of the images.
    for pixel in [Some(5.0f32), None] {
        let unit = pixel.map_or(1.0, |pixel| RAW as f32 / pixel);
        let mut further = vec![
            Column("blob/shape", "'<u4', (2,)".into(), shape.clone()),
            Column(
                "alignments3D/shift",
                "'<f4', (2,)".into(),
                floats(2, &|i, k| given(i).1[k] as f32 * unit),
            ),
        ];
        further.extend(
            pixel.map(|pixel| Column("alignments3D/psize_A", "'<f4'".into(), floats(1, &|_, _| pixel))),
        );
        folder.write("p.cs", cs(&images, Some(&split), &further));
        round_trip(&folder, "cs", "p.cs", 1e-6);
    }
    // Without the poses there is nothing to change.
    let path = |name: &str| folder.path(name).display().to_string();
    folder.write("bare.cs", cs(&images, None, &[Column("alignments3D/pose", String::new(), Vec::new())]));
    let [set, original, output, run] = ["set.h5", "bare.cs", "no.cs", "run"].map(path);
    fail(
        &["export", "cs", &set, "--original", &original, "-o", &output, "--run", &run],
        &["bare.cs", "no column alignments3D/pose", "with the poses"],
    );
}
