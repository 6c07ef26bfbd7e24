//! FSC curves as commands print them, and the mask under which they are taken.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::fsc::{GOLD_STANDARD, HALF};
use crate::evaluate::mask::{DEFAULT_EDGE, DEFAULT_RADIUS};
use crate::evaluate::{Crossing, Fsc, Mask};

/// What maps are multiplied by.
#[derive(Debug, clap::Args)]
pub struct MaskOptions {
    /// Multiply the maps by a mask: none, sphere, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|FILE", default_value = "none")]
    mask: OsString,
    /// Where the spherical mask reaches 0, in angstrom from the centre [default: 0.45 of the box].
    #[arg(long, value_name = "A")]
    radius: Option<f64>,
    /// Width of the spherical mask's soft edge, inside the radius, in angstrom [default: 3 pixels].
    #[arg(long, value_name = "A")]
    edge: Option<f64>,
}

impl MaskOptions {
    /// Checks that the options fit each other.
    ///
    /// # Errors
    /// When a sphere is described, and none is asked for.
    pub fn check(&self) -> Result<()> {
        if self.mask != "sphere" && (self.radius.is_some() || self.edge.is_some()) {
            return Err(Error::request(
                format!("--radius and --edge describe a sphere, and the mask is {}", self.mask.display()),
                "add --mask sphere",
            ));
        }
        Ok(())
    }

    /// The mask, with its name, for maps of this box (pixels) and pixel size (angstrom).
    ///
    /// # Errors
    /// When the sphere cannot be made, or the file cannot be used.
    pub fn make(&self, box_size: usize, pixel_size: f64) -> Result<Option<(&'static str, Mask)>> {
        if self.mask == "none" {
            return Ok(None);
        }
        if self.mask != "sphere" {
            return Ok(Some(("masked", Mask::read(Path::new(&self.mask), box_size)?)));
        }
        let radius = self.radius.map_or(DEFAULT_RADIUS * box_size as f64, |a| a / pixel_size);
        let edge = self.edge.map_or(DEFAULT_EDGE.min(radius), |a| a / pixel_size);
        Ok(Some(("spherical mask", Mask::sphere(box_size, radius, edge)?)))
    }
}

/// Curves as a table, a line each.
pub fn as_table<'a>(curves: impl Iterator<Item = (&'a str, &'a Fsc)> + Clone) -> String {
    let width = curves.clone().map(|(label, _)| label.chars().count()).fold(15, usize::max);
    let mut text = format!("{:width$} {:>12} {:>12} {:>10}\n", "", "FSC = 0.143", "FSC = 0.5", "mean FSC");
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
        let _ = writeln!(text, "{label:width$} {gold:>12} {half:>12} {:>10.4}", fsc.mean());
    }
    if never {
        text += "< means: never below the threshold up to Nyquist; the last shell is given\n";
    }
    if from_start {
        text += "> means: below the threshold from the first shell on, which is given\n";
    }
    text
}

/// A curve as a JSON object, with all shells.
pub fn as_json(label: &str, fsc: &Fsc) -> Value {
    let crossing = |crossing: Crossing| {
        let (outcome, resolution) = match crossing {
            Crossing::At(r) => ("crossed", r),
            Crossing::NeverBelow(r) => ("never below", r),
            Crossing::BelowFromStart(r) => ("below from start", r),
        };
        json!({ "outcome": outcome, "resolution": resolution })
    };
    json!({
        "label": label,
        "box_size": fsc.box_size,
        "pixel_size": fsc.pixel_size,
        "fsc_0.143": crossing(fsc.crossing(GOLD_STANDARD)),
        "fsc_0.5": crossing(fsc.crossing(HALF)),
        "mean": fsc.mean(),
        "shells": fsc.shells,
    })
}

/// Folder and stem of the files that `-o` names, of which `example` is one.
///
/// # Errors
/// When it is no file name.
pub fn stem<'a>(output: &'a Path, example: &str) -> Result<(&'a Path, String)> {
    let stem = output.file_name().ok_or_else(|| {
        Error::input(output, "", "is not a file name", format!("give -o a name such as {example}"))
    })?;
    Ok((output.parent().unwrap_or(Path::new("")), stem.to_string_lossy().into_owned()))
}
