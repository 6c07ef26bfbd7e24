//! `diagnose`: faults made on purpose are named with their remedies, each on a small set of its own, and a sound set has no finding. Rates
//! over many sets: benches/results/diagnose.md.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{BOX, path, program, succeed, train_arguments};
use serde_json::Value;

/// Images of a set.
const PARTICLES: usize = 400;
/// A short training.
const TRAINED: [&str; 6] = ["--gaussians", "300", "--mixtures", "1", "--epochs", "20"];

/// A particle of a STAR file: words by column.
type Row = BTreeMap<String, String>;

/// Simulates `particles` images of the phantom for RELION to `folder`, with `more` options of simulate.
fn simulate(folder: &Path, particles: usize, more: &[&str]) {
    let [simulated, star] = [path(folder, "simulated.h5"), folder.display().to_string()];
    let count = particles.to_string();
    let usual =
        ["simulate", "-o", &simulated, "--star", &star, "--box", "32", "--pixel-size", "5", "-n", &count];
    let noise = ["--snr", "0.5", "--seed", "3"];
    let specimen = if more.contains(&"--map") { &[][..] } else { &["--phantom"] };
    succeed(&[&usual[..], &noise, specimen, more].concat());
}

/// Imports the STAR file in `folder` with `import`, trains with `train`, and diagnoses.
fn diagnosis(folder: &Path, import: &[&str], train: &[&str]) -> Value {
    let [star, set, run] = ["particles.star", "set.h5", "run"].map(|name| path(folder, name));
    succeed(&[&["import", &star, "-o", &set], import].concat());
    succeed(&train_arguments(&set, &run, train));
    let text = succeed(&["--log-level", "error", "diagnose", &run, "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A set with one fault in its STAR file, imported and reconstructed on voxels, which takes a second.
fn of_voxels(simulated: &[&str], change: impl FnMut(&mut Row) -> bool) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulate(folder, 2 * PARTICLES, simulated);
    edit(folder, change);
    let [star, set, run] = ["particles.star", "set.h5", "run"].map(|name| path(folder, name));
    succeed(&["import", &star, "-o", &set]);
    succeed(&["backproject", &set, "-o", &run]);
    serde_json::from_str(&succeed(&["--log-level", "error", "diagnose", &run, "--json"])).unwrap()
}

/// Changes the rows of particles of the STAR file in `folder`; those that `change` refuses are left out.
fn edit(folder: &Path, mut change: impl FnMut(&mut Row) -> bool) {
    let file = folder.join("particles.star");
    let text = fs::read_to_string(&file).unwrap();
    let (before, particles) = text.split_once("data_particles").unwrap();
    let mut columns: Vec<&str> = Vec::new();
    let mut edited = format!("{before}data_particles");
    for line in particles.split('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        let column = words.first().and_then(|word| word.strip_prefix("_rln"));
        columns.extend(column);
        if column.is_some() || words.is_empty() || words.len() != columns.len() {
            edited += &format!("{line}\n");
            continue;
        }
        let named =
            columns.iter().zip(&words).map(|(column, word)| ((*column).to_owned(), (*word).to_owned()));
        let mut row: Row = named.collect();
        if change(&mut row) {
            edited += &(columns.iter().map(|column| format!("{} ", row[*column])).collect::<String>() + "\n");
        }
    }
    fs::write(file, edited).unwrap();
}

/// Multiplies the numbers in `columns` of a row by `factor`.
fn multiply(row: &mut Row, columns: &[&str], factor: f64) {
    for column in columns {
        let value = number(row, column) * factor;
        row.insert((*column).to_owned(), value.to_string());
    }
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap()
}

/// Changes the images of the stack in `folder`.
fn edit_images(folder: &Path, change: impl Fn(&mut [f32])) {
    let file = folder.join("particles.mrcs");
    let mut bytes = fs::read(&file).unwrap();
    for image in bytes[1024..].chunks_exact_mut(4 * BOX * BOX) {
        let mut values: Vec<f32> =
            image.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        change(&mut values);
        image.copy_from_slice(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    }
    fs::write(file, bytes).unwrap();
}

/// The findings that are warnings or faults, the first the most serious.
fn serious(diagnosis: &Value) -> Vec<&Value> {
    let findings = diagnosis["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["severity"] == "fault" || finding["severity"] == "warning").collect()
}

/// Asserts that the first finding is `id` of this severity, that the verdict is as serious, and that the next commands have `remedy`.
fn expect(diagnosis: &Value, severity: &str, id: &str, remedy: &str) {
    let first = &diagnosis["findings"][0];
    assert_eq!(first["id"], id, "{diagnosis:#}");
    assert_eq!(first["severity"], severity, "{diagnosis:#}");
    assert_eq!(diagnosis["verdict"]["severity"], severity, "{diagnosis:#}");
    assert!(first["next"].to_string().contains(remedy), "no next command has {remedy:?}: {first:#}");
    for part in ["title", "evidence", "cause", "cost"] {
        assert!(!first[part].as_str().unwrap().is_empty(), "{part}: {first:#}");
    }
}

/// A set with one fault: `simulated` with these options, changed by `change`, imported and trained with these options.
fn faulty(simulated: &[&str], change: impl Fn(&Path), import: &[&str], train: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), PARTICLES, simulated);
    change(folder.path());
    diagnosis(folder.path(), import, train)
}

/// As it is.
fn unchanged(_: &Path) {}

#[test]
fn a_sound_set_has_no_finding() {
    let small = ["--pose-error", "0.3", "--shift-error", "0.2", "--contrast-spread", "0.05"];
    for simulated in [&[][..], &small] {
        let diagnosis = faulty(simulated, unchanged, &[], &TRAINED);
        assert_eq!(serious(&diagnosis), [] as [&Value; 0], "{simulated:?}: {diagnosis:#}");
        assert!(diagnosis["verdict"]["severity"] != "fault", "{diagnosis:#}");
    }
}

#[test]
fn a_training_ends_with_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), PARTICLES, &["--pose-error", "5"]);
    let [set, run] = ["simulated.h5", "run"].map(|name| path(folder.path(), name));
    let mut arguments = train_arguments(&set, &run, &TRAINED);
    arguments.retain(|argument| argument != "--no-diagnosis");
    let output = program(&arguments);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let verdict = log.lines().find(|line| line.contains("verdict:")).unwrap_or_else(|| panic!("{log}"));
    assert!(verdict.contains("poses are off by"), "{verdict}");
    let diagnosis: Value =
        serde_json::from_str(&fs::read_to_string(format!("{run}/diagnosis.json")).unwrap()).unwrap();
    assert_eq!(diagnosis["findings"][0]["id"], "poses");
    let report = fs::read_to_string(format!("{run}/report.html")).unwrap();
    assert!(report.contains("poses are off by"), "the report shows the finding");
    assert!(!log.contains("next: cryosplat-mpi postprocess"), "{log}");
    // Nor does the page of the sharpened map praise it.
    let [half1, half2, post] = ["half1.mrc", "half2.mrc", "post"].map(|name| format!("{run}/{name}"));
    let output = program(&["postprocess", &half1, &half2, "-o", &post]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("the diagnosis of this run: do not use this map: poses are off by"), "{log}");
    let page = fs::read_to_string(format!("{post}.html")).unwrap();
    assert!(page.contains("Do not use:") && page.contains("poses are off by"));
    // Too few particles are not tested.
    let few = tempfile::tempdir().unwrap();
    simulate(few.path(), 60, &[]);
    let [set, run] = ["simulated.h5", "run"].map(|name| path(few.path(), name));
    succeed(&train_arguments(&set, &run, &TRAINED));
    let text = succeed(&["diagnose", &run]);
    assert!(text.contains("NOT TESTED: a half has fewer than 100 particles"), "{text}");
}

