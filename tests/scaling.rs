//! `scaling` and `bench` end to end: on generated records with a known model, and on runs of the program.

mod common;

use std::path::Path;

use common::{
    expect_failure, fail, over_mpi, path, phantom, program_file, ranks_succeed, succeed, train_arguments,
};
use cryosplat_mpi::figures::picture::to_png;
use serde_json::{Value, json};

const OVERHEAD: f64 = 3e-3;
const IMAGE: f64 = 2e-3;
const LATENCY: f64 = 4e-4;
const BANDWIDTH: f64 = 1e9;
const GAUSSIANS: usize = 30_000;

/// Seconds per step of `ranks` ranks in the known model.
fn step(ranks: usize, batch: usize) -> f64 {
    let r = ranks as f64;
    let bytes = 4.0 * (11.0 * GAUSSIANS as f64 + 1.0);
    OVERHEAD
        + IMAGE * batch.div_ceil(ranks) as f64
        + LATENCY * r.log2()
        + bytes * 2.0 * (r - 1.0) / r / BANDWIDTH
}

/// The record of a run with `--half all` according to that model.
fn record(ranks: usize, batch: usize) -> Value {
    let steps = 50.0;
    let seconds = step(ranks, batch) * steps;
    let compute = IMAGE * batch.div_ceil(ranks) as f64 * steps;
    let spread = |mean: f64| json!({"mean": mean, "min": 0.9 * mean, "max": 1.05 * mean});
    json!({
        "state": "done", "ranks": ranks, "nodes": 1, "cores": 64, "threads_per_rank": 1, "device": "CPU, 1 thread",
        "half": "all",
        "settings": {"batch": batch, "gaussians": GAUSSIANS, "isotropic": false, "epochs": 1},
        "particles": {"identity": "0badcafe", "box_size": 64, "models": [{"name": "map", "particles": 3200}]},
        "images_per_second": batch as f64 / step(ranks, batch),
        "fsc": {"map against truth": {"resolution_0.143": 12.5, "mean": 0.95 - 1e-4 * batch as f64}},
        "epochs": [{"model": "map", "epochs": [{
            "images": 3200, "steps": 50, "seconds": seconds, "ranks": ranks,
            "compute": spread(compute), "reduce": spread(0.1 * compute), "update": spread(0.05 * compute),
            "wait": spread(0.0), "bytes_read": 0,
        }]}],
    })
}

/// Writes records as run folders. Returns their paths.
fn folders(top: &Path, records: &[Value]) -> Vec<String> {
    let write = |(k, record): (usize, &Value)| {
        let folder = top.join(format!("run {k}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("run.json"), record.to_string()).unwrap();
        folder.display().to_string()
    };
    records.iter().enumerate().map(write).collect()
}

/// Arguments of `scaling` for these runs, with output folder `study` in `top`.
fn scaling(top: &Path, runs: &[String]) -> Vec<String> {
    let output = path(top, "study");
    let all = ["scaling"].into_iter().chain(runs.iter().map(String::as_str));
    all.chain(["-o", &output]).map(str::to_owned).collect()
}

/// Rows of scaling.csv by column name. Only the last column is quoted.
fn lines(top: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(top.join("study/scaling.csv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.splitn(names.len(), ',').collect();
            assert_eq!(cells.len(), names.len(), "{line}");
            let value = |cell: &str| cell.parse::<f64>().map_or_else(|_| json!(cell), |number| json!(number));
            names.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), value(cell))).collect()
        })
        .collect()
}

