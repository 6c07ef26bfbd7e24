//! `cryosplat-mpi info` on mixtures and checkpoints. tests/fsc.rs covers particle files and maps.

mod common;

use common::{contents, fail, path, phantom, succeed, train_arguments};
use serde_json::Value;

#[test]
fn mixtures_and_checkpoints_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    let cases = [
        ("run", &[][..], "three scales", 0),
        ("round", &["--isotropic"], "one scale", 0),
        ("mean", &["--mixtures", "2"], "three scales", 1),
    ];
    for (run, options, shape, trained) in cases {
        let run = folder.path().join(run);
        let usual = ["--gaussians", "70", "--epochs", "3", "--seed", "5"];
        let more = [&usual, options].concat();
        succeed(&train_arguments(&set, &run.display().to_string(), &more));
        let mixture = path(&run, "gmm_half2.h5");
        let said = succeed(&["info", &mixture]);
        let all = 70 * (trained + 1);
        for part in
            ["Gaussian mixture", &all.to_string(), shape, "32 pixels of 4 A (128 A)", "median", "in total"]
        {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
        let json: Value = serde_json::from_str(&succeed(&["info", "--json", &mixture])).unwrap();
        assert_eq!((&json["gaussians"], &json["box_size"]), (&all.into(), &32.into()));
        assert_eq!(json["isotropic"], shape == "one scale");
        let scale = |name: &str| json["scales"][name].as_f64().unwrap();
        assert!(1e-3 <= scale("min") && scale("min") < scale("median") && scale("median") < scale("max"));

        // 20 particles per half in batches of 8: 3 steps per epoch.
        let checkpoint = path(&run, "checkpoints/half1_step000000006.h5");
        let said = succeed(&["info", &checkpoint]);
        for part in ["checkpoint", "2 of 3", "steps done", "6", "40", "70", shape, "batch 8", "seed 5"] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
        assert_eq!(said.contains("1 of 2, beside"), trained == 1, "{said}");
        let json: Value = serde_json::from_str(&succeed(&["info", "--json", &checkpoint])).unwrap();
        assert_eq!((&json["mixtures_trained"], &json["gaussians"]), (&trained.into(), &70.into()));
        assert_eq!((&json["epoch"], &json["step"], &json["images"]), (&2.into(), &6.into(), &40.into()));
        assert_eq!(json["identity"]["settings"]["gaussians"], 70);
        let particles: Value = serde_json::from_str(&succeed(&["info", "--json", &set])).unwrap();
        assert_eq!(json["identity"]["particles"], particles["identity"]);

        for file in [&mixture, &checkpoint] {
            fail(&["info", "--verify", file], &[file, "no checksums", "--verify"]);
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
            fail(&["info", file], &[file, "truncated"]);
        }
    }
}

#[test]
fn sets_of_other_programs_and_run_folders_are_described_and_foreseen() {
    let folder = tempfile::tempdir().unwrap();
    let (set, other) = (path(folder.path(), "p.h5"), path(folder.path(), "relion"));
    succeed(&[
        "simulate",
        "--phantom",
        "--box",
        "32",
        "--pixel-size",
        "4",
        "--particles",
        "60",
        "--snr",
        "0.5",
        "-o",
        &set,
        "--star",
        &other,
    ]);
    let star = format!("{other}/particles.star");
    let page = path(folder.path(), "page.html");
    let said = succeed(&["info", &star, "--pictures", &page]);
    for part in ["60", "given by _rlnRandomSubset", "32 pixels of 4.0000 A", "a random sample"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    for part in
        ["Random particles", "Averages of like views", "Power spectrum", "Shifts", "What the import did"]
    {
        assert!(page.contains(part), "no {part:?} on the page");
    }
    // Encoded pictures may hold any letters.
    let shown = page.split('"').filter(|part| !part.starts_with("data:")).collect::<Vec<_>>();
    assert!(shown.len() > 1 && !shown.iter().any(|part| part.contains("NaN")));

    // A dry run of both, which writes nothing; the file holds the same particles.
    let before = contents(folder.path()).into_keys().collect::<Vec<_>>();
    let estimate = |arguments: &[&str]| -> Value {
        let text = succeed(&[&["--log-level", "error", "train", "--dry-run", "--json"], arguments].concat());
        serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()]).unwrap()
    };
    let usual = ["--gaussians", "70", "--epochs", "3", "--mixtures", "1"];
    let of_file = estimate(&[&[set.as_str()], &usual[..]].concat());
    let of_star = estimate(&[&[star.as_str(), "--ranks", "4"], &usual[..]].concat());
    assert_eq!(contents(folder.path()).into_keys().collect::<Vec<_>>(), before);
    assert_eq!((&of_file["ranks"], &of_star["ranks"]), (&1.into(), &4.into()));
    for estimate in [of_file, of_star] {
        assert_eq!(estimate["particles"], serde_json::json!([30, 30]));
        assert_eq!((&estimate["gaussians"], &estimate["epochs"]), (&70.into(), &3.into()));
        let seconds = estimate["seconds"].as_object().unwrap();
        let of = |part: &str| seconds[part].as_f64().unwrap();
        assert!(of("training") > 0.0 && estimate["bytes"]["memory"].as_u64().unwrap() > 0, "{estimate}");
        let parts =
            ["preparing", "reading", "training", "refining", "cross_validation", "diagnosis", "outputs"];
        let sum = parts.iter().map(|part| of(part)).sum::<f64>();
        assert!((of("total") / sum - 1.0).abs() < 1e-9 && seconds.len() == parts.len() + 1, "{estimate}");
        // 60 images in each of 3 epochs.
        let rate = estimate["images_per_second"].as_f64().unwrap();
        assert!((of("training") * rate / 180.0 - 1.0).abs() < 1e-9, "{estimate}");
    }

    let run = path(folder.path(), "run");
    let said = succeed(&train_arguments(&set, &run, &[&usual[..], &["--no-diagnosis"]].concat()));
    assert!(said.contains("estimate: about") && said.contains("; the estimate was "), "{said}");
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{run}/run.json")).unwrap()).unwrap();
    for of_run in [&record["estimate"], &record["seconds"]] {
        let parts = of_run.as_object().unwrap();
        let of = |part: &str| parts[part].as_f64().unwrap();
        let sum: f64 = parts.keys().filter(|part| *part != "total").map(|part| of(part)).sum();
        assert!((of("total") / sum - 1.0).abs() < 1e-9 && of("training") > 0.0, "{of_run}");
        assert_eq!(of("diagnosis"), 0.0, "{of_run}");
    }
    let said = succeed(&["info", &run]);
    for part in ["run folder", "done", "30 in half1", "70 Gaussians in one mixture per half", "train"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    fail(&["info", &path(folder.path(), "relion")], &["run.json", "give the folder of a run"]);
}
