//! report.html: a self-contained page about a run. It loads nothing from the network.

mod judgement;
mod surface;

use std::io::Write as _;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::Result;
use crate::figures::chart::Chart;
use crate::figures::colours::Colours;
use crate::figures::picture::escape;
use crate::files;

pub use judgement::{Judgement, Light, Remark};
pub use surface::Surface;

/// Size of a chart on a wide screen. Charts are drawn per width, so that the text keeps its size.
const WIDE: (f64, f64) = (1000.0, 500.0);
/// Size of a chart beside another on a wide screen.
const HALF_WIDE: (f64, f64) = (490.0, 360.0);
/// Size of a chart on a phone.
const NARROW: (f64, f64) = (380.0, 400.0);
const STYLE: &str = include_str!("report/style.css");
const VIEWER: &str = include_str!("report/viewer.js");

/// Content of a report. Empty parts are omitted.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// Title.
    pub title: String,
    /// Main results: name, and value with its unit.
    pub headline: Vec<(String, String)>,
    /// The verdict, above everything else.
    pub judgement: Option<Judgement>,
    /// Sections in order.
    pub parts: Vec<Part>,
    /// Notes, one per list item.
    pub notes: Vec<String>,
    /// Where the results come from: name and value.
    pub origin: Vec<(String, String)>,
    /// Settings of the run, folded: name and value.
    pub settings: Vec<(String, String)>,
    /// Command line of the run.
    pub command: String,
}

/// A section of the page.
#[derive(Clone, Debug)]
pub enum Part {
    /// A chart with its title.
    Chart(Chart),
    /// Charts with their titles, side by side if the page is wide enough.
    Charts(Vec<Chart>),
    /// An SVG with its title, in CSS colours of the page.
    Svg(String),
    /// A chart with an SVG beside it.
    Pair(Chart, String),
    /// A part with an explanation, folded.
    Guided(Box<Part>, String),
    /// A PNG picture.
    Picture {
        /// Heading.
        heading: String,
        /// Alternative text.
        description: String,
        /// PNG file.
        png: Vec<u8>,
    },
    /// A table.
    Table {
        /// Heading.
        heading: String,
        /// Names of the columns.
        head: Vec<String>,
        /// Cells by row.
        rows: Vec<Vec<String>>,
    },
    /// Names and values.
    Pairs {
        /// Heading.
        heading: String,
        /// Name and value by row.
        rows: Vec<(String, String)>,
    },
    /// Interactive surface of the map. At most one per page.
    Surface(Surface),
}

/// Writes the page, atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write_report(path: &Path, data: &ReportData) -> Result<()> {
    let page = page(data);
    files::write_atomically(path, |w| w.write_all(page.as_bytes()))
}

fn page(data: &ReportData) -> String {
    let title = escape(&data.title);
    let mut body = format!("<h1>{title}</h1>\n");
    body += &data.judgement.as_ref().map_or(String::new(), Judgement::to_html);
    if !data.headline.is_empty() {
        let entries: String = data
            .headline
            .iter()
            .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)))
            .collect();
        body += &format!("<section><dl class=\"headline\">\n{entries}</dl></section>\n");
    }
    data.parts.iter().for_each(|part| body += &part.to_html());
    if !data.notes.is_empty() {
        let notes: String = data.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        body += &section("Notes", &format!("<ul>\n{notes}</ul>"));
    }
    if !data.command.is_empty() {
        body += &section("Command", &format!("<pre>{}</pre>{}", escape(&data.command), pairs(&data.origin)));
    }
    if !data.settings.is_empty() {
        let settings = pairs(&data.settings);
        body += &format!("<section><details><summary>Settings</summary>\n{settings}</details></section>\n");
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>cryosplat-mpi {}</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A table of names and values; nothing without any.
fn pairs(rows: &[(String, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let row = |(name, value): &(String, String)| {
        format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value))
    };
    format!("<table>\n{}</table>", rows.iter().map(row).collect::<String>())
}

impl Part {
    /// The part with an explanation of how to read it.
    #[must_use]
    pub fn with_guide(self, guide: &str) -> Self {
        Self::Guided(Box::new(self), guide.to_owned())
    }

    fn to_html(&self) -> String {
        match self {
            Self::Pair(chart, svg) => format!(
                "<section class=\"charts\">\n<div>{}</div>\n<div>{svg}</div>\n</section>\n",
                drawn(chart, HALF_WIDE)
            ),
            Self::Guided(part, guide) => {
                let html = part.to_html();
                let open = html.strip_suffix("</section>\n").unwrap_or(&html);
                format!(
                    "{open}<details class=\"guide\"><summary>How to read this</summary><p>{}</p></details>\n</section>\n",
                    escape(guide)
                )
            }
            Self::Chart(chart) => format!("<section>{}</section>\n", drawn(chart, WIDE)),
            Self::Charts(charts) => {
                let charts: String =
                    charts.iter().map(|chart| format!("<div>{}</div>\n", drawn(chart, HALF_WIDE))).collect();
                format!("<section class=\"charts\">\n{charts}</section>\n")
            }
            Self::Svg(svg) => format!("<section><div class=\"scroll\">{svg}</div></section>\n"),
            Self::Picture { heading, description, png } => section(
                heading,
                &format!(
                    "<div class=\"scroll\"><img alt=\"{}\" src=\"data:image/png;base64,{}\"></div>",
                    escape(description),
                    STANDARD.encode(png)
                ),
            ),
            Self::Table { heading, head, rows } => section(heading, &table(head, rows)),
            Self::Pairs { heading, rows } => section(heading, &pairs(rows)),
            Self::Surface(surface) => section("Surface of the map", &viewer(surface)),
        }
    }
}

/// Canvas, level slider, voxels and script of the surface.
fn viewer(surface: &Surface) -> String {
    format!(
        "<figure id=\"surface\" data-size=\"{}\" data-most=\"{}\">\n\
         <canvas tabindex=\"0\" role=\"img\" aria-label=\"Surface of the map: rotate by dragging or arrow keys, zoom by wheel or + and -\"></canvas>\n\
         <label>Level <input type=\"range\" min=\"1\" max=\"254\" value=\"{}\"> <output></output></label>\n\
         <figcaption>{} voxels of {:.2} Å along an edge. Drag to rotate, scroll or pinch to zoom.</figcaption>\n\
         <noscript>The surface needs JavaScript.</noscript>\n\
         <script type=\"text/plain\">{}</script>\n</figure>\n<script>\n{VIEWER}</script>",
        surface.size,
        surface.most,
        surface.level,
        surface.size,
        surface.voxel,
        surface.encoded()
    )
}

/// A table of several columns, scrolled on a narrow screen.
fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String], tag: &str| -> String {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(|cells| line(cells, "td")).collect();
    format!(
        "<div class=\"scroll\"><table class=\"columns\">\n<thead>{}</thead>\n<tbody>{body}</tbody></table></div>",
        line(head, "th")
    )
}

