//! Fourier shell correlation of two maps (docs/method.md, section 8; Harauz and van Heel, Optik 73 (1986) 146).

use std::fmt;

use ndarray::Array3;
use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
use crate::evaluate::maps::{PIXEL_SIZE_TOLERANCE, extent};
use crate::evaluate::mask::Mask;
use crate::evaluate::shells::{correlations, shell_sums};
use crate::imaging::fourier::fft3;
use crate::imaging::mrc::Volume;

/// FSC threshold of two independent half maps (Rosenthal and Henderson, J. Mol. Biol. 333 (2003) 721).
pub const GOLD_STANDARD: f64 = 0.143;
/// FSC threshold of a map against a reference.
pub const REFERENCE_THRESHOLD: f64 = 0.5;

/// Fourier shell correlation of two maps.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Fsc {
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Box size D in pixels.
    pub box_size: usize,
    /// Correlation in [-1, 1] by shell. A shell is the radius |k| in cycles per box rounded to an integer, from 0 to
    /// floor(D/2) - 1; the shell at Nyquist is cut by the faces of the box and omitted. Shell 0 is the product of the signs of the
    /// means and is not used. A shell in which a map has no power is 0. A curve derived from others may have fewer shells.
    pub shells: Vec<f64>,
}

/// The point where a curve first falls below a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crossing {
    /// Resolution in angstrom, interpolated linearly between two shells.
    At(f64),
    /// Never below up to Nyquist; the resolution of the last shell in angstrom.
    NeverBelow(f64),
    /// Below from the first shell on; the resolution of that shell (the edge of the box) in angstrom.
    BelowFromStart(f64),
}

impl Crossing {
    /// The resolution in angstrom, if there is a crossing.
    pub fn resolution(&self) -> Option<f64> {
        match self {
            Self::At(resolution) => Some(*resolution),
            Self::NeverBelow(_) | Self::BelowFromStart(_) => None,
        }
    }
}

impl fmt::Display for Crossing {
    /// "7.34 A", "finer than 12.39 A (not crossed)", "coarser than 384.00 A".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::At(resolution) => format!("{resolution:.2} A"),
            Self::NeverBelow(finest) => format!("finer than {finest:.2} A (not crossed)"),
            Self::BelowFromStart(coarsest) => format!("coarser than {coarsest:.2} A"),
        };
        f.pad(&text)
    }
}

impl Fsc {
    /// The FSC of two cubic maps of equal box and pixel size, in 64-bit arithmetic.
    ///
    /// A shell in which a map has no power is 0.
    ///
    /// # Errors
    /// When a map is not cubic or smaller than 4 pixels, the boxes or pixel sizes differ, the pixel size is unknown, or
    /// a value is not finite.
    pub fn between(first: &Volume, second: &Volume) -> Result<Self> {
        Self::weighted(first, second, None)
    }

    /// As [`Fsc::between`], with both maps multiplied by `mask`.
    ///
    /// # Errors
    /// As [`Fsc::between`], and when the mask has another box.
    pub fn between_masked(first: &Volume, second: &Volume, mask: &Mask) -> Result<Self> {
        check_mask(first, mask)?;
        Self::weighted(first, second, Some(mask))
    }

    fn weighted(first: &Volume, second: &Volume, mask: Option<&Mask>) -> Result<Self> {
        check_pair(first, second)?;
        let n = first.data.dim().0;
        let a = spectrum(first, "first", mask)?;
        let b = spectrum(second, "second", mask)?;
        let shells = correlations(&shell_sums(n, |at| [a[at], b[at]]), n);
        Ok(Self { pixel_size: first.pixel_size, box_size: n, shells })
    }

    /// The last shell, D/2 - 1.
    pub fn last_shell(&self) -> usize {
        self.shells.len().saturating_sub(1)
    }

