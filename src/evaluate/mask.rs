//! Soft masks.
//!
//! A mask multiplies both maps of an FSC. Its edge must be soft: a hard edge is a strong feature common to both maps and raises their
//! correlation at all frequencies.

use std::f64::consts::PI;
use std::path::Path;

use ndarray::Array3;

use crate::error::{Error, Result};
use crate::evaluate::maps::{self, MapReader, PIXEL_SIZE_TOLERANCE};
use crate::imaging::mrc::Volume;
use crate::imaging::resample;

/// Radius of the default spherical mask, as a fraction of the box.
pub const DEFAULT_RADIUS: f64 = 0.45;
/// Width of the edge of the default spherical mask, in pixels.
pub const DEFAULT_EDGE: f64 = 3.0;
/// Tolerance of values outside 0 to 1 in a mask file, for masks that were resampled.
const VALUE_TOLERANCE: f32 = 1e-3;

/// Weights of the voxels of a cubic box, each in 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    weights: Array3<f64>,
}

impl Mask {
    /// A sphere about the origin (voxel floor(D/2)) of a box of `box_size` pixels: 1 up to `radius - edge` pixels,
    /// then a raised cosine down to 0 at `radius`.
    ///
    /// # Errors
    /// When the radius is not above 0, or the edge is not between 0 and the radius.
    pub fn sphere(box_size: usize, radius: f64, edge: f64) -> Result<Self> {
        if !(radius.is_finite() && radius > 0.0 && (0.0..=radius).contains(&edge)) {
            return Err(Error::request(
                format!("a spherical mask of radius {radius:.2} and edge {edge:.2} pixels cannot be made"),
                "give a radius above 0 and an edge of at most the radius",
            ));
        }
        let square = |i: usize| (i as f64 - (box_size / 2) as f64).powi(2);
        let weights = Array3::from_shape_fn((box_size, box_size, box_size), |(z, y, x)| {
            let r = (square(z) + square(y) + square(x)).sqrt();
            if r < radius - edge {
                1.0
            } else if r < radius {
                0.5 + 0.5 * (PI * (r - radius + edge) / edge).cos()
            } else {
                0.0
            }
        });
        Ok(Self { weights })
    }

    /// The default spherical mask: radius [`DEFAULT_RADIUS`] of the box, edge [`DEFAULT_EDGE`] pixels (less in very small boxes).
    ///
    /// # Errors
    /// When the box has no voxels.
    pub fn default_sphere(box_size: usize) -> Result<Self> {
        let radius = DEFAULT_RADIUS * box_size as f64;
        Self::sphere(box_size, radius, DEFAULT_EDGE.min(radius))
    }

    /// Reads the mask of a cubic `map` from an MRC file. A pixel size that `path` does not have in its header is taken to be that
    /// of the map.
    ///
    /// # Errors
    /// When the file cannot be read, has another box, pixel size or frame, has values outside 0 to 1, or is zero everywhere.
    pub fn read(path: &Path, map: &Volume, reader: &MapReader) -> Result<Self> {
        let mut volume = reader.read(path)?;
        let (found, box_size) = (volume.data.dim().0, map.data.dim().0);
        if found != box_size {
            return Err(Error::input(
                path,
                "",
                format!("the mask's box is {found} pixels, but the maps' box is {box_size}"),
                "make a mask in the maps' box",
            ));
        }
        let (voxel, of_map) = (volume.pixel_size, map.pixel_size);
        if voxel != 0.0 && (voxel - of_map).abs() > PIXEL_SIZE_TOLERANCE * of_map {
            return Err(Error::input(
                path,
                "",
                format!("the mask's voxels are {voxel:.4} A, but the maps' voxels are {of_map:.4} A"),
                "resample the mask, or give the correct pixel size of all files with --pixel-size",
            ));
        }
        volume.pixel_size = of_map;
        if !reader.ignore_frame {
            maps::check_frames((path, &volume), (Path::new("the map"), map))?;
        }
        let outside = |v: f32| !(-VALUE_TOLERANCE..=1.0 + VALUE_TOLERANCE).contains(&v);
        if let Some(((z, y, x), value)) = volume.data.indexed_iter().find(|&(_, &v)| outside(v)) {
            return Err(Error::input(
                path,
                format!("voxel (x, y, z) = ({x}, {y}, {z})"),
                format!("is {value}, expected 0 to 1"),
                "scale the mask to 0 to 1, or check that this file is a mask",
            ));
        }
        if volume.data.iter().all(|&v| v <= 0.0) {
            return Err(Error::input(
                path,
                "",
                "the mask is zero everywhere",
                "make a mask that covers the particle",
            ));
        }
        Ok(Self { weights: volume.data.mapv(|v| f64::from(v.clamp(0.0, 1.0))) })
    }

