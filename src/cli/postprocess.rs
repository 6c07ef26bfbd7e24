//! `cryosplat-mpi postprocess`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::mask::MaskOptions;
use super::phases::PhaseOptions;
use super::values;
use crate::error::Error;
use crate::evaluate::headline::{Headline, Limit};
use crate::evaluate::maps::{self, MapReader};
use crate::evaluate::postprocess::{FIT_FROM, LowPass, Options, PostProcessed, Sharpening};
use crate::figures::report::write_report;
use crate::figures::{postprocessed, write_fsc_files};
use crate::files::{self, Claims};
use crate::imaging::mrc::write_volume;
use crate::run_folder::finished;
use crate::run_folder::overwriting::reads_run_of;
use crate::run_folder::report::light;

const AFTER_HELP: &str = "\
Definitions are those of RELION's post-processing: the FSC under the mask is corrected by phase randomisation; the mean of \
the half maps is weighted by sqrt(2 FSC / (1 + FSC)), sharpened by the B factor of its Guinier plot (or the one given), and \
low-pass filtered. There is no correction for the detector's MTF.

Output: STEM.mrc, STEM_masked.mrc and STEM_mask.mrc, the FSC as STEM.csv, STEM.svg and STEM.png, a page with \
all results as STEM.html, and all numbers as STEM.json.

Examples:
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc -o run/post
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc --mask mask.mrc --b-factor -80 -o run/post
  cryosplat-mpi postprocess run/half1.mrc run/half2.mrc --fit-from 12 --low-pass 4.2 -o run/post";

/// Arguments of `postprocess`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// First half map (MRC).
    #[arg(value_name = "HALF1.mrc")]
    first: PathBuf,
    /// Second half map (MRC).
    #[arg(value_name = "HALF2.mrc")]
    second: PathBuf,
    /// Start of the names of all output files.
    #[arg(short, long, value_name = "STEM", default_value = "postprocess")]
    output: PathBuf,
    /// Mask: auto, sphere, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "auto|sphere|FILE", default_value = "auto")]
    mask: OsString,
    /// Pixel size of maps and mask in angstrom [default: from the headers].
    #[arg(long, value_name = "A", value_parser = values::pixel_size)]
    pixel_size: Option<f64>,
    /// Compare voxel by voxel, whatever NXSTART and ORIGIN in the headers; maps written keep those of the first.
    #[arg(long)]
    ignore_frame: bool,
    /// Print the JSON document.
    #[arg(long)]
    json: bool,
    /// B factor in square angstrom; negative values sharpen [default: fitted].
    #[arg(long, value_name = "A^2", allow_negative_numbers = true, value_parser = values::b_factor, help_heading = "Map")]
    b_factor: Option<f64>,
    /// Low-resolution limit of the B-factor fit, in angstrom.
    #[arg(long, value_name = "A", default_value_t = FIT_FROM, value_parser = values::length, conflicts_with = "b_factor", help_heading = "Map")]
    fit_from: f64,
    /// High-resolution limit of the B-factor fit, in angstrom [default: the map's resolution].
    #[arg(long, value_name = "A", value_parser = values::length, conflicts_with = "b_factor", help_heading = "Map")]
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

fn low_pass(text: &str) -> Result<LowPass, String> {
    match text.parse::<f64>() {
        Ok(resolution) if resolution <= 1e4 => Ok(LowPass::At(resolution)),
        Err(_) if text == "none" => Ok(LowPass::Off),
        _ => Err("expected a resolution up to 10000 angstrom, or none".into()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (folder, stem) = super::output::folder_and_stem(&args.output)?;
    let name = |end: &str| folder.join(files::extended(stem, end));
    args.check_outputs(&name)?;
    let reader = MapReader { pixel_size: args.pixel_size, ignore_frame: args.ignore_frame };
    let first = reader.read(&args.first)?;
    let second = reader.read_like(&args.second, (&args.first, &first))?;
    maps::check_varies(&args.first, &first)?;
    maps::check_varies(&args.second, &second)?;
    let made = args.mask_options.make(&args.mask, &maps::mean(&first, &second), &reader)?;
    let mask = made.ok_or_else(|| {
        Error::request("post-processing needs a mask", "leave out --mask none: auto is the default")
    })?;
    maps::check_differ([(&args.first, &first), (&args.second, &second)])?;
    let options = args.options();
    let processed = PostProcessed::compute(&first, &second, &mask.mask, &options)?;
    if processed.line.is_none() && args.b_factor.is_none() {
        tracing::warn!(
            "the map is not sharpened: fewer than 3 shells with power lie between {} A and its resolution, too few to \
             fit a B factor; give one with --b-factor, or a coarser --fit-from",
            args.fit_from
        );
    }

    // The half maps of a run have the resolution of that run.
    let recorded = finished::resolution_of([&args.first, &args.second]);
    let headline = recorded.unwrap_or_else(|| processed.headline());
    warn_unconfirmed(&processed, &headline);
    let objection = finished::objection_to([&args.first, &args.second]);
    if let Some(verdict) = &objection {
        tracing::warn!("the diagnosis of this run: {}", verdict.line);
    }

    write_volume(&name(".mrc"), &processed.map)?;
    write_volume(&name("_masked.mrc"), &processed.masked_map(&mask.mask))?;
    write_volume(&name("_mask.mrc"), &mask.mask.volume_like(&first))?;
    write_fsc_files(folder, stem, &processed.curves(&mask))?;
    let halves = [(args.first.as_path(), &first), (args.second.as_path(), &second)];
    let page = postprocessed::page(
        &processed,
        halves,
        &mask,
        (&headline, objection.as_ref().map(|verdict| (light(verdict.severity), verdict.line.as_str()))),
        super::output::command_line(),
    )?;
    write_report(&name(".html"), &page)?;
    let document = processed.to_json([&args.first, &args.second], &mask, &options, &headline);
    // Written last: if it is there, all files are.
    files::write_json(&name(".json"), &document)?;
    let text = if args.json { format!("{document}\n") } else { processed.to_text(&mask, &headline) };
    super::output::print(text.as_bytes())?;
    let at = |end: &str| files::shell_word(&name(end).to_string_lossy());
    tracing::info!("next: chimerax {}", at(".mrc"));
    tracing::info!(
        "next, with an atomic model: cryosplat-mpi fsc {} model.cif --mask {}",
        at(".mrc"),
        at("_mask.mrc")
    );
    Ok(())
}

/// Warns where the map holds shells beyond the resolution that the run's particles confirm.
fn warn_unconfirmed(processed: &PostProcessed, headline: &Headline) {
    let Some(confirmed) = headline.angstrom.filter(|_| headline.limit == Limit::Unconfirmed) else { return };
    if processed.low_pass.is_none_or(|filter| filter < confirmed) {
        tracing::warn!(
            "the run's half maps are unconfirmed beyond {confirmed:.2} A, but this map shows more: give --low-pass {confirmed:.2}"
        );
    }
}

impl Args {
    fn check_outputs(&self, name: &dyn Fn(&str) -> PathBuf) -> Result<(), Error> {
        let mut claims = Claims::new();
        claims.reads(&self.first, "the first half map").reads(&self.second, "the second half map");
        [&self.first, &self.second].into_iter().for_each(|map| reads_run_of(&mut claims, map));
        self.mask_options.claim(&mut claims, &self.mask);
        let ends = [".mrc", "_masked.mrc", "_mask.mrc", ".csv", ".svg", ".png", ".html", ".json"];
        claims.writes_all(ends.map(name)).check()
    }

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
}
