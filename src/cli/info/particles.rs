//! What `info` says of a particle set.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{Args, Description, bytes, length};
use crate::error::Result;
use crate::figures::colours::Colours;
use crate::figures::distributions::{CELLS, ParticleCounts};
use crate::files;
use crate::gmm::Shape;
use crate::particles::store::{Dtype, Header, Particle, Store};
use crate::render::Sampling;
use crate::render::cuda::buffer_plan::{BufferPlan, mib};

/// What such a file is called.
pub const KIND: &str = "particle set";

pub fn describe(path: &Path, args: &Args) -> Result<Description> {
    let store = Store::open(path)?;
    let header = store.header();
    let (n, halves) = (store.len(), header.halves);
    let mut sums = Sums::new(header.optics.len());
    let identity = store.inspect(|_, particle| {
        sums.add(particle);
        Ok(())
    })?;
    let Sums { defocus, shifted, members, views } = sums;
    if let Some(file) = &args.directions {
        let svg = views.directions_svg(&Colours::light());
        files::write_atomically(file, |w| w.write_all(svg.as_bytes()))?;
    }
    let size = length(path)?;
    let dtype = match store.dtype() {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
    };
    let yes = |answer| if answer { "yes" } else { "no" };

    let mut rows = vec![
        ("particles", n.to_string()),
        ("box", format!("{} pixels", header.box_size)),
        ("pixel size", format!("{} A (Nyquist {:.2} A)", header.pixel_size, 2.0 * header.pixel_size)),
        ("stored as", dtype.to_owned()),
        ("halves", format!("{} + {}", halves[0], halves[1])),
        (
            "defocus",
            format!("{:.0} to {:.0} A, mean {:.0} A", defocus.min, defocus.max, defocus.sum / n as f64),
        ),
        (
            "directions of view",
            format!("{:.1} times the mean in the fullest of {CELLS} cells", views.preference()),
        ),
        ("normalised", yes(header.normalized).to_owned()),
        ("inverted", yes(header.inverted).to_owned()),
        ("shifts to apply", if shifted == 0 { "none".into() } else { format!("in {shifted} particles") }),
    ];
    for (i, optics) in header.optics.iter().enumerate() {
        let name = if i == 0 { "optics groups" } else { "" };
        rows.push((
            name,
            format!(
                "{} of {}: {} kV, Cs {} mm, amplitude contrast {}; {} particles",
                i + 1,
                header.optics.len(),
                optics.voltage,
                optics.spherical_aberration,
                optics.amplitude_contrast,
                members[i]
            ),
        ));
    }
    const SHOWN: usize = 3;
    let sources = &header.source_files;
    rows.push((
        "sources",
        match sources.len() {
            0 => "none".into(),
            count if count <= SHOWN => sources.join(", "),
            count => format!("{}, and {} more", sources[..SHOWN].join(", "), count - SHOWN),
        },
    ));
    let gpu = GpuMemory::of(header, args);
    rows.push((
        "GPU memory",
        format!(
            "{} for {} Gaussians and {} images a step, on each rank; half 1 kept there takes {} more, {} in 16 bits",
            mib(gpu.step),
            args.gaussians,
            args.batch,
            mib(gpu.kept),
            mib(gpu.kept / 2)
        ),
    ));
    rows.push(("identity", identity.to_string()));
    rows.push(("file", bytes(size)));
    if args.verify {
        store.verify()?;
        rows.push(("checksums", format!("all {n} match")));
    }
    let json = json!({
        "particles": n,
        "box_size": header.box_size,
        "pixel_size": header.pixel_size,
        "dtype": dtype,
        "halves": halves,
        "defocus": { "min": defocus.min, "max": defocus.max, "mean": defocus.sum / n as f64 },
        "directions": { "cells": CELLS, "fullest_over_mean": views.preference() },
        "normalized": header.normalized,
        "inverted": header.inverted,
        "shifted_particles": shifted,
        "optics": header.optics,
        "sources": sources,
        "identity": identity.to_string(),
        "bytes": size,
        "gpu_memory": {
            "gaussians": args.gaussians,
            "images_a_step": args.batch,
            "bytes_a_rank": gpu.step,
            "bytes_of_half1_kept": gpu.kept,
        },
        // Reached only when they match: a mismatch is an error.
        "verified": args.verify,
    });
    Ok(Description { kind: KIND, rows, json })
}

/// What training takes on a GPU, in bytes.
struct GpuMemory {
    /// All but the particles that are kept there.
    step: usize,
    /// The particles of the first half.
    kept: usize,
}

impl GpuMemory {
    fn of(header: &Header, args: &Args) -> Self {
        // A large device; a smaller one renders fewer images side by side.
        let (processors, free) = (132, 80 << 30);
        let (count, batch) = (args.gaussians as usize, args.batch as usize);
        let sizes = [header.box_size, Sampling::BandLimited.grid(header.box_size)];
        let plan = BufferPlan::new(count, Shape::Anisotropic, sizes, batch, processors, free);
        Self {
            step: plan.bytes() + plan.staged_bytes() + plan.work_estimate(),
            kept: plan.resident_bytes(header.halves[0], false),
        }
    }
}

/// What is counted particle by particle.
struct Sums {
    defocus: Defocus,
    /// Particles with a shift to apply.
    shifted: usize,
    /// Particles of each optics group.
    members: Vec<usize>,
    /// Where they are seen from.
    views: ParticleCounts,
}

/// Of the means of both axes' defoci, in angstrom.
struct Defocus {
    min: f64,
    max: f64,
    sum: f64,
}

impl Sums {
    fn new(groups: usize) -> Self {
        let defocus = Defocus { min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0 };
        Self { defocus, shifted: 0, members: vec![0; groups], views: ParticleCounts::default() }
    }

    fn add(&mut self, particle: &Particle) {
        let defocus = 0.5 * (particle.ctf.defocus_u + particle.ctf.defocus_v);
        self.defocus.min = self.defocus.min.min(defocus);
        self.defocus.max = self.defocus.max.max(defocus);
        self.defocus.sum += defocus;
        self.shifted += usize::from(particle.shift != [0.0; 2]);
        self.members[particle.optics_group as usize] += 1;
        self.views.add(particle);
    }
}
