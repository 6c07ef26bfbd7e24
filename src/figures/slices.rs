//! slices.png: central slices and a projection of the half maps and the map.

use ndarray::{Array2, Axis};

use crate::error::{Error, Result};
use crate::evaluate::maps::extent;
use crate::figures::axis::number;
use crate::figures::panels::{GreyScale, PanelRow, Sheet};
use crate::imaging::mrc::Volume;

const COLUMNS: [&str; 4] = ["xy slice", "xz slice", "yz slice", "projection along z"];

/// Draws a PNG picture with one row each for `half1`, `half2`, `map` and the ground truth `truth`. Columns are the slices through the
/// origin (voxel floor(D/2)) across z, y and x, and the projection along z. The first axis named runs to the right, the second down.
/// All slices share one grey scale and all projections another, both from the maps; the ground truth is scaled to the map by linear
/// regression. The edge of `mask`, with values from 0 to 1, is drawn over the slices of the maps.
///
/// # Errors
/// When a map is not a cube or the boxes differ.
pub fn draw(
    half1: &Volume,
    half2: Option<&Volume>,
    map: &Volume,
    truth: Option<&Volume>,
    mask: Option<&Volume>,
) -> Result<Vec<u8>> {
    let mut rows = vec![("half 1", half1)];
    rows.extend(half2.map(|half| ("half 2", half)));
    rows.push(("map", map));
    rows.extend(truth.map(|truth| ("truth", truth)));
    draw_rows(&rows, map, truth, mask)
}

/// Draws a PNG picture of one map with the edge of its mask.
///
/// # Errors
/// As [`draw`].
pub(crate) fn draw_one(map: &Volume, mask: &Volume) -> Result<Vec<u8>> {
    draw_rows(&[("map", map)], map, None, Some(mask))
}

/// Draws the named `rows`, whose last is the ground truth if `truth` is given.
fn draw_rows(
    rows: &[(&str, &Volume)],
    map: &Volume,
    truth: Option<&Volume>,
    mask: Option<&Volume>,
) -> Result<Vec<u8>> {
    let mut rows = rows.to_vec();
    let (z, y, x) = map.data.dim();
    for (name, volume) in &rows {
        if volume.data.dim() != (z, y, x) || z != y || z != x || z == 0 {
            return Err(Error::request(
                format!("cannot draw slices: {name} has {} voxels", extent(volume.data.dim())),
                "give cubic maps with equal boxes",
            ));
        }
    }
    let truth = truth.map(|truth| fitted(truth, map));
    if let (Some(truth), Some(last)) = (&truth, rows.last_mut()) {
        last.1 = truth;
    }
    let panels: Vec<[Array2<f32>; 4]> = rows.iter().map(|(_, volume)| views(volume)).collect();
    // The ground truth does not influence the scales: its ripples would brighten the background of the maps.
    let maps = &panels[..panels.len() - usize::from(truth.is_some())];
    let slice_scale = GreyScale::for_images(maps.iter().flat_map(|p| &p[..3]));
    let projection_scale = GreyScale::for_images(maps.iter().map(|p| &p[3]));

    let outlines: Vec<Array2<f32>> = mask.map_or(Vec::new(), |mask| views(mask)[..3].to_vec());
    let row = |((name, _), views): (&(&str, &Volume), [Array2<f32>; 4])| PanelRow {
        name: (*name).to_owned(),
        panels: views
            .into_iter()
            .enumerate()
            .map(|(column, view)| (view, if column == 3 { projection_scale } else { slice_scale }))
            .collect(),
        outlines: outlines.clone(),
    };
    let edge = z as f64 * map.pixel_size;
    let size = if edge.is_finite() && edge > 0.0 {
        format!("box {z} pixels of {} Å", number(map.pixel_size))
    } else {
        format!("box {z} pixels")
    };
    let sheet = Sheet {
        columns: COLUMNS.map(str::to_owned).to_vec(),
        rows: rows.iter().zip(panels).map(row).collect(),
        edge,
        remark: format!(
            "{size}; first axis to the right, second down; common grey scale for slices, another for projections{}",
            if mask.is_some() { "; line: mask at 0.5" } else { "" }
        ),
    };
    sheet.to_png()
}

/// a `volume` + b, with a and b from linear regression against `map`.
fn fitted(volume: &Volume, map: &Volume) -> Volume {
    let (n, mut sums) = (map.data.len() as f64, [0.0; 4]);
    for (&x, &y) in volume.data.iter().zip(&map.data) {
        let (x, y) = (f64::from(x), f64::from(y));
        for (sum, term) in sums.iter_mut().zip([x, y, x * x, x * y]) {
            *sum += term;
        }
    }
    let [x, y, xx, xy] = sums.map(|sum| sum / n);
    let a = if xx > x * x { (xy - x * y) / (xx - x * x) } else { 0.0 };
    let b = y - a * x;
    let data = volume.data.mapv(|v| (a * f64::from(v) + b) as f32);
    Volume::new(data, volume.pixel_size)
}

