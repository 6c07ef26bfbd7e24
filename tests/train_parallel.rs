//! `cryosplat-mpi train` over MPI: the same steps on any number of ranks, and the division of ranks between halves.

mod common;

use std::path::Path;

use common::{
    assert_same, bytes, over_mpi_with, path, phantom, program_file, program_with, ranks_succeed, steps,
    succeed, text, train_arguments,
};
use cryosplat_mpi::gmm::files::GmmFile;
use serde_json::Value;

/// The rate that the recipe chooses for a set of 50,000 image passes; for these small sets it would choose its largest.
const RATE: [&str; 2] = ["--learning-rate", "8e-4"];

fn values(run: &str, name: &str) -> Vec<f32> {
    GmmFile::read(Path::new(&path(Path::new(run), name))).unwrap().gmm.values().to_vec()
}

fn losses(run: &str) -> Vec<(String, u64, f64)> {
    let of = |line: &Value| {
        let model = line["model"].as_str().unwrap().to_owned();
        (model, line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())
    };
    steps(run).iter().map(of).collect()
}

#[test]
fn one_two_and_four_ranks_take_the_same_steps() {
    let folder = tempfile::tempdir().unwrap();
    // 77 particles in half 1: ten steps per epoch, the last of 5 images, which four ranks share unevenly.
    let set = phantom(folder.path(), 154);
    let usual =
        ["--half", "1", "--gaussians", "200", "--epochs", "5", "--metrics-every", "1", RATE[0], RATE[1]];
    let run = |ranks: usize, options: &[&str]| {
        let run = path(folder.path(), &format!("on {ranks}"));
        ranks_succeed(ranks, &train_arguments(&set, &run, &[&usual, options].concat()));
        run
    };
    let one = run(1, &["--batch", "8"]);
    let start = {
        let untrained = path(folder.path(), "start");
        let options = ["--half", "1", "--gaussians", "200", "--epochs", "1", "--learning-rate", "1e-30"];
        succeed(&train_arguments(&set, &untrained, &options));
        values(&untrained, "gmm_half1.h5")
    };
    let (reference, curve) = (values(&one, "gmm_half1.h5"), losses(&one));
    assert_eq!(curve.len(), 50);
    let moved = |a: &[f32]| -> f64 {
        a.iter().zip(&start).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    assert!(moved(&reference) > 0.1, "{}", moved(&reference));
    for (ranks, each) in [(2, "4"), (4, "2")] {
        let run = run(ranks, &["--batch-per-rank", each]);
        for (a, b) in curve.iter().zip(&losses(&run)) {
            assert_eq!((&a.0, a.1), (&b.0, b.1));
            assert!((a.2 / b.2 - 1.0).abs() < 1e-5, "{ranks} ranks: {a:?} {b:?}");
        }
        // Relative to the movement of the parameters. Sums in another order differ by 1e-7. Adam divides by the gradient's
        // magnitude, so that the difference grows to 1e-5 in 50 steps (to 1e-3 at a rate of 3e-3).
        let other = values(&run, "gmm_half1.h5");
        let off = reference.iter().zip(&other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        println!("{ranks} ranks: {:e} of the movement, {}", off / moved(&reference), moved(&reference));
        assert!(off < 1e-4 * moved(&reference), "{ranks} ranks: {:e}", off / moved(&reference));
    }
}

#[test]
fn both_halves_on_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 96);
    let usual = ["--gaussians", "150", "--epochs", "3", "--metrics-every", "1", RATE[0], RATE[1]];
    let run = |ranks: usize, name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        let said = ranks_succeed(ranks, &train_arguments(&set, &run, &[&usual, options].concat()));
        (run, said)
    };
    let (one, said) = run(1, "one", &[]);
    assert!(!said.contains("evenly"), "{said}");
    // With one rank per half, each sums its images in the same order: all bytes are the same.
    let (two, _) = run(2, "two", &[]);
    for name in ["half1.mrc", "half2.mrc", "map.mrc", "gmm_half1.ply", "gmm_half2.ply"] {
        assert!(bytes(&one, name) == bytes(&two, name), "{name}");
    }
    assert_eq!(losses(&one), losses(&two));
    for ranks in [3, 4] {
        let (run_a, said) = run(ranks, &format!("{ranks}"), &[]);
        assert_eq!(
            said.contains("3 ranks cannot be shared evenly: 2 train half1, 1 half2"),
            ranks == 3,
            "{said}"
        );
        let (run_b, _) = run(ranks, &format!("{ranks} again"), &["--cache", "none"]);
        assert_same(&["half1.mrc", "half2.mrc"], &run_a, &run_b, &format!("{ranks} ranks, again"));
        for (a, b) in losses(&one).iter().zip(&losses(&run_a)) {
            assert_eq!((&a.0, a.1), (&b.0, b.1));
            assert!((a.2 / b.2 - 1.0).abs() < 1e-4, "{ranks} ranks: {a:?} {b:?}");
        }
        let json: Value = serde_json::from_slice(&bytes(&run_a, "run.json")).unwrap();
        assert_eq!(json["ranks"], ranks);
    }
}

