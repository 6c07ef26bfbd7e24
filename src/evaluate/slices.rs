//! slices.png: central slices and a projection of the half maps and the map, side by side on one grey scale.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use ndarray::{Array2, Axis};
use resvg::tiny_skia::{Pixmap, PremultipliedColorU8};

use crate::error::{Error, Result};
use crate::evaluate::chart::{number, round_step};
use crate::evaluate::fsc::extent;
use crate::evaluate::picture::{self, FONT, escape};
use crate::files;
use crate::imaging::mrc::Volume;

/// Side of a panel in pixels.
const PANEL: usize = 300;
const GAP: usize = 10;
const LEFT: usize = 44;
const TOP: usize = 44;
const BOTTOM: usize = 44;
const COLUMNS: [&str; 4] = ["xy slice", "xz slice", "yz slice", "projection along z"];
/// Lighter than the black of an empty map, so that panels keep their edges.
const GROUND: u8 = 42;

/// Writes the picture: one row each for `half1`, `half2` (where there is one), `map`, and `truth` (where it is known);
/// columns are the slices through the origin (voxel floor(D/2)) across z, y and x, and the projection along z. The first
/// named axis runs to the right, the second down. All slices share one grey scale, all projections another, both taken
/// from the maps; the truth, whose units are its own, is brought to the map's by the line that fits best.
///
/// # Errors
/// When a map is not a cube or the boxes differ, or the file cannot be written.
pub fn write_slices(
    path: &Path,
    half1: &Volume,
    half2: Option<&Volume>,
    map: &Volume,
    truth: Option<&Volume>,
) -> Result<()> {
    let png = draw(half1, half2, map, truth)?;
    files::write_atomically(path, |w| w.write_all(&png))
}

/// The picture of [`write_slices`] as PNG.
///
/// # Errors
/// When a map is not a cube or the boxes differ.
pub fn draw(half1: &Volume, half2: Option<&Volume>, map: &Volume, truth: Option<&Volume>) -> Result<Vec<u8>> {
    let mut rows = vec![("half 1", half1)];
    rows.extend(half2.map(|half| ("half 2", half)));
    rows.push(("map", map));
    rows.extend(truth.map(|truth| ("truth", truth)));
    let (z, y, x) = map.data.dim();
    for (name, volume) in &rows {
        if volume.data.dim() != (z, y, x) || z != y || z != x || z == 0 {
            return Err(Error::request(
                format!("cannot draw slices: {name} is {} voxels", extent(volume.data.dim())),
                "give cubic maps of one box",
            ));
        }
    }
    let truth = truth.map(|truth| fitted(truth, map));
    if let (Some(truth), Some(last)) = (&truth, rows.last_mut()) {
        last.1 = truth;
    }
    let panels: Vec<[Array2<f32>; 4]> = rows.iter().map(|(_, volume)| views(volume)).collect();
    // The maps set the scales: the truth's ripples outside would grey their ground.
    let maps = &panels[..panels.len() - usize::from(truth.is_some())];
    let slice_scale = GreyScale::of(maps.iter().flat_map(|p| &p[..3]));
    let projection_scale = GreyScale::of(maps.iter().map(|p| &p[3]));

    let width = LEFT + COLUMNS.len() * (PANEL + GAP) + GAP;
    let height = TOP + rows.len() * (PANEL + GAP) - GAP + BOTTOM;
    let mut picture = picture::blank(width as u32, height as u32)?;
    let ground = grey(GROUND);
    picture.pixels_mut().fill(ground);
    for (row, views) in panels.iter().enumerate() {
        for (column, view) in views.iter().enumerate() {
            let scale = if column == 3 { &projection_scale } else { &slice_scale };
            let corner = (LEFT + column * (PANEL + GAP), TOP + row * (PANEL + GAP));
            paint(&mut picture, &resized(view, PANEL), scale, corner);
        }
    }
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    picture::draw_over(&mut picture, &labels(&names, map, width, height))?;
    picture::encode(&picture)
}

/// `volume` a + b, with the a and b that come closest to `map`.
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
    Volume { data, pixel_size: volume.pixel_size }
}

/// The three central slices and the projection, each `[down][right]`.
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

/// Which values are black and white.
struct GreyScale {
    black: f32,
    white: f32,
}

