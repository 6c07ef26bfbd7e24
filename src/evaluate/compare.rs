//! Comparison of several runs of the same particles: the FSC of their half maps, their cross-validation, and the FSC of their maps against
//! the ground truth. Runs are ranked by their cross-validated curves ([`super::ranking`]).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::cross_validation::{CrossValidation, LABEL};
use crate::evaluate::curves;
use crate::evaluate::fsc::Fsc;
use crate::evaluate::maps::{self, MapReader, extent};
use crate::evaluate::mask::Mask;
use crate::evaluate::ranking::{self, Ranking, Validated};
use crate::files;
use crate::imaging::mrc::{Frame, Volume};
use crate::imaging::resample;

/// Largest difference of the fields of view of maps that are resampled, as a fraction of them.
const FIELD_TOLERANCE: f64 = 1e-3;
const REMEDY: &str = "name the folder of a finished run of `train` or `backproject`";

/// Maps that a curve compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Against {
    /// The half maps of a run.
    #[serde(rename = "half maps")]
    Halves,
    /// The half maps of a run and the voxel maps of the other half's particles.
    #[serde(rename = "cross-validated")]
    Particles,
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

/// Curves and ranking of several runs.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The curves, run by run.
    pub curves: Vec<Compared>,
    /// The runs in order; `None` where fewer than two have a cross-validated curve.
    pub ranking: Option<Ranking>,
    /// Remarks for the user, one per line.
    pub notes: Vec<String>,
}

/// The maps of a run.
struct Run {
    /// File of `map`.
    path: PathBuf,
    map: Volume,
    halves: Option<[Volume; 2]>,
    /// Voxel half maps of the same particles.
    voxels: Option<[Volume; 2]>,
    /// Whether the half maps are voxel maps, whose errors are independent.
    is_voxels: bool,
}

/// Compares the runs in `folders`. Maps of other boxes with the same field of view are resampled to the smallest box. All maps are
/// multiplied by the mask that `mask` makes from the first run's map. Runs without voxel maps of their own are cross-validated with those
/// of the run folder `voxels`, if given.
///
/// # Errors
/// When a folder holds no maps of a finished run, or nothing to compare; when maps differ in field of view or frame.
pub fn compare(
    folders: &[PathBuf],
    truth: Option<&Path>,
    voxels: Option<&Path>,
    reader: &MapReader,
    mask: impl FnOnce(&Volume) -> Result<Option<Mask>>,
) -> Result<Comparison> {
    let mut runs = folders.iter().map(|folder| read(folder, reader)).collect::<Result<Vec<Run>>>()?;
    if runs.is_empty() {
        return Err(Error::request("there is no run to compare", "name one or more run folders"));
    }
    let voxels = voxels.map(|folder| voxel_half_maps(folder, reader, None)).transpose()?;
    let mut notes = Vec::new();
    let size = runs.iter().map(|run| run.map.data.dim().0).min().unwrap_or(0);
    let grid = Grid::of(&runs, size);
    for run in &mut runs {
        let n = run.map.data.dim().0;
        if n != size {
            notes.push(format!("{}: resampled from {n} to {size} pixels", run.path.display()));
        }
        let path = run.path.clone();
        grid.fit(&path, &mut run.map, reader)?;
        for map in run.halves.iter_mut().chain(&mut run.voxels).flatten() {
            grid.fit(&path, map, reader)?;
        }
        if run.voxels.is_none() && !run.is_voxels {
            run.voxels.clone_from(&voxels);
            for map in run.voxels.iter_mut().flatten() {
                grid.fit(&path, map, reader)?;
            }
        }
    }
    let truth = truth.map(|path| -> Result<Volume> {
        let mut volume = reader.read(path)?;
        // A ground truth may lack a pixel size.
        if volume.pixel_size == 0.0 && volume.data.dim() == grid.map.data.dim() {
            volume.pixel_size = grid.map.pixel_size;
        }
        grid.fit(path, &mut volume, reader)?;
        maps::check_varies(path, &volume)?;
        Ok(volume)
    });
    let truth = truth.transpose()?;
    let mask = mask(&grid.map)?;
    let (curves, validated) = curves_of(&runs, folders, truth.as_ref(), mask.as_ref())?;
    let names = names(folders);
    if let Some(missing) = ranking::missing(&names, &validated) {
        notes.push(missing);
    }
    Ok(Comparison { curves, ranking: Ranking::of(&names, &validated), notes })
}