fn section(heading: &str, content: &str) -> String {
    format!("<section><h2>{}</h2>\n{content}\n</section>\n", escape(heading))
}

/// A chart for wide screens and for phones; the style sheet shows one of them.
fn drawn(chart: &Chart, wide: (f64, f64)) -> String {
    let colours = Colours::css_variables();
    format!(
        "<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>",
        chart.to_svg(&colours, wide.0, wide.1),
        chart.to_svg(&colours, NARROW.0, NARROW.1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::evaluate::fsc::Fsc;
    use crate::figures::plots::{fsc_chart, loss_chart};

    #[test]
    fn report_is_self_contained_and_escapes_text() {
        let evil = "<script>alert(\"x\")</script>".to_owned();
        let shells = (0..16).map(|s| 1.0 - f64::from(s) / 15.0).collect();
        let fsc = [(evil.clone(), Fsc { pixel_size: 2.0, box_size: 32, shells })];
        let loss = [(evil.clone(), vec![(0.0, 1.0), (1.0, 0.5)])];
        let surface =
            Surface { size: 2, voxel: 3.0, most: 1.5, level: 100, levels: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        let picture = Part::Picture { heading: evil.clone(), description: evil.clone(), png: vec![1, 2, 3] };
        let data = ReportData {
            title: evil.clone(),
            headline: vec![(evil.clone(), evil.clone())],
            judgement: Some(Judgement {
                label: evil.clone(),
                line: evil.clone(),
                reasons: vec![evil.clone()],
                ..Judgement::default()
            }),
            origin: vec![(evil.clone(), evil.clone())],
            parts: vec![
                Part::Chart(fsc_chart(&fsc)),
                Part::Charts(vec![loss_chart(&loss), loss_chart(&loss)]),
                picture.with_guide(&evil),
                Part::Pair(loss_chart(&loss), String::new()),
                Part::Table {
                    heading: evil.clone(),
                    head: vec![evil.clone()],
                    rows: vec![vec![evil.clone()]],
                },
                Part::Surface(surface),
            ],
            notes: vec![evil.clone()],
            settings: vec![(evil.clone(), evil.clone())],
            command: format!("cryosplat-mpi train {evil}"),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write_report(&path, &data).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(!page.contains("<script>alert"), "{page}");
        assert_eq!(page.matches("<script").count(), 2);
        assert!(page.matches("&lt;script&gt;").count() >= 11);
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http") && !links.contains("url(") && !links.contains("@import"));
        assert!(page.contains("data:image/png;base64,AQID"));
        assert!(page.contains("class=\"judgement grey\"") && page.contains("How to read this"));
    }

    #[test]
    fn empty_parts_are_omitted() {
        let page = page(&ReportData { title: "t".into(), ..ReportData::default() });
        assert!(page.contains("<h1>t</h1>") && !page.contains("<section>") && !page.contains("NaN"));
    }
}