    /// The spatial frequency of a (fractional) shell in 1/angstrom.
    pub fn frequency(&self, shell: f64) -> f64 {
        shell / (self.box_size as f64 * self.pixel_size)
    }

    /// The mean over shells 1 to D/2 - 1.
    pub fn mean(&self) -> f64 {
        self.mean_to(self.last_shell())
    }

    /// The mean over shells 1 to `shell`, or to the last one; 0 if there is none.
    pub fn mean_to(&self, shell: usize) -> f64 {
        let last = shell.min(self.last_shell());
        if last == 0 {
            return 0.0;
        }
        self.shells[1..=last].iter().sum::<f64>() / last as f64
    }

    /// The first crossing of `threshold`, from shell 1 on.
    pub fn crossing(&self, threshold: f64) -> Crossing {
        let edge = self.box_size as f64 * self.pixel_size;
        for shell in 1..self.shells.len() {
            let here = self.shells[shell];
            if here < threshold {
                if shell == 1 {
                    return Crossing::BelowFromStart(edge);
                }
                let before = self.shells[shell - 1];
                let fraction = (before - threshold) / (before - here);
                return Crossing::At(edge / (shell as f64 - 1.0 + fraction));
            }
        }
        Crossing::NeverBelow(edge / self.last_shell().max(1) as f64)
    }

    /// The (fractional) shell of a crossing: the last one if there is none, 0 if the curve starts below the threshold.
    pub(crate) fn shell_of(&self, crossing: Crossing) -> f64 {
        match crossing {
            Crossing::At(resolution) => self.box_size as f64 * self.pixel_size / resolution,
            Crossing::NeverBelow(_) => self.last_shell() as f64,
            Crossing::BelowFromStart(_) => 0.0,
        }
    }

    /// The correlation at `resolution` angstrom, interpolated linearly; `None` outside of shell 1 to the last.
    pub fn at_resolution(&self, resolution: f64) -> Option<f64> {
        let last = self.last_shell();
        let mut shell = self.box_size as f64 * self.pixel_size / resolution;
        // A resolution computed from a shell must find that shell in spite of rounding.
        if (shell - shell.round()).abs() < 1e-9 * shell {
            shell = shell.round();
        }
        if last == 0 || !(1.0..=last as f64).contains(&shell) {
            return None;
        }
        let below = (shell as usize).min(last);
        let above = (below + 1).min(last);
        let fraction = shell - below as f64;
        Some(self.shells[below] * (1.0 - fraction) + self.shells[above] * fraction)
    }
}

pub(super) fn check_mask(map: &Volume, mask: &Mask) -> Result<()> {
    if mask.weights().dim() == map.data.dim() {
        return Ok(());
    }
    let (mask, map) = (extent(mask.weights().dim()), extent(map.data.dim()));
    Err(Error::request(
        format!("the mask has {mask} voxels and the map {map}"),
        "give a mask with the box of the map",
    ))
}

pub(super) fn check_pair(first: &Volume, second: &Volume) -> Result<()> {
    for (volume, name) in [(first, "first"), (second, "second")] {
        let (z, y, x) = volume.data.dim();
        if z != y || z != x || z < 4 {
            return Err(Error::request(
                format!("the {name} map has {} voxels", extent((z, y, x))),
                "give cubic maps of at least 4 pixels",
            ));
        }
        if !(volume.pixel_size.is_finite() && volume.pixel_size > 0.0) {
            return Err(Error::request(
                format!("the {name} map has the pixel size {} A", volume.pixel_size),
                "give the pixel size in angstrom",
            ));
        }
    }
    if first.data.dim() != second.data.dim() {
        return Err(Error::request(
            format!(
                "the maps differ in box: {} and {} voxels",
                extent(first.data.dim()),
                extent(second.data.dim())
            ),
            "crop, pad or resample one of them",
        ));
    }
    let (a, b) = (first.pixel_size, second.pixel_size);
    if (a - b).abs() > PIXEL_SIZE_TOLERANCE * a {
        return Err(Error::request(
            format!("the maps differ in pixel size: {a:.4} and {b:.4} A"),
            "resample one of them, or set the correct pixel size of both",
        ));
    }
    Ok(())
}