#[test]
fn a_generated_study_recovers_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut records: Vec<Value> = [1, 2, 4, 8].map(|ranks| record(ranks, 64)).to_vec();
    records.extend([1, 2, 8].map(|ranks| record(ranks, 16 * ranks)));
    records.push(record(2, 8));
    // The order of the runs does not matter.
    records.reverse();
    let runs = folders(folder.path(), &records);
    let said = succeed(&scaling(folder.path(), &runs));
    assert!(said.contains("Predicted by a model fitted to 8 runs, not measured"), "{said}");
    assert!(said.contains("t = 3.00 ms + 2.00 ms b + 400.0 µs log2(R) + 1.32 MB"), "{said}");
    assert!(!said.contains("Note:"), "nothing to warn of: {said}");

    let lines = lines(folder.path());
    let of = |series: &str, origin: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["series"] == series && line["origin"] == origin).collect()
    };
    let ranks = |lines: &[&Value], batch: f64| -> Vec<f64> {
        let mine = lines.iter().filter(|line| line["batch"] == batch);
        mine.map(|line| line["ranks"].as_f64().unwrap()).collect()
    };
    let strong = of("strong", "measured");
    assert_eq!(ranks(&strong, 64.0), [1.0, 2.0, 4.0, 8.0]);
    for line in strong.iter().filter(|line| line["batch"] == 64.0) {
        let ranks = line["ranks"].as_f64().unwrap();
        let speed_up = step(1, 64) / step(ranks as usize, 64);
        assert!((line["speed_up"].as_f64().unwrap() / speed_up - 1.0).abs() < 1e-9, "{line}");
        assert!((line["efficiency"].as_f64().unwrap() * ranks / speed_up - 1.0).abs() < 1e-9, "{line}");
        assert!((line["imbalance"].as_f64().unwrap() - 1.05).abs() < 1e-9, "{line}");
        let compute = IMAGE * (64.0 / ranks) / step(ranks as usize, 64);
        assert!((line["compute_share"].as_f64().unwrap() - compute).abs() < 1e-9, "{line}");
    }
    // The run with batch 64 on four ranks is in a strong series and in this one.
    let weak: Vec<f64> = of("weak", "measured").iter().map(|line| line["batch"].as_f64().unwrap()).collect();
    assert!([16.0, 32.0, 64.0, 128.0].iter().all(|batch| weak.contains(batch)), "{weak:?}");
    let predicted = of("strong", "predicted");
    assert_eq!(ranks(&predicted, 64.0), [16.0, 32.0, 64.0]);
    for line in lines.iter().filter(|line| line["origin"] == "predicted") {
        let (ranks, batch) = (line["ranks"].as_f64().unwrap(), line["batch"].as_f64().unwrap());
        let rate = batch / step(ranks as usize, batch as usize);
        assert!((line["images_per_second"].as_f64().unwrap() / rate - 1.0).abs() < 1e-6, "{line}");
        assert_eq!((&line["compute_share"], &line["fsc_mean"]), (&json!("-"), &json!("-")), "not invented");
    }
    let other = of("other", "measured");
    assert_eq!((other.len(), &other[0]["batch"], &other[0]["speed_up"]), (1, &json!(8.0), &json!("-")));
    assert!((other[0]["truth_fsc_mean"].as_f64().unwrap() - 0.9492).abs() < 1e-12, "{}", other[0]);

    let svg = std::fs::read_to_string(folder.path().join("study/scaling.svg")).unwrap();
    for label in [
        "strong, batch 64",
        "weak, 16 per rank",
        "predicted by a model fitted to 8 runs, not measured",
        "MPI ranks",
        "Images/s",
        "Efficiency (%)",
        "mean FSC against the true map",
    ] {
        assert!(svg.contains(label), "{label}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    to_png(&svg, 1.0).expect("a sound document");
    let markdown = std::fs::read_to_string(folder.path().join("study/scaling.md")).unwrap();
    assert!(said.contains(&markdown), "what is printed is what is written");
    assert_eq!(std::fs::read_dir(folder.path().join("study")).unwrap().count(), 3);
}

#[test]
fn unknown_values_are_dashes_and_doubtful_models_get_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let bare = |ranks: usize, cores: usize| {
        let mut record = record(ranks, 16);
        record["cores"] = json!(cores);
        record["fsc"] = json!({});
        let epoch = &mut record["epochs"][0]["epochs"][0];
        ["compute", "reduce", "update", "wait"].iter().for_each(|stage| epoch[stage] = Value::Null);
        record
    };
    let runs = folders(folder.path(), &[bare(1, 2), bare(2, 2), bare(4, 2)]);
    let said = succeed(&scaling(folder.path(), &runs));
    for column in ["Compute", "Imbalance", "FSC 0.143", "Truth"] {
        assert!(!said.lines().next().unwrap().contains(column), "{column}: {said}");
    }
    assert!(
        said.contains("| strong, batch 16 | 4* |") && said.contains("| strong, batch 16 | 2 |"),
        "{said}"
    );
    assert!(
        said.contains("Note: On CPU, 1 thread, 1 of 3 runs (of 4 ranks and more) had more threads"),
        "{said}"
    );
    assert!(said.contains("the model has 3 parameters, and was fitted to runs with 2 different"), "{said}");
    assert!(said.contains("fitted to 2 runs, not measured"), "{said}");
    for line in lines(folder.path()) {
        let stages =
            ["compute_share", "reduce_share", "update_share", "wait_share", "imbalance", "truth_fsc_mean"];
        assert!(stages.iter().all(|stage| line[stage] == "-"), "{line}");
    }
    // A single run has no partner.
    let said = succeed(&scaling(folder.path(), &runs[..1]));
    assert!(said.contains("other batches") && !said.contains("redicted"), "{said}");
    to_png(&std::fs::read_to_string(folder.path().join("study/scaling.svg")).unwrap(), 1.0).unwrap();
}

