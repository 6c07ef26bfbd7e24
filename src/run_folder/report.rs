//! report.html of a run, made from the run folder and the particles, so that it can be written again at any time.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use rustfft::num_complex::Complex;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::Headline;
use crate::evaluate::compare;
use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};
use crate::evaluate::fsc_table;
use crate::evaluate::maps::{MapReader, read_cube};
use crate::figures::chart::Chart;
use crate::figures::colours::Colours;
use crate::figures::comparison::comparison_chart;
use crate::figures::distributions::{ParticleCounts, logarithmic_chart};
use crate::figures::panels::{GreyScale, PanelRow, Sheet};
use crate::figures::particles::{noise_chart, value_histogram};
use crate::figures::plots::{fsc_chart, loss_chart, rate_chart};
use crate::figures::report::{Part, ReportData, Surface, write_report};
use crate::files;
use crate::gmm::files::GmmFile;
use crate::imaging::fourier::{Fft2, frequency};
use crate::particles::Subset;
use crate::particles::store::{Block, Store};
use crate::progress::duration;
use crate::render::cpu::CpuDevice;
use crate::render::cpu::residual::Filter;
use crate::render::{Geometry, Sampling, Symmetry, Weights};
use crate::run_folder::appraisal::Appraised;
use crate::run_folder::refinement_file::{self, RunRefinement};
use crate::run_folder::{metrics, names, refinement_report, tables};

/// Number of particle images shown, over all models.
const SHOWN: usize = 4;
/// Resolution at which the low-pass filter of particle images is one half: in pixels, and the smallest in angstrom.
const LOW_PASS: (f64, f64) = (4.0, 20.0);

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
    let mut parts = map_parts(folder, document, &names, &curves, baselines)?;
    if !models.is_empty() {
        parts.push(Part::Picture {
            heading: "Particle images and projections of the model".into(),
            description: "Particle images, observed and low-pass filtered, and projections of the model with and without CTF"
                .into(),
            png: images(&models, store)?,
        });
    }
    let lines_of =
        |name: &str| Subset::from_name(name).map_or_else(Vec::new, |subset| metrics::lines(folder, subset));
    let lines: Vec<(String, Vec<Value>)> = names.iter().map(|name| (name.clone(), lines_of(name))).collect();
    if lines.iter().any(|(_, lines)| !lines.is_empty()) {
        parts.push(Part::Chart(loss_chart(&over_epochs(&lines, "loss"))));
        let speed = over_epochs(&lines, "images_per_second");
        parts.push(Part::Charts(vec![
            rate_chart("Learning rate", "Base rate", &over_epochs(&lines, "rate")),
            rate_chart("Speed", "Images/s", &speed),
        ]));
    }
    parts.extend(particle_parts(folder, store)?);
    let refinement = refinement_of(folder, document, store)?;
    parts.extend(refinement.iter().flat_map(|refinement| refinement_report::parts(refinement, store)));
    parts.extend(distribution_parts(&models, store)?);
    let data = ReportData {
        title: format!("cryosplat-mpi: {}", folder.display()),
        headline: headline(document, store, &curves, refinement.as_ref()),
        verdict: document["cross_validation"]["verdict"]
            .as_str()
            .map(|verdict| (verdict.to_owned(), document["cross_validation"]["excess"].is_object())),
        parts,
        notes: notes(document, names.len()),
        settings: settings(document),
        command: list(&document["command"]).filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
    };
    write_report(&folder.join(names::REPORT), &data)
}

