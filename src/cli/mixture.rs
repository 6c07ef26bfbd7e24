//! Mixtures as the command line names them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::gmm::files::GmmFile;
use crate::gmm::mixture::{self, Mixture};

/// Reads the mixture in `path`. `box_size` and `pixel_size` are those of the particles for a file that does not say them (PLY).
pub fn read(path: &Path, box_size: Option<usize>, pixel_size: Option<f64>) -> Result<GmmFile> {
    let Mixture { gmm, grid } = mixture::read(path)?;
    match (grid, box_size.zip(pixel_size)) {
        (Some((box_size, pixel_size)), _) | (None, Some((box_size, pixel_size))) => {
            Ok(GmmFile { gmm, box_size, pixel_size })
        }
        (None, None) => Err(Error::input(
            path,
            "",
            "is a PLY file, which holds neither a box nor a pixel size",
            "give those of the particles with --box and --pixel-size, or the HDF5 file beside it",
        )),
    }
}

/// Checks that a box and a pixel size of the command line are possible.
pub fn check_grid(box_size: Option<usize>, pixel_size: Option<f64>) -> Result<()> {
    for (name, least, wrong) in [
        ("--box", "4 or more", box_size.is_some_and(|n| n < 4)),
        ("--pixel-size", "above 0", pixel_size.is_some_and(|p| !(p.is_finite() && p > 0.0))),
    ] {
        if wrong {
            let problem = format!("the {name} given is impossible");
            return Err(Error::request(problem, format!("give {name} {least}")));
        }
    }
    Ok(())
}

/// Checks that `output` is not the file `input`, which is `what`.
pub fn check_output(input: &Path, output: &Path, what: &str) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => {
            Err(Error::input(input, "", format!("is {what} to read"), "write to another file"))
        }
        _ => Ok(()),
    }
}
