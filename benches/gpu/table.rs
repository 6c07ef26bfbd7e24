//! The results as Markdown.

use std::fmt::Write;

use super::cases::{BATCHES, BOXES, COUNTS, Case, Mixture, VIEWS};
use super::machine::Machine;
use super::measure::Measured;

/// Box sizes and numbers of Gaussians of the tables of stages: those that kernels/README.md counts.
const STAGES_OF: [(usize, usize); 3] = [(256, 30_000), (128, 5_120), (64, 2_048)];

/// Cell without a measurement.
const MISSING: &str = "–";

/// All tables.
pub fn write(machine: &Machine, measured: &[Measured]) -> String {
    let mut text = machine.lines().lines().map(|line| format!("- {line}\n")).collect::<String>();
    text += "\nImages per second of whole steps (median; resident particles, learning rate 0):\n\n";
    text += &cases(measured, |m| format!("{:.0}", m.images_per_second.median));
    let _ = write!(
        text,
        "\nThe floor as a share of that time. The floor is 2 N m exponentials per image (N Gaussians, m pixels per support, \
         counted over {VIEWS} views) at {:.2e} per second, 16 per cycle of each multiprocessor at its highest clock:\n\n",
        machine.exponentials_per_second
    );
    text += &cases(measured, |m| format!("{:.1}%", 100.0 * m.fraction_of_floor));
    text += "\nm, pixels:\n\n";
    text += &cases(measured, |m| format!("{:.0}", m.mean_support));
    text += "\nDevice memory in MiB without resident particles: decrease of the free memory (and the plan, with cuFFT's work \
             area and the staging buffers):\n\n";
    text += &cases(measured, |m| {
        let memory = &m.memory;
        let planned = memory.planned + memory.work_area + memory.staged;
        format!("{:.0} ({:.0})", mib(memory.used.saturating_sub(memory.kept)), mib(planned))
    });
    for (box_size, count) in STAGES_OF {
        let _ = write!(
            text,
            "\nStages of a pass at {box_size} px and {count} Gaussians, in microseconds by the device's clock (medians). They \
             are launched one by one, which adds to each; a step launches them as one graph. The floor is that of draw, and \
             that of moments:\n\n"
        );
        text += &stages(measured, box_size, count);
    }
    text
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn find(measured: &[Measured], case: Case) -> Option<&Measured> {
    measured.iter().find(|m| m.case == case)
}

/// Columns: mixtures and batches.
fn columns() -> impl Iterator<Item = (Mixture, usize)> {
    Mixture::ALL.into_iter().flat_map(|mixture| BATCHES.map(|batch| (mixture, batch)))
}

fn heading(first: &str) -> String {
    let names: Vec<String> =
        columns().map(|(mixture, batch)| format!("{}, batch {batch}", mixture.name())).collect();
    format!("| {first} | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()))
}

/// One row per box size and number of Gaussians.
fn cases(measured: &[Measured], cell: impl Fn(&Measured) -> String) -> String {
    let mut text = heading("Box, Gaussians");
    for box_size in BOXES {
        for count in COUNTS {
            let cells: Vec<Option<String>> = columns()
                .map(|(mixture, batch)| find(measured, Case { box_size, count, batch, mixture }).map(&cell))
                .collect();
            if cells.iter().any(Option::is_some) {
                let cells: Vec<String> =
                    cells.into_iter().map(|cell| cell.unwrap_or_else(|| MISSING.into())).collect();
                let _ = writeln!(text, "| {box_size} px, {count} | {} |", cells.join(" | "));
            }
        }
    }
    text
}

fn stages(measured: &[Measured], box_size: usize, count: usize) -> String {
    let found: Vec<Option<&Measured>> =
        columns().map(|(mixture, batch)| find(measured, Case { box_size, count, batch, mixture })).collect();
    let Some(first) = found.iter().flatten().next() else {
        return "Not measured.\n".into();
    };
    let mut text = heading("Stage");
    let mut row = |label: &str, value: &dyn Fn(&Measured) -> f64| {
        let cells: Vec<String> = found
            .iter()
            .map(|m| m.map_or_else(|| MISSING.into(), |m| format!("{:.1}", 1e3 * value(m))))
            .collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    };
    for (k, stage) in first.stages.iter().enumerate() {
        row(stage.name, &|m| m.stages[k].milliseconds);
    }
    row("*floor: one exponential per pixel*", &|m| 1e3 * m.case.batch as f64 * 0.5 * m.floor_seconds);
    row("**sum**", &|m| m.stages.iter().map(|stage| stage.milliseconds).sum());
    row("**step, by the host's clock**", &|m| 1e3 * m.case.batch as f64 / m.images_per_second.median);
    text
}
