//! The table benches/results/stages.md, from what criterion has measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Batch sizes for which the whole step is measured.
pub const BATCHES: [usize; 2] = [1, 8];

/// Time of the multiplications alone of two stages ([`super::floor`]).
pub const DRAW_FLOOR: &str = "rasterise, floor";
pub const MOMENTS_FLOOR: &str = "moments, floor";

/// Stages in the order of a step: name and label in the table.
const STAGES: [(&str, &str); 13] = [
    ("read", "read from the page cache (once, or per epoch)"),
    ("prepare", "prepare (once, or per epoch)"),
    ("activate", "activate (per step)"),
    ("project", "project"),
    ("rasterise", "rasterise"),
    (DRAW_FLOOR, "floor: multiplications only, two SIMD operations per cycle"),
    ("FFT, CTF and residual", "FFT, CTF and residual"),
    ("moments", "moments"),
    (MOMENTS_FLOOR, "floor: multiplications only, two SIMD operations per cycle"),
    ("chain, image", "chain rule (per image)"),
    ("chain, step", "chain rule (per step)"),
    ("all-reduce", "all-reduce over 2 ranks (per step)"),
    ("Adam", "Adam (per step)"),
];

/// What stands above the table.
const CAPTION: &str = "\
# Time of a training step, by stage

Written by `make bench`: one thread of the CPU device. A step of batch B costs B times the stages of an image, plus once the
stages marked \"per step\". The widths are those of a trained mixture (64 px), of the published initial widths (128 and 256 px)
and of the default ones (last column). The floor counts half a cycle for each multiplication of eight numbers that the method
needs (benches/stages/floor.rs); it is not measured. The all-reduce is MPI's, within one machine.

";

/// Name of a case in criterion.
pub fn group((box_size, count, deviation): (usize, usize, f64)) -> String {
    format!("{box_size} px, {count} Gaussians of {deviation} px")
}

/// Folder of the results of a case in criterion.
fn folder(case: (usize, usize, f64)) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("criterion").join(group(case))
}

/// Stores a time that criterion has not measured beside its own results.
pub fn store(case: (usize, usize, f64), name: &str, time: Duration) {
    let folder = folder(case).join(name).join("new");
    std::fs::create_dir_all(&folder).expect("create the folder of results");
    let estimates = serde_json::json!({ "median": { "point_estimate": time.as_nanos() as f64 } });
    std::fs::write(folder.join("estimates.json"), estimates.to_string()).expect("write the estimates");
}

/// Name of the benchmark of the whole step.
pub fn step(batch: usize) -> String {
    format!("whole step, batch {batch}")
}

/// Median time of a benchmark in seconds; `None` if this machine has not measured it.
fn seconds(folder: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(folder.join(name).join("new/estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? * 1e-9)
}

fn cell(seconds: f64) -> String {
    match seconds {
        s if s < 1e-4 => format!("{:.1} µs", s * 1e6),
        s if s < 1e-2 => format!("{:.0} µs", s * 1e6),
        s => format!("{:.1} ms", s * 1e3),
    }
}

/// Writes benches/results/stages.md, or with `CRYOSPLAT_SIMD` stages-LEVEL.md, if every case has been measured.
pub fn write() {
    let cases = super::CASES.map(|case| (group(case), folder(case)));
    let mut rows = Vec::new();
    let mut row = |label: String, value: &dyn Fn(&Path) -> Option<String>| {
        let cells: Option<Vec<String>> = cases.iter().map(|(_, folder)| value(folder)).collect();
        cells.map(|cells| rows.push(format!("| {label} | {} |", cells.join(" | "))))
    };
    let mut complete = true;
    for (stage, label) in STAGES {
        complete &= row(label.into(), &|folder| seconds(folder, stage).map(cell)).is_some();
    }
    for batch in BATCHES {
        let name = step(batch);
        complete &= row(format!("**{name}**"), &|folder| seconds(folder, &name).map(cell)).is_some();
        let rate = |folder: &Path| seconds(folder, &name).map(|s| format!("{:.0}", batch as f64 / s));
        complete &= row(format!("images/s at batch {batch}"), &rate).is_some();
    }
    if !complete {
        return;
    }
    let heading = cases.each_ref().map(|(name, _)| name.as_str());
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let table = format!(
        "| One thread of {processor}, {} | {} |\n|---|{}\n{}\n",
        cryosplat_mpi::render::cpu::instructions(),
        heading.join(" | "),
        "--:|".repeat(cases.len()),
        rows.join("\n")
    );
    // A narrower SIMD level has its own table.
    let name =
        std::env::var("CRYOSPLAT_SIMD").map_or("stages.md".into(), |level| format!("stages-{level}.md"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(name);
    std::fs::create_dir_all(file.parent().expect("a file in a folder"))
        .expect("create the folder of results");
    std::fs::write(&file, format!("{CAPTION}{table}")).expect("write the table");
    println!("{table}\nwritten to {}", file.display());
}
