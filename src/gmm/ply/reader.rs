//! The reader of PLY files of a mixture.

use std::path::Path;

use super::header::{Element, Format, Header};
use super::{Gmm, Shape};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::Symmetry;

/// The property of each plane of an anisotropic [`Gmm`].
const PLANES: [&str; 11] =
    ["x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "amplitude"];
/// Prefix that CloudCompare puts before the properties that it does not know.
const FOREIGN_PREFIX: &str = "scalar_";

const REMEDY: &str = "give a PLY file that `cryosplat-mpi train` wrote, or the HDF5 file next to it";

/// Reads a mixture as an anisotropic one, and its point group: text or binary of either byte order, lines that end as on any
/// system. Properties may have any order and numeric type, and the prefix `scalar_`; unknown ones and elements other than `vertex`
/// are ignored.
///
/// # Errors
/// When the file is missing, is not PLY, lacks a property (a scene of 3D Gaussian splatting has no amplitudes), is truncated, or
/// names an unknown point group, or contains a non-finite value or a zero quaternion.
pub fn read(path: &Path) -> Result<(Gmm, Symmetry)> {
    let bytes = files::read_bytes(path).map_err(Error::io(path, "read the file", "check the path"))?;
    let bad = |at: String, problem: String| Error::input(path, at, problem, REMEDY);
    let (header, body) = Header::split(&bytes).map_err(|(line, problem)| {
        bad(if line > 0 { format!("line {line}") } else { String::new() }, problem)
    })?;
    let at = header.elements.iter().position(|e| e.name == "vertex" && e.rows > 0);
    let at = at.ok_or_else(|| bad(String::new(), "contains no vertices".into()))?;
    let vertex = &header.elements[at];
    let columns = columns(vertex).map_err(|problem| bad(String::new(), problem))?;
    let rows = match header.format {
        Format::Ascii => text_rows(&header, at, body, &columns),
        _ => binary_rows(&header, at, body, &columns),
    };
    let rows = rows.map_err(|(at, problem)| bad(at, problem))?;
    let count = vertex.rows;
    let mut values = vec![0.0; PLANES.len() * count];
    for (i, row) in rows.chunks_exact(PLANES.len()).enumerate() {
        let at = || format!("vertex {}", i + 1);
        for (plane, &value) in row.iter().enumerate() {
            if !value.is_finite() {
                return Err(bad(at(), format!("`{}` is {value}", PLANES[plane])));
            }
            values[plane * count + i] = value;
        }
        if row[6..10] == [0.0; 4] {
            return Err(bad(at(), "has a zero quaternion".into()));
        }
    }
    Ok((Gmm::from_values(Shape::Anisotropic, count, values), header.symmetry))
}

/// The column of each plane.
fn columns(vertex: &Element) -> std::result::Result<[usize; PLANES.len()], String> {
    let named = |name: &str| {
        vertex.properties.iter().position(|property| {
            let plain = property.name.strip_prefix(FOREIGN_PREFIX).unwrap_or(&property.name);
            plain == name && property.scalar.is_some()
        })
    };
    let mut columns = [0; PLANES.len()];
    for (column, name) in columns.iter_mut().zip(PLANES) {
        *column = named(name).ok_or_else(|| {
            if name == "amplitude" && named("opacity").is_some() {
                return "has `opacity` but no `amplitude`: it is a scene of 3D Gaussian splatting, which holds colours \
                        and no density"
                    .to_owned();
            }
            format!("has no property `{name}`")
        })?;
    }
    Ok(columns)
}

/// Place and problem of an error.
type Problem = (String, String);

/// The values of [`PLANES`], vertex by vertex, of a binary file whose element `at` holds the vertices.
fn binary_rows(
    header: &Header,
    at: usize,
    body: &[u8],
    columns: &[usize],
) -> std::result::Result<Vec<f32>, Problem> {
    let mut sizes = Vec::new();
    for element in &header.elements[..=at] {
        let Some(width) = element.width() else {
            let problem = format!("its element `{}` holds lists, which are not read here", element.name);
            return Err((String::new(), problem));
        };
        sizes.push(width.checked_mul(element.rows));
    }
    let before = sizes[..at].iter().copied().sum::<Option<usize>>();
    let end = before.zip(sizes[at]).and_then(|(before, vertices)| before.checked_add(vertices));
    let is_last = at + 1 == header.elements.len();
    let fits = |end: usize| if is_last { end == body.len() } else { end <= body.len() };
    let (Some(before), Some(end)) = (before, end.filter(|&end| fits(end))) else {
        let wanted = end.map_or("far more".into(), |n| n.to_string());
        return Err((String::new(), format!("has {} bytes after its header, expected {wanted}", body.len())));
    };
    let vertex = &header.elements[at];
    let big_endian = header.format == Format::BigEndian;
    let mut offsets = Vec::new();
    let mut width = 0;
    for scalar in vertex.properties.iter().filter_map(|property| property.scalar) {
        offsets.push((width, scalar));
        width += scalar.bytes();
    }
    let mut values = Vec::with_capacity(columns.len() * vertex.rows);
    for row in body[before..end].chunks_exact(width) {
        values.extend(columns.iter().map(|&column| {
            let (offset, scalar) = offsets[column];
            scalar.decode(&row[offset..], big_endian)
        }));
    }
    Ok(values)
}

/// As [`binary_rows`], of a text file: one line per row.
fn text_rows(
    header: &Header,
    at: usize,
    body: &[u8],
    columns: &[usize],
) -> std::result::Result<Vec<f32>, Problem> {
    let vertex = &header.elements[at];
    let text = String::from_utf8_lossy(body);
    let is_end = |c: char| matches!(c, '\n' | '\r');
    // CR LF gives an empty piece. Lines are counted from the top of the file, by LF or else by CR.
    let mut line = header.lines;
    let mut after_return = false;
    let mut rows = text.split_inclusive(is_end).filter_map(|piece| {
        let continues = after_return && piece == "\n";
        after_return = piece.ends_with('\r');
        if continues {
            return None;
        }
        line += 1;
        Some((line, piece)).filter(|(_, piece)| !piece.trim().is_empty())
    });
    let mut skip: usize = header.elements[..at].iter().fold(0, |sum, e| sum.saturating_add(e.rows));
    while skip > 0 && rows.next().is_some() {
        skip -= 1;
    }
    let mut values = Vec::new();
    let mut words = Vec::new();
    for found in 0..vertex.rows {
        let Some((line, row)) = rows.next() else {
            return Err((String::new(), format!("ends after {found} of {} vertices", vertex.rows)));
        };
        words.clear();
        words.extend(row.split_whitespace());
        let at = || format!("line {line}");
        if words.len() != vertex.properties.len() {
            let problem = format!("has {} values, expected {}", words.len(), vertex.properties.len());
            return Err((at(), problem));
        }
        for &column in columns {
            let value = words[column].parse::<f32>().map_err(|_| {
                let name = &vertex.properties[column].name;
                (at(), format!("`{name}` is \"{}\", expected a number", words[column]))
            })?;
            values.push(value);
        }
    }
    Ok(values)
}
