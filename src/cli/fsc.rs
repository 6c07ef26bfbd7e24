//! `cryosplat-mpi fsc`.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{Error, Result};
use crate::evaluate::fsc::{GOLD_STANDARD, HALF};
use crate::evaluate::mask::{DEFAULT_EDGE, DEFAULT_RADIUS};
use crate::evaluate::{Crossing, Fsc, Mask, maps, write_fsc_files};

/// Arguments of `fsc`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask sphere -o run/fsc_masked\n  \
                        cryosplat-mpi fsc run/map.mrc truth.mrc --json"
)]
pub struct Args {
    /// The first map (MRC): a half map.
    #[arg(value_name = "A.mrc")]
    first: PathBuf,
    /// The second map (MRC): the other half map, or a reference.
    #[arg(value_name = "B.mrc")]
    second: PathBuf,
    /// Write STEM.csv, STEM.svg and STEM.png.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Multiply both maps by a mask: none, sphere, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|FILE", default_value = "none")]
    mask: OsString,
    /// Where the spherical mask reaches 0, in angstrom from the centre [default: 0.45 of the box].
    #[arg(long, value_name = "A")]
    radius: Option<f64>,
    /// Width of the spherical mask's soft edge, inside the radius, in angstrom [default: 3 pixels].
    #[arg(long, value_name = "A")]
    edge: Option<f64>,
    /// Pixel size of both maps in angstrom, in place of what their headers say.
    #[arg(long, value_name = "A")]
    pixel_size: Option<f64>,
    /// Print one JSON object, with all shells.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let curves = curves(args)?;
    if let Some(output) = &args.output {
        let stem = output.file_name().ok_or_else(|| {
            Error::input(output, "", "is not a file name", "give -o a name such as run/fsc")
        })?;
        let folder = output.parent().unwrap_or(Path::new(""));
        write_fsc_files(folder, &stem.to_string_lossy(), &curves)?;
    }
    super::print(if args.json { as_json(&curves) } else { as_table(&curves) }.as_bytes())
}

/// The FSC without a mask, and with the mask where one is asked for.
fn curves(args: &Args) -> Result<Vec<(String, Fsc)>> {
    if args.mask != "sphere" && (args.radius.is_some() || args.edge.is_some()) {
        return Err(Error::request(
            format!("--radius and --edge describe a sphere, and the mask is {}", args.mask.display()),
            "add --mask sphere",
        ));
    }
    let mut first = maps::read_cube(&args.first)?;
    let mut second = maps::read_cube(&args.second)?;
    if let Some(pixel_size) = args.pixel_size {
        if !(pixel_size.is_finite() && pixel_size > 0.0) {
            return Err(Error::request(
                format!("a pixel size of {pixel_size} A is impossible"),
                "give --pixel-size above 0",
            ));
        }
        (first.pixel_size, second.pixel_size) = (pixel_size, pixel_size);
    }
    maps::check_comparable((&args.first, &first), (&args.second, &second))?;
    maps::check_varies(&args.first, &first)?;
    maps::check_varies(&args.second, &second)?;

    let box_size = first.data.dim().0;
    let mut curves = Vec::new();
    if args.mask == "sphere" {
        let radius = args.radius.map_or(DEFAULT_RADIUS * box_size as f64, |a| a / first.pixel_size);
        let edge = args.edge.map_or(DEFAULT_EDGE.min(radius), |a| a / first.pixel_size);
        let mask = Mask::sphere(box_size, radius, edge)?;
        curves.push(("spherical mask".to_owned(), Fsc::between_masked(&first, &second, &mask)?));
    } else if args.mask != "none" {
        let mask = Mask::read(Path::new(&args.mask), box_size)?;
        curves.push(("masked".to_owned(), Fsc::between_masked(&first, &second, &mask)?));
    }
    curves.push(("no mask".to_owned(), Fsc::between(&first, &second)?));
    Ok(curves)
}

fn as_table(curves: &[(String, Fsc)]) -> String {
    let mut text = format!("{:15} {:>12} {:>12} {:>10}\n", "", "FSC = 0.143", "FSC = 0.5", "mean FSC");
    let short = |crossing| match crossing {
        Crossing::At(resolution) => format!("{resolution:.2} A"),
        Crossing::NeverBelow(finest) => format!("< {finest:.2} A"),
        Crossing::BelowFromStart(coarsest) => format!("> {coarsest:.2} A"),
    };
    let (mut never, mut from_start) = (false, false);
    for (label, fsc) in curves {
        let crossings = [GOLD_STANDARD, HALF].map(|t| fsc.crossing(t));
        never |= crossings.iter().any(|c| matches!(c, Crossing::NeverBelow(_)));
        from_start |= crossings.iter().any(|c| matches!(c, Crossing::BelowFromStart(_)));
        let [gold, half] = crossings.map(short);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:15} {gold:>12} {half:>12} {:>10.4}", fsc.mean());
    }
    if never {
        text += "< means: never below the threshold up to Nyquist; the last shell is given\n";
    }
    if from_start {
        text += "> means: below the threshold from the first shell on, which is given\n";
    }
    text
}

fn as_json(curves: &[(String, Fsc)]) -> String {
    let crossing = |crossing: Crossing| {
        let (outcome, resolution) = match crossing {
            Crossing::At(r) => ("crossed", r),
            Crossing::NeverBelow(r) => ("never below", r),
            Crossing::BelowFromStart(r) => ("below from start", r),
        };
        json!({ "outcome": outcome, "resolution": resolution })
    };
    let curves: Vec<_> = curves
        .iter()
        .map(|(label, fsc)| {
            json!({
                "label": label,
                "box_size": fsc.box_size,
                "pixel_size": fsc.pixel_size,
                "fsc_0.143": crossing(fsc.crossing(GOLD_STANDARD)),
                "fsc_0.5": crossing(fsc.crossing(HALF)),
                "mean": fsc.mean(),
                "shells": fsc.shells,
            })
        })
        .collect();
    json!({ "curves": curves }).to_string() + "\n"
}