#[test]
fn the_snr_of_the_particles_sets_the_rate_of_all_ranks_and_of_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 2_000);
    let usual = ["--half", "all", "--gaussians", "40", "--mixtures", "1", "--voxel-particles", "0"];
    let run = |name: &str, options: &[&str]| {
        let run = path(folder.path(), name);
        ranks_succeed(2, &train_arguments(&set, &run, &[&usual, options].concat()));
        let json: Value = serde_json::from_slice(&bytes(&run, "run.json")).unwrap();
        (run, json["settings"]["learning_rate"].as_f64().unwrap())
    };
    // At an SNR of 1, images of 32 px give an SNR of 60 per Fourier voxel; with 100,000 image passes the rate is half of 4e-4.
    let (_, rate) = run("enough", &["--epochs", "50"]);
    assert_eq!(rate, 2e-4);
    let (short, rate) = run("short", &["--epochs", "2"]);
    assert!(rate > 4e-4, "{rate}");
    // A resumed run takes unset options from its checkpoints.
    let rates = ["--epochs", "2", "--learning-rate", "0.00017000000000000004"];
    let (chosen, rate) = run("chosen", &rates);
    assert_eq!(rate, 0.000_170_000_000_000_000_04);
    for run in [&short, &chosen] {
        let resume = [&usual[..], &["--epochs", "2", "--resume"]].concat();
        let said = ranks_succeed(2, &train_arguments(&set, run, &resume));
        assert!(said.contains("is done"), "{said}");
    }
}

#[test]
fn a_launcher_that_does_not_match_mpi_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 20);
    let run = path(folder.path(), "run");
    let arguments = train_arguments(&set, &run, &["--gaussians", "10", "--epochs", "1"]);
    let slurm = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_NTASKS", "4")];
    let seen: [(&[(&str, &str)], &str); 4] = [
        (&slurm, "`srun` started 4 tasks"),
        (&[("OMPI_COMM_WORLD_SIZE", "3")], "`mpirun` of Open MPI started 3 tasks"),
        (&[("PMI_RANK", "0"), ("PMI_SIZE", "2")], "`mpiexec` of MPICH or Intel MPI started 2 tasks"),
        (&[("PMIX_RANK", "1")], "a launcher with PMIx started 2 tasks"),
    ];
    for (environment, words) in seen {
        let output = program_with(&arguments, environment);
        common::expect_failure(&output, &[words, "MPI sees only one", "srun --mpi=pmix", "mpirun"]);
    }
    assert!(!Path::new(&run).exists(), "the run has not started");
    // The same environment is accepted if MPI sees all ranks.
    let output = over_mpi_with(2, &program_file(), &arguments, &slurm);
    assert!(output.status.success(), "{}", text(&output));
}
