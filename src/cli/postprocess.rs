//! `cryosplat-mpi postprocess`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::fsc::show::{crossing, curve, table};
use super::fsc::{folder_and_stem, read_map};
use super::mask::{Made, MaskOptions};
use super::phases::PhaseOptions;
use crate::error::Error;
use crate::evaluate::postprocess::{FIT_FROM, LowPass, Options, Processed, Sharpening};
use crate::evaluate::{Fsc, maps};
use crate::figures::write_fsc_files;
use crate::files;
use crate::imaging::mrc::write_volume;

/// What `--help` says below the options.
const EXPLANATION: &str = "\
Definitions are those of RELION's post-processing: the FSC under the mask is corrected by randomised phases; the mean of \
the half maps is weighted by sqrt(2 FSC / (1 + FSC)), sharpened by the B factor of its Guinier plot (or the one given), and \
low-pass filtered. There is no correction for the detector's MTF.

Written: STEM.mrc and STEM_masked.mrc, STEM_mask.mrc, the FSC as STEM.csv, STEM.svg and STEM.png, and STEM.json with all \
numbers.

Examples:
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc -o run/post
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc --mask mask.mrc --b-factor -80 -o run/post
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc --fit-from 12 --low-pass 4.2 -o run/post";

/// Arguments of `postprocess`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The first half map (MRC).
    #[arg(value_name = "HALF1.mrc")]
    first: PathBuf,
    /// The second half map (MRC).
    #[arg(value_name = "HALF2.mrc")]
    second: PathBuf,
    /// What the names of all files written begin with.
    #[arg(short, long, value_name = "STEM", default_value = "postprocess")]
    output: PathBuf,
    /// The mask: auto, sphere, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "auto|sphere|FILE", default_value = "auto")]
    mask: OsString,
    /// Pixel size of both maps in angstrom, in place of what their headers say.
    #[arg(long, value_name = "A")]
    pixel_size: Option<f64>,
    /// Print the JSON document, too.
    #[arg(long)]
    json: bool,
    /// The B factor in square angstrom, negative to sharpen, in place of the fitted one; 0 leaves amplitudes as they are.
    #[arg(long, value_name = "A^2", allow_negative_numbers = true, help_heading = "Map")]
    b_factor: Option<f64>,
    /// Coarse end of the fit of the B factor in angstrom.
    #[arg(long, value_name = "A", default_value_t = FIT_FROM, conflicts_with = "b_factor", help_heading = "Map")]
    fit_from: f64,
    /// Fine end of the fit in angstrom [default: the map's resolution].
    #[arg(long, value_name = "A", conflicts_with = "b_factor", help_heading = "Map")]
    fit_to: Option<f64>,
    /// Low-pass filter in angstrom, or none [default: the map's resolution].
    #[arg(long, value_name = "A|none", value_parser = low_pass, help_heading = "Map")]
    low_pass: Option<LowPass>,
    /// Do not weight the map by its FSC.
    #[arg(long, help_heading = "Map")]
    skip_fsc_weighting: bool,
    #[command(flatten)]
    mask_options: MaskOptions,
    #[command(flatten)]
    phases: PhaseOptions,
}

