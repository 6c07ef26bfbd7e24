//! The results as Markdown.

use std::fmt::Write;

use super::cases::{BATCHES, BOXES, COUNTS, Case, Mixture, VIEWS};
use super::machine::Machine;
use super::measure::Measured;

/// Boxes and Gaussians of the tables of stages: the paper's, and those that kernels/README.md counts too.
const STAGES_OF: [(usize, usize); 3] = [(256, 30_000), (128, 5_120), (64, 2_048)];

/// What stands in a cell of which nothing was measured.
const NOTHING: &str = "–";

/// All tables.
pub fn write(machine: &Machine, measured: &[Measured]) -> String {
    let mut text = machine.lines().lines().map(|line| format!("- {line}\n")).collect::<String>();
    text +=
        "\nImages per second of whole steps (median; particles kept in the device's memory, rate zero):\n\n";
    text += &cases(measured, |m| format!("{:.0}", m.images_per_second.median));
    let _ = write!(
        text,
        "\nThe floor's share of that time. The floor is 2 N m exponentials an image (N Gaussians, m pixels in a support, \
         counted over {VIEWS} views) at {:.2e} a second, 16 a cycle of each multiprocessor at its highest clock:\n\n",
        machine.exponentials_per_second
    );
    text += &cases(measured, |m| format!("{:.1}%", 100.0 * m.fraction_of_floor));
    text += "\nm, pixels:\n\n";
    text += &cases(measured, |m| format!("{:.0}", m.mean_support));
    text += "\nDevice memory in MiB without the kept particles: taken from the free memory (and what the plan says, with \
             cuFFT's work area and the particles on their way):\n\n";
    text += &cases(measured, |m| {
        let memory = &m.memory;
        let planned = memory.planned + memory.work_area + memory.staged;
        format!("{:.0} ({:.0})", mib(memory.used.saturating_sub(memory.kept)), mib(planned))
    });
    for (box_size, count) in STAGES_OF {
        let _ = write!(
            text,
            "\nStages of a pass at {box_size} px and {count} Gaussians, in microseconds by the device's clock (medians). They \
             are started one by one, which adds some to each; a step replays them as one graph. The floor is that of draw, \
             and that of moments:\n\n"
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

/// Mixtures and batches, side by side.
fn columns() -> impl Iterator<Item = (Mixture, usize)> {
    Mixture::ALL.into_iter().flat_map(|mixture| BATCHES.map(|batch| (mixture, batch)))
}

fn heading(first: &str) -> String {
    let names: Vec<String> =
        columns().map(|(mixture, batch)| format!("{}, batch {batch}", mixture.name())).collect();
    format!("| {first} | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()))
}

/// One row for each box and number of Gaussians.
fn cases(measured: &[Measured], cell: impl Fn(&Measured) -> String) -> String {
    let mut text = heading("Box, Gaussians");
    for box_size in BOXES {
        for count in COUNTS {
            let cells: Vec<Option<String>> = columns()
                .map(|(mixture, batch)| find(measured, Case { box_size, count, batch, mixture }).map(&cell))
                .collect();
            if cells.iter().any(Option::is_some) {
                let cells: Vec<String> =
                    cells.into_iter().map(|cell| cell.unwrap_or_else(|| NOTHING.into())).collect();
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
            .map(|m| m.map_or_else(|| NOTHING.into(), |m| format!("{:.1}", 1e3 * value(m))))
            .collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    };
    for (k, stage) in first.stages.iter().enumerate() {
        row(stage.name, &|m| m.stages[k].milliseconds);
    }
    row("*floor of an exponential a pixel*", &|m| 1e3 * m.case.batch as f64 * 0.5 * m.floor_seconds);
    row("**all of them**", &|m| m.stages.iter().map(|stage| stage.milliseconds).sum());
    row("**a step, by the host's clock**", &|m| 1e3 * m.case.batch as f64 / m.images_per_second.median);
    text
}
