//! What `info` says of a Gaussian mixture and of a checkpoint.

use std::path::Path;

use serde_json::{Value, json};

use super::{Description, bytes, length};
use crate::error::Result;
use crate::gmm::files::GmmFile;
use crate::gmm::{Gmm, Shape};
use crate::run_folder::checkpoint::Checkpoint;
use crate::run_folder::identity::RunIdentity;

pub fn describe(path: &Path) -> Result<Description> {
    let file = GmmFile::read(path)?;
    let size = length(path)?;
    let edge = file.box_size as f64 * file.pixel_size;
    let mixture = Mixture::of(&file.gmm);
    let mut rows = mixture.rows();
    rows.insert(2, ("box", format!("{} pixels of {} A ({edge} A)", file.box_size, file.pixel_size)));
    let [least, median, largest] = mixture.scales.map(|s| s * edge);
    rows.push(("in angstrom", format!("scales {least:.2} to {largest:.2} A, median {median:.2} A")));
    rows.push(("file", bytes(size)));
    let mut json = mixture.json();
    json["box_size"] = json!(file.box_size);
    json["pixel_size"] = json!(file.pixel_size);
    json["bytes"] = json!(size);
    Ok(Description { kind: "Gaussian mixture", rows, json })
}

pub fn describe_checkpoint(path: &Path) -> Result<Description> {
    let checkpoint = Checkpoint::read(path)?;
    let size = length(path)?;
    let mixture = Mixture::of(&checkpoint.state.gmm);
    let identity = serde_json::to_value(&checkpoint.identity).unwrap_or_default();
    let RunIdentity { particles, settings } = &checkpoint.identity;
    let mut rows = vec![
        ("epochs done", format!("{} of {}", checkpoint.position.epoch, settings.epochs)),
        ("steps done", checkpoint.clock.step.to_string()),
        ("images seen", checkpoint.clock.images.to_string()),
    ];
    if settings.mixtures > 1 {
        let trained = format!("{} of {}, beside the one below", checkpoint.trained.len(), settings.mixtures);
        rows.push(("mixtures trained", trained));
    }
    rows.extend(mixture.rows());
    rows.push(("particle set", particles.to_string()));
    if let Some(settings) = identity["settings"].as_object() {
        let all: Vec<String> =
            settings.iter().map(|(k, v)| format!("{k} {}", v.to_string().replace('"', ""))).collect();
        rows.push(("settings", all.join(", ")));
    }
    rows.push(("file", bytes(size)));
    let mut json = mixture.json();
    json["epoch"] = json!(checkpoint.position.epoch);
    json["step"] = json!(checkpoint.clock.step);
    json["images"] = json!(checkpoint.clock.images);
    json["mixtures_trained"] = json!(checkpoint.trained.len());
    json["identity"] = identity;
    json["bytes"] = json!(size);
    Ok(Description { kind: "checkpoint", rows, json })
}

/// Numbers of a mixture, in box units.
struct Mixture {
    count: usize,
    isotropic: bool,
    /// Sum of all amplitudes: what a projection adds up to, over D^2.
    amplitude: f64,
    /// Smallest, median and largest standard deviation along the Gaussians' own axes.
    scales: [f64; 3],
    /// Gaussians whose mean lies outside the box.
    outside: usize,
}

impl Mixture {
    fn of(gmm: &Gmm) -> Self {
        let mut scales: Vec<f64> = gmm.scales().collect();
        scales.sort_unstable_by(f64::total_cmp);
        let amplitude = gmm.amplitudes().sum();
        let out = |i: usize| (0..3).any(|plane| gmm.plane(plane)[i].abs() > 0.5);
        Self {
            count: gmm.len(),
            isotropic: gmm.shape() == Shape::Isotropic,
            amplitude,
            // A mixture has at least one Gaussian.
            scales: [scales[0], scales[scales.len() / 2], scales[scales.len() - 1]],
            outside: (0..gmm.len()).filter(|&i| out(i)).count(),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let [least, median, largest] = self.scales;
        vec![
            ("Gaussians", self.count.to_string()),
            ("shape", if self.isotropic { "round: one scale each" } else { "three scales each" }.to_owned()),
            ("scales", format!("{least:.5} to {largest:.5} of the box, median {median:.5}")),
            ("amplitudes", format!("{:.6} in all", self.amplitude)),
            ("outside the box", self.outside.to_string()),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "gaussians": self.count,
            "isotropic": self.isotropic,
            "scales": { "min": self.scales[0], "median": self.scales[1], "max": self.scales[2] },
            "amplitude": self.amplitude,
            "outside": self.outside,
        })
    }
}
