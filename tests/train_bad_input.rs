//! Input that `cryosplat-mpi train` refuses: with one line that names the file, the place and the remedy, on every rank, without
//! delay, and without changes to an older run.

mod common;

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use common::{
    change_image, contents, expect_failure, over_mpi, over_mpi_with, path, phantom, program, program_file,
    program_with, succeed, text, train_arguments, whole,
};
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Dtype, Header, Particle, Store, Writer};
use tempfile::TempDir;

/// Time limit of a refusal: more than an error takes, and less than a hang.
const TIME_LIMIT: Duration = Duration::from_secs(20);
const USUAL: [&str; 4] = ["--gaussians", "20", "--epochs", "2"];

/// A folder with a valid set, a finished run of it, and damaged copies of the set.
struct Fixture {
    folder: TempDir,
    set: String,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let set = phantom(folder.path(), 12);
        let fixture = Self { folder, set };
        succeed(&train_arguments(&fixture.set, &fixture.path("run"), &USUAL));
        fixture
    }

    fn path(&self, name: &str) -> String {
        path(self.folder.path(), name)
    }

    /// A copy of the set, changed by `edit`.
    fn broken(&self, edit: impl FnOnce(&hdf5::File)) -> String {
        let copy = self.path("broken.h5");
        // Not over the old file: a rank that is being terminated may still hold HDF5's lock on it.
        let _ = std::fs::remove_file(&copy);
        std::fs::copy(&self.set, &copy).unwrap();
        let file = hdf5::File::open_rw(&copy).unwrap();
        edit(&file);
        file.close().unwrap();
        copy
    }

    /// `train` over the older run must fail, on one and on two ranks, with `fragments` and a remedy in one line.
    fn refuse(&self, set: &str, options: &[&str], fragments: &[&str]) {
        let arguments = train_arguments(set, &self.path("run"), &[&USUAL, options].concat());
        self.refuse_arguments(&[&arguments[..], &["--overwrite".into()]].concat(), fragments);
    }

    fn refuse_arguments(&self, arguments: &[String], fragments: &[&str]) {
        let before = contents(Path::new(&self.path("run")));
        let check = |output: &Output, started: Instant| {
            let said = text(output);
            assert!(!output.status.success(), "{fragments:?}: no failure:\n{said}");
            assert!(!said.contains("panicked"), "{said}");
            let all = |line: &&str| fragments.iter().all(|f| line.contains(f)) && line.contains(';');
            assert!(said.lines().any(|l| all(&l)), "no line with {fragments:?} and a remedy in:\n{said}");
            assert!(started.elapsed() < TIME_LIMIT, "{:?}", started.elapsed());
            assert!(contents(Path::new(&self.path("run"))) == before, "{fragments:?}: the older run changed");
        };
        let started = Instant::now();
        check(&program(arguments), started);
        let started = Instant::now();
        check(&over_mpi(2, &program_file(), arguments), started);
    }
}

/// Sets one value of a data set.
fn set_value<T: hdf5::H5Type + Clone>(file: &hdf5::File, name: &str, index: usize, value: T) {
    let data = file.dataset(name).unwrap();
    let mut values: Vec<T> = data.read_raw().unwrap();
    values[index] = value;
    data.write_raw(&values).unwrap();
}

#[test]
fn damaged_particle_files_are_refused() {
    let fixture = Fixture::new();
    let refuse = |set: &str, fragments: &[&str]| fixture.refuse(set, &[], fragments);
    refuse(&fixture.path("missing.h5"), &["missing.h5", "No such file"]);
    let sound = std::fs::read(&fixture.set).unwrap();
    let cut = fixture.path("cut.h5");
    std::fs::write(&cut, "").unwrap();
    refuse(&cut, &["cut.h5", "is empty, expected a particle file"]);
    for length in [100, sound.len() / 2, sound.len() - 1] {
        std::fs::write(&cut, &sound[..length]).unwrap();
        refuse(&cut, &["cut.h5", "truncated"]);
    }
    std::fs::write(&cut, "data_particles\n").unwrap();
    refuse(&cut, &["cut.h5", "is a STAR file, expected a particle file", "cryosplat-mpi import"]);
    refuse(&fixture.path("p_truth.mrc"), &["p_truth.mrc", "is an MRC file, expected a particle file"]);
    refuse(
        &fixture.path("run/gmm_half1.h5"),
        &["gmm_half1.h5", "is a mixture, expected a particle file", "`voxelize`"],
    );
    let version = fixture.broken(|file| {
        file.attr("version").unwrap().write_scalar(&7u32).unwrap();
    });
    refuse(&version, &["broken.h5", "version 7", "expected version 2"]);
    for missing in [
        "pose/rotation",
        "half",
        "ctf/defocus_u",
        "images",
        "optics/voltage",
        "source/checksum",
        "source/energy",
    ] {
        let broken = fixture.broken(|file| file.unlink(missing).unwrap());
        refuse(&broken, &["broken.h5"]);
    }
}

