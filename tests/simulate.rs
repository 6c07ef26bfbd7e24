//! `cryosplat-mpi simulate` end to end, on generated input.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::imaging::{fourier, mrc};
use cryosplat_mpi::particles::store::{Dtype, Source, Store};
use rustfft::num_complex::Complex;

/// Five asymmetric atoms as mmCIF, up to about 20 A from their centre.
const MODEL: &str = "data_five\nloop_\n_atom_site.type_symbol\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n\
    _atom_site.Cartn_z\n_atom_site.occupancy\nP 118 0 -40 1\nZN 100 12 -44 1\nC 92 -8 -30 1\nO 101 3 -20 0.5\nS 96 -14 -52 1\n#\n";

/// A temporary folder of one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// `simulate` with a small box and `more` options.
fn arguments(output: &str, more: &[&str]) -> Vec<String> {
    let usual = ["simulate", "-o", output, "--box", "24", "--pixel-size", "4"];
    usual.iter().chain(more).map(|s| (*s).to_owned()).collect()
}

fn images(path: &Path) -> (Store, Vec<f32>) {
    let store = Store::open(path).unwrap();
    let images = common::whole(&store).images;
    (store, images.to_vec())
}

fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n
}

#[test]
fn the_snr_is_as_requested_and_the_noise_is_standard_normal() {
    let place = Place::new();
    // Without shifts, the files hold exactly the images that noise was added to.
    let usual = ["--phantom", "--particles", "400", "--snr", "-3dB", "--max-shift", "0", "--seed", "4"];
    common::succeed(&arguments(&place.text("noisy.h5"), &usual));
    common::succeed(&arguments(&place.text("clean.h5"), &[&usual[..], &["--no-noise"]].concat()));
    let ((store, noisy), (_, clean)) = (images(&place.path("noisy.h5")), images(&place.path("clean.h5")));
    store.verify().unwrap();
    let noise = noisy.iter().zip(&clean).map(|(a, b)| f64::from(a - b));
    let noise_variance = variance(noise);
    let signal =
        clean.chunks_exact(24 * 24).map(|image| variance(image.iter().map(|&v| f64::from(v)))).sum::<f64>()
            / 400.0;
    // 230,400 noise values: their variance is known to 0.3 %.
    assert!((noise_variance - 1.0).abs() < 0.01, "{noise_variance}");
    assert!((signal / noise_variance / 10f64.powf(-0.3) - 1.0).abs() < 0.02, "{signal} {noise_variance}");
}

#[test]
fn a_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let place = Place::new();
    std::fs::write(place.path("model.cif"), MODEL).unwrap();
    let model = place.text("model.cif");
    let run = |name: &str, seed: &str, threads: &str, n: &str| {
        let folder = place.text(name);
        let more =
            ["--model", &model, "--star", &folder, "--seed", seed, "--threads", threads, "--particles", n];
        common::succeed(&arguments(&place.text(&format!("{name}.h5")), &more));
        let file = |f: &str| std::fs::read(place.path(name).join(f)).unwrap();
        let (_, images) = images(&place.path(&format!("{name}.h5")));
        let bits: Vec<u32> = images.iter().map(|v| v.to_bits()).collect();
        (file("particles.mrcs"), file("particles.star"), file("truth.mrc"), bits)
    };
    let one = run("one", "7", "1", "60");
    assert!(one == run("two", "7", "2", "60"), "one and two threads differ");
    let other = run("other", "8", "2", "60");
    assert!(one.0 != other.0 && one.1 != other.1 && one.2 == other.2);
    // Particle files contain the path of the stack; with equal names they must be equal in every byte.
    let first = std::fs::read(place.path("one.h5")).unwrap();
    run("one", "7", "2", "60");
    assert!(first == std::fs::read(place.path("one.h5")).unwrap(), "the particle file differs");
    assert!(place.names().iter().all(|name| !name.contains("partial")), "{:?}", place.names());
}