fn low_pass(text: &str) -> std::result::Result<LowPass, String> {
    match text.parse() {
        Ok(resolution) => Ok(LowPass::At(resolution)),
        Err(_) if text == "none" => Ok(LowPass::Never),
        Err(_) => Err("expected a resolution in angstrom, or none".into()),
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, stem) = folder_and_stem(&args.output)?;
    let first = read_map(&args.first, args.pixel_size)?;
    let second = read_map(&args.second, args.pixel_size)?;
    maps::check_comparable((&args.first, &first), (&args.second, &second))?;
    maps::check_varies(&args.first, &first)?;
    maps::check_varies(&args.second, &second)?;
    let made = args.mask_options.make(&args.mask, &maps::mean(&first, &second))?.ok_or_else(|| {
        Error::request("post-processing needs a mask", "leave --mask none out: auto is the default")
    })?;
    let options = args.options();
    let processed = Processed::of(&first, &second, &made.mask, &options)?;
    if processed.line.is_none() && args.b_factor.is_none() {
        tracing::warn!(
            "the map is not sharpened: fewer than 3 shells with power lie between {} A and its resolution, too few to \
             fit a B factor; give one with --b-factor, or a coarser --fit-from",
            args.fit_from
        );
    }

    let curves = curves(&processed, &made);
    let name = |end: &str| folder.join(format!("{stem}{end}"));
    write_volume(&name(".mrc"), &processed.map)?;
    write_volume(&name("_masked.mrc"), &processed.masked_map(&made.mask))?;
    write_volume(&name("_mask.mrc"), &made.mask.volume(first.pixel_size))?;
    write_fsc_files(folder, &stem, &curves)?;
    let document = args.document(&processed, &made, &curves);
    // The last file says that all are there.
    files::write_json(&name(".json"), &document)?;
    let text = if args.json { format!("{document}\n") } else { as_text(&processed, &curves) };
    super::print(text.as_bytes())
}

impl Args {
    fn options(&self) -> Options {
        Options {
            randomization: self.phases.randomization(),
            sharpening: match self.b_factor {
                Some(b) => Sharpening::Given(b),
                None => Sharpening::Fitted(self.fit_from, self.fit_to),
            },
            low_pass: self.low_pass.unwrap_or(LowPass::Resolution),
            weighting: !self.skip_fsc_weighting,
        }
    }

    fn document(&self, processed: &Processed, made: &Made, curves: &[(String, Fsc)]) -> Value {
        json!({
            "program": "cryosplat-mpi",
            "version": env!("CARGO_PKG_VERSION"),
            "half_maps": [self.first.display().to_string(), self.second.display().to_string()],
            "box_size": processed.map.data.dim().0,
            "pixel_size": processed.map.pixel_size,
            "mask": made.description,
            "resolution_0.143": crossing(processed.resolution),
            "resolution_shell": processed.resolution_shell,
            "randomized_from_shell": processed.correction.as_ref().map(|c| c.from),
            "b_factor": processed.b_factor,
            "b_factor_fit": processed.line,
            "fsc_weighting": !self.skip_fsc_weighting,
            "low_pass": processed.low_pass,
            "curves": curves.iter().map(curve).collect::<Vec<_>>(),
            "guinier": processed.guinier,
            "guinier_weighted": processed.guinier_weighted,
            "guinier_sharpened": processed.guinier_sharpened,
        })
    }
}

fn curves(processed: &Processed, made: &Made) -> Vec<(String, Fsc)> {
    let mut curves = Vec::new();
    let correction = processed.correction.as_ref();
    curves.extend(correction.map(|c| ("corrected".to_owned(), c.corrected.clone())));
    curves.push((made.label.to_owned(), processed.masked.clone()));
    curves.extend(correction.map(|c| ("phases randomised".to_owned(), c.randomized.clone())));
    curves.push(("no mask".to_owned(), processed.unmasked.clone()));
    curves
}

fn as_text(processed: &Processed, curves: &[(String, Fsc)]) -> String {
    let mut text = table(curves);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "resolution        {}", processed.resolution);
    if processed.correction.is_none() {
        text += "not corrected for the mask: the FSC without it never falls far enough to randomise phases\n";
    }
    let _ = match &processed.line {
        Some(line) => writeln!(
            text,
            "B factor          {:.1} A^2, fitted to {} shells from {:.2} to {:.2} A (correlation {:.3})",
            processed.b_factor, line.shells, line.range[0], line.range[1], line.correlation
        ),
        None => writeln!(text, "B factor          {:.1} A^2", processed.b_factor),
    };
    let _ = match processed.low_pass {
        Some(resolution) => writeln!(text, "low-pass filter   {resolution:.2} A"),
        None => writeln!(text, "low-pass filter   none"),
    };
    text
}
