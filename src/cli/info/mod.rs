//! `cryosplat-mpi info`: describes a file, whose kind is recognised by its content.

mod args;
mod description;
mod map;
mod mixture;
mod particles;
mod run;
mod source;

use std::path::Path;

use serde_json::json;

use crate::error::{Error, Result, printable};
use crate::files::{self, Claims, Content};
use crate::gmm::files as mixtures;
use crate::hdf5::text_attribute;
use crate::particles::sources;
use crate::particles::store::{self, Store};
use crate::run_folder::checkpoint;

pub(super) use args::Args;
use description::Description;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(option) = args.drawing()
        && args.files.len() > 1
    {
        return Err(Error::request(
            format!("{option} draws one particle file, but {} files are given", args.files.len()),
            "give one",
        )
        .into());
    }
    let mut claims = Claims::new();
    for file in &args.files {
        claims.reads(file, "a file to describe");
    }
    claims.writes_all(&args.directions).writes_all(&args.noise).writes_all(&args.pictures).check()?;
    if let Some(store) = args.drawing().and_then(|_| Store::open(args.files.first()?).ok()) {
        sources::reads(&mut claims, &store);
        claims.check()?;
    }
    let mut failures = Vec::new();
    for (i, file) in args.files.iter().enumerate() {
        match describe(file, args) {
            Ok(description) if args.json => super::output::print(as_json(file, description).as_bytes())?,
            Ok(description) => {
                let gap = if i > 0 { "\n" } else { "" };
                super::output::print((gap.to_owned() + &as_text(file, &description)).as_bytes())?;
            }
            Err(error) => failures.push(error),
        }
    }
    // All files are tried. The last failure is returned, so that each is reported once.
    let Some(last) = failures.pop() else { return Ok(()) };
    failures.iter().for_each(|error| tracing::error!("{error}"));
    Err(last.into())
}

fn as_text(file: &Path, description: &Description) -> String {
    let width = description.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("{}: {}\n", printable(&file.display().to_string()), description.kind);
    for (name, value) in &description.rows {
        text += &format!("  {name:width$}  {}\n", printable(value));
    }
    text
}

fn as_json(file: &Path, description: Description) -> String {
    let mut json = description.json;
    json["file"] = json!(file.display().to_string());
    json["kind"] = json!(description.kind);
    json.to_string() + "\n"
}

fn describe(path: &Path, args: &Args) -> Result<Description> {
    let description = described(path, args)?;
    if let Some(option) = args.drawing()
        && description.kind != particles::KIND
        && !(option == "--pictures" && description.kind == source::KIND)
    {
        return Err(Error::input(
            path,
            "",
            format!("is no particle set ({}), but {option} draws particles", description.kind),
            format!("leave out {option}"),
        ));
    }
    Ok(description)
}

fn described(path: &Path, args: &Args) -> Result<Description> {
    if path.is_dir() {
        return run::describe(path);
    }
    let start = files::first_bytes(path, 1024)?;
    match Content::of(&start) {
        Content::Star | Content::Numpy => return source::describe(path, args),
        Content::Hdf5 => return describe_hdf5(path, args),
        Content::Ply if args.verify => {
            return Err(Error::input(
                path,
                "",
                "is a PLY file, which has no checksums",
                "leave out --verify",
            ));
        }
        Content::Ply => return mixture::describe_ply(path),
        _ => {}
    }
    // Files older than MRC2014 lack the word "MAP": their header is tried. Text is never accepted: four characters read as a
    // mode are not a valid mode.
    match map::describe(path, args.verify) {
        Err(Error::Input { .. }) if Content::of(&start) != Content::Mrc => {
            let expected = "an HDF5 file of this program, a mixture (PLY), a map or a stack (MRC), a STAR or .cs file, or a run folder";
            Err(files::unexpected(path, expected, "check the path")?)
        }
        outcome => outcome,
    }
}

fn describe_hdf5(path: &Path, args: &Args) -> Result<Description> {
    let remedy = "copy the file again: it is truncated or still being written";
    let file = crate::hdf5::open(path, "an HDF5 file of this program", remedy)?;
    let format = text_attribute(&file, "format");
    // The readers open the file again.
    drop(file);
    match format.as_deref() {
        Ok(store::FORMAT) => particles::describe(path, args),
        Ok(mixtures::FORMAT | checkpoint::FORMAT) if args.verify => {
            Err(Error::input(path, "", "holds no checksums: only particle files do", "leave out --verify"))
        }
        Ok(mixtures::FORMAT) => mixture::describe(path),
        Ok(checkpoint::FORMAT) => mixture::describe_checkpoint(path),
        Ok(other) => Err(Error::input(
            path,
            "attribute format",
            format!("{other:?} is not known to this version"),
            "use the version of the program that wrote it",
        )),
        Err(_) => Err(Error::input(
            path,
            "",
            "is an HDF5 file of another program (it has no attribute `format`)",
            "give a file that this program wrote",
        )),
    }
}
