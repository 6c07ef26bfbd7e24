//! `cryosplat-mpi fsc`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use super::mask::MaskOptions;
use super::models::ModelArgs;
use super::phases::PhaseOptions;
use super::values;
use crate::error::Result;
use crate::evaluate::map_pair::{MapPair, PairOptions};
use crate::evaluate::maps::MapReader;
use crate::figures::plots::{self, CHART_FILES};
use crate::files::{self, Claims};
use crate::run_folder::overwriting::reads_run_of;

const AFTER_HELP: &str = "\
Two maps under a mask are taken as half maps, and their FSC is also corrected for the mask by phase randomisation (Chen et \
al. 2013). With --reference, a model or a mixture there is no correction: quote FSC = 0.5.

An automatic mask is made from the mean of the half maps, or from the first map if the second is a reference.

Examples:
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto -o run/fsc_masked
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto --directional -o run/directional
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto --voxels voxels/
  cryosplat-mpi fsc run/map.mrc truth.mrc --reference --json
  cryosplat-mpi fsc run/map.mrc model.cif --mask auto
  cryosplat-mpi fsc run/map.mrc run/gmm_half1.h5";

/// Arguments of `fsc`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// First map (MRC).
    #[arg(value_name = "A.mrc")]
    first: PathBuf,
    /// Second map (MRC), or an atomic model (mmCIF, PDB) or mixture (gmm_half1.h5) to sample on the grid of the first.
    #[arg(value_name = "B.mrc|MODEL|MIXTURE")]
    second: PathBuf,
    /// Write STEM.csv, STEM.svg and STEM.png; with --directional also STEM_directions.csv.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Mask for both maps: none, sphere, auto, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|auto|FILE", default_value = "none")]
    mask: OsString,
    /// The second map is a reference, not a half map: no correction for the mask.
    #[arg(long)]
    reference: bool,
    /// Cross-validate the half maps with the voxel half maps of this run folder of `backproject` or `train`.
    #[arg(long, value_name = "FOLDER", conflicts_with = "reference")]
    voxels: Option<PathBuf>,
    /// Also compute the FSC in cones of 20 degrees about 256 directions.
    #[arg(long)]
    directional: bool,
    /// Place the centre of an atomic model on the centre of the box, as `simulate` does.
    #[arg(long)]
    center_model: bool,
    /// Pixel size of maps and mask in angstrom [default: from the headers].
    #[arg(long, value_name = "A", value_parser = values::pixel_size)]
    pixel_size: Option<f64>,
    /// Compare voxel by voxel, whatever NXSTART and ORIGIN in the headers; maps written keep those of the first.
    #[arg(long)]
    ignore_frame: bool,
    /// Print one JSON object with all shells.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    mask_options: MaskOptions,
    #[command(flatten)]
    phases: PhaseOptions,
}

impl Args {
    fn check_outputs(&self) -> Result<()> {
        let mut claims = Claims::new();
        claims.reads(&self.first, "the first map").reads(&self.second, "the second map");
        for input in [Some(&self.first), Some(&self.second), self.voxels.as_ref()].into_iter().flatten() {
            reads_run_of(&mut claims, input);
        }
        self.mask_options.claim(&mut claims, &self.mask);
        if let Some(output) = &self.output {
            let (folder, stem) = super::output::folder_and_stem(output)?;
            let directions = self.directional.then_some("_directions.csv");
            let ends = CHART_FILES.iter().map(|extension| format!(".{extension}"));
            let ends = ends.chain(directions.map(str::to_owned));
            claims.writes_all(ends.map(|end| folder.join(files::extended(stem, &end))));
        }
        claims.check()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let reader = MapReader { pixel_size: args.pixel_size, ignore_frame: args.ignore_frame };
    args.check_outputs()?;
    let pair = MapPair::read(
        &args.first,
        &args.second,
        reader,
        args.reference,
        args.center_model,
        args.models.choice(),
    )?;
    if args.voxels.is_some() {
        pair.require_half_maps("--voxels")?;
    }
    let mask = args.mask_options.make(&args.mask, &pair.mask_source(), &reader)?;
    let options = PairOptions {
        randomization: args.phases.randomization(),
        voxels: args.voxels.as_deref(),
        directional: args.directional,
    };
    let found = pair.evaluate(mask.as_ref(), &options)?;
    if let Some(output) = &args.output {
        let (folder, stem) = super::output::folder_and_stem(output)?;
        let directional = found.directional.as_ref();
        let band = directional.map(|(directional, threshold)| plots::direction_band(directional, *threshold));
        let chart = match found.headline {
            Some(_) => plots::fsc_chart(&found.curves),
            None => plots::reference_chart(&found.curves),
        };
        let chart = plots::with_band(chart, &found.curves, band);
        plots::write_chart_files(folder, stem, &found.curves, &chart)?;
        if let Some((directional, threshold)) = directional {
            let table = directional.to_csv(*threshold);
            let path = folder.join(files::extended(stem, "_directions.csv"));
            files::write_atomically(&path, |w| w.write_all(table.as_bytes()))?;
        }
    }
    let text = if args.json { format!("{}\n", found.to_json()) } else { found.to_text() };
    super::output::print(text.as_bytes())
}
