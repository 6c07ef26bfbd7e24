//! Files of run folders that `report`, `compare` and `scaling` read: run.json, fsc.csv, metrics and maps.

use std::path::Path;

use cryosplat_mpi::error::{Error, Result};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::evaluate::MapReader;
use cryosplat_mpi::evaluate::compare::compare;
use cryosplat_mpi::evaluate::fsc_table;
use cryosplat_mpi::figures::comparison::comparison_chart;
use cryosplat_mpi::figures::write_fsc_files;
use cryosplat_mpi::imaging::mrc::{self, Volume};
use cryosplat_mpi::particles::store::Store;
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::run_folder::report;
use cryosplat_mpi::scaling::record;
use ndarray::Array3;
use rand_distr::{Distribution, StandardNormal};

use crate::damage::Words;
use crate::samples::{BOX, PIXEL_SIZE, particles};
use crate::target::{Sound, fuzz_in};

const JSON: Words = &[
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"1e999",
    b"1e308",
    b"-1e308",
    b"1e-320",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\"../../../none\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
    b"\"<svg onload=x>&amp;\"",
    b"\xff",
    b"\"done\"",
    b"\"particles\": 7,",
    b"\"loss\": 1e308",
    b"\"loss\": -1",
    b"\"epoch\": 1e18",
];

const CSV: Words = &[
    b"\"",
    b"\"\"",
    b",",
    b",,,,,,,,,,,,,,,,",
    b"nan",
    b"inf",
    b"-inf",
    b"1e308",
    b"-1e308",
    b"1e-320",
    b"-1",
    b"\r",
    b"\n\n",
    b"\0",
    b"\xff",
    b"<b>&",
    b"shell,",
];

/// Memory of report pages, charts, images and transforms in bytes.
const PAGES: usize = 64 << 20;

const RUN: &str = r#"{
  "state": "done",
  "command": ["cryosplat-mpi", "train", "particles.h5", "-o", "run"],
  "working_directory": "/",
  "ranks": 2, "nodes": 1, "cores": 8, "threads_per_rank": 1, "device": "processor",
  "settings": {"batch": 8, "epochs": 2, "gaussians": 9, "learning_rate": 0.001, "seed": 0},
  "particles": {"file": "particles.h5", "identity": "0a0b0c0d", "box_size": 8,
    "models": [{"name": "half1", "particles": 4}, {"name": "half2", "particles": 3}]},
  "seconds": {"total": 3700.5},
  "images_per_second": 123.4,
  "epochs": [{"model": "half1", "epochs": [{"epoch": 1, "loss": 0.5, "images": 4, "steps": 1, "seconds": 0.5, "ranks": 1,
    "wait": {"min": 0.1, "mean": 0.15, "max": 0.2}, "bytes_read": 1000}]}],
  "fsc": {"half maps": {"resolution_0.143": 12.5, "mean": 0.5}}
}"#;

/// Creates a run folder with everything but mixtures and images.
fn run_folder(folder: &Path) {
    let mut random = stream(5, Purpose::Halves, 0, 0);
    let maps = ["half1.mrc", "half2.mrc", "map.mrc"].map(|name| {
        let data = Array3::from_shape_simple_fn((BOX, BOX, BOX), || StandardNormal.sample(&mut random));
        let volume = Volume::new(data, PIXEL_SIZE);
        mrc::write_volume(&folder.join(name), &volume).unwrap();
        volume
    });
    let fsc = Fsc::between(&maps[0], &maps[1]).unwrap();
    let curves = [("half maps".to_owned(), fsc.clone()), ("map against \"truth\", masked".to_owned(), fsc)];
    write_fsc_files(folder, "fsc", &curves).unwrap();
    std::fs::write(folder.join("run.json"), RUN).unwrap();
    let mut metrics = String::new();
    for step in 1..20 {
        metrics += &format!(
            "{{\"model\":\"half1\",\"step\":{step},\"epoch\":1,\"loss\":{},\"rate\":0.001,\"images_per_second\":100.0,\"images\":{}}}\n",
            1.0 / f64::from(step),
            8 * step
        );
    }
    std::fs::write(folder.join("metrics_half1.jsonl"), metrics).unwrap();
}

/// Damages the file `name` in a run folder and calls `read`.
fn fuzz_run(name: &str, what: &str, words: Words, share: u32, read: impl Fn(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path());
    let file = folder.path().join(name);
    let bytes = std::fs::read(&file).unwrap();
    read(folder.path()).unwrap();
    let target = format!("{name} of {what}");
    let sound = Sound { share, beyond: PAGES, ..Sound::new(&target, &bytes, words) };
    fuzz_in(&file, &sound, |_| read(folder.path()));
}

#[test]
fn what_report_reads() {
    let set = tempfile::tempdir().unwrap();
    let store = Store::open(&particles(set.path())).unwrap();
    let read = |folder: &Path| {
        let path = folder.join("run.json");
        let bytes = std::fs::read(&path).unwrap();
        let document = serde_json::from_slice(&bytes)
            .map_err(|error| Error::input(&path, "", error.to_string(), "run `train` again"))?;
        report::write(folder, &document, &store, &[])
    };
    for (name, words) in [("run.json", JSON), ("fsc.csv", CSV), ("metrics_half1.jsonl", JSON)] {
        fuzz_run(name, "report", words, 8, read);
    }
    fuzz_run("map.mrc", "report", &[], 8, read);
}

#[test]
fn tables_of_fsc() {
    fuzz_run("fsc.csv", "its reader", CSV, 1, |folder| {
        fsc_table::read(&folder.join("fsc.csv"), BOX, PIXEL_SIZE).map(drop)
    });
}

#[test]
fn what_compare_reads() {
    let read = |folder: &Path| {
        let compared = compare(&[folder.to_path_buf()], None, None, &MapReader::default(), |_| Ok(None))?;
        comparison_chart(&compared.curves);
        Ok(())
    };
    fuzz_run("run.json", "compare", JSON, 2, read);
    for name in ["half1.mrc", "map.mrc"] {
        fuzz_run(name, "compare", &[], 2, read);
    }
}

#[test]
fn what_scaling_reads() {
    fuzz_run("run.json", "scaling", JSON, 1, |folder| record::read(folder).map(drop));
}
