//! Noise spectra, contrasts and weights of particles: estimates against the truth of simulated sets, and runs that use them.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{assert_same, path, ranks_succeed, succeed, train_arguments, undo};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::fourier::Fft2;
use cryosplat_mpi::imaging::mrc;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::noise::NoisePower;
use cryosplat_mpi::particles::store::{Dtype, Store, Writer};
use rustfft::num_complex::Complex;

const ALL: [&str; 5] = ["--noise", "spectrum", "--contrast", "estimated", "--weigh-particles"];

/// A simulated set of a phantom with `more` options of simulate.
fn set(folder: &Path, more: &[&str]) -> String {
    let set = path(folder, "p.h5");
    let usual = ["simulate", "--phantom", "-o", &set, "--box", "32", "--pixel-size", "4", "--seed", "3"];
    succeed(&[&usual[..], more].concat());
    set
}

/// The lines of a table, by row in the particle file.
fn table(file: &str, row: &str) -> HashMap<usize, HashMap<String, String>> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    let of = |cells: Vec<String>| -> HashMap<String, String> { columns.iter().cloned().zip(cells).collect() };
    lines.map(of).map(|line| (line[row].parse().unwrap(), line)).collect()
}

#[test]
fn spectra_of_optics_groups_are_found_in_the_corners() {
    let folder = tempfile::tempdir().unwrap();
    let spectra = ["--noise-spectrum", "white,measured", "--noise-groups", "1,3"];
    let set = set(folder.path(), &[&spectra[..], &["-n", "800", "--snr", "0.2"]].concat());
    let store = Store::open(Path::new(&set)).unwrap();
    let noise = NoisePower::estimate(&store, store.rows(Subset::Half1)).unwrap();
    assert_eq!(noise.particles, [200, 200]);
    let shape = |f: f64| 1.0 + 4.2 * (-(f.min(1.0) / 0.35).powi(2)).exp();
    // Over all frequencies of the square, up to its corners.
    let frequency = |i: usize| (i as f64 - 16.0) / 16.0;
    let mean = (0..32 * 32).map(|i| shape(frequency(i % 32).hypot(frequency(i / 32)))).sum::<f64>() / 1024.0;
    for shell in 2..=16 {
        let measured = 1.5 * shape(shell as f64 / 16.0) / mean;
        let [white, coloured] = [noise.groups[0][shell] / 0.5, noise.groups[1][shell] / measured];
        assert!((white - 1.0).abs() < 0.12 && (coloured - 1.0).abs() < 0.12, "{shell}: {white} {coloured}");
    }
    let (weights, _) = noise.weights();
    let ratio = f64::from(weights[0][10] / weights[1][10]);
    assert!((ratio / (3.0 * shape(10.0 / 16.0) / mean) - 1.0).abs() < 0.2, "{ratio}");
}

#[test]
fn contrasts_and_empty_images_are_found_on_any_ranks_and_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let defects = ["--contrast-spread", "0.3", "--junk", "0.2", "--noise-groups", "1,3"];
    let size = ["-n", "300", "--snr", "1", "--noise-spectrum", "measured"];
    let set = set(folder.path(), &[&defects[..], &size].concat());
    let usual = ["--gaussians", "150", "--epochs", "6", "--mixtures", "1", "--learning-rate", "3e-3"];
    let train = |ranks: usize, name: &str, more: &[&str]| {
        let run = path(folder.path(), name);
        let log = ranks_succeed(ranks, &train_arguments(&set, &run, &[&usual[..], &ALL, more].concat()));
        (run, log)
    };
    let (run, log) = train(1, "run", &[]);
    assert!(log.contains("noise of standard deviation") && log.contains("fit as noise would"), "{log}");
    let truth = table(&path(folder.path(), "p_truth.csv"), "row");
    let found = table(&format!("{run}/particles.csv"), "particle");
    assert_eq!(found.len(), 300);
    let (mut right, mut pairs) = (0, Vec::new());
    for (row, line) in &found {
        let number = |name: &str| line[name].parse::<f64>().unwrap();
        let truth = &truth[row];
        assert_eq!((&line["half"], &line["optics_group"]), (&truth["half"], &truth["optics_group"]));
        let is_junk = truth["content"] == "junk";
        right += usize::from((number("weight") < 0.5) == is_junk);
        if !is_junk {
            pairs.push([number("contrast"), truth["contrast"].parse::<f64>().unwrap()]);
        }
    }
    assert!(right >= 291, "{right} of 300");
    let mean = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let [a, b] = [mean(&|p| p[0]), mean(&|p| p[1])];
    let covariance = |i: usize, j: usize| mean(&|p| (p[i] - [a, b][i]) * (p[j] - [a, b][j]));
    let correlation = covariance(0, 1) / (covariance(0, 0) * covariance(1, 1)).sqrt();
    assert!(correlation > 0.9, "{correlation}");

    // Each half on a rank of its own: the same sums.
    let results = ["half1.mrc", "half2.mrc", "particles.csv"];
    let (two, _) = train(2, "two", &[]);
    assert_same(&results, &run, &two, "one rank and two");
    // Particles streamed from the file, and read once more after the last epoch: the same bits.
    let (streamed, _) = train(1, "streamed", &["--cache", "none"]);
    assert_same(&results, &run, &streamed, "resident and streamed");
    // Halves divided over ranks differ by rounding.
    let (four, _) = train(4, "four", &[]);
    let other = table(&format!("{four}/particles.csv"), "particle");
    for (row, line) in &found {
        let [one, four] = [&line["contrast"], &other[row]["contrast"]].map(|v| v.parse::<f64>().unwrap());
        assert!((one - four).abs() < 0.02, "{row}: {one} {four}");
    }
    // From the checkpoint after epoch 5, with the contrasts and weights found before epoch 4.
    undo(&run, "half1");
    undo(&run, "half2");
    train(1, "run", &["--resume"]);
    assert_same(&results, &run, &two, "a resumed run");
}