#[test]
fn wrong_poses_are_named() {
    let diagnosis = faulty(&["--pose-error", "5"], unchanged, &[], &TRAINED);
    expect(&diagnosis, "fault", "poses", "--refine");
}

#[test]
fn origins_of_the_wrong_sign_are_named() {
    let negate = |row: &mut Row| {
        multiply(row, &["OriginXAngst", "OriginYAngst"], -1.0);
        true
    };
    let diagnosis = faulty(&["--max-shift", "4"], |folder| edit(folder, negate), &[], &TRAINED);
    expect(&diagnosis, "fault", "origins-sign", "rlnOriginXAngst");
}

#[test]
fn a_wrong_defocus_is_named() {
    for (factor, remedy) in [(1.6, "--multiply_by 0.6"), (1e-4, "--multiply_by 10000")] {
        let scale = |row: &mut Row| {
            multiply(row, &["DefocusU", "DefocusV"], factor);
            true
        };
        let diagnosis = faulty(&[], |folder| edit(folder, scale), &[], &TRAINED);
        expect(&diagnosis, "fault", "defocus", "rlnDefocusU");
        assert!(diagnosis["findings"][0]["next"].to_string().contains(remedy), "{diagnosis:#}");
    }
}

/// The pixel size of the micrograph beside images that were binned by 2.
#[test]
fn a_pixel_size_of_half_the_true_one_is_named() {
    let halve = |folder: &Path| {
        let file = folder.join("particles.star");
        let text = fs::read_to_string(&file).unwrap();
        let halved = text.replacen(" 2.7 0.1 5 32 2", " 2.7 0.1 2.5 32 2", 1);
        assert!(halved != text, "{text}");
        fs::write(file, halved).unwrap();
    };
    let diagnosis = faulty(&[], halve, &[], &TRAINED);
    expect(&diagnosis, "fault", "pixel-size", "rlnImagePixelSize");
}

