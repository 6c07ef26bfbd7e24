//! `cryosplat-mpi voxelize` on the mixture of a small run.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{BOX, PIXEL_SIZE, fail, path, phantom, succeed, train_arguments};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::fourier::{frequency, spectrum_of_volume, volume_of_spectrum};
use cryosplat_mpi::imaging::mrc::{Volume, read_volume};
use ndarray::{Array3, s};
use tempfile::TempDir;

/// A run shared by all tests of this file.
static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    succeed(&train_arguments(&set, &path(folder.path(), "run"), &["--gaussians", "100", "--epochs", "12"]));
    folder
});

fn of_run(name: &str) -> String {
    path(&RUN.path().join("run"), name)
}

/// The output of `voxelize` with `options`.
fn map(folder: &Path, mixture: &str, options: &[&str]) -> Volume {
    let output = path(folder, "map.mrc");
    let mixture = of_run(mixture);
    let arguments = [&["voxelize", mixture.as_str(), "-o", &output], options].concat();
    succeed(&arguments);
    read_volume(Path::new(&output)).unwrap()
}

/// The largest difference relative to the largest value.
fn difference(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    let peak = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / peak
}

#[test]
fn default_output_equals_the_map_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "map.mrc");
    for half in ["half1", "half2"] {
        let expected = std::fs::read(of_run(&format!("{half}.mrc"))).unwrap();
        let (hdf5, ply) = (of_run(&format!("gmm_{half}.h5")), of_run(&format!("gmm_{half}.ply")));
        let same_grid = ["--box", "32", "--pixel-size", "4"];
        for (mixture, options) in
            [(&hdf5, &[][..]), (&hdf5, &["--threads", "3"]), (&hdf5, &same_grid), (&ply, &same_grid)]
        {
            succeed(&[&["voxelize", mixture, "-o", &output], options].concat());
            assert!(std::fs::read(&output).unwrap() == expected, "{mixture} {options:?}");
        }
    }
}

#[test]
fn finer_pixels_keep_the_map_up_to_its_nyquist_frequency() {
    let folder = tempfile::tempdir().unwrap();
    let coarse = map(folder.path(), "gmm_half1.h5", &[]);
    let fine = map(folder.path(), "gmm_half1.h5", &["--box", "64", "--pixel-size", "2"]);
    assert_eq!(fine.data.dim(), (2 * BOX, 2 * BOX, 2 * BOX));
    assert_eq!(fine.pixel_size, PIXEL_SIZE / 2.0);
    // By default, the field of view is kept.
    assert!(map(folder.path(), "gmm_half1.h5", &["--pixel-size", "2"]).data == fine.data);

    let spectrum = spectrum_of_volume(&fine.data);
    let cropped = Array3::from_shape_fn((BOX, BOX, BOX), |index| {
        let [z, y, x] = [index.0, index.1, index.2].map(|i| {
            let k = frequency(i, BOX);
            k.rem_euclid(2 * BOX as isize) as usize
        });
        let radius2: isize = [index.0, index.1, index.2].map(|i| frequency(i, BOX).pow(2)).iter().sum();
        // A map is band-limited to its Nyquist sphere, without the corners of the cube.
        spectrum[[z, y, x]] * if radius2 > (BOX * BOX / 4) as isize { 0.0 } else { 0.125 }
    });
    let cropped = Volume::new(volume_of_spectrum(cropped), coarse.pixel_size);
    let fsc = Fsc::between(&coarse, &cropped).unwrap();
    assert!(fsc.shells.iter().all(|&shell| shell > 0.9999), "{:?}", fsc.shells);
    // The density at a point does not change. Map files store f32.
    let off = difference(&coarse.data, &cropped.data);
    assert!(off < 1e-4, "{off}");
}

#[test]
fn another_box_crops_or_pads_about_the_centre() {
    let folder = tempfile::tempdir().unwrap();
    let whole = map(folder.path(), "gmm_half1.h5", &[]).data;
    for size in [8usize, 20, 21, 31] {
        let crop = map(folder.path(), "gmm_half1.h5", &["--box", &size.to_string()]).data;
        let start = BOX / 2 - size / 2;
        let middle = start..start + size;
        assert!(crop == whole.slice(s![middle.clone(), middle.clone(), middle]), "{size}");
    }
    for size in [33usize, 48, 49] {
        let wide = map(folder.path(), "gmm_half1.h5", &["--box", &size.to_string()]).data;
        let start = size / 2 - BOX / 2;
        let middle = start..start + BOX;
        let part = wide.slice(s![middle.clone(), middle.clone(), middle]).to_owned();
        // Gaussians of a quarter of a voxel ring at the Nyquist sphere, differently in each box; a shift by one voxel would change
        // more than half of the peak.
        assert!(difference(&whole, &part) < 0.05, "{size}: {}", difference(&whole, &part));
    }
}

#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "map.mrc");
    std::fs::write(&output, "as it was").unwrap();
    let (hdf5, ply) = (of_run("gmm_half1.h5"), of_run("gmm_half1.ply"));
    let refuse = |mixture: &str, options: &[&str], fragments: &[&str]| {
        fail(&[&["voxelize", mixture, "-o", &output], options].concat(), &[fragments, &[";"]].concat());
        assert_eq!(std::fs::read(&output).unwrap(), b"as it was");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    };
    for some in [&[][..], &["--box", "32"], &["--pixel-size", "4"]] {
        refuse(&ply, some, &["gmm_half1.ply", "neither a box nor a pixel size", "--box", "--pixel-size"]);
    }
    refuse(&hdf5, &["--box", "3"], &["--box", "4 or more"]);
    refuse(&hdf5, &["--box", "100000"], &["100000 voxels", "memory", "--box"]);
    refuse(&of_run("half1.mrc"), &[], &["half1.mrc", "is an MRC file, expected a mixture", "`fsc`"]);
    refuse("missing.h5", &[], &["missing.h5", "No such file"]);
    let set = path(RUN.path(), "p.h5");
    refuse(&set, &[], &["p.h5", "is a particle file, expected a mixture"]);
    let cut = path(RUN.path(), "cut.h5");
    std::fs::write(&cut, &std::fs::read(&hdf5).unwrap()[..2000]).unwrap();
    refuse(&cut, &[], &["cut.h5", "truncated"]);
    let before = std::fs::read(&hdf5).unwrap();
    fail(&["voxelize", &hdf5, "-o", &hdf5], &["gmm_half1.h5", "mixture to read"]);
    assert!(std::fs::read(&hdf5).unwrap() == before);
    for (output, problem) in [("map.mrc/under.mrc", "is not a folder"), ("no/map.mrc", "does not exist")] {
        let output = path(folder.path(), output);
        fail(&["voxelize", &hdf5, "-o", &output], &[&output, problem, ";"]);
    }
}
