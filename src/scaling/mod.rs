//! Speed and quality as a function of the number of ranks: [`mod@bench`] measures one configuration, a study compares runs.
//!
//! Stages of a study: [`record`] reads each run, [`study`] groups the runs into series with predictions of [`model`], [`table`] and
//! [`plot`] write them.

pub(crate) mod bench;
mod fit;
mod model;
mod plot;
pub mod record;
mod study;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::{self, Claims};
use study::Study;

/// Compares the runs `sources` (run folders, or files of `bench --json`) and writes scaling.csv, scaling.svg and scaling.md to
/// `folder`. Returns the text of scaling.md.
///
/// # Errors
/// When a source cannot be read or does not belong to the study, or a file cannot be written.
pub(crate) fn write(sources: &[PathBuf], folder: &Path) -> Result<String> {
    let mut claims = Claims::new();
    for source in sources {
        claims.reads(record::file_of(source), "the record of a run");
    }
    claims
        .creates(folder)
        .writes_all(["csv", "svg", "md"].map(|extension| folder.join(format!("scaling.{extension}"))))
        .check()?;
    let runs = sources.iter().map(|source| record::read(source)).collect::<Result<Vec<_>>>()?;
    let study = Study::new(runs)?;
    let text = table::markdown(&study);
    // All contents are computed before the first file is written.
    let outputs = [("csv", table::csv(&study)), ("svg", plot::svg(&study)), ("md", text.clone())];
    files::create_folder(folder)?;
    for (extension, content) in outputs {
        let file = folder.join(format!("scaling.{extension}"));
        files::write_atomically(&file, |w| w.write_all(content.as_bytes()))?;
    }
    Ok(text)
}