/// The rows of a table of a STAR file, column by name.
fn star_table(text: &str, name: &str) -> Vec<HashMap<String, String>> {
    let mut lines = text.lines().skip_while(|line| line.trim() != name).skip(1);
    let mut columns = Vec::new();
    let mut rows = Vec::new();
    for line in lines.by_ref() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first() {
            Some(word) if word.starts_with("_rln") => {
                columns.push(word.trim_start_matches("_rln").to_owned())
            }
            Some(word) if word.starts_with("data_") => break,
            Some(word) if *word != "loop_" && !word.starts_with('#') => {
                assert_eq!(words.len(), columns.len(), "{line}");
                rows.push(columns.iter().cloned().zip(words.iter().map(|w| (*w).to_owned())).collect());
            }
            _ => {}
        }
    }
    rows
}

#[test]
fn a_beam_tilt_is_in_the_images_of_the_star_file_and_import_takes_it_back() {
    let place = Place::new();
    let folder = place.text("relion");
    let set = ["--phantom", "--particles", "6", "--no-noise", "--max-shift", "1.5"];
    let tilted = [&set[..], &["--star", &folder, "--beam-tilt", "60,-40"]].concat();
    common::succeed(&arguments(&place.text("tilted.h5"), &tilted));
    common::succeed(&arguments(&place.text("straight.h5"), &set));
    let star = place.path("relion/particles.star");
    let text = std::fs::read_to_string(&star).unwrap();
    let optics = &star_table(&text, "data_optics")[0];
    assert_eq!((&optics["BeamTiltX"][..], &optics["BeamTiltY"][..]), ("60", "-40"));
    let import = |name: &str, text: &str| {
        std::fs::write(&star, text).unwrap();
        let (star, output) = (star.display().to_string(), place.text(name));
        common::succeed(&["import", &star, "-o", &output, "--no-normalize"]);
        images(&place.path(name)).1
    };
    let straight = images(&place.path("straight.h5")).1;
    let largest = straight.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let distance = |images: &[f32]| {
        let pairs = images.iter().zip(&straight);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
    };
    // But for the Nyquist lines, where the phases of +k and -k cancel.
    assert!(distance(&images(&place.path("tilted.h5")).1) < 2e-3);
    assert!(distance(&import("told.h5", &text)) < 2e-3);
    assert!(distance(&import("untold.h5", &text.replace("BeamTilt", "Other"))) > 0.05);
}

#[test]
fn star_and_particle_file_describe_the_same_particles() {
    let place = Place::new();
    let folder = place.text("relion");
    let more = ["--phantom", "--star", &folder, "--particles", "31", "--no-noise", "--max-shift", "2.5"];
    common::succeed(&arguments(&place.text("p.h5"), &more));
    let (store, centred) = images(&place.path("p.h5"));
    let header = store.header();
    assert_eq!((header.box_size, header.pixel_size, header.inverted), (24, 4.0, false));
    assert_eq!(header.halves, [16, 15]);
    let particles = common::whole(&store).particles;

    let text = std::fs::read_to_string(place.path("relion/particles.star")).unwrap();
    let optics = star_table(&text, "data_optics");
    assert_eq!(optics.len(), 1);
    assert_eq!(optics[0]["ImagePixelSize"].parse::<f64>().unwrap(), 4.0);
    assert_eq!(optics[0]["Voltage"].parse::<f64>().unwrap(), header.optics[0].voltage);
    let rows = star_table(&text, "data_particles");
    assert_eq!(rows.len(), 31);
    let stack = mrc::Stack::open(&place.path("relion/particles.mrcs")).unwrap();
    assert_eq!((stack.len(), stack.header().space_group), (31, 0));
    assert_eq!(stack.header().voxel_size[0], 4.0);
    let (mut shifted, mut bytes) = (vec![0.0f32; 24 * 24], Vec::new());
    let fft = fourier::Fft2::<f64>::new(24);
    let (mut scratch, mut spectrum) = (fft.scratch(), vec![Complex::new(0.0, 0.0); fft.spectrum_len()]);
    for (i, row) in rows.iter().enumerate() {
        let number = |name: &str| row[name].parse::<f64>().unwrap();
        assert_eq!(row["ImageName"], format!("{:06}@particles.mrcs", i + 1));
        // The particle file is sorted by half; the halves alternate in the STAR file.
        let stored = if i % 2 == 0 { i / 2 } else { 16 + i / 2 };
        let particle = &particles[stored];
        assert_eq!(particle.source, Some(Source { file: 0, index: i as u64 }));
        // Angles are rounded before the matrix is computed, so both agree to the last bit.
        let w = rotation_from_relion(number("AngleRot"), number("AngleTilt"), number("AnglePsi"));
        assert_eq!(w, particle.rotation);
        let ctf = &particle.ctf;
        assert_eq!([number("DefocusU"), number("DefocusV")], [ctf.defocus_u, ctf.defocus_v]);
        assert_eq!(number("DefocusAngle"), ctf.astigmatism_angle);
        assert_eq!(number("RandomSubset"), if stored < 16 { 1.0 } else { 2.0 });
        assert_eq!(particle.shift, [0.0, 0.0]);
        // Shifting an image of the stack by plus the origin gives the image of the particle file.
        stack.read_image(i, &mut shifted, &mut bytes).unwrap();
        let mut moved: Vec<f64> = shifted.iter().map(|&v| f64::from(v)).collect();
        fft.forward(&moved.clone(), 24, &mut spectrum, &mut scratch);
        let shift = [number("OriginXAngst") / 4.0, number("OriginYAngst") / 4.0];
        for (at, value) in spectrum.iter_mut().enumerate() {
            let (kx, ky) = ((at / 24) as isize, fourier::frequency(at % 24, 24));
            *value *= fourier::shift_phase(kx, ky, shift[0], shift[1], 24);
        }
        fft.inverse(&mut spectrum, &mut moved, 24, &mut scratch);
        // Both have f32 values up to about 1, after a few f32 transforms.
        let centre = &centred[stored * 576..(stored + 1) * 576];
        let worst = moved.iter().zip(centre).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "particle {i}: {worst:.2e}");
    }
    let truth = mrc::read_volume(&place.path("relion/truth.mrc")).unwrap();
    assert_eq!(truth, mrc::read_volume(&place.path("p_truth.mrc")).unwrap());
    assert_eq!(truth.pixel_size, 4.0);
}

