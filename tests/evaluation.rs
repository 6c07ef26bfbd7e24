//! `fsc` with masks, models, mixtures and directions, and `postprocess`, on generated half maps.

mod common;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use common::{fail, path, program, succeed};
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::imaging::mrc::{Frame, Volume, read_volume, write_volume};
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::simulate::atoms::{Atom, scattering};
use cryosplat_mpi::simulate::density::map_of_atoms;
use ndarray::Array3;
use rand_distr::{Distribution, StandardNormal};
use serde_json::Value;

const BOX: usize = 48;
const PIXEL: f64 = 2.0;

/// Carbon atoms in a ball of 24 A about the origin.
fn atoms() -> Vec<Atom> {
    let mut random = stream(1, Purpose::Start, 0, 0);
    let mut atoms = Vec::new();
    while atoms.len() < 150 {
        let position: [f64; 3] = std::array::from_fn(|_| {
            let value: f64 = StandardNormal.sample(&mut random);
            // Rounded as in a PDB file.
            (value * 10.0 * 1e3).round() / 1e3
        });
        if position.iter().map(|v| v * v).sum::<f64>() < 24.0 * 24.0 {
            atoms.push(Atom { position, weight: scattering("C") });
        }
    }
    atoms
}

/// Map of the atoms with a B factor of `b`, and noise with a standard deviation of `noise` tenths of the map's maximum.
fn map(b: f64, noise: f32, seed: u64) -> Volume {
    let signal = map_of_atoms(&atoms(), BOX, PIXEL, b);
    let peak = signal.iter().fold(0.0f32, |m, v| m.max(*v));
    let mut random = stream(seed, Purpose::Noise, 0, 0);
    let grain: Array3<f32> =
        Array3::from_shape_simple_fn(signal.dim(), || StandardNormal.sample(&mut random));
    Volume::new(signal + grain * (0.1 * noise * peak), PIXEL)
}

fn write(folder: &Path, name: &str, map: &Volume) -> String {
    write_volume(&folder.join(name), map).unwrap();
    path(folder, name)
}

/// Writes the atoms, shifted by `shift` angstrom, as a PDB file.
fn pdb(folder: &Path, name: &str, shift: [f64; 3]) -> String {
    let mut text = String::new();
    for (i, atom) in atoms().iter().enumerate() {
        let [x, y, z] = [0, 1, 2].map(|k| atom.position[k] + shift[k]);
        writeln!(
            text,
            "ATOM  {:5}  C   GLY A{:4}    {x:8.3}{y:8.3}{z:8.3}  1.00  0.00           C",
            i + 1,
            i + 1
        )
        .unwrap();
    }
    std::fs::write(folder.join(name), text).unwrap();
    path(folder, name)
}

