//! `cryosplat-mpi fsc`.

use std::path::PathBuf;

use serde_json::json;

use super::curves::{MaskOptions, as_json, as_table, stem};
use crate::error::{Error, Result};
use crate::evaluate::{Fsc, maps, write_fsc_files};

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
    #[command(flatten)]
    mask: MaskOptions,
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
        let (folder, stem) = stem(output, "run/fsc")?;
        write_fsc_files(folder, &stem, &curves)?;
    }
    let text = if args.json {
        let curves: Vec<_> = curves.iter().map(|(label, fsc)| as_json(label, fsc)).collect();
        json!({ "curves": curves }).to_string() + "\n"
    } else {
        as_table(curves.iter().map(|(label, fsc)| (label.as_str(), fsc)))
    };
    super::print(text.as_bytes())
}

/// The FSC without a mask, and with the mask where one is asked for.
fn curves(args: &Args) -> Result<Vec<(String, Fsc)>> {
    args.mask.check()?;
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

    let mut curves = Vec::new();
    if let Some((name, mask)) = args.mask.make(first.data.dim().0, first.pixel_size)? {
        curves.push((name.to_owned(), Fsc::between_masked(&first, &second, &mask)?));
    }
    curves.push(("no mask".to_owned(), Fsc::between(&first, &second)?));
    Ok(curves)
}
