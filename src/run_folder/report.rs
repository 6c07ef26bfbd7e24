//! report.html of a run: gathered from its folder, run.json and the particles, so that it can be made again at any time.

use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use rustfft::num_complex::Complex;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::compare;
use crate::evaluate::cross_validation::LABEL;
use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD, REFERENCE_THRESHOLD};
use crate::evaluate::fsc_table;
use crate::evaluate::maps::read_cube;
use crate::figures::chart::Chart;
use crate::figures::colours::Colours;
use crate::figures::comparison::comparison_chart;
use crate::figures::distributions::{ParticleCounts, logarithmic_chart};
use crate::figures::panels::{GreyScale, Row, Sheet};
use crate::figures::plots::{fsc_chart, loss_chart, rate_chart};
use crate::figures::report::{Part, ReportData, Surface, write_report};
use crate::gmm::files::GmmFile;
use crate::imaging::fourier::{Fft2, frequency};
use crate::particles::Subset;
use crate::particles::store::{Block, Store};
use crate::progress::duration;
use crate::render::cpu::CpuDevice;
use crate::render::cpu::residual::Filter;
use crate::render::{Geometry, Sampling, Weights};
use crate::run_folder::metrics;

/// Particle images that are shown, over all models.
const SHOWN: usize = 4;
/// Where their low-pass filter halves amplitudes: this many pixels, or angstrom where that is coarser.
const LOW_PASS: (f64, f64) = (4.0, 20.0);

/// Writes report.html into the run folder `folder`, from what is there, from `document`, which is or becomes its run.json, and
/// from the particles of `store`. What the folder lacks, the page lacks. The FSC of the runs in `baselines` is shown with its own.
///
/// # Errors
/// When a file of the run that is there or the particles cannot be read, or the page cannot be written.
pub fn write(folder: &Path, document: &Value, store: &Store, baselines: &[PathBuf]) -> Result<()> {
    let header = store.header();
    let names: Vec<String> = list(&document["particles"]["models"])
        .filter_map(|model| Some(model["name"].as_str()?.to_owned()))
        .collect();
    let curves = match fsc_table::read(&folder.join("fsc.csv"), header.box_size, header.pixel_size) {
        Ok(curves) => curves,
        Err(_) if !folder.join("fsc.csv").exists() => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut models = Vec::new();
    for name in &names {
        let file = folder.join(format!("gmm_{name}.h5"));
        if file.exists() {
            models.push((name.as_str(), GmmFile::read(&file)?));
        }
    }
    let mut parts = Vec::new();
    if !curves.is_empty() {
        parts.push(Part::Chart(fsc_chart(&curves)));
    }
    if !baselines.is_empty() {
        let runs: Vec<PathBuf> =
            std::iter::once(folder.to_owned()).chain(baselines.iter().cloned()).collect();
        let truth = document["truth"].as_str().map(|file| from_where_it_ran(document, file));
        let curves = compare::compare(&runs, truth.as_deref(), |_| Ok(None))?;
        parts.push(Part::Chart(Chart { title: "Beside other runs".into(), ..comparison_chart(&curves) }));
    }
    let maps = std::iter::once("map").chain(names.iter().map(String::as_str));
    if let Some(map) = maps.map(|name| folder.join(format!("{name}.mrc"))).find(|file| file.exists()) {
        parts.extend(Surface::of(&read_cube(&map)?).map(Part::Surface));
    }
    if let Some(png) = bytes(&folder.join("slices.png"))? {
        parts.push(Part::Picture {
            heading: "Slices".into(),
            description: "Central slices and projections of the maps".into(),
            png,
        });
    }
    if !models.is_empty() {
        parts.push(Part::Picture {
            heading: "Particles and what the model makes of them".into(),
            description: "Particle images as observed and low-passed, and the model's images of them with and without CTF"
                .into(),
            png: images(&models, store)?,
        });
    }
    let lines: Vec<(String, Vec<Value>)> =
        names.iter().map(|name| (name.clone(), metrics::lines(folder, name))).collect();
    if lines.iter().any(|(_, lines)| !lines.is_empty()) {
        parts.push(Part::Chart(loss_chart(&over_epochs(&lines, "loss"))));
        let speed = over_epochs(&lines, "images_per_second");
        parts.push(Part::Charts(vec![
            rate_chart("Learning rate", "Base rate", &over_epochs(&lines, "rate")),
            rate_chart("Speed", "Images/s", &speed),
        ]));
    }
    let mut counts = ParticleCounts::default();
    store.inspect(|_, particle| {
        counts.add(particle);
        Ok(())
    })?;
    parts.push(Part::Svg(counts.directions_svg(&Colours::of_the_page())));
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
    parts.push(Part::Charts(charts));
    let data = ReportData {
        title: format!("cryosplat-mpi: {}", folder.display()),
        headline: headline(document, store, &curves),
        verdict: document["cross_validation"]["verdict"]
            .as_str()
            .map(|verdict| (verdict.to_owned(), document["cross_validation"]["excess"].is_object())),
        parts,
        notes: notes(document, names.len()),
        settings: settings(document),
        command: list(&document["command"]).filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
    };
    write_report(&folder.join("report.html"), &data)
}

/// The particle file that a run.json names.
pub fn particles_of(document: &Value) -> Option<PathBuf> {
    Some(from_where_it_ran(document, document["particles"]["file"].as_str()?))
}

/// A path of a run.json, from the folder that the run was started in.
fn from_where_it_ran(document: &Value, file: &str) -> PathBuf {
    Path::new(document["working_directory"].as_str().unwrap_or("")).join(file)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a file holds; nothing where it is not there.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read the picture", "check the folder")(error)),
    }
}

