//! `info` of a particle set of another program: a STAR or .cs file.

use std::path::Path;

use serde_json::json;

use super::args::Args;
use super::description::Description;
use crate::cli::output::name_of;
use crate::cli::sample::{Sample, SetSource};
use crate::error::{Error, Result};
use crate::figures::particle_page;
use crate::files::Claims;
use crate::particles::import::format;
use crate::particles::import::half_sets::HalfOrigin;
use crate::particles::import::pipeline;
use crate::particles::import::set::ReadOptions;
use crate::particles::import::stacks::Stacks;
use crate::particles::store::Store;

/// Kind of the file.
pub(super) const KIND: &str = "particle set of another program";

pub(super) fn describe(path: &Path, args: &Args) -> Result<Description> {
    if args.verify {
        return Err(Error::input(
            path,
            "",
            "is a STAR or .cs file, which has no checksums",
            "leave out --verify",
        ));
    }
    let source = SetSource {
        datadir: args.datadir.clone(),
        passthrough: args.passthrough.clone(),
        ..SetSource::default()
    };
    let read = ReadOptions { datadir: args.datadir.as_deref(), ..ReadOptions::default() };
    let set = format::read(path, &source.companions(), &read)?;
    let properties = set.properties();
    if let Some(page) = &args.pictures {
        let mut claims = Claims::new();
        pipeline::reads(&mut claims, properties, &Stacks::find(properties)?);
        claims.writes(page).check()?;
    }
    let halves = properties.halves();
    let (column, origin) = match properties.half_sets.origin {
        HalfOrigin::Column(column) => (Some(column), format!("given by {column}")),
        HalfOrigin::Drawn(_) => (None, "none given: `import` draws them at random".into()),
    };
    let stacks = properties.stacks.all().len();
    let mut rows = vec![
        ("particles", properties.len().to_string()),
        ("halves", format!("{} + {}, {origin}", halves[0], halves[1])),
        ("images", format!("{} distinct in {stacks} stacks", properties.half_sets.copies.images)),
    ];
    let classes = properties.choice.classes();
    if classes.len() > 1 {
        rows.push(("classes", format!("{}: `import --class K` imports one", classes.len())));
    }
    for (i, (optics, raw)) in properties.optics.iter().zip(&properties.raw).enumerate() {
        let raw_box = raw.box_size.map_or(String::new(), |size| format!("{size} pixels of "));
        rows.push((
            if i == 0 { "optics groups" } else { "" },
            format!(
                "{} kV, Cs {} mm, amplitude contrast {}; {raw_box}{:.4} A; {} particles",
                optics.voltage,
                optics.spherical_aberration,
                optics.amplitude_contrast,
                raw.pixel_size,
                raw.particles
            ),
        ));
    }
    let json = json!({
        "particles": properties.len(),
        "halves": halves,
        "halves_from": column,
        "images": properties.half_sets.copies.images,
        "stacks": stacks,
        "classes": classes,
        "optics": properties.optics,
    });
    if let Some(page) = &args.pictures {
        let sample = Sample::of(path, &source)?;
        particle_page::write(
            page,
            &Store::open(&sample.particles())?,
            &format!("{}, a random sample", name_of(path)),
        )?;
        rows.push(("pictures", format!("{}, of a random sample", page.display())));
    }
    Ok(Description { kind: KIND, rows, json })
}