/// The JSON on standard output; the log is on standard error.
fn json(arguments: &[&str]) -> Value {
    let output = program(arguments);
    assert!(output.status.success(), "{}", common::text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shells(document: &Value, label: &str) -> Vec<f64> {
    let curve = document["curves"].as_array().unwrap().iter().find(|c| c["label"] == label);
    let curve = curve.unwrap_or_else(|| panic!("no {label:?} in {document}"));
    curve["shells"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn correction_under_automatic_mask_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        write(folder.path(), "a.mrc", &map(80.0, 1.0, 1)),
        write(folder.path(), "b.mrc", &map(80.0, 1.0, 2)),
    );
    let mask = path(folder.path(), "mask.mrc");
    let usual = ["fsc", &a, &b, "--mask", "auto", "--json", "--mask-output", &mask];
    let found = json(&usual);
    let (corrected, masked, random, plain) = (
        shells(&found, "corrected"),
        shells(&found, "automatic mask"),
        shells(&found, "phases randomised"),
        shells(&found, "no mask"),
    );
    let from = found["randomized_from_shell"].as_u64().unwrap() as usize;
    assert!(plain[from] < 0.8 && plain[from - 1] >= 0.8 && from > 2 && from < 20, "{plain:?}");
    for shell in 1..BOX / 2 {
        let want = if shell < from + 2 {
            masked[shell]
        } else {
            (masked[shell] - random[shell]) / (1.0 - random[shell])
        };
        assert!((corrected[shell] - want).abs() < 1e-12);
    }
    // The mask removes noise: the FSC rises.
    assert!(masked[from] > plain[from]);
    let weights = read_volume(Path::new(&mask)).unwrap().data;
    assert_eq!((weights[[24, 24, 24]], weights[[1, 1, 1]]), (1.0, 0.0));
    let share = found["mask"]["share_of_box"].as_f64().unwrap();
    assert!((f64::from(weights.sum()) / weights.len() as f64 - share).abs() < 1e-4 && share < 0.6, "{share}");
    assert_eq!(json(&usual), found, "the same seed gives the same phases");
    let other = json(&[&usual[..], &["--seed", "9"]].concat());
    assert_ne!(shells(&other, "phases randomised"), random);
    assert_eq!(shells(&other, "automatic mask"), masked);
    // The options of the mask have an effect.
    let options =
        ["--threshold", "0.5", "--components", "all", "--extend", "0", "--edge", "0", "--mask-lowpass", "0"];
    let hard = json(&[&usual[..], &options].concat());
    assert_eq!((hard["mask"]["threshold"].as_f64(), hard["mask"]["extend"].as_f64()), (Some(0.5), Some(0.0)));
    assert!(read_volume(Path::new(&mask)).unwrap().data.iter().all(|&w| w == 0.0 || w == 1.0));
    assert!(hard["mask"]["share_of_box"].as_f64().unwrap() < share);
    // A reference is not a half map.
    let reference = json(&["fsc", &a, &b, "--mask", "sphere", "--json", "--reference"]);
    assert_eq!(reference["curves"].as_array().unwrap().len(), 2);
    // Maps that correlate up to Nyquist cannot be corrected.
    let said = succeed(&["fsc", &a, &a, "--mask", "auto"]);
    assert!(said.contains("not corrected") && said.contains("nowhere below 0.8"), "{said}");
}

#[test]
fn directional_fsc_is_printed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        write(folder.path(), "a.mrc", &map(80.0, 1.0, 1)),
        write(folder.path(), "b.mrc", &map(80.0, 1.0, 2)),
    );
    let out = path(folder.path(), "out");
    let said = succeed(&["fsc", &a, &b, "--mask", "auto", "--directional", "-o", &out]);
    assert!(said.contains("256 cones of 20 degrees, FSC = 0.143: lowest resolution"), "{said}");
    assert_eq!(
        names(folder.path()),
        ["a.mrc", "b.mrc", "out.csv", "out.png", "out.svg", "out_directions.csv"]
    );
    let svg = std::fs::read_to_string(folder.path().join("out.svg")).unwrap();
    assert!(svg.contains("<polygon") && svg.contains("cones of 20°"), "{svg}");
    let table = std::fs::read_to_string(folder.path().join("out_directions.csv")).unwrap();
    let resolutions: Vec<f64> =
        table.lines().skip(1).map(|line| line.split(',').nth(4).unwrap().parse().unwrap()).collect();
    assert_eq!(resolutions.len(), 256);
    let found = json(&["fsc", &a, &b, "--mask", "auto", "--directional", "--json"]);
    let of = |name: &str| found["directional"]["resolution"][name].as_f64().unwrap();
    let mean = resolutions.iter().sum::<f64>() / 256.0;
    assert!((of("mean") - mean).abs() < 1e-3);
    assert!((of("lowest") - resolutions.iter().copied().fold(0.0, f64::max)).abs() < 1e-3);
    assert!((of("highest") - resolutions.iter().copied().fold(1e9, f64::min)).abs() < 1e-3);
    assert!(of("highest") < of("mean") && of("mean") < of("lowest") && of("spread") > 0.0);
    // Against a reference, the threshold is 0.5.
    let said = succeed(&["fsc", &a, &b, "--reference", "--directional"]);
    assert!(said.contains("FSC = 0.5: lowest"), "{said}");
}