#[test]
fn runs_of_different_studies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut ended = record(2, 64);
    ended["state"] = json!("running");
    let mut particles = record(2, 64);
    particles["particles"]["identity"] = json!("12345678");
    let mut settings = record(2, 64);
    settings["settings"]["gaussians"] = json!(7);
    let mut half = record(2, 64);
    half["half"] = json!("both");
    let mut models = record(2, 64);
    models["particles"]["models"][0]["particles"] = json!(9);
    let all = [record(1, 64), ended, particles, settings, half, models];
    let runs = folders(folder.path(), &all);
    let refused = |k: usize, words: &[&str]| {
        let both = [runs[0].clone(), runs[k].clone()];
        let named = format!("{}/run.json", runs[k]);
        fail(&scaling(folder.path(), &both), &[&[named.as_str()], words].concat());
    };
    refused(1, &["state: is \"running\", expected \"done\"", "--resume"]);
    refused(2, &["particles.identity: is 12345678, and 0badcafe in", "leave this run out"]);
    refused(3, &["settings.gaussians: is 7, and 30000 in"]);
    refused(4, &["settings.half: is \"both\", and \"all\" in"]);
    refused(5, &["particles.models: is map of 9 particles, and map of 3200 particles in"]);
    let nothing = path(folder.path(), "nothing");
    fail(
        &scaling(folder.path(), std::slice::from_ref(&nothing)),
        &["nothing", "cannot read the run's record", "train"],
    );
    std::fs::create_dir(&nothing).unwrap();
    fail(&scaling(folder.path(), &[nothing]), &["nothing: contains no run.json", "train"]);
    let torn = path(folder.path(), "torn.json");
    std::fs::write(&torn, "{\"state\": \"done\",\n").unwrap();
    fail(&scaling(folder.path(), &[torn]), &["torn.json: line", "is not the record of a run"]);
    assert!(!folder.path().join("study").exists(), "nothing is written before all is read");
}

#[test]
fn a_study_of_real_runs() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 48);
    let truth = path(folder.path(), "p_truth.mrc");
    let usual = ["--half", "all", "--gaussians", "60", "--epochs", "2", "--truth", &truth];
    let mut runs = Vec::new();
    for (ranks, batch) in [(1, "8"), (2, "8"), (2, "16")] {
        let run = path(folder.path(), &format!("{ranks} at {batch}"));
        ranks_succeed(ranks, &train_arguments(&set, &run, &[&usual[..], &["--batch", batch]].concat()));
        runs.push(run);
    }
    let said = succeed(&scaling(folder.path(), &runs));
    for row in ["| strong, batch 8 | 1", "| strong, batch 8 | 2", "| weak, 8 per rank | 2"] {
        assert!(said.contains(row), "{row}: {said}");
    }
    let lines = lines(folder.path());
    let measured: Vec<&Value> = lines.iter().filter(|line| line["origin"] == "measured").collect();
    assert_eq!(measured.len(), 4);
    for line in measured {
        assert!(line["images_per_second"].as_f64().unwrap() > 0.0, "{line}");
        assert!(
            line["truth_fsc_mean"].is_f64() && line["fsc_mean"] == "-",
            "one model has no half maps: {line}"
        );
    }
}

