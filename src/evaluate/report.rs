//! report.html: one page that tells of a run, with nothing beside it and nothing from the network.

use std::io::Write as _;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::Result;
use crate::evaluate::chart::{Chart, Colours};
use crate::evaluate::fsc::Fsc;
use crate::evaluate::picture::escape;
use crate::evaluate::plots::{fsc_chart, loss_chart};
use crate::files;

/// Width and height of a chart on a screen and on a phone: text keeps its size, so each is drawn for its width.
const WIDE: (f64, f64) = (1000.0, 500.0);
const NARROW: (f64, f64) = (380.0, 400.0);
const STYLE: &str = include_str!("report.css");

/// What a report says. Parts that are empty are left out.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// The heading.
    pub title: String,
    /// The numbers that matter most: name and value with its unit.
    pub headline: Vec<(String, String)>,
    /// The settings of the run: name and value.
    pub settings: Vec<(String, String)>,
    /// The command that repeats the run.
    pub command: String,
    /// FSC curves by label.
    pub fsc: Vec<(String, Fsc)>,
    /// Loss curves by label: (epoch, loss).
    pub loss: Vec<(String, Vec<(f64, f64)>)>,
    /// The picture of the slices, as PNG.
    pub slices_png: Vec<u8>,
    /// Remarks, one a paragraph.
    pub notes: Vec<String>,
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
    if !data.headline.is_empty() {
        let entries: String = data
            .headline
            .iter()
            .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)))
            .collect();
        body += &format!("<section><dl class=\"headline\">\n{entries}</dl></section>\n");
    }
    if !data.fsc.is_empty() {
        body += &chart(&fsc_chart(&data.fsc));
    }
    if !data.slices_png.is_empty() {
        body += &section(
            "Slices",
            &format!(
                "<div class=\"scroll\"><img alt=\"Central slices and projections of the half maps and the map\" src=\"data:image/png;base64,{}\"></div>",
                STANDARD.encode(&data.slices_png)
            ),
        );
    }
    if !data.loss.is_empty() {
        body += &chart(&loss_chart(&data.loss));
    }
    if !data.notes.is_empty() {
        let notes: String = data.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        body += &section("Notes", &format!("<ul>\n{notes}</ul>"));
    }
    if !data.settings.is_empty() {
        let rows: String = data
            .settings
            .iter()
            .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)))
            .collect();
        body += &section("Settings", &format!("<table>\n{rows}</table>"));
    }
    if !data.command.is_empty() {
        body += &section("To repeat it", &format!("<pre>{}</pre>", escape(&data.command)));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>cryosplat-mpi {}</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn section(heading: &str, content: &str) -> String {
    format!("<section><h2>{}</h2>\n{content}\n</section>\n", escape(heading))
}

/// A chart for screens and the same for phones; the style shows one. Both take their colours from the page.
fn chart(chart: &Chart) -> String {
    let colours = Colours::of_the_page();
    format!(
        "<section><div class=\"wide\">{}</div><div class=\"narrow\">{}</div></section>\n",
        chart.to_svg(&colours, WIDE.0, WIDE.1),
        chart.to_svg(&colours, NARROW.0, NARROW.1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_stands_alone_and_trusts_no_text() {
        let evil = "<script>alert(\"x\")</script>".to_owned();
        let shells = (0..16).map(|s| 1.0 - f64::from(s) / 15.0).collect();
        let data = ReportData {
            title: evil.clone(),
            headline: vec![(evil.clone(), evil.clone())],
            settings: vec![(evil.clone(), evil.clone())],
            command: format!("cryosplat-mpi train {evil}"),
            fsc: vec![(evil.clone(), Fsc { pixel_size: 2.0, box_size: 32, shells })],
            loss: vec![(evil.clone(), vec![(0.0, 1.0), (1.0, 0.5)])],
            slices_png: vec![1, 2, 3],
            notes: vec![evil],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write_report(&path, &data).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() >= 8);
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http") && !links.contains("url(") && !links.contains("@import"));
        assert!(page.contains("data:image/png;base64,AQID"));
    }

    #[test]
    fn empty_parts_are_left_out() {
        let page = page(&ReportData { title: "t".into(), ..ReportData::default() });
        assert!(page.contains("<h1>t</h1>") && !page.contains("<section>") && !page.contains("NaN"));
    }
}
