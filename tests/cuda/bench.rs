//! `bench` on GPUs: the all-reduce is reported as a difference of step times, and measured alone.

use serde_json::Value;

use crate::common::{over_mpi_with, path, program_file, text};
use crate::ranks::FOUR;

pub const TESTS: &[(&str, fn())] =
    &[("a_bench_on_gpus_reports_the_all_reduce", a_bench_on_gpus_reports_the_all_reduce)];

fn a_bench_on_gpus_reports_the_all_reduce() {
    let folder = tempfile::tempdir().unwrap();
    let usual = ["--device", "cuda", "--box", "32", "--gaussians", "40", "--batch", "4", "--seconds", "0.1"];
    for (ranks, collective, symmetry) in [(1, "auto", "C3"), (2, "auto", "C1"), (2, "mpi", "C1")] {
        let file = path(folder.path(), "bench.json");
        let more = ["--collective", collective, "--symmetry", symmetry, "--json", &file];
        let arguments: Vec<String> =
            ["bench"].iter().chain(&usual).chain(&more).map(|&a| a.to_owned()).collect();
        let output = over_mpi_with(ranks, &program_file(), &arguments, &FOUR);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let bench = &json["bench"];
        assert_eq!(json["settings"]["gaussians"], if symmetry == "C3" { 13 } else { 40 });
        // A GPU times one step in 64: a short bench may have none.
        let timed = json["epochs"][0]["epochs"][0]["compute"].is_object();
        assert!(bench["step_seconds"].as_f64().unwrap() > 0.0);
        assert!(bench["device_memory_bytes"]["max"].as_f64().unwrap() > 0.0);
        let alone = ranks > 1 && !timed;
        assert_eq!(bench["step_seconds_alone"].is_f64(), alone, "{bench}");
        assert_eq!(said.contains("all-reduce: difference"), alone, "{said}");
        if ranks > 1 {
            let name = if collective == "mpi" { "MPI" } else { "NCCL" };
            assert_eq!(bench["collective"], name);
            assert!(bench["all_reduce"]["gradient"]["seconds"].as_f64().unwrap() > 0.0);
        }
    }
}
