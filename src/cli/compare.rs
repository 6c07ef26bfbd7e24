//! `cryosplat-mpi compare`.

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::json;

use super::fsc::folder_and_stem;
use super::fsc::show::{curve, table};
use super::mask::MaskOptions;
use crate::evaluate::compare::{Compared, compare};
use crate::evaluate::fsc::Fsc;
use crate::figures::comparison::comparison_chart;
use crate::figures::plots::write_chart_files;
use crate::imaging::mrc::Volume;

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
    /// Multiply all maps by a mask: none, sphere, auto (made from the first run's map), or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|auto|FILE", default_value = "none")]
    mask: OsString,
    /// Write STEM.csv, STEM.svg and STEM.png.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Print one JSON object, with all shells.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    mask_options: MaskOptions,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mask = |map: &Volume| Ok(args.mask_options.make(&args.mask, map)?.map(|made| made.mask));
    let compared = compare(&args.runs, args.truth.as_deref(), mask)?;
    let curves: Vec<(String, Fsc)> = compared.iter().map(|c| (c.label.clone(), c.fsc.clone())).collect();
    if let Some(output) = &args.output {
        let (folder, stem) = folder_and_stem(output)?;
        write_chart_files(folder, &stem, &curves, &comparison_chart(&compared))?;
    }
    let text = if args.json {
        let with_run = |(compared, labelled): (&Compared, &(String, Fsc))| {
            let mut value = curve(labelled);
            value["run"] = args.runs[compared.run].display().to_string().into();
            value["against"] = json!(compared.against);
            value
        };
        let curves: Vec<_> = compared.iter().zip(&curves).map(with_run).collect();
        json!({ "curves": curves }).to_string() + "\n"
    } else {
        table(&curves)
    };
    super::print(text.as_bytes())
}
