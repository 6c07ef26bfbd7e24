//! What to do with a finished run: a script that shows it in ChimeraX, and the next commands in the log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::names;
use crate::error::Result;
use crate::evaluate::maps::read_cube;
use crate::files::{self, shell_word};
use crate::imaging::Symmetry;
use crate::imaging::mrc::Volume;
use crate::particles::Subset;

/// Share of the voxels of the mask that the surface encloses: the mask reaches beyond the specimen.
const ENCLOSED: f64 = 0.25;

/// Writes view.cxc into the finished run `folder`: its `map`, mask and, where the run has both, half maps, with the main axis of
/// `symmetry`. ChimeraX runs a script in the folder of the script.
///
/// # Errors
/// When the mask cannot be read, or the script not be written.
pub(crate) fn write(folder: &Path, map: &Volume, symmetry: Symmetry) -> Result<()> {
    if !folder.join(names::MAP).exists() {
        // A run of one half has no map of all particles.
        return Ok(());
    }
    let file = folder.join(names::MASK);
    let mask = if file.exists() { Some(read_cube(&file)?) } else { None };
    let has_halves = Subset::HALVES.iter().all(|half| folder.join(names::map(half)).exists());
    let text = script(map, mask.as_ref(), has_halves, symmetry);
    files::write_atomically(&folder.join(names::VIEW), |w| w.write_all(text.as_bytes()))
}

/// Density of `map` above which lie [`ENCLOSED`] of the voxels of `mask`, or as many of a sphere of 0.25 box edges.
fn level(map: &Volume, mask: Option<&Volume>) -> f32 {
    let inside = match mask {
        Some(mask) => mask.data.iter().filter(|&&value| value >= 0.5).count() as f64,
        None => 4.0 / 3.0 * std::f64::consts::PI * 0.25f64.powi(3) * map.data.len() as f64,
    };
    let mut values: Vec<f32> = map.data.iter().copied().filter(|value| value.is_finite()).collect();
    let above = ((ENCLOSED * inside) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(above, |a, b| b.total_cmp(a)).1
}

fn script(map: &Volume, mask: Option<&Volume>, has_halves: bool, symmetry: Symmetry) -> String {
    let level = level(map, mask);
    let mut text = format!("# Shows this run in a new session of ChimeraX: chimerax {}\n", names::VIEW);
    // Models are numbered in the order in which they are opened.
    let mut models = vec![(names::MAP.to_owned(), format!("style surface level {level:.6} color #7fa8d1"))];
    if has_halves {
        for (half, colour) in Subset::HALVES.iter().zip(["#e69f00", "#009e73"]) {
            models.push((names::map(half), format!("style surface level {level:.6} color {colour}")));
        }
    }
    if mask.is_some() {
        models.push((names::MASK.into(), "style mesh level 0.5 color #999999".into()));
    }
    for (number, (file, look)) in (1..).zip(&models) {
        let _ = writeln!(text, "open {file}\nvolume #{number} step 1 {look}");
    }
    if models.len() > 1 {
        let _ =
            writeln!(text, "# Shown on demand: show #2 models, and so on.\nhide #2-{} models", models.len());
    }
    if let Some((fold, axis)) = symmetry.main_axis() {
        let edge = map.data.dim().0;
        let centre = (edge / 2) as f64 * map.pixel_size;
        let reach = 0.5 * edge as f64 * map.pixel_size;
        let end = |sign: f64| axis.map(|part| format!("{:.3}", centre + sign * reach * part)).join(",");
        let radius = 0.5 * map.pixel_size;
        let _ = writeln!(
            text,
            "# The {fold}-fold axis of {symmetry}.\n\
             shape cylinder radius {radius:.3} fromPoint {} toPoint {} color #d55e00",
            end(-1.0),
            end(1.0)
        );
    }
    text + "lighting soft\nview #1\n"
}

/// Logs the next commands for a finished run.
pub(crate) fn log_next(folder: &Path) {
    let at = |name: &str| shell_word(&folder.join(name).to_string_lossy());
    if folder.join(names::VIEW).exists() {
        tracing::info!("next: chimerax {}", at(names::VIEW));
    }
    let [half1, half2] = Subset::HALVES.map(names::map);
    if [&half1, &half2].iter().all(|half| folder.join(half).exists()) {
        tracing::info!("next: cryosplat-mpi postprocess {} {} -o {}", at(&half1), at(&half2), at("post"));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    #[test]
    fn a_script_opens_the_maps_of_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let map = Volume::new(Array3::from_shape_fn((8, 8, 8), |(z, y, x)| (64 * z + 8 * y + x) as f32), 2.0);
        let mask = Volume::new(Array3::from_elem((8, 8, 8), 1.0), 2.0);
        assert_eq!(level(&map, Some(&mask)), 383.0, "a quarter of 512 voxels is above");
        write(folder.path(), &map, Symmetry::C1).unwrap();
        assert!(!folder.path().join("view.cxc").exists(), "there is no map");
        crate::imaging::mrc::write_volume(&folder.path().join("map.mrc"), &map).unwrap();
        write(folder.path(), &map, Symmetry::C1).unwrap();
        let text = || std::fs::read_to_string(folder.path().join("view.cxc")).unwrap();
        assert!(!text().contains("half1") && !text().contains("mask.mrc") && !text().contains("shape"));
        for name in ["half1.mrc", "half2.mrc", "mask.mrc"] {
            crate::imaging::mrc::write_volume(&folder.path().join(name), &mask).unwrap();
        }
        write(folder.path(), &map, "C4".parse().unwrap()).unwrap();
        let text = text();
        let commands: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            commands,
            [
                "open map.mrc",
                "volume #1 step 1 style surface level 383.000000 color #7fa8d1",
                "open half1.mrc",
                "volume #2 step 1 style surface level 383.000000 color #e69f00",
                "open half2.mrc",
                "volume #3 step 1 style surface level 383.000000 color #009e73",
                "open mask.mrc",
                "volume #4 step 1 style mesh level 0.5 color #999999",
                "hide #2-4 models",
                "shape cylinder radius 1.000 fromPoint 8.000,8.000,0.000 toPoint 8.000,8.000,16.000 color #d55e00",
                "lighting soft",
                "view #1",
            ]
        );
        assert!(text.contains("# The 4-fold axis of C4."));
    }
}
