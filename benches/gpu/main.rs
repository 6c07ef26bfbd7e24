//! What a GPU makes of it: images per second, stages, memory, and how far that is from the floor of METHOD.md section 6.
//! `cargo bench --bench gpu`, or the program itself where there is no cargo.

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
    /// A few small cases, each for a moment: to see that it runs
    #[arg(long)]
    quick: bool,
    /// Write all numbers into FILE, anew after each case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write tables in Markdown into FILE, anew after each case
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Only say what GPU and libraries there are
    #[arg(long)]
    versions: bool,
    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is written as JSON.
#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    /// These numbers are of a moment's measurement.
    quick: bool,
    cases: &'a [Measured],
    /// Cases that did not come to an end, with their errors.
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
            // The others may do.
            Err(error) => {
                println!("{}: FAILED: {error:#}", case.name());
                failures.push(Failure { case, error: format!("{error:#}") });
            }
        }
        // What is measured stays, should the next case hang or the time be up.
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
    anyhow::ensure!(!measured.is_empty(), "no case has a name like that");
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
