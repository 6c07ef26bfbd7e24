//! PLY files of a mixture, compatible with the reference implementation and Gaussian-splatting viewers.
//!
//! One element `vertex` with the float properties of [`PROPERTIES`]: raw values (before softplus and normalisation), normals zero,
//! quaternion w first. PLY files use box units and store neither box size nor pixel size.
//!
//! The reader is written here: the format is one loop, and errors must name the line or the vertex.

use std::io::Write;
use std::path::Path;

use super::{Gmm, Shape};
use crate::error::{Error, Result};
use crate::files;

/// The properties of a vertex, in file order.
const PROPERTIES: [&str; 14] = [
    "x",
    "y",
    "z",
    "nx",
    "ny",
    "nz",
    "amplitude",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
];

/// The property of each plane of an anisotropic [`Gmm`].
const PLANES: [&str; 11] =
    ["x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "amplitude"];

const REMEDY: &str = "give a PLY file that `cryosplat-mpi train` wrote, or the HDF5 file next to it";

/// Writes a mixture as binary PLY, atomically. Isotropic Gaussians get three equal scales and the identity quaternion.
///
/// # Errors
/// When the file cannot be written.
pub fn write(gmm: &Gmm, path: &Path) -> Result<()> {
    files::write_atomically(path, |writer| {
        write!(writer, "ply\nformat binary_little_endian 1.0\nelement vertex {}\n", gmm.len())?;
        for name in PROPERTIES {
            writeln!(writer, "property float {name}")?;
        }
        writeln!(writer, "end_header")?;
        let amplitude = gmm.shape().planes() - 1;
        for i in 0..gmm.len() {
            let at = |plane: usize| gmm.plane(plane)[i];
            let (scale, q) = match gmm.shape() {
                Shape::Anisotropic => ([at(3), at(4), at(5)], [at(6), at(7), at(8), at(9)]),
                Shape::Isotropic => ([at(3); 3], [1.0, 0.0, 0.0, 0.0]),
            };
            let vertex = [at(0), at(1), at(2), 0.0, 0.0, 0.0, at(amplitude)];
            for value in vertex.iter().chain(&scale).chain(&q) {
                writer.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    })
}

/// Reads a mixture as an anisotropic one. Properties may have any order; unknown ones are ignored.
///
/// # Errors
/// When the file is missing, is not binary little-endian PLY with one element `vertex` of float properties, lacks a property, is
/// truncated, or contains a non-finite value or a zero quaternion.
pub fn read(path: &Path) -> Result<Gmm> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the file", "check the path"))?;
    let bad = |at: &str, problem: String| Error::input(path, at, problem, REMEDY);
    let (header, body) = header(&bytes).ok_or_else(|| bad("", "has no complete PLY header".into()))?;
    let mut count = None;
    let mut properties = Vec::new();
    for (number, line) in header.lines().enumerate() {
        let at = format!("line {}", number + 1);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ply" | "end_header"] | ["comment" | "obj_info", ..] | [] => {}
            ["format", "binary_little_endian", "1.0"] => {}
            ["element", "vertex", n] if count.is_none() => {
                let n: usize = n.parse().map_err(|_| bad(&at, format!("`{line}` has no valid count")))?;
                count = Some(n);
            }
            ["property", "float" | "float32", name] if count.is_some() => properties.push(name),
            _ => {
                let expected = "expected binary little-endian and one element `vertex` of float properties";
                return Err(bad(&at, format!("`{line}` is not supported: {expected}")));
            }
        }
    }
    let count = count.filter(|&n| n > 0).ok_or_else(|| bad("", "contains no vertices".into()))?;
    let width = properties.len();
    let expected = count.checked_mul(4 * width);
    if expected != Some(body.len()) {
        let wanted = expected.map_or("far more".into(), |n| n.to_string());
        return Err(bad("", format!("has {} bytes after its header, expected {wanted}", body.len())));
    }
    let mut values = Vec::with_capacity(PLANES.len() * count);
    for name in PLANES {
        let column = properties
            .iter()
            .position(|p| *p == name)
            .ok_or_else(|| bad("", format!("has no property `{name}`")))?;
        for i in 0..count {
            let at = 4 * (i * width + column);
            let value = f32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
            if !value.is_finite() {
                return Err(bad(&format!("vertex {}", i + 1), format!("`{name}` is {value}")));
            }
            values.push(value);
        }
    }
    if let Some(i) = (0..count).find(|i| (6..10).all(|plane| values[plane * count + i] == 0.0)) {
        return Err(bad(&format!("vertex {}", i + 1), "has a zero quaternion".into()));
    }
    Ok(Gmm::from_values(Shape::Anisotropic, count, values))
}

/// Splits a file into the header, up to `end_header`, and the bytes after it.
fn header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    const END: &[u8] = b"\nend_header\n";
    /// Longest accepted header: a binary file of another format is not searched to its end.
    const MAX_LENGTH: usize = 1 << 16;
    if !is_ply(bytes) {
        return None;
    }
    let end = bytes.windows(END.len()).take(MAX_LENGTH).position(|w| w == END)? + END.len();
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end..]))
}

/// True if `start`, the first bytes of a file, belong to PLY.
pub fn is_ply(start: &[u8]) -> bool {
    start.starts_with(b"ply\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    fn random(shape: Shape) -> Gmm {
        Gmm::random(7, shape, &mut stream(1, Purpose::Start, 1, 0))
    }

    #[test]
    fn a_mixture_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.ply");
        let gmm = random(Shape::Anisotropic);
        write(&gmm, &path).unwrap();
        assert_eq!(read(&path).unwrap(), gmm);
        let isotropic = random(Shape::Isotropic);
        write(&isotropic, &path).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.shape(), Shape::Anisotropic);
        assert_eq!((back.plane(5), back.plane(10)), (isotropic.plane(3), isotropic.plane(4)));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.ply");
        write(&random(Shape::Anisotropic), &path).unwrap();
        let valid = std::fs::read(&path).unwrap();
        let refuse = |bytes: &[u8], fragments: &[&str]| {
            std::fs::write(&path, bytes).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(fragments.iter().all(|f| message.contains(f)), "{fragments:?} in {message}");
            assert!(message.contains("g.ply") && !message.contains('\n'), "{message}");
        };
        let replace = |from: &str, to: &str| {
            let text = valid.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&valid[..text], to.as_bytes(), &valid[text + from.len()..]].concat()
        };
        refuse(&valid[..valid.len() - 1], &["391 bytes", "expected 392"]);
        refuse(&valid[..40], &["no complete PLY header"]);
        refuse(&replace("vertex 7", "vertex 99999999999999999999"), &["line 3", "no valid count"]);
        refuse(&replace("vertex 7", "vertex 0"), &["no vertices"]);
        refuse(&replace("float rot_2", "float other"), &["`rot_2`"]);
        refuse(&replace("float rot_2", "uchar rot_2"), &["line 16", "uchar"]);
        refuse(&replace("binary_little_endian", "ascii"), &["line 2", "ascii"]);
        let mut broken = valid.clone();
        let end = broken.len();
        broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        refuse(&broken, &["vertex 7", "`rot_3`", "NaN"]);
        broken[end - 16..].fill(0);
        refuse(&broken, &["vertex 7", "zero quaternion"]);
    }
}
