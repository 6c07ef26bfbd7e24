//! How speed and quality follow from the number of ranks: [`mod@bench`] measures, and a study compares runs.
//!
//! A study goes one way: [`record`] (what a run says of itself) ▶ [`study`] (which runs belong together, with [`model`]'s
//! predictions) ▶ [`table`] and [`plot`].

pub mod bench;
pub mod fit;
pub mod model;
pub mod plot;
pub mod record;
pub mod study;
pub mod table;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files;
use study::Study;

/// Compares the runs at `sources` (run folders, or files of `bench --json`), and writes scaling.csv, scaling.svg and
/// scaling.md into `folder`. Returns the text of the last.
///
/// # Errors
/// When a source cannot be read or is not of the study, or a file cannot be written.
pub fn write(sources: &[PathBuf], folder: &Path) -> Result<String> {
    let runs = sources.iter().map(|source| record::read(source)).collect::<Result<Vec<_>>>()?;
    let study = Study::of(runs)?;
    let text = table::markdown(&study);
    // All are made before the first is written.
    let outputs = [("csv", table::csv(&study)), ("svg", plot::svg(&study)), ("md", text.clone())];
    files::make_folder(folder)?;
    for (extension, content) in outputs {
        let file = folder.join(format!("scaling.{extension}"));
        files::write_atomically(&file, |w| w.write_all(content.as_bytes()))?;
    }
    Ok(text)
}