/// FSC charts, surface and slices of the maps.
fn map_parts(
    folder: &Path,
    document: &Value,
    names: &[String],
    curves: &[(String, Fsc)],
    baselines: &[PathBuf],
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    if !curves.is_empty() {
        parts.push(Part::Chart(fsc_chart(curves)));
    }
    if !baselines.is_empty() {
        let runs: Vec<PathBuf> =
            std::iter::once(folder.to_owned()).chain(baselines.iter().cloned()).collect();
        let truth = document["truth"].as_str().map(|file| resolve_path(document, file));
        // As in the run itself, whose truth may have any frame.
        let reader = MapReader { ignore_frame: true, ..MapReader::default() };
        let curves = compare::compare(&runs, truth.as_deref(), &reader, |_| Ok(None))?;
        parts.push(Part::Chart(Chart {
            title: "Comparison with other runs".into(),
            ..comparison_chart(&curves)
        }));
    }
    let maps = std::iter::once("map").chain(names.iter().map(String::as_str));
    if let Some(map) = maps.map(|name| folder.join(names::map(name))).find(|file| file.exists()) {
        parts.extend(Surface::from_map(&read_cube(&map)?).map(Part::Surface));
    }
    if let Some(png) = bytes(&folder.join(names::SLICES))? {
        parts.push(Part::Picture {
            heading: "Slices".into(),
            description: "Central slices and projections of the maps".into(),
            png,
        });
    }
    Ok(parts)
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
    let directions = Part::Svg(counts.directions_svg(&Colours::css_variables()));
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

fn headline(
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
        (Some(found), _) => headline.push(("Resolution".into(), angstrom(&found.to_string()))),
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
    if let Some(rate) = document["images_per_second"].as_f64() {
        headline.push(("Speed".into(), format!("{rate:.0} images/s")));
    }
    if let Some(seconds) = document["seconds"]["total"].as_f64() {
        headline.push(("Time".into(), duration(seconds)));
    }
    headline
}

/// A phrase with the unit of the page.
fn angstrom(phrase: &str) -> String {
    phrase.replace(" A ", " Å ").replace(" A,", " Å,").replace(" A)", " Å)")
}

/// The number of mixtures per half, if more than one.
fn several_mixtures(document: &Value) -> Option<u64> {
    document["settings"]["mixtures"].as_u64().filter(|&mixtures| mixtures > 1)
}

fn notes(document: &Value, models: usize) -> Vec<String> {
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

fn settings(document: &Value) -> Vec<(String, String)> {
    let settings = document["settings"].as_object().into_iter().flatten();
    settings.map(|(key, value)| (key.replace('_', " "), value.to_string().replace('"', ""))).collect()
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

/// Particle images of each model and the projections of the model, as PNG.
fn images(models: &[(&str, GmmFile)], store: &Store) -> Result<Vec<u8>> {
    let header = store.header();
    let n = header.box_size;
    let geometry = Geometry {
        box_size: n,
        pixel_size: header.pixel_size,
        cutoff: 4.0,
        sampling: Sampling::BandLimited,
        weights: Weights::UNIFORM,
        symmetry: models.first().map_or(Symmetry::C1, |(_, file)| file.symmetry),
    };
    // The device renders band-limited projections without CTF.
    let mut microscope = Filter::new(&Geometry { sampling: Sampling::Points, ..geometry });
    let reader = store.reader();
    let mut block = Block::default();
    let mut rows = Vec::new();
    for (name, file) in models {
        let of_model = store.rows(Subset::from_name(name).unwrap_or(Subset::All));
        let mut device = CpuDevice::new(file.gmm.clone(), geometry);
        let count = (SHOWN / models.len()).min(of_model.len());
        for k in 0..count {
            let row = of_model.start + (2 * k + 1) * of_model.len() / (2 * count);
            reader.read(row..row + 1, &mut block)?;
            let particle = &block.particles[0];
            let observed = block.images.to_vec();
            let view = reader.view(particle);
            let model = device.render(&view.rotation);
            let mut with_ctf = vec![0.0; n * n];
            microscope.image(&view.ctf, &model, n, &mut with_ctf);
            let smooth = low_passed(&observed, n, header.pixel_size);
            let panels = [observed, smooth, with_ctf, model].into_iter().map(|pixels| {
                let image = Array2::from_shape_vec((n, n), pixels).expect("an image has box x box pixels");
                let scale = GreyScale::for_images(std::iter::once(&image));
                (image, scale)
            });
            rows.push(PanelRow { name: format!("{name}, particle {}", row + 1), panels: panels.collect() });
        }
    }
    let sheet = Sheet {
        columns: ["observed", "observed, low-pass", "model with CTF", "model"].map(str::to_owned).to_vec(),
        rows,
        edge: n as f64 * header.pixel_size,
        remark: format!(
            "low-pass: Gaussian, 0.5 at {:.1} Å; separate grey scale for each image",
            half_at(header.pixel_size)
        ),
    };
    sheet.to_png()
}

/// Resolution in angstrom at which the low-pass filter is one half.
fn half_at(pixel_size: f64) -> f64 {
    (LOW_PASS.0 * pixel_size).max(LOW_PASS.1)
}

/// `image` (`[y][x]`, `box_size` pixels each) after the low-pass filter.
fn low_passed(image: &[f32], box_size: usize, pixel_size: f64) -> Vec<f32> {
    let fft = Fft2::<f32>::new(box_size);
    let mut scratch = fft.scratch();
    let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
    fft.forward(image, box_size, &mut spectrum, &mut scratch);
    let exponent =
        std::f64::consts::LN_2 * half_at(pixel_size).powi(2) / (box_size as f64 * pixel_size).powi(2);
    for (i, value) in spectrum.iter_mut().enumerate() {
        let (kx, ky) = ((i / box_size) as f64, frequency(i % box_size, box_size) as f64);
        *value *= (-exponent * (kx * kx + ky * ky)).exp() as f32;
    }
    let mut smooth = vec![0.0; image.len()];
    fft.inverse(&mut spectrum, &mut smooth, box_size, &mut scratch);
    smooth
}