#[test]
fn atoms_project_to_the_positions_of_their_poses() {
    // A calcium and a sulphur atom far apart: the true map shows the atom, the images its projection.
    let place = Place::new();
    let model = "HEADER\n\
        ATOM      1 CA    CA A   1      20.000 -12.000   8.000  1.00  0.00          CA\n\
        ATOM      2  S   CYS A   1     -24.000  10.000  -6.000  1.00  0.00           S\n";
    std::fs::write(place.path("points.pdb"), model).unwrap();
    let (model, out) = (place.text("points.pdb"), place.text("p.h5"));
    // At this defocus, with pure amplitude contrast, the CTF is positive to 10 A: an atom is a bright spot.
    let more = ["--model", &model, "--particles", "12", "--no-noise", "--b-factor", "600"];
    let optics = [
        "--defocus-median",
        "3000",
        "--defocus-spread",
        "0",
        "--astigmatism",
        "0",
        "--amplitude-contrast",
        "1",
    ];
    common::succeed(&arguments(&out, &[&more[..], &optics].concat()));

    // Centred on the weighted mean (scattering factors 9.91 and 5.16 A), in pixels of 4 A.
    let share = 5.16 / (9.91 + 5.16);
    let calcium = [44.0, -22.0, 14.0].map(|v: f64| v * share / 4.0);
    let truth = mrc::read_volume(&place.path("p_truth.mrc")).unwrap();
    let ((z, y, x), _) = truth.data.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    for (voxel, exact) in [x, y, z].into_iter().zip(calcium) {
        assert!((voxel as f64 - 12.0 - exact).abs() <= 0.5, "({x}, {y}, {z}) {calcium:?}");
    }
    let (store, pixels) = images(&place.path("p.h5"));
    for (image, particle) in pixels.chunks_exact(576).zip(common::whole(&store).particles) {
        let w = particle.rotation;
        let view: [f64; 2] = std::array::from_fn(|row| (0..3).map(|a| w[row][a] * calcium[a]).sum());
        let brightest = (0..576).max_by(|&a, &b| image[a].total_cmp(&image[b])).unwrap();
        let found = [(brightest % 24) as f64 - 12.0, (brightest / 24) as f64 - 12.0];
        // A nearby sulphur atom shifts the peak by less than a pixel.
        for (found, exact) in found.into_iter().zip(view) {
            assert!((found - exact).abs() < 1.5, "{found} {exact}");
        }
    }
}

