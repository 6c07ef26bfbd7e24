//! `cryosplat-mpi fsc`.

mod second;
pub(super) mod show;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::mask::{Made, MaskOptions};
use super::phases::PhaseOptions;
use crate::error::{Error, Result};
use crate::evaluate::cross_validation::LABEL;
use crate::evaluate::directional::{DIRECTIONS, HALF_ANGLE};
use crate::evaluate::fsc::{GOLD_STANDARD, HALF};
use crate::evaluate::{Correction, CrossValidation, Directional, Fsc, maps};
use crate::figures::plots::{fsc_chart_with_band, write_chart_files};
use crate::files;
use crate::imaging::mrc::Volume;
use second::Kind;

/// How the FSC without a mask is labelled.
const UNMASKED: &str = "no mask";

/// What `--help` says below the options.
const EXPLANATION: &str = "\
Two maps under a mask are taken for half maps, and their FSC is also given corrected for what the mask adds: the phases \
of both are randomised where they agree no more without a mask, and what is left of their masked FSC is taken out (Chen \
et al. 2013, as RELION does it; from two shells behind that shell on). With --reference, a model or a mixture there is no \
such correction: look at FSC = 0.5.

An automatic mask is made from the mean of the half maps, or from the first map where the second is a reference: \
low-pass filter, threshold, largest piece, extension, raised-cosine edge.

Examples:
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto -o run/fsc_masked
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto --directional -o run/directional
  cryosplat-mpi fsc run/half1.mrc run/half2.mrc --mask auto --voxels voxels/
  cryosplat-mpi fsc run/map.mrc truth.mrc --reference --json
  cryosplat-mpi fsc run/map.mrc model.cif --mask auto
  cryosplat-mpi fsc run/map.mrc run/gmm_half1.h5";

/// Arguments of `fsc`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLANATION)]
pub struct Args {
    /// The first map (MRC): a half map.
    #[arg(value_name = "A.mrc")]
    first: PathBuf,
    /// The second map (MRC): the other half map, or a reference; or what it can be made of on the grid of the first.
    ///
    /// An atomic model (mmCIF, PDB) lies in the frame of the first map's header; a Gaussian mixture (gmm_half1.h5 of a run
    /// folder) has its centre on that of the box.
    #[arg(value_name = "B.mrc|MODEL|MIXTURE")]
    second: PathBuf,
    /// Write STEM.csv, STEM.svg and STEM.png; with --directional also STEM_directions.csv.
    #[arg(short, long, value_name = "STEM")]
    output: Option<PathBuf>,
    /// Multiply both maps by a mask: none, sphere, auto, or an MRC file with values from 0 to 1.
    #[arg(long, value_name = "none|sphere|auto|FILE", default_value = "none")]
    mask: OsString,
    /// The second map is a reference and no half map: no correction for the mask.
    #[arg(long)]
    reference: bool,
    /// Cross-validate the half maps with the voxel maps of the same halves, from this run folder of `backproject`.
    ///
    /// Adds FSC(A, V2) FSC(B, V1) / FSC(V1, V2), the part of the half maps' FSC that the other half's particles confirm,
    /// under the same mask, and says whether the half maps claim more.
    #[arg(long, value_name = "FOLDER", conflicts_with = "reference")]
    voxels: Option<PathBuf>,
    /// Also the FSC in cones of 20 degrees about 256 directions: the resolution of the worst, the best and the mean one.
    #[arg(long)]
    directional: bool,
    /// Place the centre of an atomic model on that of the box, as `simulate` does.
    #[arg(long)]
    center_model: bool,
    /// Pixel size of both maps in angstrom, in place of what their headers say.
    #[arg(long, value_name = "A")]
    pixel_size: Option<f64>,
    /// Print one JSON object, with all shells.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    mask_options: MaskOptions,
    #[command(flatten)]
    phases: PhaseOptions,
}

/// All that is told of two maps.
struct Found {
    /// By label; the first is the one to quote.
    curves: Vec<(String, Fsc)>,
    mask: Option<Value>,
    randomized_from: Option<usize>,
    cross_validation: Option<Value>,
    /// With the threshold that its resolutions are taken at.
    directional: Option<(Directional, f64)>,
    /// Sentences for people.
    notes: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let found = compare(args)?;
    if let Some(output) = &args.output {
        let (folder, stem) = folder_and_stem(output)?;
        let band = found.directional.as_ref().map(|(directional, threshold)| {
            let summary = directional.summary(*threshold);
            let legend = format!(
                "cones of {HALF_ANGLE}°: {:.2} to {:.2} Å at {threshold}",
                summary.lowest, summary.highest
            );
            (legend, directional.band())
        });
        let chart = fsc_chart_with_band(&found.curves, band);
        write_chart_files(folder, &stem, &found.curves, &chart)?;
        if let Some((directional, threshold)) = &found.directional {
            let table = directional.table(*threshold);
            let path = folder.join(format!("{stem}_directions.csv"));
            files::write_atomically(&path, |w| w.write_all(table.as_bytes()))?;
        }
    }
    super::print(if args.json { show::as_json(&found) } else { show::as_table(&found) }.as_bytes())
}

/// The folder and the file name of what `-o` gives.
pub(super) fn folder_and_stem(output: &Path) -> Result<(&Path, String)> {
    let stem = output
        .file_name()
        .ok_or_else(|| Error::input(output, "", "is not a file name", "give -o a name such as run/fsc"))?;
    Ok((output.parent().unwrap_or(Path::new("")), stem.to_string_lossy().into_owned()))
}