#[test]
fn inverted_contrast_is_named() {
    let diagnosis = faulty(&[], unchanged, &["--invert"], &TRAINED);
    expect(&diagnosis, "fault", "contrast-inverted", "-o inverted.h5");
}

#[test]
fn a_missing_cone_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulate(folder, 6 * PARTICLES, &[]);
    let mut kept = 0;
    edit(folder, |row| {
        let from_the_top = number(row, "AngleTilt").to_radians().cos().abs() > 0.8;
        kept += usize::from(from_the_top);
        from_the_top && kept <= PARTICLES
    });
    assert!(kept >= PARTICLES, "{kept}");
    let diagnosis = diagnosis(folder, &[], &TRAINED);
    expect(&diagnosis, "warning", "missing-cone", "--directional");
}

#[test]
fn a_run_that_is_too_small_is_named() {
    let train = ["--gaussians", "24", "--mixtures", "1", "--epochs", "1"];
    let diagnosis = faulty(&[], unchanged, &[], &train);
    expect(&diagnosis, "warning", "model-too-small", "--gaussians");
}

#[test]
fn inverse_rotations_are_named() {
    let transpose = |row: &mut Row| {
        let [rot, tilt, psi] = ["AngleRot", "AngleTilt", "AnglePsi"].map(|column| -number(row, column));
        for (column, value) in [("AngleRot", psi), ("AngleTilt", tilt), ("AnglePsi", rot)] {
            row.insert(column.to_owned(), value.to_string());
        }
        true
    };
    let diagnosis = faulty(&[], |folder| edit(folder, transpose), &[], &TRAINED);
    expect(&diagnosis, "fault", "pose-convention", "import");
}

#[test]
fn images_with_their_rows_in_reverse_order_are_named() {
    // Row y goes to -y, modulo the box.
    let flip = |image: &mut [f32]| {
        let rows: Vec<f32> = image.to_vec();
        for (y, row) in image.chunks_exact_mut(BOX).enumerate() {
            row.copy_from_slice(&rows[(BOX - y) % BOX * BOX..][..BOX]);
        }
    };
    let diagnosis = faulty(&["--max-shift", "0"], |folder| edit_images(folder, flip), &[], &TRAINED);
    expect(&diagnosis, "fault", "pose-convention", "import");
}

#[test]
fn images_without_a_particle_are_named() {
    let diagnosis = faulty(&["--junk", "0.4"], unchanged, &[], &TRAINED);
    expect(&diagnosis, "warning", "junk", "--weigh-particles");
}

#[test]
fn the_same_images_in_both_halves_are_named() {
    // Under another number, as where a micrograph was picked twice.
    let copy = |folder: &Path| {
        let mut last = Row::new();
        edit(folder, |row| {
            if row["RandomSubset"] == "1" {
                last.clone_from(row);
            } else {
                let name = row["ImageName"].clone();
                row.clone_from(&last);
                row.extend([("ImageName".to_owned(), name), ("RandomSubset".to_owned(), "2".to_owned())]);
            }
            true
        });
        let file = folder.join("particles.mrcs");
        let mut bytes = fs::read(&file).unwrap();
        for pair in bytes[1024..].chunks_exact_mut(2 * 4 * BOX * BOX) {
            pair.copy_within(..4 * BOX * BOX, 4 * BOX * BOX);
        }
        fs::write(file, bytes).unwrap();
    };
    let diagnosis = faulty(&[], copy, &[], &TRAINED);
    expect(&diagnosis, "fault", "copies-in-both-halves", "duplicates");
}

