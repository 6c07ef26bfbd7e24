//! A line chart as SVG: axes, curves, thresholds, dots, legend.
//!
//! Drawn here and not by a plotting crate: the report needs SVG that follows the page's colours and is the same bytes everywhere.

use std::fmt::Write;

use crate::figures::axis::{Axis, number};
use crate::figures::colours::Colours;
use crate::figures::picture::{FONT, escape};

/// A curve.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// Legend entry; none if empty.
    pub legend: String,
    /// Points [x, y] from left to right; a point that is not finite interrupts the line.
    pub points: Vec<[f64; 2]>,
    /// Shaded area [x, lower y, upper y] from left to right.
    pub band: Vec<[f64; 3]>,
    /// Points to mark with a dot.
    pub dots: Vec<[f64; 2]>,
    /// Text at the right end.
    pub end: String,
    /// Index of the colour; `None`: the index of the curve.
    pub colour: Option<usize>,
    /// Dashed line, for values that were not measured.
    pub dashed: bool,
    /// Thin and grey, for a reference.
    pub faint: bool,
}

impl Curve {
    /// The colour, as curve `i` of a chart.
    fn stroke<'a>(&self, colours: &'a Colours, i: usize) -> &'a str {
        if self.faint { &colours.muted } else { colours.curve(self.colour.unwrap_or(i)) }
    }

    /// Line width relative to the default.
    fn width(&self) -> f64 {
        if self.faint { 0.5 } else { 1.0 }
    }

    /// Dash attribute. Curves beyond the number of colours are dashed, to distinguish them.
    fn dashes(&self, colours: &Colours, i: usize) -> &'static str {
        if self.dashed || (!self.faint && self.colour.unwrap_or(i) >= colours.curves.len()) {
            r#" stroke-dasharray="7 4""#
        } else {
            ""
        }
    }
}

/// A line chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Title.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Add an axis of the resolution in angstrom at the top; x must be a spatial frequency in 1/angstrom.
    pub resolution_on_top: bool,
    /// Curves; the first is drawn on top.
    pub curves: Vec<Curve>,
    /// Horizontal lines: value, and legend entry.
    pub thresholds: Vec<(f64, String)>,
}

/// The plot area in user units.
struct Frame {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

const TITLE: f64 = 15.0;
const TEXT: f64 = 12.0;
/// Mean advance of a character of DejaVu Sans in font sizes, rounded up so that text widths are overestimated.
const ADVANCE: f64 = 0.62;

/// Number of ticks for a vertical axis of this height.
fn y_ticks(top: f64, bottom: f64) -> f64 {
    (bottom - top) / 36.0
}

fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * ADVANCE * TEXT
}