#[test]
fn model_is_compared_in_the_frame_of_the_map_header() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let a = write(at, "a.mrc", &map(80.0, 0.0, 1));
    // Voxel (0, 0, 0) of a map without an origin is the model's (0, 0, 0).
    let centre = (BOX / 2) as f64 * PIXEL;
    let right = pdb(at, "right.pdb", [centre; 3]);
    let found = json(&["fsc", &a, &right, "--json"]);
    assert_eq!(found["curves"].as_array().unwrap().len(), 1, "no correction, no mask");
    // A blur has no effect; the last shells are affected by the band limit.
    assert!(shells(&found, "no mask")[1..21].iter().all(|&v| v > 0.999), "{found}");
    let moved = pdb(at, "moved.pdb", [centre + 4.0, centre, centre]);
    assert!(shells(&json(&["fsc", &a, &moved, "--json"]), "no mask")[6..].iter().any(|&v| v < 0.5));
    // The origin in the header moves the map.
    let mut bytes = std::fs::read(at.join("a.mrc")).unwrap();
    bytes[196..200].copy_from_slice(&4f32.to_le_bytes());
    std::fs::write(at.join("origin.mrc"), &bytes).unwrap();
    let origin = path(at, "origin.mrc");
    assert!(shells(&json(&["fsc", &origin, &moved, "--json"]), "no mask")[1..21].iter().all(|&v| v > 0.999));
    // Without an origin, so does the start in the cell: two columns of 2 A.
    bytes[196..200].copy_from_slice(&0f32.to_le_bytes());
    bytes[16..20].copy_from_slice(&2i32.to_le_bytes());
    std::fs::write(at.join("start.mrc"), &bytes).unwrap();
    let start = path(at, "start.mrc");
    assert!(shells(&json(&["fsc", &start, &moved, "--json"]), "no mask")[1..21].iter().all(|&v| v > 0.999));

    let far = pdb(at, "far.pdb", [500.0; 3]);
    fail(&["fsc", &a, &far], &["far.pdb", "150 atoms", "--center-model"]);
    let low = pdb(at, "low.pdb", [centre, centre, 12.0]);
    let said = succeed(&["fsc", &a, &low]);
    assert!(said.contains("atoms lie outside the box of"), "{said}");
    // --center-model moves the mean of the atoms, which is not zero, to the centre of the box.
    let mean: [f64; 3] = std::array::from_fn(|k| atoms().iter().map(|a| a.position[k]).sum::<f64>() / 150.0);
    let mut centred = atoms();
    for atom in &mut centred {
        (0..3).for_each(|k| atom.position[k] -= mean[k]);
    }
    let centred = Volume::new(map_of_atoms(&centred, BOX, PIXEL, 80.0), PIXEL);
    let centred = write(at, "centred.mrc", &centred);
    let found = json(&["fsc", &centred, &far, "--center-model", "--mask", "auto", "--json"]);
    let labels: Vec<&Value> = found["curves"].as_array().unwrap().iter().map(|c| &c["label"]).collect();
    assert_eq!(labels, ["automatic mask", "no mask"], "a model is not a half map");
    assert!(shells(&found, "no mask")[1..21].iter().all(|&v| v > 0.999), "{found}");
    std::fs::write(at.join("text.txt"), "no atoms here\n").unwrap();
    fail(&["fsc", &a, &path(at, "text.txt")], &["text.txt", "contains no atoms"]);
}

#[test]
fn mixture_is_sampled_on_the_grid_of_the_map() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let gmm = Gmm::random(60, Shape::Anisotropic, &mut stream(3, Purpose::Start, 1, 0));
    // A pixel size that is not exact in single precision.
    let mixture = GmmFile { gmm, symmetry: Symmetry::C1, box_size: 32, pixel_size: 2.3 };
    {
        let _alone = common::alone();
        mixture.write(&at.join("gmm.h5")).unwrap();
    }
    let (gmm, same, finer) = (path(at, "gmm.h5"), path(at, "same.mrc"), path(at, "finer.mrc"));
    succeed(&["voxelize", &gmm, "-o", &same]);
    succeed(&["voxelize", &gmm, "-o", &finer, "--pixel-size", "1.7", "--box", "40"]);
    for map in [&same, &finer] {
        let found = json(&["fsc", map, &gmm, "--json"]);
        assert!(shells(&found, "no mask")[1..].iter().all(|&v| v > 0.9999), "{found}");
    }
    std::fs::write(at.join("gmm.ply"), "ply\nformat binary_little_endian 1.0\n").unwrap();
    fail(&["fsc", &same, &path(at, "gmm.ply")], &["gmm.ply", "PLY", "HDF5 file beside it"]);
    fail(&["fsc", &same, &gmm, "--pixel-size", "0.001"], &["gmm.h5", "voxels", "pixel size"]);
}