#[test]
fn a_symmetry_that_is_not_used_is_named() {
    let diagnosis = faulty(&["--symmetry", "C3"], unchanged, &[], &TRAINED);
    expect(&diagnosis, "note", "symmetry-unused", "--symmetry C3");
}

#[test]
fn angles_of_other_signs_are_named() {
    let of = |columns: &'static [&'static str]| {
        of_voxels(&[], move |row| {
            multiply(row, columns, -1.0);
            true
        })
    };
    let all = of(&["AngleRot", "AngleTilt", "AnglePsi"]);
    expect(&all, "fault", "pose-convention", "rlnAngleRot, rlnAngleTilt and rlnAnglePsi by -1");
    expect(&of(&["AngleRot"]), "fault", "pose-convention", "rlnAngleRot by -1");
}

#[test]
fn images_off_their_centre_are_named() {
    let diagnosis = of_voxels(&["--max-shift", "1"], |row| {
        let moved = number(row, "OriginXAngst") - 10.0;
        row.insert("OriginXAngst".into(), moved.to_string());
        true
    });
    expect(&diagnosis, "fault", "origins-offset", "to rlnOriginXAngst");
    let title = diagnosis["findings"][0]["title"].as_str().unwrap();
    let pixels: f64 = title.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((pixels - 2.0).abs() < 0.3, "{title}");
}

#[test]
fn origins_of_another_unit_are_told_from_origins_with_errors() {
    let in_pixels = of_voxels(&["--max-shift", "3"], |row| {
        multiply(row, &["OriginXAngst", "OriginYAngst"], 0.2);
        true
    });
    expect(&in_pixels, "fault", "origins-unit", "--multiply_by 5");
    assert!(in_pixels["findings"][0]["title"].to_string().contains("in pixels"), "{in_pixels:#}");
    // Half of such shifts would fit better.
    let with_errors = of_voxels(&["--max-shift", "3", "--shift-error", "2"], |_| true);
    expect(&with_errors, "warning", "shifts", "--refine");
}

#[test]
fn a_wrong_pixel_size_of_an_optics_group_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    simulate(folder, 2 * PARTICLES, &["--noise-groups", "1,1"]);
    let file = folder.join("particles.star");
    let text = fs::read_to_string(&file).unwrap();
    let given = text.lines().find(|line| line.starts_with("2 simulated2 ")).unwrap();
    fs::write(&file, text.replace(given, &given.replace(" 5 32 ", " 5.6 32 "))).unwrap();
    let [star, set, run] = ["particles.star", "set.h5", "run"].map(|name| path(folder, name));
    succeed(&["import", &star, "-o", &set, "--pixel-size", "5"]);
    succeed(&["backproject", &set, "-o", &run]);
    let text = succeed(&["--log-level", "error", "diagnose", &run, "--json"]);
    let diagnosis: Value = serde_json::from_str(&text).unwrap();
    expect(&diagnosis, "fault", "pixel-size", "rlnImagePixelSize");
    let title = diagnosis["findings"][0]["title"].as_str().unwrap();
    assert!(title.starts_with("optics group 2 (simulated2)"), "{title}");
}

#[test]
fn poses_of_other_images_are_named() {
    let mut before: Option<Row> = None;
    let diagnosis = of_voxels(&[], |row| {
        let own = row.clone();
        for column in ["AngleRot", "AngleTilt", "AnglePsi"] {
            let other = before.as_ref().map_or("0".to_owned(), |before| before[column].clone());
            row.insert(column.to_owned(), other);
        }
        before = Some(own);
        true
    });
    expect(&diagnosis, "fault", "poses", "rows");
}

#[test]
fn other_numbers_of_the_ctf_are_named() {
    let higher = of_voxels(&["--defocus-median", "9000"], |row| {
        for column in ["DefocusU", "DefocusV"] {
            let value = number(row, column) + 6000.0;
            row.insert(column.to_owned(), value.to_string());
        }
        true
    });
    expect(&higher, "fault", "defocus", "rlnDefocusU");
    let nanometres = of_voxels(&["--defocus-median", "15000"], |row| {
        multiply(row, &["DefocusU", "DefocusV"], 0.1);
        true
    });
    expect(&nanometres, "fault", "defocus", "--multiply_by");
}