/// The Fourier transform of a masked map. Its origin is voxel 0: the phase is the same for both maps and cancels.
pub(super) fn spectrum(volume: &Volume, name: &str, mask: Option<&Mask>) -> Result<Array3<Complex<f64>>> {
    if let Some(((z, y, x), value)) = volume.data.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(Error::Numeric {
            problem: format!("the {name} map holds {value} at voxel (x, y, z) = ({x}, {y}, {z})"),
            remedy: "check how this map was made, and make it again".into(),
        });
    }
    let mut spectrum =
        volume.data.map(|&v| Complex::new(f64::from(v), 0.0)).as_standard_layout().into_owned();
    if let Some(mask) = mask {
        spectrum.zip_mut_with(mask.weights(), |value, &weight| *value *= weight);
    }
    fft3(&mut spectrum, false);
    Ok(spectrum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{self, Purpose};
    use rand_distr::{Distribution, StandardNormal};

    fn noise(n: usize, stream: u64) -> Array3<f32> {
        let mut random = random::stream(5, Purpose::Halves, 0, stream);
        Array3::from_shape_simple_fn((n, n, n), || StandardNormal.sample(&mut random))
    }

    fn volume(data: Array3<f32>) -> Volume {
        Volume::new(data, 2.0)
    }

    fn curve(shells: &[f64]) -> Fsc {
        Fsc { pixel_size: 2.0, box_size: 2 * shells.len(), shells: shells.to_vec() }
    }

    #[test]
    fn identical_maps_correlate_fully_at_any_scale() {
        for n in [15, 16] {
            let a = noise(n, 0);
            let b = volume(a.mapv(|v| v * 3e-4));
            let fsc = Fsc::between(&volume(a), &b).unwrap();
            assert_eq!(fsc.shells.len(), n / 2);
            // Scaling rounds each f32 value: 6e-8 of its size.
            assert!(fsc.shells.iter().all(|v| (v - 1.0).abs() < 1e-12), "{:?}", fsc.shells);
            assert_eq!(fsc.crossing(0.143), Crossing::NeverBelow(2.0 * n as f64 / (n / 2 - 1) as f64));
        }
    }

    #[test]
    fn fsc_of_correlated_noise_is_its_correlation() {
        let n = 48;
        let (signal, first, second) = (noise(n, 0), noise(n, 1), noise(n, 2));
        // Signal of variance 3 over noise of variance 1: 3 / (3 + 1).
        let scaled = signal.mapv(|v| v * 3f32.sqrt());
        let fsc = Fsc::between(&volume(&scaled + &first), &volume(&scaled + &second)).unwrap();
        // Half of 3e4 Fourier values are independent: the mean over the outer shells is good to 0.005.
        let outer = fsc.shells[12..].iter().sum::<f64>() / (fsc.shells.len() - 12) as f64;
        assert!((outer - 0.75).abs() < 0.015, "{outer}");
        let apart = Fsc::between(&volume(first), &volume(second)).unwrap();
        assert!(apart.shells[12..].iter().all(|v| v.abs() < 0.12), "{:?}", apart.shells);
    }

    #[test]
    fn a_shift_of_one_pixel_and_a_mirror_lower_the_curve() {
        let n = 24;
        let a = noise(n, 0);
        let shifted = Array3::from_shape_fn((n, n, n), |(z, y, x)| a[[z, y, (x + 1) % n]]);
        let fsc = Fsc::between(&volume(a.clone()), &volume(shifted)).unwrap();
        // White noise moved by one pixel along x: the shell mean of cos(2 pi kx / n) = sin(u) / u, u = 2 pi k / n.
        for shell in 4..n / 2 {
            let u = std::f64::consts::TAU * shell as f64 / n as f64;
            assert!((fsc.shells[shell] - u.sin() / u).abs() < 0.15, "shell {shell}: {}", fsc.shells[shell]);
        }
        let mirrored = Array3::from_shape_fn((n, n, n), |(z, y, x)| a[[z, y, n - 1 - x]]);
        let fsc = Fsc::between(&volume(a), &volume(mirrored)).unwrap();
        assert!(fsc.mean().abs() < 0.2, "{}", fsc.mean());
    }

    #[test]
    fn crossings_are_interpolated_between_shells() {
        let falling = curve(&[1.0, 1.0, 0.8, 0.4, 0.0, 0.6]);
        // Box 12 at 2 A: 24 A / shell. 0.5 lies 3/4 of the way from shell 2 to 3; later rises do not count.
        assert_eq!(falling.crossing(0.5), Crossing::At(24.0 / 2.75));
        let Crossing::At(at) = falling.crossing(0.143) else { panic!("not crossed") };
        assert!((24.0 / at - (3.0 + (0.4 - 0.143) / 0.4)).abs() < 1e-12);
        assert_eq!(curve(&[1.0, 0.9, 0.5]).crossing(0.5), Crossing::NeverBelow(6.0));
        assert_eq!(curve(&[1.0, 0.1, 0.9]).crossing(0.143), Crossing::BelowFromStart(12.0));
        assert_eq!(falling.crossing(0.5).to_string(), "8.73 A");
        assert_eq!(curve(&[1.0, 0.1]).crossing(0.5).resolution(), None);
    }

    #[test]
    fn means_and_values_between_shells() {
        let fsc = curve(&[1.0, 1.0, 0.8, 0.4]);
        assert!((fsc.mean() - 2.2 / 3.0).abs() < 1e-15);
        assert!((fsc.mean_to(2) - 0.9).abs() < 1e-15);
        assert_eq!(fsc.mean_to(99), fsc.mean());
        assert_eq!(fsc.at_resolution(16.0 / 2.0), Some(0.8));
        assert!((fsc.at_resolution(16.0 / 2.5).unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(fsc.at_resolution(16.0 / 3.0), Some(0.4));
        assert_eq!((fsc.at_resolution(17.0), fsc.at_resolution(5.0)), (None, None));
    }

    #[test]
    fn maps_without_power_have_zero_correlation() {
        let flat = volume(Array3::from_elem((8, 8, 8), 0.1));
        let zero = volume(Array3::zeros((8, 8, 8)));
        let other = volume(noise(8, 0));
        assert!(Fsc::between(&zero, &other).unwrap().shells.iter().all(|&v| v == 0.0));
        assert!(Fsc::between(&flat, &flat).unwrap().shells[1..].iter().all(|&v| v == 0.0));
    }

    #[test]
    fn incompatible_maps_are_refused() {
        let a = volume(noise(8, 0));
        let refused = |b: &Volume, part: &str| {
            let message = Fsc::between(&a, b).unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        };
        refused(&volume(noise(10, 0)), "10 x 10 x 10");
        refused(&Volume { pixel_size: 2.003, ..a.clone() }, "2.0030");
        refused(&Volume { pixel_size: 0.0, ..a.clone() }, "pixel size 0 A");
        refused(&volume(Array3::zeros((8, 8, 9))), "9 x 8 x 8");
        let mut broken = a.clone();
        broken.data[[1, 2, 3]] = f32::NAN;
        refused(&broken, "(3, 2, 1)");
        assert!(Fsc::between(&a, &Volume { pixel_size: 2.001, ..a.clone() }).is_ok());
        let mask = Mask::sphere(10, 4.0, 1.0).unwrap();
        assert!(Fsc::between_masked(&a, &a, &mask).unwrap_err().to_string().contains("10 x 10 x 10"));
    }
}