#[test]
fn postprocess_sharpens_and_writes_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (a, b) = (write(at, "a.mrc", &map(120.0, 0.3, 1)), write(at, "b.mrc", &map(120.0, 0.3, 2)));
    let out = path(at, "post");
    fail(&["postprocess", &a, &a, "-o", &out], &["the same voxels", "both half maps"]);
    let said = succeed(&["postprocess", &a, &b, "-o", &out, "--fit-from", "16"]);
    assert!(said.contains("corrected") && said.contains("B factor") && said.contains("resolution"), "{said}");
    let post: Vec<String> = names(at).into_iter().filter(|n| n.starts_with("post")).collect();
    assert_eq!(
        post,
        [
            "post.csv",
            "post.html",
            "post.json",
            "post.mrc",
            "post.png",
            "post.svg",
            "post_mask.mrc",
            "post_masked.mrc"
        ]
    );
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(at.join("post.json")).unwrap()).unwrap();
    // Atoms at random positions have a white spectrum: only the B factor makes it fall off.
    let b_factor = document["b_factor"].as_f64().unwrap();
    assert!((-160.0..-80.0).contains(&b_factor), "{b_factor}");
    let [map, masked, mask] =
        ["post.mrc", "post_masked.mrc", "post_mask.mrc"].map(|n| read_volume(&at.join(n)).unwrap());
    for ((index, &value), &weight) in map.data.indexed_iter().zip(&mask.data) {
        assert!((masked.data[index] - value * weight).abs() <= 1e-6 * value.abs());
    }
    // The sharpened map correlates with the map of unblurred atoms, and is reproducible.
    let sharp = write(at, "sharp.mrc", &self::map(0.0, 0.0, 1));
    let found = json(&["fsc", &path(at, "post.mrc"), &sharp, "--reference", "--json"]);
    let resolved = document["resolution_shell"].as_u64().unwrap() as usize;
    assert!(resolved > 8 && shells(&found, "no mask")[1..resolved - 2].iter().all(|&v| v > 0.5), "{found}");
    let first = std::fs::read(at.join("post.mrc")).unwrap();
    succeed(&["postprocess", &a, &b, "-o", &out, "--fit-from", "16"]);
    assert!(std::fs::read(at.join("post.mrc")).unwrap() == first);

    let more =
        ["--b-factor", "-50", "--low-pass", "none", "--skip-fsc-weighting", "--mask", "sphere", "--json"];
    let document = json(&[&["postprocess", a.as_str(), &b, "-o", &out][..], &more].concat());
    assert_eq!((document["b_factor"].as_f64(), &document["low_pass"]), (Some(-50.0), &Value::Null));
    assert_eq!((&document["b_factor_fit"], &document["mask"]["kind"]), (&Value::Null, &"sphere".into()));
    let point = |plot: &str, shell: usize| document[plot][shell]["log_amplitude"].as_f64().unwrap();
    let rise = point("guinier_sharpened", 9) - point("guinier", 9);
    let want = 50.0 / 4.0 * document["guinier"][9]["inverse_square"].as_f64().unwrap();
    assert!((rise - want).abs() < 0.02 * want, "{rise} {want}");

    // All maps keep the frame of the half maps.
    let frame = Frame { start: [-3, 0, 2], origin: [-32.0, -16.5, 8.0] };
    let framed = [1, 2]
        .map(|seed| write(at, &format!("framed{seed}.mrc"), &self::map(120.0, 0.3, seed).in_frame(frame)));
    succeed(&["postprocess", &framed[0], &framed[1], "-o", &path(at, "framed")]);
    for name in ["framed.mrc", "framed_masked.mrc", "framed_mask.mrc"] {
        assert_eq!(read_volume(&at.join(name)).unwrap().frame, frame, "{name}");
    }
    fail(
        &["postprocess", &framed[0], &b, "-o", &out],
        &["b.mrc: begins at 0.00", "framed1.mrc at -32.00, -16.50, 8.00 A"],
    );
    succeed(&["postprocess", &framed[0], &b, "-o", &out, "--ignore-frame"]);
    assert_eq!(read_volume(&at.join("post.mrc")).unwrap().frame, frame, "that of the first");

    // Too few shells for a fit: a warning, no sharpening.
    let said = succeed(&["postprocess", &a, &b, "-o", &out, "--fit-from", "4.3", "--fit-to", "4.2"]);
    assert!(said.contains("not sharpened") && said.contains("--b-factor"), "{said}");
}

#[test]
fn postprocess_reports_bad_input_in_one_line_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [a, b] = [("a.mrc", 1), ("b.mrc", 2)].map(|(name, seed)| write(at, name, &map(80.0, 1.0, seed)));
    let inverse = map(80.0, 1.0, 1).data.mapv(|v| -v);
    let inverse = write(at, "inverse.mrc", &Volume::new(inverse, PIXEL));
    let out = PathBuf::from(path(at, "post"));
    let refuse = |more: &[&str], fragments: &[&str]| {
        let usual = ["postprocess", &a, "-o", out.to_str().unwrap()];
        fail(&[&usual[..], more].concat(), fragments);
    };
    refuse(&["missing.mrc"], &["missing.mrc", "No such file"]);
    refuse(&[&b, "--mask", "none"], &["needs a mask", "auto"]);
    refuse(&[&inverse, "--mask", "sphere"], &["share no signal", "half maps"]);
    refuse(&[&b, "--mask", "sphere", "--fit-from", "5", "--fit-to", "6"], &["from 5 A to 6 A", "--fit-from"]);
    refuse(&[&b, "--low-pass", "0", "--mask", "sphere"], &["low-pass filter at 0 A"]);
    refuse(&[&b, "--b-factor=-1e9", "--mask", "sphere"], &["B factor of -1000000000.0", "--low-pass"]);
    assert_eq!(names(at), ["a.mrc", "b.mrc", "inverse.mrc"]);
}