/// The three central slices and the projection, each `[y][x]` of the picture.
fn views(volume: &Volume) -> [Array2<f32>; 4] {
    let data = &volume.data;
    let middle = data.dim().0 / 2;
    [
        data.index_axis(Axis(0), middle).to_owned(),
        data.index_axis(Axis(1), middle).to_owned(),
        data.index_axis(Axis(2), middle).to_owned(),
        data.sum_axis(Axis(0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::panels::{CORNER, GAP, PANEL};
    use ndarray::Array3;
    use resvg::tiny_skia::Pixmap;

    #[test]
    fn views_have_documented_axes() {
        let mut data = Array3::zeros((6, 6, 6));
        // One voxel in each central slice: y = 3, z = 3, x = 3.
        data[[1, 3, 2]] = 1.0;
        data[[3, 1, 2]] = 2.0;
        data[[2, 1, 3]] = 3.0;
        let [xy, xz, yz, projection] = views(&Volume::new(data, 1.0));
        assert_eq!(xy[[1, 2]], 2.0, "y down, x right");
        assert_eq!(xz[[1, 2]], 1.0, "z down, x right");
        assert_eq!(yz[[2, 1]], 3.0, "z down, y right");
        assert_eq!((projection[[1, 2]], projection[[3, 2]]), (2.0, 1.0));
    }

    #[test]
    fn degenerate_maps_are_drawn_and_unequal_ones_refused() {
        let flat = Volume::new(Array3::zeros((5, 5, 5)), 0.0);
        let mut broken = flat.clone();
        broken.data[[2, 2, 2]] = f32::NAN;
        let png = Pixmap::decode_png(&draw(&flat, None, &broken, None, None).unwrap()).unwrap();
        assert_eq!((png.width(), png.height()), (1294, 698));
        let other = Volume::new(Array3::zeros((4, 5, 5)), 1.0);
        assert!(
            draw(&flat, Some(&other), &flat, None, None)
                .unwrap_err()
                .to_string()
                .contains("half 2 has 5 x 5 x 4")
        );
    }

    #[test]
    fn bright_voxel_is_bright_in_its_panel_for_any_units_of_truth() {
        let mut map = Volume::new(Array3::zeros((10, 10, 10)), 3.0);
        map.data[[5, 5, 5]] = 4.0;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slices.png");
        let mut truth = map.clone();
        truth.data.mapv_inplace(|v| 100.0 - 7.0 * v);
        std::fs::write(&path, draw(&map, Some(&map), &map, Some(&truth), None).unwrap()).unwrap();
        let png = Pixmap::load_png(&path).unwrap();
        // Voxel 5 of 10 covers pixels 150 to 179 of the panel.
        for (column, row) in [(0, 0), (2, 1), (3, 2), (1, 3)] {
            let (x, y) = (CORNER.0 + column * (PANEL + GAP) + 165, CORNER.1 + row * (PANEL + GAP) + 165);
            assert_eq!(png.pixel(x as u32, y as u32).unwrap().red(), 255);
            assert_eq!(png.pixel(x as u32 - 120, y as u32).unwrap().red(), 0);
        }
    }

    #[test]
    fn edge_of_the_mask_is_drawn_over_the_slices() {
        let map = Volume::new(Array3::from_shape_fn((10, 10, 10), |(_, _, x)| x as f32), 3.0);
        let mask = Volume::new(Array3::from_shape_fn((10, 10, 10), |(_, _, x)| f32::from(x >= 5)), 3.0);
        let orange = |png: &[u8]| {
            let png = Pixmap::decode_png(png).unwrap();
            let columns = png.pixels().iter().enumerate().filter(|(_, p)| (p.red(), p.blue()) == (255, 32));
            columns.map(|(i, _)| i % png.width() as usize).collect::<Vec<_>>()
        };
        let columns = orange(&draw_one(&map, &mask).unwrap());
        // The xy and xz slices have a vertical line in their middle; the yz slice at x = 5 lies inside.
        assert_eq!(columns.len(), 2 * (PANEL - 1));
        assert!(columns.iter().all(|x| (x - CORNER.0) % (PANEL + GAP) == PANEL / 2 - 1), "{columns:?}");
        assert!(orange(&draw(&map, None, &map, None, None).unwrap()).is_empty());
    }
}
