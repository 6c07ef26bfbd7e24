//! Comparison of several runs of the same particles: the FSC of their half maps, and of their maps against the ground truth.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::curves;
use crate::evaluate::fsc::Fsc;
use crate::evaluate::maps::{self, MapReader};
use crate::evaluate::mask::Mask;
use crate::files;
use crate::imaging::mrc::Volume;

/// Maps that a curve compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Against {
    /// The half maps of a run.
    #[serde(rename = "half maps")]
    Halves,
    /// The map of a run and the ground truth.
    #[serde(rename = "truth")]
    Truth,
}

/// One curve of one run.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Index of the run, from 0.
    pub run: usize,
    /// Maps compared.
    pub against: Against,
    /// Label of the curve: the run and the maps compared.
    pub label: String,
    /// The curve.
    pub fsc: Fsc,
}

/// The maps of a run.
struct Run {
    /// File of `map`.
    path: PathBuf,
    map: Volume,
    halves: Option<[Volume; 2]>,
}

/// Compares the runs in `folders`. All maps are multiplied by the mask that `mask` makes from the first run's map.
///
/// # Errors
/// When a folder holds no maps of a finished run, or nothing to compare; when maps differ in box, pixel size or frame.
pub fn compare(
    folders: &[PathBuf],
    truth: Option<&Path>,
    reader: &MapReader,
    mask: impl FnOnce(&Volume) -> Result<Option<Mask>>,
) -> Result<Vec<Compared>> {
    let mut runs: Vec<Run> = Vec::new();
    for folder in folders {
        runs.push(read(folder, reader, runs.first())?);
    }
    let Some(first) = runs.first() else {
        return Err(Error::request("there is no run to compare", "name one or more run folders"));
    };
    let truth = truth.map(|path| -> Result<Volume> {
        let volume = reader.read_like(path, (&first.path, &first.map))?;
        maps::check_varies(path, &volume)?;
        Ok(volume)
    });
    let truth = truth.transpose()?;
    let mask = mask(&first.map)?;
    let between = |a: &Volume, b: &Volume| match &mask {
        Some(mask) => Fsc::between_masked(a, b, mask),
        None => Fsc::between(a, b),
    };
    let mut curves = Vec::new();
    for (index, (run, name)) in runs.iter().zip(names(folders)).enumerate() {
        if let Some([half1, half2]) = &run.halves {
            let (label, fsc) = (format!("{name}, half maps"), between(half1, half2)?);
            curves.push(Compared { run: index, against: Against::Halves, label, fsc });
        }
        if let Some(truth) = &truth {
            let (label, fsc) = (format!("{name} against truth"), between(&run.map, truth)?);
            curves.push(Compared { run: index, against: Against::Truth, label, fsc });
        } else if run.halves.is_none() {
            return Err(Error::input(
                &folders[index],
                "",
                "does not hold two half maps, and there is no ground truth to compare its map with",
                "give the ground-truth map with --truth, or leave out this run",
            ));
        }
    }
    Ok(curves)
}

/// The curves with their labels.
pub(crate) fn curves(compared: &[Compared]) -> Vec<(String, Fsc)> {
    compared.iter().map(|curve| (curve.label.clone(), curve.fsc.clone())).collect()
}

/// A table for people.
pub(crate) fn to_text(compared: &[Compared]) -> String {
    curves::to_text(&curves(compared))
}

/// A JSON object with all shells; `folders` are those of [`compare`].
pub(crate) fn to_json(compared: &[Compared], folders: &[PathBuf]) -> Value {
    let with_run = |(compared, labelled): (&Compared, &(String, Fsc))| {
        let mut value = curves::to_json(labelled);
        value["run"] = folders[compared.run].display().to_string().into();
        value["against"] = json!(compared.against);
        value
    };
    let curves: Vec<_> = compared.iter().zip(&curves(compared)).map(with_run).collect();
    json!({ "curves": curves })
}

/// Reads the maps of a run, which must coincide with those of the run `first`.
fn read(folder: &Path, reader: &MapReader, first: Option<&Run>) -> Result<Run> {
    const REMEDY: &str = "name the folder of a finished run of `train` or `backproject`";
    if !folder.is_dir() {
        return Err(Error::input(folder, "", "is not a folder", REMEDY));
    }
    let state = files::read_text(&folder.join("run.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok()?["state"].as_str().map(str::to_owned));
    if let Some(state) = state
        && state != "done"
    {
        return Err(Error::input(folder, "run.json", format!("the state of this run is {state:?}"), REMEDY));
    }
    let [half1, half2, map] = ["half1.mrc", "half2.mrc", "map.mrc"].map(|name| folder.join(name));
    // A run of one half has only the map of that half.
    let Some(path) = [&map, &half1, &half2].into_iter().find(|path| path.exists()).cloned() else {
        return Err(Error::input(folder, "", "holds no map.mrc", REMEDY));
    };
    let map = match first {
        Some(first) => reader.read_like(&path, (&first.path, &first.map))?,
        None => reader.read(&path)?,
    };
    maps::check_varies(&path, &map)?;
    let half = |half: &Path| -> Result<Volume> {
        let volume = reader.read_like(half, (&path, &map))?;
        maps::check_varies(half, &volume)?;
        Ok(volume)
    };
    let halves = if half1.exists() && half2.exists() { Some([half(&half1)?, half(&half2)?]) } else { None };
    Ok(Run { path, map, halves })
}

/// The names of the folders if they are distinct, else their paths.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let short: Vec<String> = folders
        .iter()
        .map(|folder| folder.file_name().map_or(folder.display().to_string(), |n| n.to_string_lossy().into()))
        .collect();
    let distinct: std::collections::BTreeSet<&String> = short.iter().collect();
    if distinct.len() == short.len() {
        short
    } else {
        folders.iter().map(|folder| folder.display().to_string()).collect()
    }
}
