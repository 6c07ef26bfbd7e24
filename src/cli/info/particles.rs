//! What `info` says of a particle set.

use std::path::Path;

use serde_json::json;

use super::{Args, Description, bytes, length};
use crate::error::Result;
use crate::gmm::Shape;
use crate::particles::store::{CHECKSUM_BLOCK, Dtype, Metadata, Store};
use crate::render::cuda::plan::{Plan, mib};

pub fn describe(path: &Path, args: &Args) -> Result<Description> {
    let store = Store::open(path)?;
    let metadata = store.metadata();
    let n = metadata.len();
    let halves = [0, 1].map(|half| metadata.half.iter().filter(|&&h| h == half).count());
    let defocus = Defocus::of(metadata);
    let size = length(path)?;
    let dtype = match store.dtype() {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
    };
    let yes = |answer| if answer { "yes" } else { "no" };
    let shifted = metadata.shift.iter().filter(|s| **s != [0.0, 0.0]).count();

    let mut rows = vec![
        ("particles", n.to_string()),
        ("box", format!("{} pixels", metadata.box_size)),
        ("pixel size", format!("{} A (Nyquist {:.2} A)", metadata.pixel_size, 2.0 * metadata.pixel_size)),
        ("stored as", dtype.to_owned()),
        ("halves", format!("{} + {}", halves[0], halves[1])),
        ("defocus", format!("{:.0} to {:.0} A, mean {:.0} A", defocus.min, defocus.max, defocus.mean)),
        ("normalised", yes(metadata.normalized).to_owned()),
        ("inverted", yes(metadata.inverted).to_owned()),
        ("shifts to apply", if shifted == 0 { "none".into() } else { format!("in {shifted} particles") }),
    ];
    for (i, optics) in metadata.optics.iter().enumerate() {
        let members = metadata.optics_group.iter().filter(|&&g| g as usize == i).count();
        let name = if i == 0 { "optics groups" } else { "" };
        rows.push((
            name,
            format!(
                "{} of {}: {} kV, Cs {} mm, amplitude contrast {}; {members} particles",
                i + 1,
                metadata.optics.len(),
                optics.voltage,
                optics.spherical_aberration,
                optics.amplitude_contrast
            ),
        ));
    }
    const SHOWN: usize = 3;
    let sources = &metadata.source_files;
    rows.push((
        "sources",
        match sources.len() {
            0 => "none".into(),
            count if count <= SHOWN => sources.join(", "),
            count => format!("{}, and {} more", sources[..SHOWN].join(", "), count - SHOWN),
        },
    ));
    let gpu = GpuMemory::of(metadata, args);
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
    rows.push(("identity", format!("{:08x}", store.identity())));
    rows.push(("file", bytes(size)));
    if args.verify {
        store.verify()?;
        rows.push(("checksums", format!("all {} match", n.div_ceil(CHECKSUM_BLOCK))));
    }
    let json = json!({
        "particles": n,
        "box_size": metadata.box_size,
        "pixel_size": metadata.pixel_size,
        "dtype": dtype,
        "halves": halves,
        "defocus": { "min": defocus.min, "max": defocus.max, "mean": defocus.mean },
        "normalized": metadata.normalized,
        "inverted": metadata.inverted,
        "shifted_particles": shifted,
        "optics": metadata.optics,
        "sources": sources,
        "identity": format!("{:08x}", store.identity()),
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
    Ok(Description { kind: "particle set", rows, json })
}

/// What training takes on a GPU, in bytes.
struct GpuMemory {
    /// All but the particles that are kept there.
    step: usize,
    /// The particles of the first half.
    kept: usize,
}

impl GpuMemory {
    fn of(metadata: &Metadata, args: &Args) -> Self {
        // A large device; a smaller one renders fewer images side by side.
        let (processors, free) = (132, 80 << 30);
        let (count, batch) = (args.gaussians as usize, args.batch as usize);
        let plan = Plan::new(count, Shape::Anisotropic, metadata.box_size, batch, processors, free);
        Self {
            step: plan.bytes() + plan.staged_bytes() + plan.work_estimate(),
            kept: plan.kept_bytes(metadata.half.iter().filter(|&&half| half == 0).count(), false),
        }
    }
}

/// Of the means of both axes' defoci, in angstrom.
struct Defocus {
    min: f64,
    max: f64,
    mean: f64,
}

impl Defocus {
    fn of(metadata: &Metadata) -> Self {
        let each = metadata.ctf.iter().map(|c| 0.5 * (c.defocus_u + c.defocus_v));
        Self {
            min: each.clone().fold(f64::INFINITY, f64::min),
            max: each.clone().fold(f64::NEG_INFINITY, f64::max),
            mean: each.sum::<f64>() / metadata.len() as f64,
        }
    }
}
