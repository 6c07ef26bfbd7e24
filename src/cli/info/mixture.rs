//! `info` of a Gaussian mixture and of a checkpoint.

use std::path::Path;

use serde_json::{Value, json};

use super::description::{Description, bytes, length};
use crate::error::Result;
use crate::gmm::files::GmmFile;
use crate::gmm::ply;
use crate::gmm::statistics::MixtureStatistics;
use crate::imaging::Symmetry;
use crate::run_folder::checkpoint::Checkpoint;
use crate::run_folder::identity::RunIdentity;

pub(super) fn describe(path: &Path) -> Result<Description> {
    let file = GmmFile::read(path)?;
    let size = length(path)?;
    let edge = file.box_size as f64 * file.pixel_size;
    let mixture = MixtureStatistics::of(&file.gmm);
    let mut rows = mixture_rows(&mixture);
    rows.insert(2, ("box", format!("{} pixels of {} A ({edge} A)", file.box_size, file.pixel_size)));
    let [least, median, largest] = mixture.scales.map(|s| s * edge);
    rows.push(("in angstrom", format!("scales {least:.2} to {largest:.2} A, median {median:.2} A")));
    rows.push(("file", bytes(size)));
    let mut json = mixture_json(&mixture);
    if file.symmetry != Symmetry::C1 {
        rows.insert(1, ("symmetry", file.count()));
        json["symmetry"] = json!(file.symmetry);
    }
    json["box_size"] = json!(file.box_size);
    json["pixel_size"] = json!(file.pixel_size);
    json["bytes"] = json!(size);
    Ok(Description { kind: "Gaussian mixture", rows, json })
}

pub(super) fn describe_ply(path: &Path) -> Result<Description> {
    let (gmm, symmetry) = ply::read(path)?;
    let mixture = MixtureStatistics::of(&gmm);
    let size = length(path)?;
    let mut rows = mixture_rows(&mixture);
    rows.push((
        "box",
        "not in a PLY file: give --box and --pixel-size to the commands that take it".to_owned(),
    ));
    rows.push(("file", bytes(size)));
    let mut json = mixture_json(&mixture);
    if symmetry != Symmetry::C1 {
        rows.insert(1, ("symmetry", symmetry.to_string()));
        json["symmetry"] = json!(symmetry);
    }
    json["bytes"] = json!(size);
    Ok(Description { kind: "Gaussian mixture (PLY)", rows, json })
}

pub(super) fn describe_checkpoint(path: &Path) -> Result<Description> {
    let checkpoint = Checkpoint::read(path)?;
    let size = length(path)?;
    let mixture = MixtureStatistics::of(&checkpoint.state.gmm);
    let identity = serde_json::to_value(&checkpoint.identity).unwrap_or_default();
    let RunIdentity { particles, settings, .. } = &checkpoint.identity;
    let mut rows = vec![
        ("epochs done", format!("{} of {}", checkpoint.position.epoch, settings.epochs)),
        ("steps done", checkpoint.clock.step.to_string()),
        ("images seen", checkpoint.clock.images.to_string()),
    ];
    if settings.mixtures > 1 {
        let trained = checkpoint.trained.len().saturating_sub(settings.refining_mixtures());
        let trained = format!("{trained} of {}, besides the one below", settings.mixtures);
        rows.push(("mixtures trained", trained));
    }
    if !settings.densify.is_empty() {
        rows.push(("Gaussians at the end", format!("{}{}", settings.gaussians, settings.densification())));
    }
    rows.extend(mixture_rows(&mixture));
    if settings.symmetry != Symmetry::C1 {
        rows.push(("symmetry", settings.symmetry.to_string()));
    }
    rows.push(("particle set", particles.to_string()));
    if let Some(settings) = identity["settings"].as_object() {
        let all: Vec<String> =
            settings.iter().map(|(k, v)| format!("{k} {}", v.to_string().replace('"', ""))).collect();
        rows.push(("settings", all.join(", ")));
    }
    rows.push(("file", bytes(size)));
    let mut json = mixture_json(&mixture);
    json["epoch"] = json!(checkpoint.position.epoch);
    json["step"] = json!(checkpoint.clock.step);
    json["images"] = json!(checkpoint.clock.images);
    json["mixtures_trained"] = json!(checkpoint.trained.len());
    json["identity"] = identity;
    json["bytes"] = json!(size);
    Ok(Description { kind: "checkpoint", rows, json })
}

fn mixture_rows(mixture: &MixtureStatistics) -> Vec<(&'static str, String)> {
    let [least, median, largest] = mixture.scales;
    vec![
        ("Gaussians", mixture.count.to_string()),
        (
            "shape",
            if mixture.isotropic { "isotropic: one scale each" } else { "three scales each" }.to_owned(),
        ),
        ("scales", format!("{least:.5} to {largest:.5} of the box, median {median:.5}")),
        ("amplitudes", format!("{:.6} in total", mixture.amplitude)),
        ("outside the box", mixture.outside.to_string()),
    ]
}

fn mixture_json(mixture: &MixtureStatistics) -> Value {
    json!({
        "gaussians": mixture.count,
        "isotropic": mixture.isotropic,
        "scales": { "min": mixture.scales[0], "median": mixture.scales[1], "max": mixture.scales[2] },
        "amplitude": mixture.amplitude,
        "outside": mixture.outside,
    })
}