/// All curves, and the cross-validated one of each run.
fn curves_of(
    runs: &[Run],
    folders: &[PathBuf],
    truth: Option<&Volume>,
    mask: Option<&Mask>,
) -> Result<(Vec<Compared>, Vec<Option<Validated>>)> {
    let between = |a: &Volume, b: &Volume| match mask {
        Some(mask) => Fsc::between_masked(a, b, mask),
        None => Fsc::between(a, b),
    };
    let (mut curves, mut validated) = (Vec::new(), Vec::new());
    for (index, (run, name)) in runs.iter().zip(names(folders)).enumerate() {
        let mut of_run = None;
        let mut add = |against, label: String, fsc: &Fsc| {
            curves.push(Compared { run: index, against, label, fsc: fsc.clone() });
        };
        if let Some([half1, half2]) = &run.halves {
            let fsc = between(half1, half2)?;
            add(Against::Halves, format!("{name}, half maps"), &fsc);
            // The half maps of voxels are cross-validated by themselves.
            let voxels = if run.is_voxels { run.halves.as_ref() } else { run.voxels.as_ref() };
            if let Some([voxels1, voxels2]) = voxels {
                let found = CrossValidation::compute([half1, half2], [voxels1, voxels2], mask, fsc)?;
                if found.resolution_limit().is_some() {
                    if !run.is_voxels {
                        add(Against::Particles, format!("{name}, {LABEL}"), &found.curve);
                    }
                    of_run = Some((found.curve, found.errors));
                }
            }
        }
        if let Some(truth) = truth {
            add(Against::Truth, format!("{name} against truth"), &between(&run.map, truth)?);
        } else if run.halves.is_none() {
            return Err(Error::input(
                &folders[index],
                "",
                "does not hold two half maps, and there is no ground truth to compare its map with",
                "give the ground-truth map with --truth, or leave out this run",
            ));
        }
        validated.push(of_run);
    }
    Ok((curves, validated))
}

impl Comparison {
    /// The curves with their labels.
    pub(crate) fn labelled(&self) -> Vec<(String, Fsc)> {
        self.curves.iter().map(|curve| (curve.label.clone(), curve.fsc.clone())).collect()
    }

    /// A table for people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = curves::to_text(&self.labelled());
        text += &self.ranking.as_ref().map_or(String::new(), Ranking::to_text);
        for note in &self.notes {
            text += note;
            text.push('\n');
        }
        text
    }

    /// A JSON object with all shells; `folders` are those of [`compare`].
    pub(crate) fn to_json(&self, folders: &[PathBuf]) -> Value {
        let with_run = |(compared, labelled): (&Compared, &(String, Fsc))| {
            let mut value = curves::to_json(labelled);
            value["run"] = folders[compared.run].display().to_string().into();
            value["against"] = json!(compared.against);
            value
        };
        let curves: Vec<_> = self.curves.iter().zip(&self.labelled()).map(with_run).collect();
        json!({ "curves": curves, "ranking": self.ranking, "notes": self.notes })
    }
}

/// The grid that all maps are brought to: that of the first map, in the smallest box.
struct Grid {
    path: PathBuf,
    /// The first map on this grid.
    map: Volume,
    /// Edge of the first map as it is in its file: in angstrom, and in voxels.
    edge: f64,
    voxels: usize,
}

impl Grid {
    fn of(runs: &[Run], size: usize) -> Self {
        let first = &runs[0];
        let voxels = first.map.data.dim().0;
        let edge = voxels as f64 * first.map.pixel_size;
        Self { path: first.path.clone(), map: to_size(&first.map, size), edge, voxels }
    }

