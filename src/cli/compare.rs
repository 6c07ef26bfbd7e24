//! `cryosplat-mpi compare`.

use std::path::PathBuf;

use serde_json::json;

use super::curves::{MaskOptions, as_json, as_table, stem};
use crate::evaluate::compare::{Compared, chart, compare};
use crate::evaluate::fsc::Fsc;
use crate::evaluate::plots::write_chart_files;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cryosplat-mpi compare run/ voxels/ -o comparison\n  \
                        cryosplat-mpi compare run_a/ run_b/ voxels/ --truth truth.mrc --mask sphere -o comparison\n\n\
                        A folder with half1.mrc, half2.mrc and map.mrc of another program is taken too.")]
pub struct Args {
    /// The folders of runs of `train` or `backproject`, all of one box and pixel size.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The true map, for the FSC of each map against it.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    #[command(flatten)]
    mask: MaskOptions,
    /// Write STEM.csv, STEM.svg and STEM.png.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Print one JSON object, with all shells.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.mask.check()?;
    let mask = |map: &crate::imaging::mrc::Volume| {
        let mask = args.mask.make(map.data.dim().0, map.pixel_size)?;
        Ok(mask.map(|(_, mask)| mask))
    };
    let curves = compare(&args.runs, args.truth.as_deref(), mask)?;
    if let Some(output) = &args.output {
        let (folder, stem) = stem(output, "runs/comparison")?;
        let labelled: Vec<(String, Fsc)> = curves.iter().map(|c| (c.label.clone(), c.fsc.clone())).collect();
        write_chart_files(folder, &stem, &labelled, &chart(&curves))?;
    }
    let text = if args.json {
        let curves: Vec<_> = curves.iter().map(|curve| with_run(curve, &args.runs[curve.run])).collect();
        json!({ "curves": curves }).to_string() + "\n"
    } else {
        as_table(curves.iter().map(|curve| (curve.label.as_str(), &curve.fsc)))
    };
    super::print(text.as_bytes())
}

fn with_run(curve: &Compared, folder: &std::path::Path) -> serde_json::Value {
    let mut value = as_json(&curve.label, &curve.fsc);
    value["run"] = folder.display().to_string().into();
    value["against"] = json!(curve.against);
    value
}