impl GreyScale {
    /// Black at two standard deviations below the mean (or the least value), white at the 99.9th percentile.
    fn of<'a>(views: impl Iterator<Item = &'a Array2<f32>>) -> Self {
        let mut values: Vec<f32> = views.flatten().copied().filter(|v| v.is_finite()).collect();
        values.sort_unstable_by(f32::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            return Self { black: 0.0, white: 1.0 };
        };
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let black = (mean - 2.0 * variance.sqrt()).max(f64::from(least)) as f32;
        let white = values[((n * 0.999) as usize).min(values.len() - 1)];
        // A spike in an empty map leaves the percentile at the ground.
        let white = if white > black { white } else { most };
        Self { black, white: if white > black { white } else { black + 1.0 } }
    }

    fn shade(&self, value: f32) -> u8 {
        // A value that is not finite is black: `as` takes NaN to 0.
        (255.0 * (value - self.black) / (self.white - self.black)).round().clamp(0.0, 255.0) as u8
    }
}

fn grey(level: u8) -> PremultipliedColorU8 {
    PremultipliedColorU8::from_rgba(level, level, level, 255).expect("an opaque colour is premultiplied")
}

fn paint(picture: &mut Pixmap, panel: &Array2<f32>, scale: &GreyScale, (left, top): (usize, usize)) {
    let width = picture.width() as usize;
    let pixels = picture.pixels_mut();
    for ((y, x), &value) in panel.indexed_iter() {
        pixels[(top + y) * width + left + x] = grey(scale.shade(value));
    }
}

/// Resamples a picture to `side` x `side` pixels with a cubic kernel (Catmull and Rom), widened where it shrinks.
fn resized(view: &Array2<f32>, side: usize) -> Array2<f32> {
    let along = |source: &Array2<f32>| {
        let (lines, n) = source.dim();
        let taps: Vec<Vec<(usize, f32)>> = (0..side).map(|i| weights(i, side, n)).collect();
        // Written transposed, so that the second call runs along the other axis and turns it back.
        Array2::from_shape_fn((side, lines), |(i, line)| {
            taps[i].iter().map(|&(from, weight)| weight * source[[line, from]]).sum()
        })
    };
    along(&along(view))
}

/// What the `n` source pixels give to pixel `i` of `side`; sums to 1.
fn weights(i: usize, side: usize, n: usize) -> Vec<(usize, f32)> {
    let step = n as f64 / side as f64;
    let spread = step.max(1.0);
    let centre = (i as f64 + 0.5) * step - 0.5;
    let (first, last) = ((centre - 2.0 * spread).ceil() as isize, (centre + 2.0 * spread).floor() as isize);
    let raw: Vec<(usize, f64)> = (first..=last)
        .map(|j| (j.clamp(0, n as isize - 1) as usize, cubic((j as f64 - centre) / spread)))
        .collect();
    let sum: f64 = raw.iter().map(|(_, w)| w).sum();
    raw.into_iter().map(|(j, w)| (j, (w / sum) as f32)).collect()
}