#[test]
fn maps_and_half_precision_are_accepted() {
    let place = Place::new();
    common::succeed(&arguments(&place.text("a.h5"), &["--phantom", "--particles", "8"]));
    let (truth, half) = (place.text("a_truth.mrc"), place.text("b.h5"));
    let kept = place.text("kept.mrc");
    let more = ["--map", &truth, "--particles", "8", "--dtype", "f16", "--truth", &kept];
    common::succeed(&arguments(&half, &more));
    let ((_, from_phantom), (store, from_map)) = (images(&place.path("a.h5")), images(&place.path("b.h5")));
    assert_eq!(store.dtype(), Dtype::F16);
    // f16 rounds by 5e-4 relative; images reach about 10.
    let worst = from_phantom.iter().zip(&from_map).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-2, "{worst}");
    assert!(place.path("kept.mrc").exists() && !place.path("b_truth.mrc").exists());
}

#[test]
fn invalid_requests_fail_with_one_line() {
    let place = Place::new();
    let out = place.text("p.h5");
    std::fs::write(&out, b"an older file").unwrap();
    let refuse = |more: &[&str], fragments: &[&str]| common::fail(&arguments(&out, more), fragments);
    let last_wins = |option: &'static str, value: &str, fragments: &[&str]| {
        let mut all = vec!["simulate", "-o", &out, "--phantom", "--particles", "4", option, value];
        if option == "--particles" {
            all.drain(4..6);
        }
        common::fail(&all, fragments);
    };
    last_wins("--box", "8", &["--box 8", "16 to 512"]);
    last_wins("--pixel-size", "0", &["--pixel-size 0"]);
    last_wins("--pixel-size", "-2.5", &["--pixel-size -2.5"]);
    last_wins("--pixel-size", "nan", &["--pixel-size NaN"]);
    last_wins("--particles", "1", &["--particles 1", "2 to"]);
    last_wins("--particles", "18446744073709551615", &["--particles"]);
    last_wins("--max-shift", "-1", &["--max-shift -1"]);
    last_wins("--voltage", "0", &["--voltage 0", "kV"]);
    last_wins("--amplitude-contrast", "1.5", &["--amplitude-contrast 1.5"]);
    last_wins("--threads", "0", &["--threads 0"]);

    refuse(&["--model", "nowhere.cif"], &["nowhere.cif", "No such file"]);
    refuse(&["--map", "nowhere.mrc"], &["nowhere.mrc", "No such file"]);
    std::fs::write(place.path("garbage.cif"), [0u8, 159, 146, 150, 10, 200]).unwrap();
    refuse(&["--model", &place.text("garbage.cif")], &["garbage.cif", "begins with a zero byte"]);
    refuse(&["--map", &place.text("garbage.cif")], &["garbage.cif", "MRC"]);
    std::fs::write(place.path("model.cif"), MODEL).unwrap();
    let model = place.text("model.cif");
    common::fail(
        &["simulate", "-o", &out, "--model", &model, "--box", "16", "--pixel-size", "2"],
        &["A across", "32.0 A", "--box", "--pixel-size"],
    );
    let slab = mrc::Volume::new(ndarray::Array3::zeros((8, 16, 16)), 4.0);
    mrc::write_volume(&place.path("slab.mrc"), &slab).unwrap();
    refuse(&["--map", &place.text("slab.mrc")], &["slab.mrc", "16 x 16 x 8", "cube"]);
    let empty = mrc::Volume::new(ndarray::Array3::zeros((16, 16, 16)), 4.0);
    mrc::write_volume(&place.path("empty.mrc"), &empty).unwrap();
    refuse(&["--map", &place.text("empty.mrc")], &["empty.mrc", "nothing to project"]);
    refuse(&["--phantom", "--truth", &out], &["two outputs of this command"]);
    refuse(&["--phantom", "--truth", &place.text("no/folder.mrc")], &["no/folder.mrc"]);
    refuse(&["--phantom", "--star", &model], &["model.cif", "folder"]);
    common::fail(&["simulate", "--phantom", "-o", &place.text("no/p.h5")], &["no/p.h5"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"an older file");
    assert!(place.names().iter().all(|name| !name.contains("partial")), "{:?}", place.names());

    // Wrong usage: messages of clap, exit code 2.
    for (more, fragment) in [
        (vec!["simulate", "-o", &out], "--model"),
        (vec!["simulate", "-o", &out, "--phantom", "--map", "x.mrc"], "cannot be used with"),
        (vec!["simulate", "-o", &out, "--phantom", "--snr", "-3"], "decibels"),
        (vec!["simulate", "-o", &out, "--phantom", "--snr", "nan"], "decibels"),
        (vec!["simulate", "-o", &out, "--phantom", "--snr", "loud"], "loud"),
    ] {
        let output = common::program(&more);
        assert_eq!(output.status.code(), Some(2));
        assert!(common::text(&output).contains(fragment), "{}", common::text(&output));
    }
}

