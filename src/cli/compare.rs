//! `cryosplat-mpi compare`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::mask::MaskOptions;
use crate::error::Result;
use crate::evaluate::compare::compare;
use crate::evaluate::maps::MapReader;
use crate::figures::comparison::comparison_chart;
use crate::figures::plots::{CHART_FILES, write_chart_files};
use crate::files::{self, Claims};
use crate::imaging::mrc::Volume;
use crate::run_folder::overwriting::reads_run_of;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cryosplat-mpi compare run/ voxels/ -o comparison\n  \
                        cryosplat-mpi compare run_a/ run_b/ voxels/ --truth truth.mrc --mask sphere -o comparison\n\n\
                        Runs are ranked by the mean of their cross-validated FSC over the shells that all of them have. Maps of other boxes with the same \
                        field of view are resampled.\n\n\
                        Folders of other programs are accepted if they hold half1.mrc, half2.mrc and map.mrc.")]
pub struct Args {
    /// Run folders of `train` or `backproject`, with the same field of view.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Ground-truth map, for the FSC of each map against it.
    #[arg(long, value_name = "MAP")]
    truth: Option<PathBuf>,
    /// Cross-validate runs without voxel maps of their own with those of this run folder.
    #[arg(long, value_name = "FOLDER")]
    voxels: Option<PathBuf>,
    /// Mask for all maps: none, sphere, auto (made from the first run's map), or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|auto|FILE", default_value = "none")]
    mask: OsString,
    /// Write STEM.csv, STEM.svg and STEM.png.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Print one JSON object with all shells.
    #[arg(long)]
    json: bool,
    /// Compare voxel by voxel, whatever NXSTART and ORIGIN in the headers.
    #[arg(long)]
    ignore_frame: bool,
    #[command(flatten)]
    mask_options: MaskOptions,
}

impl Args {
    fn check_outputs(&self) -> Result<()> {
        let mut claims = Claims::new();
        for run in &self.runs {
            reads_run_of(&mut claims, run);
            // Folders of other programs have no run.json.
            for name in ["half1.mrc", "half2.mrc", "map.mrc"] {
                claims.reads(run.join(name), "a map of a run");
            }
        }
        self.voxels.iter().for_each(|run| reads_run_of(&mut claims, run));
        claims.reads_some(self.truth.as_ref(), "the ground truth");
        self.mask_options.claim(&mut claims, &self.mask);
        if let Some(output) = &self.output {
            let (folder, stem) = super::output::folder_and_stem(output)?;
            claims.writes_all(CHART_FILES.map(|end| folder.join(files::extended(stem, &format!(".{end}")))));
        }
        claims.check()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    args.check_outputs()?;
    let reader = MapReader { pixel_size: None, ignore_frame: args.ignore_frame };
    let mask = |map: &Volume| Ok(args.mask_options.make(&args.mask, map, &reader)?.map(|made| made.mask));
    let compared = compare(&args.runs, args.truth.as_deref(), args.voxels.as_deref(), &reader, mask)?;
    if let Some(output) = &args.output {
        let (folder, stem) = super::output::folder_and_stem(output)?;
        write_chart_files(folder, stem, &compared.labelled(), &comparison_chart(&compared.curves))?;
    }
    let text = if args.json { format!("{}\n", compared.to_json(&args.runs)) } else { compared.to_text() };
    super::output::print(text.as_bytes())
}