/// Catmull and Rom's kernel: 1 at 0, 0 at the other integers, nothing beyond 2.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// The words and the scale bar, as SVG over the panels.
fn labels(rows: &[&str], map: &Volume, width: usize, height: usize) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{FONT}" font-size="15" fill="#dadada">"##
    );
    let half = PANEL / 2;
    // Writing to a String cannot fail.
    for (i, name) in COLUMNS.iter().enumerate() {
        let x = LEFT + i * (PANEL + GAP) + half;
        let _ = write!(svg, r#"<text x="{x}" y="{}" text-anchor="middle">{}</text>"#, TOP - 15, escape(name));
    }
    for (i, name) in rows.iter().enumerate() {
        let y = TOP + i * (PANEL + GAP) + half;
        let _ = write!(
            svg,
            r#"<text x="27" y="{y}" text-anchor="middle" transform="rotate(-90 27 {y})">{}</text>"#,
            escape(name)
        );
    }
    let baseline = height - 16;
    let edge = map.data.dim().0 as f64 * map.pixel_size;
    let mut text_from = LEFT as f64;
    if edge.is_finite() && edge > 0.0 {
        // A round length of a quarter to a half of the panel.
        let length = round_step(edge / 4.0);
        let pixels = length / edge * PANEL as f64;
        let _ = write!(
            svg,
            r##"<rect x="{LEFT}" y="{}" width="{pixels:.1}" height="4" fill="#ffffff"/><text x="{:.1}" y="{baseline}">{} Å</text>"##,
            baseline - 8,
            LEFT as f64 + pixels + 10.0,
            number(length)
        );
        text_from = (LEFT + PANEL + GAP) as f64;
    }
    let size = if edge.is_finite() && edge > 0.0 {
        format!("box {} pixels of {} Å", map.data.dim().0, number(map.pixel_size))
    } else {
        format!("box {} pixels", map.data.dim().0)
    };
    let _ = write!(
        svg,
        r##"<text x="{text_from}" y="{baseline}" font-size="13" fill="#a0a0a0">{size}; first axis to the right, second down; one grey scale for the slices, one for the projections</text></svg>"##
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn resampling_keeps_a_constant_and_a_ramp() {
        for (n, side) in [(16, 300), (64, 300), (5, 300), (600, 300), (1, 300)] {
            let flat = resized(&Array2::from_elem((n, n), 2.5), side);
            assert_eq!(flat.dim(), (side, side));
            assert!(flat.iter().all(|v| (v - 2.5).abs() < 1e-5));
        }
        let ramp = Array2::from_shape_fn((64, 64), |(y, _)| y as f32);
        let large = resized(&ramp, 300);
        // Down stays down: row 150 of 300 is at 150.5 * 64 / 300 - 0.5.
        assert!((large[[150, 7]] - 31.6067).abs() < 1e-3, "{}", large[[150, 7]]);
    }

    #[test]
    fn each_view_runs_as_it_says() {
        let mut data = Array3::zeros((6, 6, 6));
        // Each in one central slice only: y = 3, z = 3, x = 3.
        data[[1, 3, 2]] = 1.0;
        data[[3, 1, 2]] = 2.0;
        data[[2, 1, 3]] = 3.0;
        let [xy, xz, yz, projection] = views(&Volume { data, pixel_size: 1.0 });
        assert_eq!(xy[[1, 2]], 2.0, "y down, x right");
        assert_eq!(xz[[1, 2]], 1.0, "z down, x right");
        assert_eq!(yz[[2, 1]], 3.0, "z down, y right");
        assert_eq!((projection[[1, 2]], projection[[3, 2]]), (2.0, 1.0));
    }

    #[test]
    fn odd_maps_are_drawn_and_unequal_ones_refused() {
        let flat = Volume { data: Array3::zeros((5, 5, 5)), pixel_size: 0.0 };
        let mut broken = flat.clone();
        broken.data[[2, 2, 2]] = f32::NAN;
        let png = Pixmap::decode_png(&draw(&flat, None, &broken, None).unwrap()).unwrap();
        assert_eq!((png.width(), png.height()), (1294, 698));
        let other = Volume { data: Array3::zeros((4, 5, 5)), pixel_size: 1.0 };
        assert!(
            draw(&flat, Some(&other), &flat, None).unwrap_err().to_string().contains("half 2 is 5 x 5 x 4")
        );
    }

    #[test]
    fn a_bright_voxel_is_bright_in_its_panel_whatever_the_units_of_the_truth() {
        let mut map = Volume { data: Array3::zeros((10, 10, 10)), pixel_size: 3.0 };
        map.data[[5, 5, 5]] = 4.0;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slices.png");
        let mut truth = map.clone();
        truth.data.mapv_inplace(|v| 100.0 - 7.0 * v);
        write_slices(&path, &map, Some(&map), &map, Some(&truth)).unwrap();
        let png = Pixmap::load_png(&path).unwrap();
        // Voxel 5 of 10 covers pixels 150 to 179 of the panel.
        for (column, row) in [(0, 0), (2, 1), (3, 2), (1, 3)] {
            let (x, y) = (LEFT + column * (PANEL + GAP) + 165, TOP + row * (PANEL + GAP) + 165);
            assert_eq!(png.pixel(x as u32, y as u32).unwrap().red(), 255);
            assert_eq!(png.pixel(x as u32 - 120, y as u32).unwrap().red(), 0);
        }
    }
}
