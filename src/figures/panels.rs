//! Rows and columns of grey-scale images, with labels and a scale bar.

use std::fmt::Write as _;

use ndarray::Array2;
use resvg::tiny_skia::{Pixmap, PremultipliedColorU8};

use crate::error::Result;
use crate::figures::axis::{number, round_step};
use crate::figures::picture::{self, FONT, escape};

/// Edge of a panel in pixels.
pub(super) const PANEL: usize = 300;
/// Gap between two panels in pixels.
pub(super) const GAP: usize = 10;
/// Position (left, top) of the first panel.
pub(super) const CORNER: (usize, usize) = (44, 44);
const BOTTOM: usize = 44;
/// Background: lighter than black, so that the edges of panels show.
const BACKGROUND: u8 = 42;

/// A row of panels.
#[derive(Clone, Debug)]
pub struct PanelRow {
    /// Label on the left.
    pub name: String,
    /// Images `[y][x]`, y down, with their grey scales.
    pub panels: Vec<(Array2<f32>, GreyScale)>,
    /// Masks `[y][x]` whose edge at 0.5 is drawn over the panels, from the left; panels beyond have none.
    pub outlines: Vec<Array2<f32>>,
}

impl PanelRow {
    /// A row without outlines.
    pub fn new(name: impl Into<String>, panels: Vec<(Array2<f32>, GreyScale)>) -> Self {
        Self { name: name.into(), panels, outlines: Vec::new() }
    }
}

/// A picture of panels.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Labels of the columns.
    pub columns: Vec<String>,
    /// Rows from the top.
    pub rows: Vec<PanelRow>,
    /// Edge of a panel in angstrom for the scale bar; no bar if not above 0.
    pub edge: f64,
    /// Text below the panels.
    pub remark: String,
}

impl Sheet {
    /// Draws the picture as PNG.
    ///
    /// # Errors
    /// When it is too large for memory.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let width = CORNER.0 + self.columns.len() * (PANEL + GAP) + GAP;
        let height = CORNER.1 + self.rows.len() * (PANEL + GAP) - GAP + BOTTOM;
        let mut picture = picture::blank(width as u32, height as u32)?;
        picture.pixels_mut().fill(grey(BACKGROUND));
        for (i, row) in self.rows.iter().enumerate() {
            for (k, (view, scale)) in row.panels.iter().enumerate() {
                let corner = (CORNER.0 + k * (PANEL + GAP), CORNER.1 + i * (PANEL + GAP));
                paint(&mut picture, &resized(view, PANEL), scale, corner);
                if let Some(mask) = row.outlines.get(k) {
                    outline(&mut picture, &resized(mask, PANEL), corner);
                }
            }
        }
        picture::draw_over(&mut picture, &self.labels(width, height))?;
        picture::encode(&picture)
    }

    /// Labels and scale bar as SVG.
    fn labels(&self, width: usize, height: usize) -> String {
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{FONT}" font-size="15" fill="#dadada">"##
        );
        let (half, (left, top)) = (PANEL / 2, CORNER);
        // Writing to a String cannot fail.
        for (i, name) in self.columns.iter().enumerate() {
            let x = left + i * (PANEL + GAP) + half;
            let _ =
                write!(svg, r#"<text x="{x}" y="{}" text-anchor="middle">{}</text>"#, top - 15, escape(name));
        }
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + i * (PANEL + GAP) + half;
            let _ = write!(
                svg,
                r#"<text x="27" y="{y}" text-anchor="middle" transform="rotate(-90 27 {y})">{}</text>"#,
                escape(&row.name)
            );
        }
        let baseline = height - 16;
        let mut text_from = left as f64;
        if self.edge.is_finite() && self.edge > 0.0 {
            // A round length, a quarter to a half of the panel.
            let length = round_step(self.edge / 4.0);
            let pixels = length / self.edge * PANEL as f64;
            let _ = write!(
                svg,
                r##"<rect x="{left}" y="{}" width="{pixels:.1}" height="4" fill="#ffffff"/><text x="{:.1}" y="{baseline}">{} Å</text>"##,
                baseline - 8,
                left as f64 + pixels + 10.0,
                number(length)
            );
            text_from = (left + PANEL + GAP) as f64;
        }
        let _ = write!(
            svg,
            r##"<text x="{text_from}" y="{baseline}" font-size="13" fill="#a0a0a0">{}</text></svg>"##,
            escape(&self.remark)
        );
        svg
    }
}

/// The values shown as black and white.
#[derive(Clone, Copy, Debug)]
pub struct GreyScale {
    black: f32,
    white: f32,
}

impl GreyScale {
    /// Black at two standard deviations below the mean (or the minimum), white at the 99.9th percentile of all images.
    pub fn for_images<'a>(views: impl Iterator<Item = &'a Array2<f32>>) -> Self {
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
        // With a single spike in an empty map, the percentile equals black: use the maximum.
        let white = if white > black { white } else { most };
        Self { black, white: if white > black { white } else { black + 1.0 } }
    }

    fn shade(&self, value: f32) -> u8 {
        // NaN is black: `as` converts it to 0.
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

/// Draws the edge of a mask at 0.5.
fn outline(picture: &mut Pixmap, mask: &Array2<f32>, (left, top): (usize, usize)) {
    let width = picture.width() as usize;
    let colour =
        PremultipliedColorU8::from_rgba(255, 176, 32, 255).expect("an opaque colour is premultiplied");
    let inside = |y: usize, x: usize| mask[[y, x]] >= 0.5;
    let pixels = picture.pixels_mut();
    for y in 0..PANEL - 1 {
        for x in 0..PANEL - 1 {
            let here = inside(y, x);
            if inside(y, x + 1) != here || inside(y + 1, x) != here {
                pixels[(top + y) * width + left + x] = colour;
            }
        }
    }
}

/// Resamples an image to `side` x `side` pixels with a cubic (Catmull-Rom) kernel, widened when downsampling.
fn resized(view: &Array2<f32>, side: usize) -> Array2<f32> {
    let along = |source: &Array2<f32>| {
        let (lines, n) = source.dim();
        let taps: Vec<Vec<(usize, f32)>> = (0..side).map(|i| weights(i, side, n)).collect();
        // The output is transposed: the second call processes the other axis and transposes back.
        Array2::from_shape_fn((side, lines), |(i, line)| {
            taps[i].iter().map(|&(from, weight)| weight * source[[line, from]]).sum()
        })
    };
    along(&along(view))
}

/// Weights of the `n` source pixels for pixel `i` of `side`; their sum is 1.
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

/// Catmull-Rom kernel: 1 at 0, 0 at other integers and beyond 2.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_preserves_constant_and_ramp() {
        for (n, side) in [(16, 300), (64, 300), (5, 300), (600, 300), (1, 300)] {
            let flat = resized(&Array2::from_elem((n, n), 2.5), side);
            assert_eq!(flat.dim(), (side, side));
            assert!(flat.iter().all(|v| (v - 2.5).abs() < 1e-5));
        }
        let ramp = Array2::from_shape_fn((64, 64), |(y, _)| y as f32);
        let large = resized(&ramp, 300);
        // The axes are not exchanged: row 150 of 300 is at 150.5 * 64 / 300 - 0.5.
        assert!((large[[150, 7]] - 31.6067).abs() < 1e-3, "{}", large[[150, 7]]);
    }
}
