//! `info` of a particle set.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::args::Args;
use super::description::{Description, bytes, length};
use crate::cli::output::name_of;
use crate::error::Result;
use crate::figures::colours::Colours;
use crate::figures::distributions::{CELLS, ParticleCounts};
use crate::figures::particle_page;
use crate::figures::particles::noise_chart;
use crate::files;
use crate::gmm::Shape;
use crate::imaging::Symmetry;
use crate::imaging::ctf::{EvenPolynomial, Optics};
use crate::imaging::sampling::FourierSampling;
use crate::particles::Subset;
use crate::particles::noise::NoisePower;
use crate::particles::statistics::ParticleStatistics;
use crate::particles::store::{DataSetId, Dtype, Header, Store};
use crate::particles::views;
use crate::recipe::settings::Settings;
use crate::render::Sampling;
use crate::render::cuda::buffer_plan::{BufferPlan, mib};

/// Kind of the file.
pub(super) const KIND: &str = "particle set";

/// Number of source files shown.
const SHOWN_SOURCES: usize = 3;

pub(super) fn describe(path: &Path, args: &Args) -> Result<Description> {
    let set = ParticleSet::read(path, args)?;
    if let Some(file) = &args.directions {
        let svg = set.views.directions_svg(&Colours::light());
        files::write_atomically(file, |w| w.write_all(svg.as_bytes()))?;
    }
    let mut rows = set.rows(args);
    let mut json = set.json(args);
    if let Some(file) = &args.noise {
        let (described, noise) = set.draw_noise(file)?;
        rows.push(("noise", described));
        json["noise"] = noise;
    }
    if let Some(file) = &args.pictures {
        particle_page::write(file, &set.store, &name_of(path))?;
        rows.push(("pictures", file.display().to_string()));
    }
    if args.verify {
        set.store.verify()?;
        rows.push(("checksums", format!("all {} match", set.store.len())));
    }
    Ok(Description { kind: KIND, rows, json })
}

/// A particle file with its statistics.
struct ParticleSet {
    store: Store,
    identity: DataSetId,
    statistics: ParticleStatistics,
    views: ParticleCounts,
    sampling: Option<FourierSampling>,
    /// Size of the file in bytes.
    size: u64,
    gpu: GpuMemory,
}

impl ParticleSet {
    fn read(path: &Path, args: &Args) -> Result<Self> {
        let store = Store::open(path)?;
        let mut statistics = ParticleStatistics::new(store.header().optics.len());
        let mut counts = ParticleCounts::default();
        let digests = store.inspect(|_, particle| {
            statistics.add(particle);
            counts.add(particle);
            Ok(())
        })?;
        let sampling = views::sampling(&store, args.symmetry)?;
        let gpu = GpuMemory::estimate(store.header(), args);
        Ok(Self {
            identity: digests.id(),
            statistics,
            views: counts,
            sampling,
            size: length(path)?,
            gpu,
            store,
        })
    }

    /// Measures the noise of both halves, and draws it to `file`. Returns its description as text and as JSON.
    fn draw_noise(&self, file: &Path) -> Result<(String, Value)> {
        let header = self.store.header();
        let edge = header.box_size as f64 * header.pixel_size;
        let (mut curves, mut texts, mut halves) = (Vec::new(), Vec::new(), Vec::new());
        for half in Subset::HALVES {
            if self.store.rows(half).is_empty() {
                continue;
            }
            let noise = NoisePower::estimate(&self.store, self.store.rows(half))?;
            texts.push(format!("{half}: {}", noise.describe()));
            for (group, powers) in noise.groups.iter().enumerate() {
                let points = powers.iter().enumerate().map(|(shell, &power)| [shell as f64 / edge, power]);
                curves.push((format!("{half}, optics group {}", group + 1), points.collect()));
            }
            halves.push(json!({ "half": half.name(), "power": noise.groups }));
        }
        let svg = noise_chart(&curves).to_svg(&Colours::light(), 900.0, 420.0);
        files::write_atomically(file, |w| w.write_all(svg.as_bytes()))?;
        Ok((texts.join("; "), json!(halves)))
    }

