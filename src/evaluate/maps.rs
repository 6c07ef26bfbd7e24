//! Reading and checking of maps for an evaluation: cubic, finite, with cubic voxels.

use std::path::Path;

use crate::error::{Error, Result};
use crate::imaging::mrc::{self, Stack, Volume};
use crate::memory;

/// Largest relative difference of two pixel sizes that count as equal.
pub const PIXEL_SIZE_TOLERANCE: f64 = 1e-3;
/// Largest distance of two frames, along an axis in voxels, that count as equal: headers and programs round.
const FRAME_TOLERANCE: f64 = 0.05;

/// Memory that the evaluation of two maps takes for each voxel, in bytes: both maps, their transforms, and those of a mask.
const BYTES_PER_VOXEL: u128 = 80;

/// Checks that two half maps are two maps: their FSC says nothing otherwise.
///
/// # Errors
/// When all voxels are equal.
pub fn check_differ([(first_path, first), (second_path, second)]: [(&Path, &Volume); 2]) -> Result<()> {
    if first.data != second.data {
        return Ok(());
    }
    Err(Error::input(
        second_path,
        "",
        format!("holds the same voxels as {}: one map in the place of both half maps", first_path.display()),
        "name the maps of both halves (half1.mrc and half2.mrc of a run)",
    ))
}

/// Reads a cubic map.
///
/// # Errors
/// When the file cannot be read, is not cubic, has voxels that are not cubic, or a value that is not finite.
pub fn read_cube(path: &Path) -> Result<Volume> {
    // The header is checked first, so that a stack of particle images is refused before its pixels are read.
    let header = Stack::open(path)?.header().clone();
    let [x, y, z] = header.size;
    if x != y || x != z {
        return Err(Error::input(
            path,
            "",
            format!("has {x} x {y} x {z} voxels, expected a cube"),
            "pad or crop it to a cube",
        ));
    }
    let volume = mrc::read_volume(path)?;
    let voxel = header.voxel_size;
    if voxel.iter().any(|v| (v - voxel[0]).abs() > PIXEL_SIZE_TOLERANCE * voxel[0]) {
        let [x, y, z] = voxel;
        return Err(Error::input(
            path,
            "",
            format!("its voxels are {x:.4} x {y:.4} x {z:.4} A, expected cubes"),
            "resample it, or correct its header",
        ));
    }
    if let Some(((z, y, x), value)) = volume.data.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(Error::input(
            path,
            format!("voxel (x, y, z) = ({x}, {y}, {z})"),
            format!("holds {value}"),
            "check how this map was made, and make it again",
        ));
    }
    Ok(volume)
}

/// Reads the maps of one evaluation: what the user says of their headers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MapReader {
    /// Pixel size in angstrom, in place of that in the headers.
    pub pixel_size: Option<f64>,
    /// Maps coincide voxel by voxel, whatever the frames in their headers.
    pub ignore_frame: bool,
}

impl MapReader {
    /// Reads a cubic map.
    ///
    /// # Errors
    /// As [`read_cube`], and when the given pixel size is not above 0, or the memory too small for the evaluation.
    pub fn read(&self, path: &Path) -> Result<Volume> {
        if let Some(pixel_size) = self.pixel_size.filter(|p| !(p.is_finite() && *p > 0.0)) {
            return Err(Error::request(
                format!("a pixel size of {pixel_size} A is impossible"),
                "give --pixel-size above 0",
            ));
        }
        let voxels = Stack::open(path)?.header().values();
        memory::require(
            voxels * BYTES_PER_VOXEL,
            || format!("{}: the evaluation of a map of {voxels} voxels", path.display()),
            "crop or bin the maps, or use a machine with more memory",
        )?;
        let map = read_cube(path)?;
        Ok(Volume { pixel_size: self.pixel_size.unwrap_or(map.pixel_size), ..map })
    }

    /// Reads a cubic map that coincides with `other`, which was read from `other_path`: the pixel size and the frame of the
    /// result are those of `other`, without the rounding of headers.
    ///
    /// # Errors
    /// As [`MapReader::read`], and when box, pixel size or frame differ.
    pub fn read_like(&self, path: &Path, (other_path, other): (&Path, &Volume)) -> Result<Volume> {
        let mut map = self.read(path)?;
        if self.ignore_frame {
            map.frame = other.frame;
        }
        check_comparable((path, &map), (other_path, other))?;
        Ok(Volume { pixel_size: other.pixel_size, frame: other.frame, ..map })
    }
}