/// Reads a map, whose pixel size is `pixel_size` where that is given.
pub(super) fn read_map(path: &Path, pixel_size: Option<f64>) -> Result<Volume> {
    if let Some(pixel_size) = pixel_size.filter(|p| !(p.is_finite() && *p > 0.0)) {
        return Err(Error::request(
            format!("a pixel size of {pixel_size} A is impossible"),
            "give --pixel-size above 0",
        ));
    }
    let map = maps::read_cube(path)?;
    Ok(Volume { pixel_size: pixel_size.unwrap_or(map.pixel_size), data: map.data })
}

fn compare(args: &Args) -> Result<Found> {
    let first = read_map(&args.first, args.pixel_size)?;
    let kind = second::kind(&args.second)?;
    if args.center_model && kind != Kind::Model {
        return Err(Error::input(
            &args.second,
            "",
            "is no atomic model, and --center-model places one",
            "leave --center-model out",
        ));
    }
    // What is put on the first map's grid needs to know its voxels.
    maps::check_comparable((&args.first, &first), (&args.first, &first))?;
    let second = match kind {
        Kind::Map => read_map(&args.second, args.pixel_size)?,
        Kind::Model => second::of_model(&args.second, args.center_model, (&args.first, &first))?,
        Kind::Mixture => second::of_mixture(&args.second, &first)?,
    };
    maps::check_comparable((&args.first, &first), (&args.second, &second))?;
    maps::check_varies(&args.first, &first)?;
    maps::check_varies(&args.second, &second)?;
    let reference = args.reference || kind != Kind::Map;
    if args.voxels.is_some() && reference {
        return Err(Error::input(
            &args.second,
            "",
            "is no half map, and --voxels cross-validates two of them",
            "give the other half map, or leave --voxels out",
        ));
    }
    let made = if args.mask == "auto" && !reference {
        args.mask_options.make(&args.mask, &maps::mean(&first, &second))?
    } else {
        args.mask_options.make(&args.mask, &first)?
    };

    let unmasked = Fsc::between(&first, &second)?;
    let mut found = Found {
        curves: Vec::new(),
        mask: None,
        randomized_from: None,
        cross_validation: None,
        directional: None,
        notes: Vec::new(),
    };
    if let Some(made) = &made {
        under_mask(args, &first, &second, &unmasked, made, reference, &mut found)?;
    }
    found.curves.push((UNMASKED.to_owned(), unmasked));
    if let Some(folder) = &args.voxels {
        cross_validate(args, folder, [&first, &second], made.as_ref(), &mut found)?;
    }
    if args.directional {
        let mask = made.as_ref().map(|made| &made.mask);
        let threshold = if reference { HALF } else { GOLD_STANDARD };
        found.directional = Some((Directional::between(&first, &second, mask, DIRECTIONS)?, threshold));
    }
    Ok(found)
}

fn cross_validate(
    args: &Args,
    folder: &Path,
    half_maps: [&Volume; 2],
    made: Option<&Made>,
    found: &mut Found,
) -> Result<()> {
    let read = |name| -> Result<Volume> {
        let path = folder.join(name);
        let mut voxels = read_map(&path, args.pixel_size)?;
        maps::check_comparable((&args.first, half_maps[0]), (&path, &voxels))?;
        maps::check_varies(&path, &voxels)?;
        // Headers hold pixel sizes in single precision.
        voxels.pixel_size = half_maps[0].pixel_size;
        Ok(voxels)
    };
    let [first, second] = [read("half1.mrc")?, read("half2.mrc")?];
    let label = made.map_or(UNMASKED, |made| made.label);
    let (_, agreement) =
        found.curves.iter().find(|(of, _)| of == label).expect("the half maps' own curve is there");
    let mask = made.map(|made| &made.mask);
    let validation = CrossValidation::of(half_maps, [&first, &second], mask, agreement.clone())?;
    if validation.known_to().is_some() {
        found.curves.push((LABEL.into(), validation.curve.clone()));
    }
    found.notes.push(validation.verdict());
    found.cross_validation = Some(validation.as_json());
    Ok(())
}

fn under_mask(
    args: &Args,
    first: &Volume,
    second: &Volume,
    unmasked: &Fsc,
    made: &Made,
    reference: bool,
    found: &mut Found,
) -> Result<()> {
    found.mask = Some(made.description.clone());
    let masked = Fsc::between_masked(first, second, &made.mask)?;
    let options = args.phases.randomization();
    let correction = if reference {
        None
    } else {
        Correction::of(first, second, &made.mask, [unmasked, &masked], &options)?
    };
    let label = made.label.to_owned();
    if let Some(Correction { from, randomized, corrected }) = correction {
        found.curves.push(("corrected".into(), corrected));
        found.curves.push((label, masked));
        found.curves.push(("phases randomised".into(), randomized));
        found.randomized_from = Some(from);
        found.notes.push(format!(
            "corrected: for the mask, by phases randomised from {:.2} A on (shell {from}), the mean of {} draws",
            1.0 / unmasked.frequency(from as f64),
            options.draws
        ));
    } else {
        found.curves.push((label, masked));
        if !reference {
            found.notes.push(format!(
                "not corrected for the mask: without it the FSC is nowhere below {}, and no phases can be randomised",
                options.below
            ));
        }
    }
    Ok(())
}
