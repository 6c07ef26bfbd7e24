//! Bench of the CUDA device: images per second, time per stage, memory, and the ratio to the floor of docs/method.md, section 6.
//! Run by `cargo bench --bench gpu`, or as a program where there is no cargo.

mod cases;
mod machine;
mod measure;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use cryosplat_mpi::render::cuda::gpu::Gpu;
use serde::Serialize;

use cases::{Case, Particles};
use machine::Machine;
use measure::{Effort, Measured, measure};

/// Measures steps of the CUDA device.
#[derive(Parser)]
struct Options {
    /// Only cases whose name contains this ("256 px", "batch 64", "settled")
    filter: Option<String>,
    /// Measure a few small cases briefly, as a test of the bench
    #[arg(long)]
    quick: bool,
    /// Write all numbers to FILE after each case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write Markdown tables to FILE after each case
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Print the GPU and the versions of libraries, and exit
    #[arg(long)]
    versions: bool,
    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// The JSON document.
#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    /// Measured with --quick.
    quick: bool,
    cases: &'a [Measured],
    /// Cases that failed, with their errors.
    failures: &'a [Failure],
}

#[derive(Serialize)]
struct Failure {
    #[serde(flatten)]
    case: Case,
    error: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let gpu = Gpu::open(0)?;
    let machine = Machine::of(&gpu)?;
    print!("{}", machine.lines());
    if options.versions {
        return Ok(());
    }
    let wanted: Vec<Case> = cases::all(options.quick)
        .into_iter()
        .filter(|case| options.filter.as_ref().is_none_or(|filter| case.name().contains(filter)))
        .collect();
    let effort = Effort::new(options.quick);
    let particles = Particles::new(options.quick);
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    for case in wanted {
        match measure(case, &gpu, machine.exponentials_per_second, &particles, &effort) {
            Ok(result) => {
                println!("{}: {}", case.name(), summary(&result));
                measured.push(result);
            }
            // Other cases may succeed.
            Err(error) => {
                println!("{}: FAILED: {error:#}", case.name());
                failures.push(Failure { case, error: format!("{error:#}") });
            }
        }
        // Written after each case, in case the next one hangs or the time ends.
        if let Some(file) = &options.json {
            let results =
                Results { machine: &machine, quick: options.quick, cases: &measured, failures: &failures };
            write(file, &(serde_json::to_string_pretty(&results)? + "\n"))?;
        }
        if let Some(file) = &options.table {
            write(file, &table::write(&machine, &measured))?;
        }
    }
    anyhow::ensure!(failures.is_empty(), "{} cases failed", failures.len());
    anyhow::ensure!(!measured.is_empty(), "no case matches the filter");
    println!("{} cases measured", measured.len());
    Ok(())
}

fn summary(result: &Measured) -> String {
    let rate = &result.images_per_second;
    format!(
        "{:.0} images/s ({:.0} to {:.0}), {:.1}% of the floor's rate",
        rate.median,
        rate.min,
        rate.max,
        100.0 * result.fraction_of_floor
    )
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
