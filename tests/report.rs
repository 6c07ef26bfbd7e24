//! `cryosplat-mpi report`: the report of a run, written again.

mod common;

use std::path::Path;

use common::{alone, fail, path, phantom, succeed, train_arguments};
use cryosplat_mpi::particles::refinement::Refinement;
use cryosplat_mpi::particles::selection::{Models, SubsetRows};
use cryosplat_mpi::particles::store::Store;
use cryosplat_mpi::run_folder::refinement::{RefinementState, RoundSummary};
use cryosplat_mpi::run_folder::refinement_file;
use serde_json::Value;

fn page(run: &str) -> String {
    std::fs::read_to_string(Path::new(run).join("report.html")).unwrap()
}

/// The distinct headings of the page's charts and sections, in order.
fn headings(page: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for (at, _) in page.match_indices("</h2>").chain(page.match_indices("</text>")) {
        let text = &page[..at];
        let heading = &text[text.rfind('>').unwrap() + 1..];
        if KNOWN.contains(&heading) && !found.contains(&heading) {
            found.push(heading);
        }
    }
    found
}

/// Adds a refinement of each particle, by 0.1 radian and a pixel.
fn refine(run: &str, set: &str) {
    let _alone = alone();
    let store = Store::open(Path::new(set)).unwrap();
    let refined = Refinement { rotation: [0.1, 0.0, 0.0], offset: [0.0, 1.0], defocus: 0.0 };
    let of_model = |model: &SubsetRows| RefinementState {
        rounds: vec![RoundSummary { epoch: 2, limit: 8, accepted: 40, ..RoundSummary::default() }],
        particles: vec![refined; model.rows.len()],
    };
    let models = SubsetRows::of(&store, Models::Both);
    let states: Vec<RefinementState> = models.iter().map(of_model).collect();
    let models: Vec<_> = models.iter().zip(&states).collect();
    refinement_file::write(Path::new(run), store.validate().unwrap(), &models).unwrap();
}

const KNOWN: [&str; 17] = [
    "Surface of the map",
    "Slices",
    "Particle images and projections of the model",
    "Cost",
    "Notes",
    "Command",
    "Fourier shell correlation",
    "Comparison with other runs",
    "Directional FSC",
    "Resolution by direction",
    "Unexplained signal in each shell",
    "Guinier plot",
    "Training loss",
    "Learning rate",
    "Defocus",
    "Gaussian sizes",
    "Gaussian amplitudes",
];

#[test]
fn report_is_reproducible_and_shows_a_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 100);
    let (run, voxels) = (path(folder.path(), "run"), path(folder.path(), "voxels"));
    let truth = path(folder.path(), "p_truth.mrc");
    succeed(&train_arguments(&set, &run, &["--gaussians", "50", "--epochs", "4", "--truth", &truth]));
    let first = page(&run);
    let expected: Vec<&str> =
        KNOWN.into_iter().filter(|heading| *heading != "Comparison with other runs").collect();
    assert_eq!(headings(&first), expected);
    assert!(first.contains("half maps corrected for a mask"), "the corrected FSC");
    assert!(first.contains("Viewing directions: largest cell"));
    // One threshold for half maps, another for the truth; nothing else is quoted.
    assert!(
        first.contains("threshold of half maps: FSC = 0.143") || first.contains("threshold: FSC = 0.143")
    );
    assert!(first.contains("threshold: FSC = 0.5") && first.contains("How to read this"));
    assert!(first.contains("<dt>Resolution: FSC 0.143") && first.contains("<th>Finished</th>"));
    assert!(first.contains("50 Gaussians") || first.contains("<dd>50</dd>"));

    succeed(&["report", &run]);
    assert!(page(&run) == first, "the same page from the same run");

    refine(&run, &set);
    succeed(&["report", &run]);
    let refined = page(&run);
    for part in ["Rounds of refinement", "Refined tilt of the view axis", "Refined shift", "5.73°, 4.00 Å"]
    {
        assert!(!first.contains(part) && refined.contains(part), "{part}");
    }
    std::fs::remove_file(Path::new(&run).join("refinement.h5")).unwrap();

    // The report of voxel maps has no Gaussians, no loss and no projections of a model.
    succeed(&["backproject", &set, "-o", &voxels, "--truth", &truth]);
    let of_voxels = page(&voxels);
    assert_eq!(
        headings(&of_voxels),
        [
            "Surface of the map",
            "Slices",
            "Cost",
            "Notes",
            "Command",
            "Fourier shell correlation",
            "Directional FSC",
            "Resolution by direction",
            "Guinier plot",
            "Defocus"
        ]
    );
    succeed(&["report", &run, "--baseline", &voxels]);
    let beside = page(&run);
    assert_eq!(headings(&beside), KNOWN);
    assert!(beside.contains("voxels against truth") && beside.contains("run against truth"));
}

#[test]
fn wrong_particles_and_damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let run = path(folder.path(), "run");
    succeed(&train_arguments(&set, &run, &["--gaussians", "50", "--epochs", "1"]));
    let before = page(&run);

    // The particle file was moved.
    let moved = path(folder.path(), "moved.h5");
    std::fs::rename(&set, &moved).unwrap();
    fail(&["report", &run], &["p.h5", ";"]);
    succeed(&["report", &run, "--particles", &moved]);
    assert!(page(&run) == before);

    let other = phantom(folder.path(), 62);
    fail(&["report", &run, "--particles", &other], &["is set", "but the run used set", "--particles"]);
    fail(
        &["report", &run, "--particles", &moved, "--baseline", "nowhere"],
        &["nowhere", "is not a folder", ";"],
    );
    fail(&["report", folder.path().to_str().unwrap()], &["run.json", "name the folder of a finished run"]);

    let json = Path::new(&run).join("run.json");
    let document: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let mut stopped = document.clone();
    stopped["state"] = "stopped".into();
    for (text, fragments) in [
        (stopped.to_string(), ["run.json", "state", "\"stopped\""]),
        ("{".to_owned(), ["run.json", "EOF", ";"]),
        ("[]".to_owned(), ["run.json", "state", ";"]),
    ] {
        std::fs::write(&json, text).unwrap();
        fail(&["report", &run, "--particles", &moved], &fragments);
    }
    // Values of the wrong type in run.json are refused or ignored, and never cause a panic.
    for (place, value) in [("models", Value::from(7)), ("file", Value::from(7)), ("identity", Value::Null)] {
        let mut odd = document.clone();
        odd["particles"][place] = value;
        std::fs::write(&json, odd.to_string()).unwrap();
        let output = common::program(&["report", &run, "--particles", &moved]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{place}: {}", common::text(&output));
    }
    let table = Path::new(&run).join("fsc.csv");
    std::fs::write(&json, document.to_string()).unwrap();
    std::fs::write(&table, "shell,spatial_frequency_1_per_A,resolution_A,half maps\n1,0.1,10,odd\n").unwrap();
    fail(&["report", &run, "--particles", &moved], &["fsc.csv", "odd"]);
    assert!(page(&run).contains("<h1>"), "the page stays");
}