/// The lines of the truth table, column by name.
fn truth_table(path: &Path) -> Vec<HashMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    lines.map(|line| columns.iter().map(|c| (*c).to_owned()).zip(cells(line)).collect()).collect()
}

#[test]
fn defects_change_what_is_written_and_keep_the_truth() {
    let place = Place::new();
    let usual = ["--phantom", "--particles", "60", "--snr", "0.5", "--seed", "4"];
    let folder = place.text("relion");
    let wrong = [
        &["--pose-error", "5", "--shift-error", "0.5", "--defocus-error", "400", "--junk", "0.2"][..],
        &["--contrast-spread", "0.3", "--noise-spectrum", "white,measured", "--noise-groups", "1,4"],
        &["--star", &folder],
    ]
    .concat();
    common::succeed(&arguments(&place.text("right.h5"), &usual));
    common::succeed(&arguments(&place.text("wrong.h5"), &[&usual[..], &wrong].concat()));
    common::succeed(&arguments(&place.text("clean.h5"), &[&usual[..], &wrong, &["--no-noise"]].concat()));
    assert!(!place.path("right_truth.csv").exists(), "nothing is wrong there");
    let truth = truth_table(&place.path("wrong_truth.csv"));
    assert_eq!(truth, truth_table(&place.path("relion/truth.csv")));
    assert_eq!(truth.len(), 60);
    let ((right, _), (wrong, noisy)) = (images(&place.path("right.h5")), images(&place.path("wrong.h5")));
    let (_, clean) = images(&place.path("clean.h5"));
    assert_eq!(wrong.header().optics.len(), 2);
    let (right, wrong) = (common::whole(&right).particles, common::whole(&wrong).particles);
    let mut noise = [[0.0f64; 2]; 2];
    for line in &truth {
        let number = |name: &str| line[name].parse::<f64>().unwrap();
        let row = number("row") as usize - 1;
        // The truth is what the set without defects says.
        let w = rotation_from_relion(number("rot"), number("tilt"), number("psi"));
        assert_eq!(w, right[row].rotation);
        assert_ne!(w, wrong[row].rotation);
        assert_eq!(number("defocus_u"), right[row].ctf.defocus_u);
        assert_ne!(number("defocus_u"), wrong[row].ctf.defocus_u);
        let group = wrong[row].optics_group as usize;
        assert_eq!(number("optics_group") as usize, group + 1);
        let pixels = row * 576..(row + 1) * 576;
        let junk = line["content"] == "junk";
        assert_eq!(clean[pixels.clone()].iter().all(|&v| v == 0.0), junk, "row {row}");
        assert_eq!(number("contrast") == 0.0, junk);
        for i in pixels {
            noise[group][0] += f64::from(noisy[i] - clean[i]).powi(2);
            noise[group][1] += 1.0;
        }
    }
    let [one, four] = noise.map(|[square, count]| square / count);
    assert!((one / 0.4 - 1.0).abs() < 0.05 && (four / 1.6 - 1.0).abs() < 0.05, "{one} {four}");
    assert!(truth.iter().any(|line| line["content"] == "junk"));
    let text = std::fs::read_to_string(place.path("relion/particles.star")).unwrap();
    assert_eq!(star_table(&text, "data_optics").len(), 2);
    let rows = star_table(&text, "data_particles");
    assert!(rows.iter().zip(&truth).all(|(row, line)| row["OpticsGroup"] == line["optics_group"]));
}