    /// A mask with weights `[z][y][x]` in 0 to 1.
    pub(super) fn from_weights(weights: Array3<f64>) -> Self {
        Self { weights }
    }

    /// The mask of a box of `size` voxels with the same field of view.
    #[must_use]
    pub fn resampled(&self, size: usize) -> Self {
        let weights = resample::to_size(self.weights.mapv(|weight| weight as f32), size);
        // Ripples of the cropped spectrum leave the range of a mask.
        Self { weights: weights.mapv(|weight| f64::from(weight.clamp(0.0, 1.0))) }
    }

    /// The mask as a map with the pixel size and frame of `map`.
    pub fn volume_like(&self, map: &Volume) -> Volume {
        Volume { data: self.weights.mapv(|w| w as f32), ..*map }
    }

    /// Mean weight over the box.
    pub fn fraction(&self) -> f64 {
        self.weights.sum() / self.weights.len() as f64
    }

    /// The weights `[z][y][x]`.
    pub fn weights(&self) -> &Array3<f64> {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::mrc::{Frame, write_volume};

    #[test]
    fn sphere_falls_from_one_to_zero_over_its_edge() {
        let mask = Mask::sphere(32, 12.0, 4.0).unwrap();
        let along_x = |r: usize| mask.weights()[[16, 16, 16 + r]];
        assert_eq!((along_x(0), along_x(8), along_x(12), along_x(15)), (1.0, 1.0, 0.0, 0.0));
        assert!((along_x(10) - 0.5).abs() < 1e-15, "half way");
        assert!(along_x(9) > along_x(10) && along_x(10) > along_x(11));
        assert_eq!(mask.weights()[[16, 8, 16]], 1.0);
        let hard = Mask::sphere(8, 3.0, 0.0).unwrap();
        assert!(hard.weights().iter().all(|&w| w == 0.0 || w == 1.0));
    }

    #[test]
    fn impossible_spheres_are_refused() {
        for (radius, edge) in [(0.0, 0.0), (f64::NAN, 1.0), (4.0, 5.0), (4.0, -1.0), (4.0, f64::NAN)] {
            assert!(Mask::sphere(16, radius, edge).is_err(), "{radius}, {edge}");
        }
        assert!(Mask::default_sphere(4).is_ok());
    }

    #[test]
    fn a_mask_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.mrc");
        let mut volume = Volume::new(Array3::zeros((8, 8, 8)), 1.0);
        let map = |box_size: usize| Volume::new(Array3::zeros((box_size, box_size, box_size)), 1.0);
        let reader = MapReader::default();
        let check = |volume: &Volume, box_size: usize, part: &str| {
            write_volume(&path, volume).unwrap();
            let message = Mask::read(&path, &map(box_size), &reader).unwrap_err().to_string();
            assert!(message.contains("mask.mrc") && message.contains(part), "{message}");
        };
        check(&volume, 8, "zero everywhere");
        volume.data[[1, 2, 3]] = 1.0005;
        check(&volume, 10, "box is 8");
        write_volume(&path, &volume).unwrap();
        assert_eq!(Mask::read(&path, &map(8), &reader).unwrap().weights()[[1, 2, 3]], 1.0);
        // A mask on other voxels, or elsewhere.
        check(
            &Volume { pixel_size: 2.0, ..volume.clone() },
            8,
            "2.0000 A, but the maps' voxels are 1.0000 A",
        );
        write_volume(&path, &Volume { pixel_size: 2.0, ..volume.clone() }).unwrap();
        assert!(Mask::read(&path, &map(8), &MapReader { pixel_size: Some(1.0), ..reader }).is_ok());
        write_volume(&path, &Volume { pixel_size: 0.0, ..volume.clone() }).unwrap();
        assert!(Mask::read(&path, &map(8), &reader).is_ok(), "a header without a pixel size");
        let frame = Frame { start: [0, 3, 0], ..Frame::default() };
        check(&volume.clone().in_frame(frame), 8, "begins at 0.00, 3.00, 0.00 A");
        assert!(Mask::read(&path, &map(8), &MapReader { ignore_frame: true, ..reader }).is_ok());
        let moved = Frame { origin: [0.0, 3.01, 0.0], ..Frame::default() };
        assert!(Mask::read(&path, &map(8).in_frame(moved), &reader).is_ok(), "the same place in other words");
        volume.data[[4, 5, 6]] = 1.2;
        check(&volume, 8, "(6, 5, 4): is 1.2, expected 0 to 1");
    }
}
