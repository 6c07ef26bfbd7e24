//! `check` on a node with GPUs, and the advice to use them all.

use crate::common::{over_mpi_with, path, phantom, program_file, program_with, text, train_arguments};
use crate::ranks::FOUR;

pub const TESTS: &[(&str, fn())] = &[
    ("the_page_shows_gpus_and_libraries", the_page_shows_gpus_and_libraries),
    ("one_rank_beside_several_gpus_is_advised", one_rank_beside_several_gpus_is_advised),
];

fn the_page_shows_gpus_and_libraries() {
    let check = ["check".to_owned()];
    let said = |ranks, environment: &[(&str, &str)]| {
        let output = over_mpi_with(ranks, &program_file(), &check, environment);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let four = said(4, &FOUR);
    for (ordinal, topic) in ["GPU 0", "GPU 1", "GPU 2", "GPU 3"].into_iter().enumerate() {
        assert_eq!(four.matches(&format!("ok       {topic}")).count(), 1, "{four}");
        assert!(four.contains(&format!("GPU {ordinal}: ")), "{four}");
    }
    for topic in ["driver", "NVRTC", "cuFFT", "NCCL"] {
        assert!(four.lines().any(|line| line.starts_with(&format!("ok       {topic}"))), "{topic}: {four}");
    }
    // The emulator has no access between GPUs.
    assert!(four.contains("warning  peers     0 of 12 pairs of GPUs"), "{four}");
    assert!(!four.contains(" share GPU-") && !four.contains("GPUs are used"), "{four}");
    let shared = said(2, &[("CRYOSPLAT_EMULATOR_DEVICES", "1")]);
    assert!(shared.contains("warning  GPUs      ranks 0, 1 share GPU-"), "{shared}");
    let unused = said(1, &FOUR);
    assert!(unused.contains("1 of 4 GPUs are used by the ranks of this node; start 4 ranks"), "{unused}");
}

fn one_rank_beside_several_gpus_is_advised() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 20);
    let run = path(folder.path(), "my run");
    let arguments = train_arguments(&set, &run, &["--device", "cuda", "--gaussians", "20", "--epochs", "1"]);
    let output = program_with(&arguments, &FOUR);
    assert!(output.status.success(), "{}", text(&output));
    let advice = format!(
        "1 of 4 GPUs is used; to use all: mpirun -n 4 --bind-to none {} train {set} -o '{run}'",
        program_file()
    );
    assert!(text(&output).contains(&advice), "{}", text(&output));
}
