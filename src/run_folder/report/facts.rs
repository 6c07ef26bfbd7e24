//! The facts of the report: main results, cost, origin and settings of a run.

use serde_json::Value;

use super::list;
use crate::evaluate::Headline;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};
use crate::figures::report::Part;
use crate::files;
use crate::particles::store::Store;
use crate::progress::{duration, gib};
use crate::run_folder::refinement_file::RunRefinement;
use crate::run_folder::refinement_report;

/// Longest value of the import's document that is shown.
const LONGEST: usize = 200;

/// Main results: name, and value with its unit.
pub(super) fn headline(
    document: &Value,
    store: &Store,
    curves: &[(String, Fsc)],
    refinement: Option<&RunRefinement>,
) -> Vec<(String, String)> {
    let header = store.header();
    let mut headline: Vec<(String, String)> = Vec::new();
    // A run of an earlier version has no record of its resolution.
    let recorded = Headline::from_document(document);
    match (recorded, curves.first()) {
        (Some(found), _) => {
            headline.push((format!("Resolution: {}", found.basis()), angstrom(&found.number())));
        }
        (None, Some((label, fsc))) => {
            let resolution = angstrom(&fsc.crossing(GOLD_STANDARD).to_string());
            headline.push((format!("FSC = 0.143, {label}"), resolution));
        }
        (None, None) => {}
    }
    for model in list(&document["particles"]["models"]) {
        let name = model["name"].as_str().unwrap_or("model");
        headline.push((format!("Particles in {name}"), model["particles"].to_string()));
    }
    if let Some(gaussians) = document["settings"]["gaussians"].as_u64() {
        let of_all = several_mixtures(document)
            .map_or(String::new(), |mixtures| format!(", in each of {mixtures} mixtures"));
        let doubled = document["settings"]["densify"].as_array().map_or(String::new(), |epochs| {
            let epochs: Vec<String> = epochs.iter().map(Value::to_string).collect();
            format!(", after doubling at the end of epochs {}", epochs.join(", "))
        });
        let group = document["settings"]["symmetry"].as_str();
        let unit = group.map_or(String::new(), |group| format!(" of the asymmetric unit ({group})"));
        headline.push(("Gaussians per half".into(), format!("{gaussians}{unit}{of_all}{doubled}")));
    }
    let change = refinement.and_then(|found| refinement_report::median_change(found, header.pixel_size));
    headline.extend(change.map(|change| ("Refinement (median change)".into(), change)));
    headline.push(("Box".into(), format!("{} px", header.box_size)));
    headline.push(("Pixel size".into(), format!("{:.3} Å", header.pixel_size)));
    headline
}

/// A phrase with the unit of the page.
fn angstrom(phrase: &str) -> String {
    phrase.replace(" A", " Å")
}

/// The number of mixtures per half, if more than one.
fn several_mixtures(document: &Value) -> Option<u64> {
    document["settings"]["mixtures"].as_u64().filter(|&mixtures| mixtures > 1)
}

pub(super) fn notes(document: &Value, models: usize) -> Vec<String> {
    let text = |value: &Value| value.to_string().replace('"', "");
    let mut notes = vec![format!(
        "MPI ranks: {}, each on: {}. Identity of the particle set: {}.",
        text(&document["ranks"]),
        text(&document["device"]),
        text(&document["particles"]["identity"])
    )];
    if let Some(mixtures) = several_mixtures(document) {
        notes.push(format!(
            "The map of each half is the mean of {mixtures} mixtures, trained one after the other from different random starts, so \
             the loss curve restarts with each mixture."
        ));
    }
    if models > 1 {
        notes.push(
            "Half maps of the same model can share a bias, and then correlate better with each other than with the ground truth. The \
             cross-validated FSC compares each half map with the voxel map of the other half's particles, up to the resolution at \
             which the voxel maps correlate; its expectation is the product of the FSC of both half maps against the ground truth."
                .into(),
        );
    }
    notes
}

pub(super) fn settings(document: &Value) -> Vec<(String, String)> {
    let settings = document["settings"].as_object().into_iter().flatten();
    settings.map(|(key, value)| (key.replace('_', " "), value.to_string().replace('"', ""))).collect()
}

