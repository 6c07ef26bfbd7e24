//! report.html of a run, made from the run folder and the particles, so that it can be written again at any time.

mod averages;
mod facts;
mod judgement;
mod maps;
mod views;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::fsc_table;
use crate::figures::colours::Colours;
use crate::figures::distributions::{ParticleCounts, logarithmic_chart};
use crate::figures::particles::{noise_chart, value_histogram};
use crate::figures::plots::{loss_chart, rate_chart};
use crate::figures::report::{Part, ReportData, write_report};
use crate::files;
use crate::gmm::files::GmmFile;
use crate::particles::Subset;
use crate::particles::store::Store;
use crate::run_folder::appraisal::Appraised;
use crate::run_folder::refinement_file::{self, RunRefinement};
use crate::run_folder::{metrics, names, refinement_report, tables};

pub(crate) use judgement::light;

const READ_LOSS: &str = "The mean squared residual of the images. It falls quickly, then slowly, to just below the power of the noise. \
    A curve that still falls at the end: train longer. Jumps: the start of a mixture, a doubling of the Gaussians, a round of refinement.";
const READ_DIRECTIONS: &str = "How many particles look along each direction, in cells of equal area. Even shading is best. A few dark \
    cells are a preferred orientation, which is harmless as long as no great circle is empty; see the directional FSC.";