#[test]
fn invalid_values_are_refused() {
    let fixture = Fixture::new();
    let refuse = |edit: &dyn Fn(&hdf5::File), fragments: &[&str]| {
        fixture.refuse(&fixture.broken(edit), &[], &[&["broken.h5"], fragments].concat());
    };
    refuse(&|f| set_value(f, "pose/rotation", 9 * 3 + 2, f64::NAN), &["particle 4", "not a rotation"]);
    refuse(&|f| set_value(f, "pose/rotation", 9 * 3 + 2, f64::INFINITY), &["particle 4", "not a rotation"]);
    refuse(&|f| set_value(f, "pose/rotation", 9 * 3 + 2, 3.0), &["particle 4", "not a rotation"]);
    let mirrored = |f: &hdf5::File| {
        for (i, value) in [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
            set_value(f, "pose/rotation", 9 * 6 + i, value);
        }
    };
    refuse(&mirrored, &["particle 7", "not a rotation"]);
    refuse(&|f| set_value(f, "pose/shift", 5, f64::NAN), &["particle 3", "not finite"]);
    refuse(&|f| set_value(f, "pose/shift", 5, 1.5), &["particle 3", "shift", "1.5", "still to apply"]);
    for name in ["defocus_u", "defocus_v", "astigmatism_angle", "phase_shift", "b_factor", "scale"] {
        refuse(&|f| set_value(f, &format!("ctf/{name}"), 11, f64::NAN), &["particle 12", "not finite"]);
    }
    refuse(&|f| set_value(f, "ctf/optics_group", 1, 9u32), &["particle 2", "optics group is 9"]);
    refuse(&|f| set_value(f, "optics/voltage", 0, 0.0f64), &["optics group 1", "impossible"]);
    refuse(&|f| set_value(f, "half", 8, 2u8), &["particle 9", "half is 2"]);
    refuse(
        &|f| f.dataset("images").unwrap().attr("pixel_size").unwrap().write_scalar(&0.0f64).unwrap(),
        &["pixel size is 0"],
    );
    refuse(&|f| set_value(f, "half", 2, 1u8), &["particle 4", "not sorted by half"]);
    // In half 2, which the second rank reads: its own error.
    refuse(
        &|f| set_value(f, "images", 7 * 32 * 32 + 17, 0.5f32),
        &["particle 8", "does not match its checksum"],
    );
    for value in [f32::NAN, f32::INFINITY] {
        let broken = fixture.broken(|_| ());
        change_image(&broken, 7, |image| image[17] = value);
        fixture.refuse(&broken, &[], &["broken.h5", "particle 8", "pixel that is not finite"]);
    }
}

#[test]
fn a_bad_pixel_found_during_training_ends_every_rank() {
    let fixture = Fixture::new();
    let broken = fixture.broken(|_| ());
    change_image(&broken, 7, |image| image[17] = f32::NAN);
    for ranks in [1, 2, 3] {
        let run = fixture.path(&format!("late{ranks}"));
        let arguments = train_arguments(&broken, &run, &[&USUAL[..], &["--cache", "none"]].concat());
        let started = Instant::now();
        let output = over_mpi(ranks, &program_file(), &arguments);
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        assert!(said.lines().any(|l| l.contains("broken.h5: particle 8") && l.contains(';')), "{said}");
        assert!(!Path::new(&run).join("half1.mrc").exists());
        assert!(started.elapsed() < TIME_LIMIT);
    }
}

