//! Rendering of SVG as PNG with embedded fonts, so that pictures are equal on every machine.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{ColorU8, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::error::{Error, Result};

/// Font family of all pictures, as an SVG attribute; [`to_png`] embeds DejaVu Sans.
pub const FONT: &str = "DejaVu Sans, sans-serif";

/// Escapes text for XML and HTML, in content and in attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML forbids other control characters, even escaped.
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

fn defect(problem: String) -> Error {
    Error::request(format!("cannot draw a picture: {problem}"), "this is a bug in the program: report it")
}

/// Parses an SVG document.
fn parse(svg: &str) -> Result<Tree> {
    let options = Options { font_family: "DejaVu Sans".into(), fontdb: fonts(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|e| defect(e.to_string()))
}

/// An empty picture of `width` x `height` pixels.
///
/// # Errors
/// When a side is 0 or the picture is too large for memory.
pub fn blank(width: u32, height: u32) -> Result<Pixmap> {
    Pixmap::new(width, height).ok_or_else(|| defect(format!("{width} x {height} pixels")))
}

/// Draws an SVG document over a picture, with one pixel per user unit.
///
/// # Errors
/// When the document is not valid.
pub fn draw_over(picture: &mut Pixmap, svg: &str) -> Result<()> {
    resvg::render(&parse(svg)?, Transform::identity(), &mut picture.as_mut());
    Ok(())
}

/// Renders an SVG document as PNG, with `scale` pixels per user unit.
///
/// # Errors
/// When the document is not valid or has no size.
pub fn to_png(svg: &str, scale: f32) -> Result<Vec<u8>> {
    let tree = parse(svg)?;
    let pixels = |length: f32| (length * scale).ceil() as u32;
    let mut picture = blank(pixels(tree.size().width()), pixels(tree.size().height()))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    encode(&picture)
}

/// Encodes a picture as PNG; colour and alpha channels are omitted if not used.
///
/// # Errors
/// When it cannot be encoded.
pub fn encode(picture: &Pixmap) -> Result<Vec<u8>> {
    let pixels = || picture.pixels().iter().map(|p| p.demultiply());
    let opaque = pixels().all(|p| p.alpha() == 255);
    let grey = pixels().all(|p| p.red() == p.green() && p.green() == p.blue());
    let (colour, data): (_, Vec<u8>) = match (opaque, grey) {
        (true, true) => (png::ColorType::Grayscale, pixels().map(|p| p.red()).collect()),
        (true, false) => {
            (png::ColorType::Rgb, pixels().flat_map(|p| [p.red(), p.green(), p.blue()]).collect())
        }
        (false, _) => {
            let channels = |p: ColorU8| [p.red(), p.green(), p.blue(), p.alpha()];
            (png::ColorType::Rgba, pixels().flat_map(channels).collect())
        }
    };
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(|e| defect(e.to_string()))?;
    writer.write_image_data(&data).map_err(|e| defect(e.to_string()))?;
    writer.finish().map_err(|e| defect(e.to_string()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_with_embedded_fonts_at_scale() {
        let svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20"><text x="2" y="15" font-family="{FONT}" font-size="14" fill="#000">{}</text></svg>"##,
            escape("Å < \"é\" & \u{1}")
        );
        let picture = Pixmap::decode_png(&to_png(&svg, 2.0).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (120, 40));
        let inked = picture.pixels().iter().filter(|p| p.alpha() > 128).count();
        assert!(inked > 100, "{inked} pixels of text");
    }

    #[test]
    fn png_round_trip_keeps_colours() {
        // Transparent, coloured, grey.
        for fill in ["none", "#fa0", "#777"] {
            let svg = format!(
                r##"<svg xmlns="http://www.w3.org/2000/svg" width="9" height="5"><rect width="9" height="5" fill="{fill}"/></svg>"##
            );
            let mut picture = blank(9, 5).unwrap();
            draw_over(&mut picture, &svg).unwrap();
            assert_eq!(Pixmap::decode_png(&encode(&picture).unwrap()).unwrap(), picture, "{fill}");
        }
    }

    #[test]
    fn invalid_svg_is_an_error() {
        assert!(to_png("<svg", 1.0).is_err());
        assert!(blank(0, 5).is_err());
    }
}