/// Asserts that only the members listed here are null.
fn assert_known(name: &str, value: &Value) {
    let unknown = [
        "bytes_read",
        "reading",
        "all_reduce",
        "step_seconds_alone",
        "device_memory_bytes",
        "bandwidth",
        "particles",
        "compute",
        "reduce",
        "update",
        "imbalance",
        "all_reduce_in_step_seconds",
    ];
    match value {
        Value::Null => assert!(unknown.contains(&name), "{name} is null"),
        Value::Array(all) => all.iter().for_each(|value| assert_known(name, value)),
        Value::Object(all) => all.iter().for_each(|(name, value)| assert_known(name, value)),
        _ => {}
    }
}

#[test]
fn a_bench_on_one_rank_and_two() {
    let folder = tempfile::tempdir().unwrap();
    let quick =
        ["--gaussians", "50", "--batch", "4", "--seconds", "0.05", "--device", "cpu", "--threads", "1"];
    let bench = |ranks: usize, name: &str, options: &[&str]| {
        let file = path(folder.path(), name);
        let arguments = [&["bench"], options, &quick, &["--json", &file]].concat();
        let said = ranks_succeed(ranks, &arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        assert!(said.starts_with("| What | Measured |") && said.contains("**images/s**"), "{said}");
        let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_known("", &json);
        assert_eq!((&json["ranks"], &json["nodes"]), (&json!(ranks), &json!(1)));
        assert!(json["images_per_second"].as_f64().unwrap() > 0.0, "{json}");
        let epoch = &json["epochs"][0]["epochs"][0];
        let stage = |name: &str| epoch[name]["mean"].as_f64().unwrap();
        let parts = stage("compute") + stage("reduce") + stage("update") + stage("wait");
        assert!(parts > 0.0 && parts <= epoch["seconds"].as_f64().unwrap(), "stages of a whole: {epoch}");
        (file, json, said)
    };
    let (one, json, said) = bench(1, "one.json", &["--box", "32"]);
    assert!(json["bench"]["all_reduce"].is_null() && json["bench"]["reading"].is_null());
    assert!(!said.contains("all-reduce alone"), "{said}");
    let (two, json, said) = bench(2, "two.json", &["--box", "32"]);
    let sums = &json["bench"]["all_reduce"];
    assert_eq!(sums["gradient"]["bytes"], 4 * (11 * 50 + 1));
    assert!(sums["sweep"].as_array().unwrap().iter().all(|p| p["seconds"].as_f64().unwrap() > 0.0), "{sums}");
    assert!(json["bench"]["imbalance"].as_f64().unwrap() >= 1.0);
    assert!(said.contains("all-reduce alone, with MPI, of the gradient (2.2 KiB)"), "{said}");
    let said = succeed(&scaling(folder.path(), &[one.clone(), two]));
    assert!(said.contains("| strong, batch 4 | 1 |") && said.contains("| strong, batch 4 | 2"), "{said}");

    let set = phantom(folder.path(), 20);
    for cache in ["none", "host"] {
        let (_, json, said) = bench(2, "of a file.json", &[&set, "--cache", cache]);
        assert!(json["bench"]["reading"]["bytes_per_second"].as_f64().unwrap() > 0.0, "{json}");
        assert!(
            said.contains("20 from a file, 32 px of 4 Å") && said.contains("images/s of reading alone"),
            "{said}"
        );
        // The particles differ from the synthetic ones.
        let other = path(folder.path(), "of a file.json");
        fail(&scaling(folder.path(), &[one.clone(), other]), &["of a file.json: particles.identity"]);
    }
}

#[test]
fn invalid_benches_fail_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    let of = |options: &[&str]| -> Vec<String> {
        let usual = ["bench", "--gaussians", "20", "--seconds", "0.01", "--threads", "1", "--box", "32"];
        usual.iter().chain(options).map(|&option| option.to_owned()).collect()
    };
    let absent = path(folder.path(), "absent.h5");
    fail(&["bench", &absent, "--device", "cpu"], &["absent.h5"]);
    let nowhere = path(folder.path(), "no folder/bench.json");
    fail(&of(&["--device", "cpu", "--json", &nowhere]), &["no folder", "does not exist"]);
    fail(
        &of(&["--device", "cpu", "--collective", "nccl"]),
        &["--collective nccl needs GPUs", "--device cuda"],
    );
    let output = over_mpi(3, &program_file(), &of(&["--device", "cpu", "--batch", "2"]));
    expect_failure(&output, &["a batch of 2 images is too small for 3 ranks", "--batch 3"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before, "nothing is left");
}