    fn dtype(&self) -> &'static str {
        match self.store.dtype() {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
        }
    }

    fn rows(&self, args: &Args) -> Vec<(&'static str, String)> {
        let header = self.store.header();
        let statistics = &self.statistics;
        let yes = |answer| if answer { "yes" } else { "no" };
        let mut rows = vec![
            ("particles", self.store.len().to_string()),
            ("box", format!("{} pixels", header.box_size)),
            ("pixel size", format!("{} A (Nyquist {:.2} A)", header.pixel_size, 2.0 * header.pixel_size)),
            ("stored as", self.dtype().to_owned()),
            ("halves", format!("{} + {}", header.halves[0], header.halves[1])),
            (
                "defocus",
                format!(
                    "{:.0} to {:.0} A, mean {:.0} A",
                    statistics.min_defocus,
                    statistics.max_defocus,
                    statistics.mean_defocus()
                ),
            ),
            (
                "viewing directions",
                self.sampling.map_or_else(|| "none".to_owned(), |sampling| sampling.to_string()),
            ),
            ("normalised", yes(header.normalized).to_owned()),
            ("inverted", yes(header.inverted).to_owned()),
            (
                "shifts to apply",
                match statistics.shifted {
                    0 => "none".into(),
                    count => format!("in {count} particles"),
                },
            ),
        ];
        for (i, optics) in header.optics.iter().enumerate() {
            let name = if i == 0 { "optics groups" } else { "" };
            rows.push((
                name,
                format!(
                    "{} of {}{}: {} kV, Cs {} mm, amplitude contrast {}{}; {} particles",
                    i + 1,
                    header.optics.len(),
                    if optics.name.is_empty() { String::new() } else { format!(" ({})", optics.name) },
                    optics.voltage,
                    optics.spherical_aberration,
                    optics.amplitude_contrast,
                    further_optics(optics),
                    statistics.group_sizes[i]
                ),
            ));
        }
        let sources = &header.source_files;
        rows.push((
            "sources",
            match sources.len() {
                0 => "none".into(),
                count if count <= SHOWN_SOURCES => sources.join(", "),
                count => {
                    format!("{}, and {} more", sources[..SHOWN_SOURCES].join(", "), count - SHOWN_SOURCES)
                }
            },
        ));
        let deeds = self.store.import_record().iter().enumerate();
        rows.extend(deeds.map(|(i, deed)| (if i == 0 { "import" } else { "" }, deed.clone())));
        rows.push(("GPU memory", self.gpu.described(args)));
        rows.push(("identity", self.identity.to_string()));
        rows.push(("file", bytes(self.size)));
        rows
    }

    fn json(&self, args: &Args) -> Value {
        let header = self.store.header();
        let statistics = &self.statistics;
        json!({
            "particles": self.store.len(),
            "box_size": header.box_size,
            "pixel_size": header.pixel_size,
            "dtype": self.dtype(),
            "halves": header.halves,
            "defocus": {
                "min": statistics.min_defocus,
                "max": statistics.max_defocus,
                "mean": statistics.mean_defocus(),
            },
            "directions": {
                "cells": CELLS,
                "fullest_over_mean": self.views.preference(),
                "scf": self.sampling.map(|sampling| sampling.scf),
            },
            "normalized": header.normalized,
            "inverted": header.inverted,
            "shifted_particles": statistics.shifted,
            "optics": header.optics,
            "sources": header.source_files,
            "import": self.store.import_record(),
            "identity": self.identity.to_string(),
            "bytes": self.size,
            "gpu_memory": {
                "gaussians": args.gaussians,
                "symmetry": args.symmetry,
                "images_a_step": args.batch,
                "bytes_a_rank": self.gpu.step,
                "bytes_of_half1_kept": self.gpu.particles,
            },
            // A mismatch is an error, so this is reached only if all checksums match.
            "verified": args.verify,
        })
    }
}

/// GPU memory of a training run, in bytes.
#[derive(Clone, Copy)]
struct GpuMemory {
    /// All but the particles.
    step: usize,
    /// The particles of half 1 as 32-bit floats.
    particles: usize,
}

impl GpuMemory {
    fn estimate(header: &Header, args: &Args) -> Self {
        // A large GPU: a smaller one renders fewer images at a time.
        let (multiprocessors, free) = (132, 80 << 30);
        let (symmetry, batch) = (args.symmetry, args.batch as usize);
        let counts = [Settings::of_unit(args.gaussians as usize, symmetry), symmetry.order()];
        let sizes = [header.box_size, Sampling::BandLimited.grid(header.box_size)];
        let plan = BufferPlan::new(counts, Shape::Anisotropic, sizes, batch, multiprocessors, free);
        Self {
            step: plan.bytes() + plan.staged_bytes() + plan.work_estimate(),
            particles: plan.resident_bytes(header.halves[0], false),
        }
    }

    fn described(self, args: &Args) -> String {
        let of_group = match args.symmetry {
            Symmetry::C1 => String::new(),
            symmetry => format!(" of symmetry {symmetry}"),
        };
        format!(
            "{} per rank for {} Gaussians{of_group} and {} images per step; {} more to keep half 1 there, {} in 16 bits",
            mib(self.step),
            args.gaussians,
            args.batch,
            mib(self.particles),
            mib(self.particles / 2)
        )
    }
}

/// What an optics group has beyond the numbers that every group has.
fn further_optics(optics: &Optics) -> String {
    let limit = format!("resolution limit {:.2} A", optics.resolution_limit);
    [
        (optics.even != EvenPolynomial::ZERO, "even aberrations"),
        (optics.magnification != Optics::ISOTROPIC, "anisotropic magnification"),
        (optics.premultiplied, "images multiplied by the CTF"),
        (optics.resolution_limit > 0.0, &limit),
    ]
    .iter()
    .filter(|(has, _)| *has)
    .map(|(_, what)| format!(", {what}"))
    .collect()
}