    /// Brings `map`, from the file `path`, to this grid.
    fn fit(&self, path: &Path, map: &mut Volume, reader: &MapReader) -> Result<()> {
        let (n, size) = (map.data.dim().0, self.map.data.dim().0);
        let edge = n as f64 * map.pixel_size;
        if n != self.voxels && (edge - self.edge).abs() > FIELD_TOLERANCE * self.edge {
            let problem = format!(
                "has {} voxels of {:.4} A, {edge:.2} A along an edge, but {} has an edge of {:.2} A ({} voxels)",
                extent(map.data.dim()),
                map.pixel_size,
                self.path.display(),
                self.edge,
                extent((self.voxels, self.voxels, self.voxels)),
            );
            return Err(Error::input(path, "", problem, "crop or pad one of them to the same field of view"));
        }
        let ignores_frame = reader.ignore_frame;
        if n != size && map.frame != Frame::default() && !ignores_frame {
            let problem =
                format!("begins elsewhere ({}) and has another box than {}", map.frame, self.path.display());
            return Err(Error::input(path, "", problem, "give --ignore-frame if their centres coincide"));
        }
        if n != size {
            *map = to_size(map, size);
            map.pixel_size = self.map.pixel_size;
        }
        if ignores_frame {
            map.frame = self.map.frame;
        }
        maps::check_comparable((path, map), (&self.path, &self.map))?;
        (map.pixel_size, map.frame) = (self.map.pixel_size, self.map.frame);
        Ok(())
    }
}

/// A map in a box of `size` voxels with the same field of view.
fn to_size(map: &Volume, size: usize) -> Volume {
    let n = map.data.dim().0;
    let pixel_size = map.pixel_size * n as f64 / size as f64;
    Volume { data: resample::to_size(map.data.clone(), size), pixel_size, ..*map }
}

/// The content of a folder's run.json; null if there is none.
fn document(folder: &Path) -> Value {
    let text = files::read_text(&folder.join("run.json")).ok();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Reads the maps of a run.
fn read(folder: &Path, reader: &MapReader) -> Result<Run> {
    if !folder.is_dir() {
        return Err(Error::input(folder, "", "is not a folder", REMEDY));
    }
    let document = document(folder);
    if let Some(state) = document["state"].as_str().filter(|state| *state != "done") {
        return Err(Error::input(folder, "run.json", format!("the state of this run is {state:?}"), REMEDY));
    }
    let [half1, half2, map] = ["half1.mrc", "half2.mrc", "map.mrc"].map(|name| folder.join(name));
    // A run of one half has only the map of that half.
    let Some(path) = [&map, &half1, &half2].into_iter().find(|path| path.exists()).cloned() else {
        return Err(Error::input(folder, "", "holds no map.mrc", REMEDY));
    };
    let map = reader.read(&path)?;
    maps::check_varies(&path, &map)?;
    let half = |half: &Path| -> Result<Volume> {
        let volume = reader.read_like(half, (&path, &map))?;
        maps::check_varies(half, &volume)?;
        Ok(volume)
    };
    let halves = if half1.exists() && half2.exists() { Some([half(&half1)?, half(&half2)?]) } else { None };
    let is_voxels = document["method"] == "backproject";
    let own = folder.join(VOXELS[0]).exists() && !is_voxels;
    let voxels = own.then(|| voxel_half_maps(folder, reader, Some((&path, &map)))).transpose()?;
    Ok(Run { path, map, halves, voxels, is_voxels })
}

/// The voxel half maps of a run of `train`.
pub(crate) const VOXELS: [&str; 2] = ["voxels_half1.mrc", "voxels_half2.mrc"];

/// Reads the voxel half maps of a run of `train` or `backproject`, or of another program (half1.mrc and half2.mrc), which coincide with the
/// map `like` from its file.
///
/// # Errors
/// When the folder holds none, they cannot be read, or do not coincide.
pub(crate) fn voxel_half_maps(
    folder: &Path,
    reader: &MapReader,
    like: Option<(&Path, &Volume)>,
) -> Result<[Volume; 2]> {
    let document = document(folder);
    let is_model = document["particles"].is_object() && document["method"] != "backproject";
    let own = VOXELS.map(|name| folder.join(name));
    let files = if own[0].exists() {
        own
    } else if is_model {
        return Err(Error::input(
            folder,
            "",
            format!("is a run of `train` without {}", VOXELS[0]),
            "give the folder of a `backproject` run of its particles",
        ));
    } else {
        ["half1.mrc", "half2.mrc"].map(|name| folder.join(name))
    };
    let read = |path: &PathBuf| -> Result<Volume> {
        let map = match like {
            Some(like) => reader.read_like(path, like)?,
            None => reader.read(path)?,
        };
        maps::check_varies(path, &map)?;
        Ok(map)
    };
    Ok([read(&files[0])?, read(&files[1])?])
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
