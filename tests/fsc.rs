//! `fsc` and `info` on generated maps and particle sets.

mod common;

use std::path::{Path, PathBuf};

use common::{alone, fail, succeed};
use cryosplat_mpi::imaging::ctf::{CtfParameters, Optics};
use cryosplat_mpi::imaging::mrc::{Frame, Volume, read_volume, write_stack, write_volume};
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Dtype, Header, Particle, Writer};
use ndarray::Array3;
use serde_json::Value;

const BOX: usize = 16;

/// A blob and a pattern with power at all frequencies.
fn map(seed: usize) -> Array3<f32> {
    Array3::from_shape_fn((BOX, BOX, BOX), |(z, y, x)| {
        let d = |a: usize, c: f32| (a as f32 - c).powi(2);
        let blob = (-(d(x, 6.0) + d(y, 9.0) + d(z, 8.0)) / 8.0).exp();
        let hash = (x * 7919 + y * 104_729 + z * 1_299_709 + seed * 15_485_863) % 1009;
        blob + 0.02 * (hash as f32 / 1009.0 - 0.5)
    })
}

fn write(folder: &Path, name: &str, data: Array3<f32>, pixel_size: f64) -> PathBuf {
    let path = folder.join(name);
    write_volume(&path, &Volume::new(data, pixel_size)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn map_correlates_with_itself_and_less_with_a_noisy_copy() {
    let folder = tempfile::tempdir().unwrap();
    let a = write(folder.path(), "a.mrc", map(1), 2.0);
    let b = write(folder.path(), "b.mrc", map(2), 2.0);
    let said = succeed(&["fsc", text(&a), text(&a)]);
    assert!(said.contains("< 4.57 A") && said.contains("1.0000") && said.contains("never below"), "{said}");

    let stem = folder.path().join("out");
    let said = succeed(&["fsc", text(&a), text(&b), "-o", text(&stem), "--mask", "sphere", "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    let labels: Vec<&str> =
        json["curves"].as_array().unwrap().iter().map(|c| c["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["corrected", "spherical mask", "phases randomised", "no mask"]);
    let plain = &json["curves"][3];
    assert_eq!(plain["shells"].as_array().unwrap().len(), BOX / 2);
    let value = |shell: usize| plain["shells"][shell].as_f64().unwrap();
    assert!(value(1) > 0.99 && value(7) < 0.5, "{said}");
    assert_eq!(plain["fsc_0.5"]["outcome"], "crossed");

    assert_eq!(names(folder.path()), ["a.mrc", "b.mrc", "out.csv", "out.png", "out.svg"]);
    let csv = std::fs::read_to_string(folder.path().join("out.csv")).unwrap();
    assert!(
        csv.starts_with(
            "shell,spatial_frequency_1_per_A,resolution_A,corrected,spherical mask,phases randomised,no mask\n"
        ),
        "{csv}"
    );
    let last: Vec<f64> = csv.lines().last().unwrap().split(',').map(|v| v.parse().unwrap()).collect();
    assert!((last[6] - value(7)).abs() < 1e-8 && (last[2] - 32.0 / 7.0).abs() < 1e-4, "{csv}");
}

#[test]
fn mask_file_and_pixel_size_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let a = write(folder.path(), "a.mrc", map(1), 2.0);
    let b = write(folder.path(), "b.mrc", map(2), 3.0);
    let ones = write(folder.path(), "mask.mrc", Array3::ones((BOX, BOX, BOX)), 2.0);
    let usual = ["fsc", text(&a), text(&b), "--pixel-size", "4", "--mask", text(&ones), "--json"];
    let json: Value = serde_json::from_str(&succeed(&[&usual[..], &["--reference"]].concat())).unwrap();
    assert_eq!(json["curves"].as_array().unwrap().len(), 2, "a reference is not a half map: no correction");
    assert_eq!(json["curves"][0]["shells"], json["curves"][1]["shells"], "a mask of ones changes nothing");
    assert_eq!(json["curves"][0]["pixel_size"], 4.0);
}

#[test]
fn maps_and_masks_in_other_frames_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let framed = |name: &str, frame: Frame| {
        let path = at.join(name);
        write_volume(&path, &Volume::new(map(1), 2.0).in_frame(frame)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let zero = framed("zero.mrc", Frame::default());
    let start = framed("start.mrc", Frame { start: [-8, 0, 4], ..Frame::default() });
    let origin = framed("origin.mrc", Frame { origin: [-16.0, 0.0, 8.04], ..Frame::default() });
    let places =
        ["origin.mrc: begins at -16.00, 0.00, 8.04 A", "ORIGIN -16 0 8.04", "zero.mrc at 0.00, 0.00, 0.00 A"];
    fail(&["fsc", &zero, &origin], &places);
    fail(
        &["fsc", &zero, &zero, "--mask", &origin],
        &["origin.mrc: begins at -16.00", "the map at 0.00", "--ignore-frame"],
    );
    let ones = at.join("ones.mrc");
    let frame = Frame { start: [-8, 0, 4], ..Frame::default() };
    write_volume(&ones, &Volume::new(Array3::ones((BOX, BOX, BOX)), 2.0).in_frame(frame)).unwrap();
    succeed(&["fsc", &zero, &origin, "--ignore-frame", "--mask", text(&ones)]);
    // NXSTART of -8 voxels of 2 A is an ORIGIN of -16 A; the mask of both has the frame of the first.
    let mask = at.join("mask.mrc");
    succeed(&["fsc", &start, &origin, "--mask", "sphere", "--mask-output", text(&mask)]);
    assert_eq!(read_volume(&mask).unwrap().frame, read_volume(Path::new(&start)).unwrap().frame);
    // Starts are voxels: their place follows the pixel size given.
    fail(&["fsc", &start, &origin, "--pixel-size", "3"], &["begins at", "-24.00, 0.00, 12.00 A"]);
}

#[test]
fn bad_input_is_a_one_line_error_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let a = write(at, "a.mrc", map(1), 2.0);
    let other_pixels = write(at, "pixels.mrc", map(2), 2.1);
    let unknown = write(at, "unknown.mrc", map(2), 0.0);
    let small = write(at, "small.mrc", Array3::ones((8, 8, 8)), 2.0);
    let flat = write(at, "flat.mrc", Array3::zeros((BOX, BOX, BOX)), 2.0);
    let slab = write(at, "slab.mrc", Array3::ones((8, BOX, BOX)), 2.0);
    let mut broken = map(3);
    broken[[3, 2, 1]] = f32::NAN;
    let broken = write(at, "broken.mrc", broken, 2.0);
    let (a, stem) = (text(&a), at.join("out"));
    let refuse = |more: &[&str], fragments: &[&str]| {
        let mut arguments = vec!["fsc", a];
        arguments.extend(more);
        arguments.extend(["-o", text(&stem)]);
        fail(&arguments, fragments);
    };
    refuse(&[text(&other_pixels)], &["a.mrc", "2.0000", "pixels.mrc", "2.1000", "--pixel-size"]);
    refuse(&[text(&unknown)], &["unknown.mrc", "has no pixel size"]);
    refuse(
        &[a, "--mask", text(&other_pixels)],
        &["pixels.mrc", "mask's voxels are 2.1000 A", "maps' voxels are 2.0000 A"],
    );
    refuse(&[text(&small)], &["a.mrc", "16 x 16 x 16", "small.mrc", "8 x 8 x 8"]);
    refuse(&[text(&flat)], &["flat.mrc", "0 everywhere"]);
    refuse(&[text(&slab)], &["slab.mrc", "16 x 16 x 8", "cube"]);
    refuse(&[text(&broken)], &["broken.mrc", "(1, 2, 3)", "NaN"]);
    refuse(&["missing.mrc"], &["missing.mrc", "No such file"]);
    refuse(&[a, "--mask", "mask.mrc"], &["mask.mrc", "No such file"]);
    refuse(&[a, "--mask", "auto", "--threshold", "99"], &["no voxel reaches the threshold", "--threshold"]);
    refuse(&[a, "--mask", "sphere", "--extend", "9"], &["--extend", "an automatic mask", "--mask auto"]);
    refuse(&[a, "--mask", "auto", "--radius", "9"], &["--radius", "--mask sphere"]);
    refuse(&[a, "--mask-output", "out.mrc"], &["--mask-output", "the mask is none"]);
    refuse(&[a, "--mask", "sphere", "--draws", "0"], &["0 times"]);
    refuse(&[a, "--mask", "sphere", "--randomize-below", "1"], &["below 1", "between 0 and 1"]);
    refuse(&[a, "--center-model"], &["a.mrc", "not an atomic model"]);
    refuse(&[a, "--mask", text(&flat)], &["flat.mrc", "mask is zero everywhere"]);
    refuse(&[a, "--mask", text(&small)], &["small.mrc", "mask's box is 8"]);
    refuse(&[a, "--radius", "9"], &["--mask sphere"]);
    refuse(&[a, "--mask", "sphere", "--radius", "4", "--edge", "5"], &["radius 2.00 and edge 2.50"]);
    assert!(names(at).iter().all(|name| name.ends_with(".mrc")), "{:?}", names(at));
    fail(&["fsc", a, a, "-o", text(&at.join("no/such/fsc"))], &["no/such/fsc.csv", "no/such does not exist"]);
}

fn particles(path: &Path, n: usize) {
    let second = n.div_ceil(3);
    let header = Header {
        box_size: 8,
        pixel_size: 2.5,
        normalized: true,
        inverted: false,
        optics: vec![Optics::new(300.0, 2.7, 0.1)],
        halves: [n - second, second],
        source_files: vec!["stack.mrcs".into()],
        imported_from: None,
    };
    let particle = |i: usize| Particle {
        rotation: rotation_from_relion(i as f64, 40.0, 70.0),
        shift: [0.0; 2],
        ctf: CtfParameters { defocus_u: 1e4 + 100.0 * i as f64, defocus_v: 1e4, ..CtfParameters::default() },
        optics_group: 0,
        source: None,
    };
    let particles: Vec<Particle> = (0..n).map(particle).collect();
    let images: Vec<f32> = (0..n * 64).map(|i| (i % 97) as f32).collect();
    let _alone = alone();
    let mut writer = Writer::create(path, &header, Dtype::F16).unwrap();
    writer.append(Subset::Half1, &particles[..n - second], &images[..(n - second) * 64]).unwrap();
    writer.append(Subset::Half2, &particles[n - second..], &images[(n - second) * 64..]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn info_describes_a_particle_set_and_verifies_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    particles(&path, 101);
    let said = succeed(&["info", text(&path), "--verify"]);
    for part in
        ["particle set", "101", "8 pixels", "2.5 A", "f16", "67 + 34", "10000 to 15000 A", "all 101 match"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let json: Value = serde_json::from_str(&succeed(&["info", "--json", text(&path)])).unwrap();
    assert_eq!((&json["particles"], &json["dtype"]), (&Value::from(101), &Value::from("f16")));
    assert_eq!(json["optics"][0]["voltage"], 300.0);

    let mut bytes = std::fs::read(&path).unwrap();
    // 95 and 96 as f16: this pair of values is found in the images only.
    let pair = [half::f16::from_f32(95.0).to_le_bytes(), half::f16::from_f32(96.0).to_le_bytes()].concat();
    let at = bytes.windows(4).position(|w| w == pair).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    fail(&["info", "--verify", text(&path)], &["p.h5", "particle 2: ", "checksum"]);
    std::fs::write(&path, &bytes[..600]).unwrap();
    fail(&["info", text(&path)], &["p.h5", "truncated"]);
}

#[test]
fn info_describes_maps_and_stacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| (x + 10 * y + 100 * z) as f32);
    data[[0, 0, 0]] = f32::NAN;
    let path = write(folder.path(), "m.mrc", data, 1.25);
    let said = succeed(&["info", text(&path)]);
    for part in ["MRC map", "6 x 5 x 4 voxels", "1.25 A", "max 345", "1 values are NaN", "columns along x"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let stack = folder.path().join("s.mrcs");
    let images = [[1.0f32; 64], [3.0; 64]];
    write_stack(&stack, 8, 2.0, images.iter().map(|i| &i[..])).unwrap();
    let json: Value = serde_json::from_str(&succeed(&["info", "--json", text(&stack)])).unwrap();
    assert_eq!(json["kind"], "MRC stack of images");
    assert_eq!((json["mean"].as_f64(), json["sd"].as_f64()), (Some(2.0), Some(1.0)));
}

#[test]
fn info_refuses_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let star = at("p.star", &b"data_particles\nloop_\n".repeat(200));
    fail(&["info", text(&star)], &["p.star", "no table has the column _rlnImageName"]);
    fail(&["info", text(&at("empty", b""))], &["empty: is empty, expected"]);
    fail(&["info", text(&at("map.gz", b"\x1f\x8b\x08 more"))], &["map.gz", "gunzip"]);
    fail(&["info", text(folder.path())], &["read the run's record"]);
    let foreign = folder.path().join("other.h5");
    {
        let _alone = alone();
        hdf5::File::create(&foreign).unwrap();
    }
    fail(&["info", text(&foreign)], &["other.h5", "another program"]);
    // The good file is described, the bad one is named, and the exit code is 1.
    let good = write(folder.path(), "good.mrc", map(1), 2.0);
    fail(&["info", text(&star), text(&good), "missing"], &["p.star"]);
    fail(&["info", text(&star), text(&good)], &["good.mrc: MRC map"]);
    fail(&["info", "--verify", text(&good)], &["good.mrc", "no checksums"]);
}