/// What the run cost: time, speed, memory. `lines` are the metrics of each model.
pub(super) fn cost(document: &Value, lines: &[(String, Vec<Value>)]) -> Option<Part> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    if let Some(seconds) = document["seconds"]["total"].as_f64() {
        row("Time", duration(seconds));
    }
    for (name, part) in [("training", "of it training"), ("backprojecting", "of it backprojecting")] {
        if let Some(seconds) = document["seconds"][name].as_f64() {
            row(part, duration(seconds));
        }
    }
    if let Some(rate) = document["images_per_second"].as_f64() {
        row("Speed", format!("{rate:.0} images/s"));
    }
    let most = |quantity: &str| {
        let values = lines.iter().flat_map(|(_, lines)| lines).filter_map(|line| line[quantity].as_f64());
        Some(values.fold(0.0, f64::max)).filter(|&bytes| bytes > 0.0)
    };
    for (quantity, name) in
        [("host_bytes", "Memory of a rank"), ("device_bytes", "Memory of the model on its device")]
    {
        if let Some(bytes) = most(quantity) {
            row(name, format!("{:.2} GiB", gib(bytes as u64)));
        }
    }
    let count = |key: &str| document[key].as_u64();
    if let (Some(ranks), Some(nodes), Some(threads)) =
        (count("ranks"), count("nodes"), count("threads_per_rank"))
    {
        row("Ranks", format!("{ranks} on {nodes} node(s), {threads} threads each"));
    }
    if let Some(device) = document["device"].as_str() {
        row("Device of a rank", device.to_owned());
    }
    (!rows.is_empty()).then(|| Part::Pairs { heading: "Cost".into(), rows })
}

/// Where the results come from: host, date, program, particles, import.
pub(super) fn origin(document: &Value, store: &Store) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = text(&document["version"]).map(|version| {
        match text(&document["commit"]).filter(|commit| !commit.is_empty()) {
            Some(commit) => format!("{version}, commit {commit}"),
            None => version,
        }
    });
    let date = document["finished_at_seconds"].as_u64().map(date_of);
    let source = store.imported_from().map(|file| file.display().to_string());
    let header = store.header();
    let named = [
        ("Host", text(&document["host"])),
        ("Finished", date),
        ("Program", version),
        ("Working directory", text(&document["working_directory"])),
        ("Particle file", text(&document["particles"]["file"])),
        ("Identity of the set", text(&document["particles"]["identity"])),
        ("Imported from", source),
        ("Contrast inverted on import", Some(if header.inverted { "yes" } else { "no" }.to_owned())),
    ];
    let mut rows: Vec<(String, String)> =
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    rows.extend(import_options(store));
    rows
}

/// The values of the import's own document beside the particle file, if there is one.
fn import_options(store: &Store) -> Vec<(String, String)> {
    let Ok(text) = files::read_text(&store.path().with_extension("import.json")) else { return Vec::new() };
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let value = |value: &Value| -> Option<String> {
        let text = match value {
            Value::Null | Value::Object(_) => return None,
            Value::String(text) => text.clone(),
            Value::Array(values) => {
                let words: Vec<String> = values.iter().map(|v| v.to_string().replace('"', "")).collect();
                words.join(" ")
            }
            other => other.to_string(),
        };
        (!text.is_empty() && text.len() <= LONGEST).then_some(text)
    };
    let entries = document.as_object().into_iter().flatten();
    entries.filter_map(|(key, of)| Some((format!("Import: {}", key.replace('_', " ")), value(of)?))).collect()
}

/// A time in seconds since 1970 as "2026-12-01 04:05 UTC".
fn date_of(seconds: u64) -> String {
    let (days, minutes) = ((seconds / 86_400) as i64, seconds % 86_400 / 60);
    // Days to a date of the Gregorian calendar, whose years begin in March: 400 years have 146097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02} {:02}:{:02} UTC", year + era * 400 + next, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_764_561_930, "2025-12-01 04:05 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date_of(seconds), date);
        }
    }
}