/// Writes report.html to the run folder `folder`. `document` is the content of its run.json and `store` holds its particles. Sections
/// whose files are missing are omitted. The FSC of the runs in `baselines` is added for comparison.
///
/// # Errors
/// When an existing file of the run or the particles cannot be read, or the page cannot be written.
pub fn write(folder: &Path, document: &Value, store: &Store, baselines: &[PathBuf]) -> Result<()> {
    let header = store.header();
    let names: Vec<String> = list(&document["particles"]["models"])
        .filter_map(|model| Some(model["name"].as_str()?.to_owned()))
        .collect();
    let curves = match fsc_table::read(&folder.join(names::FSC_TABLE), header.box_size, header.pixel_size) {
        Ok(curves) => curves,
        Err(_) if !folder.join(names::FSC_TABLE).exists() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut models = Vec::new();
    for name in &names {
        let file = folder.join(names::mixture(name));
        if file.exists() {
            models.push((name.as_str(), GmmFile::read(&file)?));
        }
    }
    let refinement = refinement_of(folder, document, store)?;
    let refined = refinement.as_ref().map_or(&[][..], |found| &found.rows);
    let mut parts = maps::parts(folder, document, &names, &curves, baselines)?;
    let (directions, guinier) = maps::half_map_parts(folder, document)?.map_or((None, None), |parts| {
        let [directions, guinier] = parts;
        (Some(directions), Some(guinier))
    });
    parts.extend(directions);
    if let Some(first) = models.first() {
        parts.extend(views::residuals(&models, store, refined)?);
        parts.extend(averages::averages(first, store, refined)?);
        parts.push(views::images(&models, store, refined)?);
    }
    parts.extend(guinier);
    let lines_of =
        |name: &str| Subset::from_name(name).map_or_else(Vec::new, |subset| metrics::lines(folder, subset));
    let lines: Vec<(String, Vec<Value>)> = names.iter().map(|name| (name.clone(), lines_of(name))).collect();
    parts.extend(training_parts(&lines));
    parts.extend(particle_parts(folder, store)?);
    parts.extend(refinement.iter().flat_map(|refinement| refinement_report::parts(refinement, store)));
    parts.extend(distribution_parts(&models, store)?);
    parts.extend(facts::cost(document, &lines));
    let data = ReportData {
        title: format!("cryosplat-mpi: {}", folder.display()),
        judgement: Some(judgement::judgement(folder, document)?),
        headline: facts::headline(document, store, &curves, refinement.as_ref()),
        parts,
        notes: facts::notes(document, names.len()),
        origin: facts::origin(document, store),
        settings: facts::settings(document),
        command: list(&document["command"]).filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
    };
    write_report(&folder.join(names::REPORT), &data)
}

/// Loss, learning rate and speed over the epochs.
fn training_parts(lines: &[(String, Vec<Value>)]) -> Vec<Part> {
    if lines.iter().all(|(_, lines)| lines.is_empty()) {
        return Vec::new();
    }
    let speed = over_epochs(lines, "images_per_second");
    vec![
        Part::Chart(loss_chart(&over_epochs(lines, "loss"))).with_guide(READ_LOSS),
        Part::Charts(vec![
            rate_chart("Learning rate", "Base rate", &over_epochs(lines, "rate")),
            rate_chart("Speed", "Images/s", &speed),
        ]),
    ]
}

/// Noise of the optics groups, scores and contrasts of the particles, where the run has estimated them.
fn particle_parts(folder: &Path, store: &Store) -> Result<Vec<Part>> {
    let mut charts = Vec::new();
    let curves = tables::read_noise(folder)?;
    if !curves.is_empty() {
        charts.push(noise_chart(&curves));
    }
    let table = tables::read_particles(folder)?;
    if let Some(particles) = table.filter(|table| table.iter().any(|(_, particle)| particle.is_compared())) {
        let of = |value: fn(&Appraised) -> f32| -> Vec<(String, Vec<f64>)> {
            let of_half = |half: Subset| {
                let rows = store.rows(half);
                let own = particles.iter().filter(|(row, _)| rows.contains(row));
                (half.name().to_owned(), own.map(|(_, particle)| f64::from(value(particle))).collect())
            };
            Subset::HALVES.map(of_half).into()
        };
        let label = "Score (1: as expected, -1: no particle)";
        charts.push(value_histogram("Scores of the particles", label, [-3.0, 4.0], &of(|p| p.score)));
        charts.push(value_histogram(
            "Contrast of the particles",
            "Contrast",
            [0.0, 2.5],
            &of(|p| p.contrast),
        ));
    }
    Ok(if charts.is_empty() { Vec::new() } else { vec![Part::Charts(charts)] })
}

/// What the run has refined. The set of `document` is that of `store`.
fn refinement_of(folder: &Path, document: &Value, store: &Store) -> Result<Option<RunRefinement>> {
    match serde_json::from_value(document["particles"]["identity"].clone()) {
        Ok(set) => refinement_file::read(folder, store, set),
        // A run of an earlier version, which refined nothing.
        Err(_) => Ok(None),
    }
}

/// Viewing directions and defocus of the particles, sizes and amplitudes of the Gaussians.
fn distribution_parts(models: &[(&str, GmmFile)], store: &Store) -> Result<[Part; 2]> {
    let mut counts = ParticleCounts::default();
    store.inspect(|_, particle| {
        counts.add(particle);
        Ok(())
    })?;
    let directions = Part::Svg(counts.directions_svg(&Colours::css_variables())).with_guide(READ_DIRECTIONS);
    let mut charts = vec![counts.defocus_chart()];
    if !models.is_empty() {
        let of = |value: fn(&GmmFile) -> Vec<f64>| -> Vec<(String, Vec<f64>)> {
            models.iter().map(|(name, file)| ((*name).to_owned(), value(file))).collect()
        };
        let title = "Gaussian sizes";
        charts.push(logarithmic_chart(
            title,
            "Standard deviation (Å, geometric mean of the axes)",
            &of(sizes),
        ));
        charts.push(logarithmic_chart("Gaussian amplitudes", "Amplitude", &of(amplitudes)));
    }
    Ok([directions, Part::Charts(charts)])
}

/// The particle file named in a run.json.
pub fn particles_of(document: &Value) -> Option<PathBuf> {
    Some(resolve_path(document, document["particles"]["file"].as_str()?))
}

/// A path in a run.json, relative to the working directory of the run.
fn resolve_path(document: &Value, file: &str) -> PathBuf {
    Path::new(document["working_directory"].as_str().unwrap_or("")).join(file)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Content of a file; `None` if it does not exist.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match files::read_bytes(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read the picture", "check the folder")(error)),
    }
}

/// Curves of a quantity of the metrics by model as (epoch, mean over neighbouring lines): values of single batches scatter strongly.
fn over_epochs(lines: &[(String, Vec<Value>)], quantity: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    const POINTS: usize = 300;
    let curve = |lines: &[Value]| -> Vec<(f64, f64)> {
        let points: Vec<(f64, f64)> = lines
            .iter()
            .filter(|line| line["loss"].is_number())
            .filter_map(|line| Some((line["epoch"].as_f64()?, line[quantity].as_f64()?)))
            .collect();
        let size = points.len().div_ceil(POINTS).max(1);
        let mean = |chunk: &[(f64, f64)]| {
            let n = chunk.len() as f64;
            (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
        };
        points.chunks(size).map(mean).collect()
    };
    lines.iter().map(|(name, lines)| (name.clone(), curve(lines))).collect()
}

/// Standard deviation of each Gaussian in angstrom, the geometric mean over its axes.
fn sizes(file: &GmmFile) -> Vec<f64> {
    let (edge, n) = (file.box_size as f64 * file.pixel_size, file.gmm.len());
    let logarithms: Vec<f64> = file.gmm.scales().map(f64::ln).collect();
    let axes = logarithms.len() / n;
    let mean = |i: usize| (0..axes).map(|axis| logarithms[axis * n + i]).sum::<f64>() / axes as f64;
    (0..n).map(|i| edge * mean(i).exp()).collect()
}

fn amplitudes(file: &GmmFile) -> Vec<f64> {
    file.gmm.amplitudes().collect()
}
