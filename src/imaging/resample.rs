//! Resampling of maps to another box size and pixel size.
//!
//! The map is padded with zeros in real space to the nearest box that spans an integral number of new pixels. Its spectrum is
//! cropped or padded to that number, and the result is cropped or padded with zeros in real space to the new box size. The
//! origin stays at voxel floor(box/2).

use std::path::Path;

use ndarray::Array3;
use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
use crate::imaging::{fourier, mrc};
use crate::memory;

/// Maximal relative difference of the box edge in old and new pixels: 0.01 voxels in a box of 100.
const TOLERANCE: f64 = 1e-4;
/// Maximal padding in voxels. If no box size is within the tolerance, the best one is used.
const LONGEST_PADDING: usize = 64;
/// Maximal box size. Larger boxes would take tens of gigabytes, and no current resolution needs them.
const MAX_BOX: usize = 1024;
/// Memory for each voxel of the map, in bytes: its transform and that of the padded map.
const BYTES_PER_VOXEL: u128 = 60;

/// Reads a cubic map and resamples it. Values are not scaled. The centre stays on voxel floor(box/2), so that the frame of the file
/// has no effect; it is logged.
///
/// # Errors
/// If the file cannot be read, is not cubic, has no pixel size, or has a value that is not finite.
pub fn read(path: &Path, box_size: usize, pixel_size: f64) -> Result<Array3<f32>> {
    let header = mrc::Stack::open(path)?.header().clone();
    let [nx, ny, nz] = header.size;
    if nx != ny || ny != nz || nx > MAX_BOX {
        return Err(Error::input(
            path,
            "",
            format!("is {nx} x {ny} x {nz} voxels, expected a cube of at most {MAX_BOX}"),
            "crop or pad it to a cube, or resample it",
        ));
    }
    let [vx, vy, vz] = header.voxel_size;
    if !(vx > 0.0 && (vy / vx - 1.0).abs() < 1e-3 && (vz / vx - 1.0).abs() < 1e-3) {
        return Err(Error::input(
            path,
            "header words 11 to 13",
            format!("the voxels are {vx} x {vy} x {vz} A, expected cubic voxels of a size above 0"),
            "set the pixel size in the header (with `relion_image_handler --rescale_angpix` or `mrcfile`)",
        ));
    }
    memory::require(
        header.values() * BYTES_PER_VOXEL,
        || format!("{}: resampling a map of {nx} voxels along each edge", path.display()),
        "crop or bin the map, or use a machine with more memory",
    )?;
    let mrc::Volume { data: map, frame, .. } = mrc::read_volume(path)?;
    if frame != mrc::Frame::default() {
        let [x, y, z] = frame.corner(header.voxel_size).map(|corner| corner + (nx / 2) as f64 * vx);
        tracing::info!(
            "{}: its frame ({frame}) is not kept: voxel {}, at {x:.2}, {y:.2}, {z:.2} A in it, becomes the centre of a box that begins at zero",
            path.display(),
            nx / 2
        );
    }
    if let Some(((z, y, x), value)) = map.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(Error::input(
            path,
            format!("voxel x {x}, y {y}, z {z}"),
            format!("is {value}, expected a finite number"),
            "repair the map",
        ));
    }
    let resampled = resample(&map, vx / pixel_size, path, pixel_size)?;
    let boxed = embed(&resampled, box_size);
    let lost = 1.0 - power(&boxed) / power(&resampled).max(f64::MIN_POSITIVE);
    if lost > 0.01 {
        tracing::warn!(
            "{}: {:.0} % of the power of the map is outside the box of {:.1} A and is cropped",
            path.display(),
            100.0 * lost,
            box_size as f64 * pixel_size
        );
    }
    Ok(boxed)
}