#[test]
fn images_without_a_particle_are_looked_for_and_cost_nothing_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let usual = ["--gaussians", "150", "--epochs", "4", "--half", "1", "--learning-rate", "3e-3"];
    let clean = set(folder.path(), &["-n", "200", "--snr", "1"]);
    let train = |name: &str, more: &[&str]| {
        let run = path(folder.path(), name);
        succeed(&train_arguments(&clean, &run, &[&usual[..], more].concat()));
        run
    };
    let [auto, yes, no] =
        [("auto", None), ("yes", Some("--weigh-particles")), ("no", Some("--weigh-particles=no"))]
            .map(|(name, option)| train(name, option.as_slice()));
    let found = table(&format!("{yes}/particles.csv"), "particle");
    assert_eq!(found.len(), 100);
    assert!(found.values().all(|line| line["weight"] == "1.0000"));
    for run in [&auto, &yes] {
        assert_same(&["half1.mrc"], run, &no, "all weights are 1");
    }
    assert!(!Path::new(&auto).join("particles.csv").exists());
    // Half 1 has some.
    set(folder.path(), &["-n", "200", "--snr", "1", "--junk", "0.2"]);
    let run = train("junk", &[]);
    let found = table(&format!("{run}/particles.csv"), "particle");
    let low = found.values().filter(|line| line["weight"].parse::<f64>().unwrap() < 0.5).count();
    assert!((10..32).contains(&low), "{low}");
}

#[test]
fn a_backprojection_by_noise_is_closer_to_the_truth_where_groups_differ() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(folder.path(), &["-n", "240", "--snr", "0.1", "--noise-groups", "1,12"]);
    let truth = mrc::read_volume(Path::new(&path(folder.path(), "p_truth.mrc"))).unwrap();
    let mean = |noise: &str| {
        let run = path(folder.path(), noise);
        succeed(&["backproject", &set, "-o", &run, "--no-wiener", "--noise", noise]);
        let map = mrc::read_volume(&Path::new(&run).join("map.mrc")).unwrap();
        Fsc::between(&map, &truth).unwrap().mean()
    };
    let [white, spectrum] = ["white", "spectrum"].map(mean);
    assert!(spectrum > white + 0.02, "{white} {spectrum}");
}

#[test]
fn the_noise_of_premultiplied_images_is_that_of_the_images_before() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(folder.path(), &["-n", "600", "--snr", "0.05"]);
    let store = Store::open(Path::new(&set)).unwrap();
    let (n, pixels) = (32, 32 * 32);
    let mut header = store.header().clone();
    header.optics[0].premultiplied = true;
    let block = common::whole(&store);
    let mut images = block.images.to_vec();
    let fft = Fft2::<f32>::new(n);
    let (mut scratch, mut spectrum) = (fft.scratch(), vec![Complex::default(); fft.spectrum_len()]);
    let mut h = vec![0.0f32; spectrum.len()];
    for (image, particle) in images.chunks_exact_mut(pixels).zip(&block.particles) {
        store.reader().ctf(particle).half_plane(n, header.pixel_size, &mut h);
        fft.forward(image, n, &mut spectrum, &mut scratch);
        spectrum.iter_mut().zip(&h).for_each(|(value, h)| *value *= h);
        fft.inverse(&mut spectrum, image, n, &mut scratch);
    }
    let file = path(folder.path(), "multiplied.h5");
    let mut writer = Writer::create(Path::new(&file), &header, Dtype::F32).unwrap();
    let first = header.halves[0];
    writer.append(Subset::Half1, &block.particles[..first], &images[..first * pixels]).unwrap();
    writer.append(Subset::Half2, &block.particles[first..], &images[first * pixels..]).unwrap();
    writer.finish().unwrap();
    let multiplied = Store::open(Path::new(&file)).unwrap();
    let noise = NoisePower::estimate(&multiplied, multiplied.rows(Subset::Half1)).unwrap();
    // Below, the CTF rises by far within the width of the window's transform.
    for (shell, power) in noise.groups[0].iter().enumerate().skip(6) {
        assert!((power - 1.0).abs() < 0.2, "{shell}: {power}");
    }
}