fn headline(document: &Value, store: &Store, curves: &[(String, Fsc)]) -> Vec<(String, String)> {
    let header = store.header();
    let mut headline: Vec<(String, String)> = Vec::new();
    let resolution = |crossing| match crossing {
        Crossing::At(resolution) => format!("{resolution:.2} Å"),
        Crossing::NeverBelow(finest) => format!("< {finest:.2} Å"),
        Crossing::BelowFromStart(coarsest) => format!("> {coarsest:.2} Å"),
    };
    for (label, fsc) in curves.iter().take(2) {
        headline.push((format!("FSC = 0.143, {label}"), resolution(fsc.crossing(GOLD_STANDARD))));
    }
    if let Some((label, fsc)) = curves.iter().find(|(label, _)| label.starts_with(LABEL)) {
        headline.push((format!("FSC = 0.143, {label}"), resolution(fsc.crossing(GOLD_STANDARD))));
    }
    if let Some((label, fsc)) = curves.first() {
        headline.push((format!("FSC = 0.5, {label}"), resolution(fsc.crossing(REFERENCE_THRESHOLD))));
    }
    for model in list(&document["particles"]["models"]) {
        let name = model["name"].as_str().unwrap_or("model");
        headline.push((format!("Particles in {name}"), model["particles"].to_string()));
    }
    if let Some(gaussians) = document["settings"]["gaussians"].as_u64() {
        let of_all = several_mixtures(document)
            .map_or(String::new(), |mixtures| format!(", in each of {mixtures} mixtures"));
        headline.push(("Gaussians of each half".into(), format!("{gaussians}{of_all}")));
    }
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

/// How many mixtures a half's map is the mean of, where it is not one alone.
fn several_mixtures(document: &Value) -> Option<u64> {
    document["settings"]["mixtures"].as_u64().filter(|&mixtures| mixtures > 1)
}

fn notes(document: &Value, models: usize) -> Vec<String> {
    let text = |value: &Value| value.to_string().replace('"', "");
    let mut notes = vec![format!(
        "{} MPI ranks; each: {}. The identity of the particle set is {}.",
        text(&document["ranks"]),
        text(&document["device"]),
        text(&document["particles"]["identity"])
    )];
    if let Some(mixtures) = several_mixtures(document) {
        notes.push(format!(
            "Each half's map is the mean of {mixtures} mixtures, trained one after the other from random starts of their own: \
             the loss begins anew with each."
        ));
    }
    if models > 1 {
        notes.push(
            "Half maps of the same model can agree with each other better than either agrees with the truth: both share the \
             model's bias. The cross-validated FSC is what is left of their agreement when each is compared with the voxel map \
             of the other half's particles, as far as those tell; with a truth it is the product of both half maps' FSC with it."
                .into(),
        );
    }
    notes
}

fn settings(document: &Value) -> Vec<(String, String)> {
    let settings = document["settings"].as_object().into_iter().flatten();
    settings.map(|(key, value)| (key.replace('_', " "), value.to_string().replace('"', ""))).collect()
}

/// Curves of a quantity of the metrics by model, thinned to what a chart can show: (epoch, mean of neighbours), for single batches
/// scatter far more than the curve falls.
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

/// The standard deviation of each Gaussian in angstrom, the geometric mean of its axes.
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

/// Particles of each model beside its images of them, as PNG.
fn images(models: &[(&str, GmmFile)], store: &Store) -> Result<Vec<u8>> {
    let header = store.header();
    let n = header.box_size;
    let geometry = Geometry {
        box_size: n,
        pixel_size: header.pixel_size,
        cutoff: 4.0,
        sampling: Sampling::BandLimited,
        weights: Weights::UNIFORM,
    };
    // The device's images are projections already, band-limited: the CTF is all that they lack.
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
            let model = device.render(&particle.rotation);
            let mut seen = vec![0.0; n * n];
            microscope.image(&reader.ctf(particle), &model, n, &mut seen);
            let smooth = low_passed(&observed, n, header.pixel_size);
            let panels = [observed, smooth, seen, model].into_iter().map(|pixels| {
                let image = Array2::from_shape_vec((n, n), pixels).expect("an image has box x box pixels");
                let scale = GreyScale::of(std::iter::once(&image));
                (image, scale)
            });
            rows.push(Row { name: format!("{name}, particle {}", row + 1), panels: panels.collect() });
        }
    }
    let sheet = Sheet {
        columns: ["observed", "observed, low-passed", "model with CTF", "model"].map(str::to_owned).to_vec(),
        rows,
        edge: n as f64 * header.pixel_size,
        remark: format!(
            "low-pass: a Gaussian, half at {:.1} Å; each image has a grey scale of its own",
            half_at(header.pixel_size)
        ),
    };
    sheet.to_png()
}

/// Resolution in angstrom where the low-pass filter halves amplitudes.
fn half_at(pixel_size: f64) -> f64 {
    (LOW_PASS.0 * pixel_size).max(LOW_PASS.1)
}

fn low_passed(image: &[f32], box_size: usize, pixel_size: f64) -> Vec<f32> {
    let fft = Fft2::<f32>::new(box_size);
    let mut scratch = fft.scratch();
    let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
    fft.forward(image, box_size, &mut spectrum, &mut scratch);
    let falls = std::f64::consts::LN_2 * half_at(pixel_size).powi(2) / (box_size as f64 * pixel_size).powi(2);
    for (i, value) in spectrum.iter_mut().enumerate() {
        let (kx, ky) = ((i / box_size) as f64, frequency(i % box_size, box_size) as f64);
        *value *= (-falls * (kx * kx + ky * ky)).exp() as f32;
    }
    let mut smooth = vec![0.0; image.len()];
    fft.inverse(&mut spectrum, &mut smooth, box_size, &mut scratch);
    smooth
}