#[test]
fn another_state_shares_coordinates_and_scale() {
    let place = Place::new();
    std::fs::write(place.path("all.cif"), MODEL).unwrap();
    // Without the last atom.
    let part = MODEL.replace("S 96 -14 -52 1\n", "");
    std::fs::write(place.path("part.cif"), part).unwrap();
    let (all, part) = (place.text("all.cif"), place.text("part.cif"));
    let usual = ["--particles", "40", "--no-noise", "--max-shift", "0", "--model"];
    let mixed = ["--other", &part, "--other-share", "0.5"];
    common::succeed(&arguments(&place.text("all.h5"), &[&usual[..], &[&all]].concat()));
    common::succeed(&arguments(&place.text("mixed.h5"), &[&usual[..], &[&all], &mixed].concat()));
    let ((_, all), (_, mixed)) = (images(&place.path("all.h5")), images(&place.path("mixed.h5")));
    let sum = |image: &[f32]| image.iter().map(|&v| f64::from(v)).sum::<f64>();
    let mut others = 0;
    for line in truth_table(&place.path("mixed_truth.csv")) {
        let row = line["row"].parse::<usize>().unwrap() - 1;
        let [one, other] = [&all, &mixed].map(|images| &images[row * 576..(row + 1) * 576]);
        if line["content"] == "specimen" {
            assert_eq!(one, other);
        } else {
            others += 1;
            // The mean of an image is the amplitude contrast times all scattering: sulphur has a fifth of it.
            let ratio = sum(other) / sum(one);
            assert!((0.7..0.9).contains(&ratio), "{ratio}");
        }
    }
    assert!((10..30).contains(&others), "{others}");
    let refuse = |more: &[&str], fragments: &[&str]| {
        common::fail(&arguments(&place.text("no.h5"), &[&["--phantom"][..], more].concat()), fragments);
    };
    refuse(&["--other", &part, "--other-share", "0.5"], &["--other", "--model or --map"]);
    refuse(&["--junk", "1"], &["--junk 1"]);
    refuse(&["--noise-groups", "1,0"], &["--noise-groups", "0.001"]);
    refuse(&["--noise-groups", "1,2,3", "--noise-spectrum", "white,measured"], &["3 optics groups"]);
    refuse(&["--noise-spectrum", "nowhere.txt"], &["nowhere.txt"]);
}

#[test]
fn models_of_a_file_are_chosen_and_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let model = |number: i32, shift: f64| {
        let atoms: String = (0..4)
            .map(|i| {
                let [x, y, z] = [f64::from(i) * 4.0 + shift, f64::from(i * i), -3.0 * f64::from(i)];
                format!("ATOM  {i:5}  CA  ALA A   1    {x:8.3}{y:8.3}{z:8.3}  1.00 20.00           C\n")
            })
            .collect();
        format!("MODEL     {number:4}\n{atoms}ENDMDL\n")
    };
    std::fs::write(at("m.pdb"), model(1, 0.0) + &model(2, 9.0)).unwrap();
    let usual = ["--box", "16", "--pixel-size", "4", "-n", "2", "-o"];
    let simulate = |output: &str, more: &[&str]| {
        let (file, output) = (at("m.pdb"), at(output));
        common::succeed(&[&["simulate", "--model", &file][..], &usual, &[&output], more].concat())
    };
    let said = simulate("first.h5", &[]);
    assert!(said.contains("holds 2 models (1 to 2)") && said.contains("--all-models"), "{said}");
    let said = simulate("all.h5", &["--all-models"]);
    assert!(!said.contains("holds 2 models") && said.contains("8 atoms"), "{said}");
    let said = simulate("second.h5", &["--model-number", "2"]);
    assert!(!said.contains("holds 2 models") && said.contains("4 atoms"), "{said}");
    let (file, output) = (at("m.pdb"), at("none.h5"));
    let seventh = ["simulate", "--model", &file, "--model-number", "7", "-o", &output];
    common::fail(&seventh, &["m.pdb", "holds no model 7, but 1 to 2", "--model-number"]);
    common::fail(&["simulate", "--phantom", "--all-models", "-o", &output], &["--all-models", "--model"]);
}
