//! PLY files of a mixture, compatible with the reference implementation and Gaussian-splatting viewers.
//!
//! One element `vertex` with the float properties of [`PROPERTIES`]: raw values (before softplus and normalisation), normals zero,
//! quaternion w first. PLY files use box units and store neither box size nor pixel size. The comment `symmetry GROUP` says
//! that the vertices are the asymmetric unit of that point group.
//!
//! The reader is written here, because errors must name the line or the vertex.

mod header;
mod reader;

use std::io::Write;
use std::path::Path;

use super::{Gmm, Shape};
use crate::error::Result;
use crate::files::{self, Content};
use crate::imaging::Symmetry;

use header::SYMMETRY;
pub use reader::read;

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

/// Writes the asymmetric unit of a mixture as binary PLY, atomically. Isotropic Gaussians get three equal scales and the identity quaternion.
///
/// # Errors
/// When the file cannot be written.
pub fn write(gmm: &Gmm, symmetry: Symmetry, path: &Path) -> Result<()> {
    files::write_atomically(path, |writer| {
        writeln!(writer, "ply\nformat binary_little_endian 1.0")?;
        if symmetry != Symmetry::C1 {
            writeln!(writer, "comment {SYMMETRY} {symmetry}")?;
        }
        writeln!(writer, "element vertex {}", gmm.len())?;
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

/// True if `start`, the first bytes of a file, belong to PLY.
pub fn is_ply(start: &[u8]) -> bool {
    Content::of(start) == Content::Ply
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
        for symmetry in [Symmetry::C1, Symmetry::D(7)] {
            write(&gmm, symmetry, &path).unwrap();
            assert_eq!(read(&path).unwrap(), (gmm.clone(), symmetry));
        }
        let isotropic = random(Shape::Isotropic);
        write(&isotropic, Symmetry::C1, &path).unwrap();
        let (back, _) = read(&path).unwrap();
        assert_eq!(back.shape(), Shape::Anisotropic);
        assert_eq!((back.plane(5), back.plane(10)), (isotropic.plane(3), isotropic.plane(4)));
    }

    /// The file of `gmm` as another program writes it: format, end of lines, and (type, name) of the properties.
    fn foreign(gmm: &Gmm, format: &str, ending: &str, properties: &[(&str, &str)]) -> Vec<u8> {
        let plane = |name: &str| {
            let planes = ["x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"];
            let plain = name.trim_start_matches("scalar_");
            planes.iter().chain(&["amplitude"]).position(|p| *p == plain)
        };
        let mut header =
            vec!["ply".to_owned(), format!("format {format} 1.0"), "comment by another program".into()];
        header.extend(["element camera 2".into(), "property uchar id".into()]);
        header.push(format!("element vertex {}", gmm.len()));
        header.extend(properties.iter().map(|(kind, name)| format!("property {kind} {name}")));
        header.extend(
            ["element face 1", "property list uchar int corners", "end_header", ""].map(str::to_owned),
        );
        let mut bytes = header.join(ending).into_bytes();
        let text = format == "ascii";
        bytes.extend(if text { format!("1{ending}2{ending}").into_bytes() } else { vec![1, 2] });
        for i in 0..gmm.len() {
            let mut words = Vec::new();
            for (kind, name) in properties {
                let value = plane(name).map_or(7.0, |plane| gmm.plane(plane)[i]);
                words.push(value.to_string());
                let mut word = match *kind {
                    "double" => f64::from(value).to_le_bytes().to_vec(),
                    "uchar" => vec![value as u8],
                    _ => value.to_le_bytes().to_vec(),
                };
                if format == "binary_big_endian" {
                    word.reverse();
                }
                bytes.extend(if text { Vec::new() } else { word });
            }
            bytes.extend(if text { (words.join(" ") + ending).into_bytes() } else { Vec::new() });
        }
        bytes.extend(if text { format!("3 0 1 2{ending}").into_bytes() } else { vec![1, 0, 0, 0, 0] });
        bytes
    }

    #[test]
    fn files_of_other_programs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.ply");
        let gmm = random(Shape::Anisotropic);
        let mut properties: Vec<(&str, &str)> =
            PROPERTIES.iter().rev().map(|name| ("float", *name)).collect();
        properties.insert(3, ("uchar", "red"));
        properties[0].0 = "double";
        let scalar = properties.iter_mut().find(|(_, name)| *name == "amplitude").unwrap();
        *scalar = ("double", "scalar_amplitude");
        for format in ["ascii", "binary_little_endian", "binary_big_endian"] {
            for ending in ["\n", "\r\n", "\r"] {
                let bytes = foreign(&gmm, format, ending, &properties);
                assert!(is_ply(&bytes));
                std::fs::write(&path, bytes).unwrap();
                assert_eq!(read(&path).unwrap(), (gmm.clone(), Symmetry::C1), "{format} {ending:?}");
            }
        }
        // Errors in text name the line.
        let text = String::from_utf8(foreign(&gmm, "ascii", "\r\n", &properties)).unwrap();
        let first = 3 + 3 + properties.len() + 3 + 2 + 1;
        let line = text.split("\r\n").nth(first - 1).unwrap();
        let refuse = |with: String, fragments: &[&str]| {
            std::fs::write(&path, text.replacen(line, &with, 1)).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(fragments.iter().all(|f| message.contains(f)), "{fragments:?} in {message}");
        };
        let place = format!("line {first}");
        refuse(line.replacen(&gmm.plane(9)[0].to_string(), "one", 1), &[&place, "`rot_3` is \"one\""]);
        refuse(format!("{line} 5"), &[&place, "has 16 values, expected 15"]);
        let cut = text.split("\r\n").take(first + 3).collect::<Vec<_>>().join("\r\n");
        std::fs::write(&path, cut).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("ends after 4 of 7 vertices"));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.ply");
        write(&random(Shape::Anisotropic), Symmetry::O, &path).unwrap();
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
        refuse(&replace("vertex 7", "vertex 99999999999999999999"), &["line 4", "no valid name and count"]);
        refuse(&replace("vertex 7", "vertex 4611686018427387904"), &["expected far more"]);
        refuse(&replace("vertex 7", "vertex 0"), &["no vertices"]);
        refuse(&replace("symmetry O", "symmetry Q"), &["line 3", "`comment symmetry Q`", "point group"]);
        refuse(&replace("float rot_2", "float other"), &["`rot_2`"]);
        refuse(&replace("float rot_2", "uchar rot_2"), &["392 bytes", "expected 371"]);
        refuse(&replace("float rot_2", "quad rot_2"), &["line 17", "`property quad rot_2`"]);
        refuse(&replace("float amplitude", "list uchar float amplitude"), &["no property `amplitude`"]);
        refuse(&replace("float nx", "list uchar float nx"), &["element `vertex` holds lists"]);
        refuse(&replace("float amplitude", "float opacity"), &["3D Gaussian splatting"]);
        refuse(&replace("binary_little_endian", "ascii"), &["line 20", "expected 14"]);
        refuse(&replace("format binary_little_endian 1.0\n", ""), &["no format"]);
        refuse(
            &replace("format binary_little_endian 1.0", "format packed 1.0"),
            &["line 2", "format packed"],
        );
        let mut broken = valid.clone();
        let end = broken.len();
        broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        refuse(&broken, &["vertex 7", "`rot_3`", "NaN"]);
        broken[end - 16..].fill(0);
        refuse(&broken, &["vertex 7", "zero quaternion"]);
    }
}