impl Chart {
    /// Draws it, `width` x `height` user units large.
    pub fn to_svg(&self, colours: &Colours, width: f64, height: f64) -> String {
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut svg, colours, width, height);
        svg
    }

    fn write(&self, svg: &mut String, colours: &Colours, width: f64, height: f64) -> std::fmt::Result {
        let Colours { paper, ink, .. } = colours;
        let title = escape(&self.title);
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FONT}" font-size="{TEXT}" role="img" aria-label="{title}">"#
        )?;
        writeln!(svg, r#"<rect width="{width}" height="{height}" fill="{paper}"/>"#)?;
        writeln!(
            svg,
            r#"<text x="16" y="26" font-size="{TITLE}" font-weight="bold" fill="{ink}">{title}</text>"#
        )?;
        let legend_end = self.write_legend(svg, colours, width)?;
        let end_width = self.curves.iter().map(|c| width_of(&c.end)).fold(12.0, f64::max);
        let top = legend_end + if self.resolution_on_top { 34.0 } else { 14.0 };
        let bottom = height - 54.0;
        // Room for the axis label and the widest number.
        let numbers = self.y.ticks(y_ticks(top, bottom));
        let left = 38.0 + numbers.iter().map(|(_, label)| width_of(label)).fold(0.0, f64::max);
        let frame = Frame { left, top, right: width - end_width - 16.0, bottom };
        self.write_axes(svg, colours, &frame, height)?;
        self.write_thresholds(svg, colours, &frame)?;
        self.write_curves(svg, colours, &frame)?;
        writeln!(svg, "</svg>")
    }

    /// Writes the legend above the plot, where it overlaps no curve. Returns the y coordinate of its end.
    fn write_legend(&self, svg: &mut String, colours: &Colours, width: f64) -> Result<f64, std::fmt::Error> {
        // As many columns as fit with the longest entry.
        let legends =
            self.curves.iter().map(|c| &c.legend).chain(self.thresholds.iter().map(|(_, label)| label));
        let entry = legends.map(|legend| 30.0 + width_of(legend) + 18.0).fold(1.0, f64::max);
        let columns = (((width - 16.0) / entry) as usize).max(1);
        let mut y = 30.0;
        let named = self.curves.iter().enumerate().filter(|(_, curve)| !curve.legend.is_empty());
        let corner =
            |place: usize| (16.0 + (place % columns) as f64 * entry, 48.0 + (place / columns) as f64 * 19.0);
        let mut entries = 0;
        for (place, (i, curve)) in named.enumerate() {
            let (x, line) = corner(place);
            (y, entries) = (line, place + 1);
            let colour = curve.stroke(colours, i);
            writeln!(
                svg,
                r#"<path d="M{x:.1} {0:.1}h22" stroke="{colour}" stroke-width="{5}" stroke-linecap="round"{2}/><text x="{1:.1}" y="{y:.1}" fill="{3}">{4}</text>"#,
                y - 4.0,
                x + 30.0,
                curve.dashes(colours, i),
                colours.ink,
                escape(&curve.legend),
                2.5 * curve.width()
            )?;
        }
        for (place, (_, label)) in (entries..).zip(&self.thresholds) {
            let (x, line) = corner(place);
            y = line;
            writeln!(
                svg,
                r#"<path d="M{x:.1} {:.1}h22" stroke="{}" stroke-dasharray="5 4"/><text x="{:.1}" y="{y:.1}" fill="{}">{}</text>"#,
                y - 4.0,
                colours.muted,
                x + 30.0,
                colours.ink,
                escape(label)
            )?;
        }
        Ok(y)
    }

    fn write_axes(
        &self,
        svg: &mut String,
        colours: &Colours,
        frame: &Frame,
        height: f64,
    ) -> std::fmt::Result {
        let Frame { left, top, right, bottom } = *frame;
        let Colours { ink, muted, grid, .. } = colours;
        for (value, label) in self.x.ticks((right - left) / 64.0) {
            let x = frame.x(&self.x, value);
            writeln!(
                svg,
                r#"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="{grid}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="{muted}">{label}</text>"#,
                bottom + 18.0
            )?;
        }
        for (value, label) in self.y.ticks(y_ticks(top, bottom)) {
            let y = frame.y(&self.y, value);
            writeln!(
                svg,
                r#"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="{grid}"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="{muted}">{label}</text>"#,
                left - 8.0,
                y + 4.0
            )?;
        }
        if self.resolution_on_top {
            for (x, label) in self.resolutions(frame) {
                writeln!(
                    svg,
                    r#"<path d="M{x:.1} {top:.1}v-5" stroke="{muted}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="{muted}">{label}</text>"#,
                    top - 10.0
                )?;
            }
            writeln!(svg, r#"<path d="M{left:.1} {top:.1}H{right:.1}" stroke="{muted}" fill="none"/>"#)?;
        }
        writeln!(
            svg,
            r#"<path d="M{left:.1} {top:.1}V{bottom:.1}H{right:.1}" stroke="{ink}" stroke-width="1.2" fill="none"/>"#
        )?;
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{ink}">{}</text>"#,
            (left + right) / 2.0,
            height - 14.0,
            escape(&self.x.label)
        )?;
        let middle = (top + bottom) / 2.0;
        writeln!(
            svg,
            r#"<text x="18" y="{middle:.1}" text-anchor="middle" transform="rotate(-90 18 {middle:.1})" fill="{ink}">{}</text>"#,
            escape(&self.y.label)
        )
    }

    /// Ticks of the top axis: round resolutions from the highest to the start of the curves, without overlapping labels.
    fn resolutions(&self, frame: &Frame) -> Vec<(f64, String)> {
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let begin = self.curves.iter().filter_map(|c| c.points.first()).map(|p| p[0]);
        let begin = begin.fold(self.x.high, f64::min);
        let mantissas = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
        let candidates = (-1..5).flat_map(|e| mantissas.iter().map(move |m| m * 10f64.powi(e)));
        for resolution in candidates.filter(|r| (begin..=self.x.high).contains(&(1.0 / r))) {
            let x = frame.x(&self.x, 1.0 / resolution);
            let label = format!("{} Å", number(resolution));
            let room = width_of(&label) + 8.0;
            if x > frame.left + 8.0 && ticks.last().is_none_or(|(previous, _)| previous - x > room) {
                ticks.push((x, label));
            }
        }
        ticks
    }

    fn write_thresholds(&self, svg: &mut String, colours: &Colours, frame: &Frame) -> std::fmt::Result {
        let Frame { left, right, .. } = *frame;
        for (value, _) in &self.thresholds {
            let y = frame.y(&self.y, *value);
            writeln!(
                svg,
                r#"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="{0}" stroke-dasharray="5 4"/><text x="{1:.1}" y="{2:.1}" fill="{0}">{3}</text>"#,
                colours.muted,
                left + 8.0,
                y - 6.0,
                number(*value)
            )?;
        }
        Ok(())
    }

    fn write_curves(&self, svg: &mut String, colours: &Colours, frame: &Frame) -> std::fmt::Result {
        for (i, curve) in self.curves.iter().enumerate().filter(|(_, curve)| !curve.band.is_empty()) {
            let lower = curve.band.iter().map(|&[x, low, _]| (x, low));
            let upper = curve.band.iter().rev().map(|&[x, _, high]| (x, high));
            let mut outline = String::new();
            for (x, y) in lower.chain(upper) {
                write!(outline, "{:.2},{:.2} ", frame.x(&self.x, x), frame.y(&self.y, y))?;
            }
            let colour = curve.stroke(colours, i);
            writeln!(svg, r#"<polygon points="{outline}" fill="{colour}" fill-opacity="0.2"/>"#)?;
        }
        // The first curve is drawn last, on top.
        for (i, curve) in self.curves.iter().enumerate().rev() {
            let colour = curve.stroke(colours, i);
            let mut path = String::new();
            let mut pen_down = false;
            for &[x, y] in &curve.points {
                let (x, y) = (frame.x(&self.x, x), frame.y(&self.y, y));
                let finite = x.is_finite() && y.is_finite();
                if finite {
                    write!(path, "{}{x:.2} {y:.2}", if pen_down { 'L' } else { 'M' })?;
                }
                pen_down = finite;
            }
            writeln!(
                svg,
                r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{}" stroke-linejoin="round" stroke-linecap="round"{}/>"#,
                2.0 * curve.width(),
                curve.dashes(colours, i)
            )?;
            for &[x, y] in &curve.dots {
                writeln!(
                    svg,
                    r#"<circle cx="{:.2}" cy="{:.2}" r="4" fill="{colour}" stroke="{}" stroke-width="1.5"/>"#,
                    frame.x(&self.x, x),
                    frame.y(&self.y, y),
                    colours.paper
                )?;
            }
        }
        self.write_ends(svg, colours, frame)
    }

    /// Writes the labels at the right ends of the curves, moved apart if they would overlap.
    fn write_ends(&self, svg: &mut String, colours: &Colours, frame: &Frame) -> std::fmt::Result {
        const APART: f64 = 14.0;
        let mut ends: Vec<(f64, usize)> = (self.curves.iter().enumerate())
            .filter_map(|(i, curve)| {
                let last = curve.points.iter().rev().find(|p| p[0].is_finite() && p[1].is_finite())?;
                Some((frame.y(&self.y, last[1]), i))
            })
            .filter(|(y, _)| y.is_finite())
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        for k in 1..ends.len() {
            ends[k].0 = ends[k].0.max(ends[k - 1].0 + APART);
        }
        // Labels pushed below the plot are moved up, and push up the others.
        let mut limit = frame.bottom;
        for end in ends.iter_mut().rev() {
            end.0 = end.0.min(limit);
            limit = end.0 - APART;
        }
        for (y, i) in ends {
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" fill="{}">{}</text>"#,
                frame.right + 7.0,
                y + 4.0,
                self.curves[i].stroke(colours, i),
                escape(&self.curves[i].end)
            )?;
        }
        Ok(())
    }
}

impl Frame {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        self.left + axis.place(value) * (self.right - self.left)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.bottom - axis.place(value).clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}