/// The mean of two half maps with equal box, pixel size and frame.
pub fn mean(first: &Volume, second: &Volume) -> Volume {
    Volume::new((&first.data + &second.data) * 0.5, first.pixel_size).in_frame(first.frame)
}

/// Checks that a map is not constant: its FSC would not be defined.
///
/// # Errors
/// When all values are equal.
pub fn check_varies(path: &Path, volume: &Volume) -> Result<()> {
    let first = volume.data.first().copied().unwrap_or(0.0);
    if volume.data.iter().all(|&v| v == first) {
        return Err(Error::input(
            path,
            "",
            format!("is {first} everywhere, and a constant map has no FSC"),
            "check how this map was made",
        ));
    }
    Ok(())
}

/// Checks that two maps have equal boxes, equal, known pixel sizes, and equal frames.
///
/// # Errors
/// When they have not.
pub fn check_comparable(first: (&Path, &Volume), second: (&Path, &Volume)) -> Result<()> {
    let ((path, a), (other, b)) = (first, second);
    if a.data.dim() != b.data.dim() {
        return Err(Error::input(
            path,
            "",
            format!(
                "has {} voxels, but {} has {}",
                extent(a.data.dim()),
                other.display(),
                extent(b.data.dim())
            ),
            "crop, pad or resample one of them",
        ));
    }
    for (path, volume) in [first, second] {
        if !(volume.pixel_size.is_finite() && volume.pixel_size > 0.0) {
            return Err(Error::input(
                path,
                "",
                "has no pixel size in its header",
                "give it in angstrom with --pixel-size",
            ));
        }
    }
    if (a.pixel_size - b.pixel_size).abs() > PIXEL_SIZE_TOLERANCE * a.pixel_size {
        return Err(Error::input(
            path,
            "",
            format!(
                "has a pixel size of {:.4} A, but {} has {:.4} A",
                a.pixel_size,
                other.display(),
                b.pixel_size
            ),
            "resample one of them, or give the correct pixel size of both with --pixel-size",
        ));
    }
    check_frames(first, second)
}

/// Checks that two maps of the same box and pixel size begin at the same place.
///
/// # Errors
/// When they do not. The message has both places, and the words of both headers.
pub(crate) fn check_frames(first: (&Path, &Volume), second: (&Path, &Volume)) -> Result<()> {
    let ((path, a), (other, b)) = (first, second);
    let [from, to] = [a, b].map(|map| map.frame.corner([a.pixel_size; 3]));
    if from.iter().zip(to).all(|(from, to)| (from - to).abs() <= FRAME_TOLERANCE * a.pixel_size) {
        return Ok(());
    }
    let place = |[x, y, z]: [f64; 3]| format!("{x:.2}, {y:.2}, {z:.2} A");
    Err(Error::input(
        path,
        "",
        format!(
            "begins at {} ({}), but {} at {} ({})",
            place(from),
            a.frame,
            other.display(),
            place(to),
            b.frame
        ),
        "resample one of them in the frame of the other, or give --ignore-frame if their voxels coincide",
    ))
}

/// The size of an array with dimensions (z, y, x) as text: "64 x 64 x 64".
pub(crate) fn extent((z, y, x): (usize, usize, usize)) -> String {
    format!("{x} x {y} x {z}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn unusable_maps_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.mrc");
        let refused = |data: Array3<f32>, part: &str| {
            mrc::write_volume(&path, &Volume::new(data, 1.5)).unwrap();
            let message = read_cube(&path).unwrap_err().to_string();
            assert!(message.contains("m.mrc") && message.contains(part), "{message}");
        };
        refused(Array3::zeros((4, 5, 6)), "6 x 5 x 4");
        let mut nan = Array3::zeros((4, 4, 4));
        nan[[0, 1, 2]] = f32::INFINITY;
        refused(nan, "(2, 1, 0): holds inf");

        let flat = Volume::new(Array3::zeros((4, 4, 4)), 1.5);
        assert!(check_varies(&path, &flat).unwrap_err().to_string().contains("is 0 everywhere"));
        mrc::write_volume(&path, &flat).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        // The cell's edge along y.
        bytes[44..48].copy_from_slice(&8f32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_cube(&path).unwrap_err().to_string().contains("1.5000 x 2.0000 x 1.5000"));
    }
}