fn power(map: &Array3<f32>) -> f64 {
    map.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// Resamples to voxels of `1 / factor` times the size.
fn resample(map: &Array3<f32>, factor: f64, path: &Path, pixel_size: f64) -> Result<Array3<f32>> {
    let n = map.dim().0;
    let misfit = |padded: usize| {
        let exact = padded as f64 * factor;
        (exact.round().max(1.0) / exact - 1.0).abs()
    };
    let candidates = n..=n + LONGEST_PADDING;
    let padded = candidates
        .clone()
        .find(|&p| misfit(p) <= TOLERANCE)
        .or_else(|| candidates.min_by(|&a, &b| misfit(a).total_cmp(&misfit(b))))
        .unwrap_or(n);
    let target = (padded as f64 * factor).round();
    if !(4.0..=MAX_BOX as f64).contains(&target) {
        return Err(Error::input(
            path,
            "",
            format!("needs {target:.0} pixels of {pixel_size} A along each edge, expected 4 to {MAX_BOX}"),
            "choose a --pixel-size closer to that of the map",
        ));
    }
    let target = target as usize;
    Ok(to_size(embed(map, padded), target))
}

/// Resamples a cubic map to `target` voxels along each edge, by cropping or padding its spectrum. The field of view stays.
pub fn to_size(map: Array3<f32>, target: usize) -> Array3<f32> {
    let n = map.dim().0;
    if target == n {
        return map;
    }
    let spectrum = fourier::spectrum_of_volume(&map);
    // Below the Nyquist frequencies of both grids: there, +k and -k share a sample, and its value is ambiguous.
    let band = n.min(target).div_ceil(2) as isize;
    let scale = (target as f64 / n as f64).powi(3);
    let resampled = Array3::from_shape_fn((target, target, target), |(z, y, x)| {
        let k = [z, y, x].map(|i| fourier::frequency(i, target));
        if k.iter().any(|k| k.abs() >= band) {
            return Complex::new(0.0, 0.0);
        }
        spectrum[k.map(|k| k.rem_euclid(n as isize) as usize)] * scale
    });
    fourier::volume_of_spectrum(resampled)
}

/// Crops or pads with zeros to `size`. The origins coincide.
fn embed(map: &Array3<f32>, size: usize) -> Array3<f32> {
    let n = map.dim().0;
    Array3::from_shape_fn((size, size, size), |(z, y, x)| {
        let at = [z, y, x].map(|i| (i + n / 2).checked_sub(size / 2).filter(|&i| i < n));
        match at {
            [Some(z), Some(y), Some(x)] => map[[z, y, x]],
            _ => 0.0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two Gaussians well inside the box and the band; `step` angstrom per voxel.
    fn body(n: usize, step: f64) -> Array3<f32> {
        Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            let r = [x, y, z].map(|i| (i as f64 - (n / 2) as f64) * step);
            let blob = |c: [f64; 3]| {
                let d2: f64 = r.iter().zip(c).map(|(r, c)| (r - c) * (r - c)).sum();
                (-d2 / (2.0 * 4.5 * 4.5)).exp()
            };
            (blob([6.0, -3.0, 4.0]) + 0.5 * blob([-5.0, 7.0, 1.0])) as f32
        })
    }

    #[test]
    fn a_resampled_map_is_the_same_body_on_the_new_grid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.mrc");
        // Coarser, finer, equal; even and odd; a ratio that needs padding.
        for (n, step, to, pixel) in [
            (40, 2.0, 20, 3.0),
            (24, 3.0, 40, 2.0),
            (32, 2.5, 24, 2.5),
            (33, 2.5, 40, 2.5),
            (37, 2.2, 30, 3.1),
        ] {
            mrc::write_volume(&path, &mrc::Volume::new(body(n, step), step)).unwrap();
            let got = read(&path, to, pixel).unwrap();
            let worst = got.iter().zip(&body(to, pixel)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // The Gaussians are neither exactly zero in the padding nor exactly band-limited.
            assert!(worst < 1e-2, "{n} at {step} to {to} at {pixel}: {worst}");
        }
    }

    #[test]
    fn maps_that_cannot_be_projected_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.mrc");
        let refused = |data: Array3<f32>, pixel_size: f64, fragment: &str| {
            mrc::write_volume(&path, &mrc::Volume::new(data, pixel_size)).unwrap();
            let message = read(&path, 16, 2.0).unwrap_err().to_string();
            assert!(message.contains(fragment) && message.contains("map.mrc"), "{message}");
        };
        refused(Array3::zeros((16, 16, 17)), 2.0, "16 x 16");
        refused(Array3::zeros((16, 16, 16)), 0.0, "words 11 to 13");
        refused(Array3::from_elem((16, 16, 16), f32::NAN), 2.0, "voxel x 0");
        refused(body(16, 2.0), 2e6, "--pixel-size");
    }
}