/// Writes the first particles of a set again, with other halves.
fn with_halves(set: &str, to: &str, halves: [usize; 2]) {
    let store = Store::open(Path::new(set)).unwrap();
    let header = Header { halves, ..store.header().clone() };
    let block = whole(&store);
    let mut writer = Writer::create(Path::new(to), &header, Dtype::F32).unwrap();
    for (half, rows) in [(Subset::Half1, 0..halves[0]), (Subset::Half2, halves[0]..halves[0] + halves[1])] {
        let particles: Vec<Particle> = block.particles[rows.clone()].to_vec();
        let pixels = header.pixels();
        writer.append(half, &particles, &block.images[rows.start * pixels..rows.end * pixels]).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn halves_too_small_for_the_ranks_are_refused() {
    let fixture = Fixture::new();
    let few = fixture.path("few.h5");
    with_halves(&fixture.set, &few, [3, 0]);
    fixture.refuse(&few, &[], &["few.h5", "no particle is in half2", "--half all"]);
    fixture.refuse(&few, &["--half", "2"], &["few.h5", "no particle is in half2"]);
    with_halves(&fixture.set, &few, [2, 1]);
    let refuse = |ranks: usize, set: &str, options: &[&str], fragments: &[&str]| {
        let arguments = train_arguments(set, &fixture.path("new"), &[&USUAL, options].concat());
        let output = over_mpi(ranks, &program_file(), &arguments);
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        let matches = |line: &&str| fragments.iter().all(|f| line.contains(f));
        assert_eq!(said.lines().filter(matches).count(), 1, "{fragments:?} once in:\n{said}");
        assert!(!Path::new(&fixture.path("new")).exists(), "a folder was created");
    };
    refuse(4, &few, &[], &["2 ranks are to train half2 with 1 particles", "start at most 2 ranks"]);
    refuse(4, &few, &["--half", "all"], &["4 ranks", "3 particles", "at most 3 ranks"]);
    refuse(4, &fixture.set, &["--batch", "1"], &["batch of 1", "2 ranks", "--batch 2"]);
    // Three ranks are enough: two train the half of two particles, and one the half of one.
    let arguments = train_arguments(&few, &fixture.path("three"), &USUAL);
    common::ranks_succeed(3, &arguments);
}

#[test]
fn folders_that_cannot_be_written_are_refused() {
    let fixture = Fixture::new();
    // Folders that even root cannot create: below a file, and in /proc.
    for output in [fixture.path("p.h5/run"), "/proc/run".to_owned()] {
        let arguments = train_arguments(&fixture.set, &output, &USUAL);
        fixture.refuse_arguments(&arguments, &[&output, "cannot create the folder"]);
    }
    let blocked = fixture.path("blocked");
    std::fs::create_dir_all(Path::new(&blocked).join("run.json")).unwrap();
    let arguments = train_arguments(&fixture.set, &blocked, &USUAL);
    fixture.refuse_arguments(&arguments, &["run.json", "is a folder"]);
}

#[test]
fn a_truth_of_another_box_is_refused() {
    let fixture = Fixture::new();
    let other = fixture.path("other.h5");
    succeed(&["simulate", "--phantom", "-o", &other, "--box", "24", "--pixel-size", "4", "-n", "4"]);
    let truth = fixture.path("other_truth.mrc");
    fixture.refuse(&fixture.set, &["--truth", &truth], &["other_truth.mrc", "24 voxels", "32 pixels"]);
    fixture.refuse(&fixture.set, &["--truth", "missing.mrc"], &["missing.mrc", "No such file"]);
}

#[test]
fn invalid_options_are_refused() {
    let fixture = Fixture::new();
    let before = contents(Path::new(&fixture.path("run")));
    for (option, value) in [
        ("--gaussians", "0"),
        ("--gaussians", "many"),
        ("--epochs", "0"),
        ("--batch", "0"),
        ("--batch-per-rank", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "-1e-3"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--cutoff", "0"),
        ("--cutoff", "-3"),
        ("--cutoff", "NaN"),
        ("--half", "3"),
        ("--recipe", "none"),
        ("--start", "anywhere"),
        ("--sampling", "none"),
        ("--rate-factors", "1"),
        ("--rate-factors", "1,1,1,1,1"),
        ("--rate-factors", "1,x,1,1"),
        ("--rate-factors", "1,-1,1,1"),
        ("--rate-factors", "1,NaN,1,1"),
        ("--threads", "0"),
        ("--metrics-every", "0"),
        ("--seed", "-1"),
    ] {
        let arguments = train_arguments(&fixture.set, &fixture.path("run"), &["--overwrite", option, value]);
        let arguments: Vec<String> = match option {
            // `train_arguments` already sets --threads.
            "--threads" => ["train", &fixture.set, "-o", &fixture.path("run"), "--overwrite", option, value]
                .map(str::to_owned)
                .into(),
            _ => arguments,
        };
        let one_rank = program(&arguments);
        let two_ranks = over_mpi(2, &program_file(), &arguments);
        assert_eq!(one_rank.status.code(), Some(2), "{}", text(&one_rank));
        for output in [one_rank, two_ranks] {
            let said = text(&output);
            assert!(!output.status.success(), "{said}");
            let named =
                said.lines().any(|l| l.starts_with("error:") && l.contains(option) && l.contains(value));
            assert!(named, "{option} {value}: {said}");
        }
    }
    for pair in [["--batch=4", "--batch-per-rank=2"], ["--resume", "--overwrite"]] {
        let arguments = train_arguments(&fixture.set, &fixture.path("run"), &pair);
        assert_eq!(program(&arguments).status.code(), Some(2), "{pair:?}");
    }
    assert!(contents(Path::new(&fixture.path("run"))) == before);
}

#[test]
fn an_unknown_simd_level_is_refused_before_the_run_starts() {
    let fixture = Fixture::new();
    let arguments = train_arguments(&fixture.set, &fixture.path("other"), &[]);
    let environment = [("CRYOSPLAT_SIMD", "avx9")];
    let output_of_ranks = over_mpi_with(2, &program_file(), &arguments, &environment);
    for output in [program_with(&arguments, &environment), output_of_ranks] {
        expect_failure(&output, &["error: CRYOSPLAT_SIMD=avx9", "avx512, avx2 or portable"]);
    }
    assert!(!Path::new(&fixture.path("other")).exists());
}
