//! Directional FSC: the correlation of two maps in cones of Fourier space (Tan et al., Nature Methods 14 (2017) 793).
//!
//! If views of a particle are missing, the resolution of a map depends on the direction, which the FSC of whole shells does not
//! show. Here the FSC is computed in cones about many directions, spread evenly over a hemisphere (Fibonacci lattice); the other
//! hemisphere follows from Friedel's law.

use ndarray::Array3;
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD, check_mask, check_pair, spectrum};
use crate::evaluate::mask::Mask;
use crate::evaluate::shells::{correlation, correlations, radius, shell_sums, sizes};
use crate::imaging::fourier::frequency;
use crate::imaging::mrc::Volume;
use crate::imaging::sampling::hemisphere;

/// Half angle of a cone in degrees.
pub const HALF_ANGLE: f64 = 20.0;
/// Number of directions: neighbours are about 9 degrees apart, less than half a cone.
pub const DIRECTIONS: usize = 256;
/// Fewest shells with signal for the ratio of areas.
const FEWEST_SHELLS: usize = 4;
/// Directions per pass over the spectra.
const DIRECTIONS_PER_PASS: usize = 16;

/// The FSC of two maps along many directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Directional {
    /// Unit vectors (x, y, z) over the hemisphere z > 0.
    pub directions: Vec<[f64; 3]>,
    /// The FSC in the cone about each direction. In shells so small that a cone holds no value, the FSC of the whole shell.
    pub curves: Vec<Fsc>,
    /// The FSC of whole shells.
    pub whole: Fsc,
}

/// Summary of the resolutions of all directions, in angstrom.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Resolution of the worst direction.
    pub lowest: f64,
    /// Mean resolution.
    pub mean: f64,
    /// Resolution of the best direction.
    pub highest: f64,
    /// Standard deviation.
    pub spread: f64,
    /// Number of directions whose curve does not cross the threshold; the resolution of their last shell is used.
    pub open: usize,
}

impl Directional {
    /// The FSC of two maps, both multiplied by `mask` if given, in cones of [`HALF_ANGLE`].
    ///
    /// # Errors
    /// As [`Fsc::between_masked`], and when the number of directions is 0 or above 10,000.
    pub fn between(first: &Volume, second: &Volume, mask: Option<&Mask>, directions: usize) -> Result<Self> {
        check_pair(first, second)?;
        if let Some(mask) = mask {
            check_mask(first, mask)?;
        }
        if !(1..=10_000).contains(&directions) {
            return Err(Error::request(
                format!("cannot compute the FSC along {directions} directions"),
                "choose 1 to 10000",
            ));
        }
        let n = first.data.dim().0;
        let (a, b) = (spectrum(first, "first", mask)?, spectrum(second, "second", mask)?);
        let sums = shell_sums(n, |at| [a[at], b[at]]);
        let curve = |shells| Fsc { pixel_size: first.pixel_size, box_size: n, shells };
        let whole = curve(correlations(&sums, n));
        let total = sums.iter().fold([0.0; 2], |t, s| [t[0] + s[1], t[1] + s[2]]);
        let directions = hemisphere(directions);
        let cones: Vec<Vec<Vec<[f64; 3]>>> =
            directions.par_chunks(DIRECTIONS_PER_PASS).map(|some| cone_sums(&a, &b, some)).collect();
        let curves = cones
            .into_iter()
            .flatten()
            .map(|shells| {
                let values = shells.into_iter().zip(&whole.shells);
                curve(values.map(|(sum, &all)| correlation(sum, total).unwrap_or(all)).collect())
            })
            .collect();
        Ok(Self { directions, curves, whole })
    }

    /// The smallest and the largest correlation of each shell.
    pub fn band(&self) -> Vec<[f64; 2]> {
        let of_shell = |shell: usize| {
            let values = self.curves.iter().map(|fsc| fsc.shells[shell]);
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| [l.min(v), h.max(v)])
        };
        (0..self.whole.shells.len()).map(of_shell).collect()
    }

    /// The resolution of each direction at `threshold` in angstrom, and whether its curve crosses the threshold.
    pub fn resolutions(&self, threshold: f64) -> Vec<(f64, bool)> {
        let resolution = |fsc: &Fsc| match fsc.crossing(threshold) {
            Crossing::At(resolution) => (resolution, true),
            Crossing::NeverBelow(end) | Crossing::BelowFromStart(end) => (end, false),
        };
        self.curves.iter().map(resolution).collect()
    }

    /// Summary of the resolutions at `threshold`.
    pub fn summary(&self, threshold: f64) -> Summary {
        let resolutions = self.resolutions(threshold);
        let values = || resolutions.iter().map(|(resolution, _)| *resolution);
        let count = resolutions.len() as f64;
        let mean = values().sum::<f64>() / count;
        Summary {
            lowest: values().fold(f64::NEG_INFINITY, f64::max),
            mean,
            highest: values().fold(f64::INFINITY, f64::min),
            spread: (values().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt(),
            open: resolutions.iter().filter(|(_, crossed)| !crossed).count(),
        }
    }

    /// The conical FSC area ratio (cFAR): the smallest over the largest area under the curve of a direction, up to the shell in which
    /// the FSC of whole shells falls below 0.143 (as in cryoSPARC's orientation diagnostics, v4.4). The scatter of the areas that follows from the
    /// number of Fourier values of a cone is taken out, so that maps of few particles do not seem anisotropic. `None` with fewer than
    /// [`FEWEST_SHELLS`] shells.
    pub fn area_ratio(&self) -> Option<f64> {
        let shells = self.whole.shells.iter().skip(1).take_while(|&&fsc| fsc >= GOLD_STANDARD).count();
        if shells < FEWEST_SHELLS {
            return None;
        }
        let area = |fsc: &Fsc| fsc.shells[1..=shells].iter().map(|value| value.max(0.0)).sum::<f64>();
        let areas: Vec<f64> = self.curves.iter().map(area).collect();
        let count = areas.len() as f64;
        let mean = areas.iter().sum::<f64>() / count;
        let variance = areas.iter().map(|area| (area - mean).powi(2)).sum::<f64>() / count;
        // One of each Friedel pair is independent.
        let share = 0.5 * (1.0 - HALF_ANGLE.to_radians().cos());
        let sizes = sizes(self.whole.box_size);
        let of_noise = |shell: usize| {
            let fsc = self.whole.shells[shell];
            (1.0 - fsc * fsc).powi(2) / (share * sizes[shell]).max(1.0)
        };
        let noise: f64 = (1..=shells).map(of_noise).sum();
        let factor = if variance > noise { ((variance - noise) / variance).sqrt() } else { 0.0 };
        let corrected = areas.iter().map(|area| mean + factor * (area - mean));
        let [least, most] =
            corrected.fold([f64::INFINITY, 0.0], |[l, m], area| [f64::min(l, area), f64::max(m, area)]);
        Some(least.max(0.0) / most)
    }

    /// All curves as CSV, one row per direction.
    pub fn to_csv(&self, threshold: f64) -> String {
        let shells = 1..self.whole.shells.len();
        let frequencies: Vec<String> =
            shells.map(|s| format!("fsc_at_{:.6}_per_A", self.whole.frequency(s as f64))).collect();
        let mut table = format!("direction,x,y,z,resolution_A,crossed,{}\n", frequencies.join(","));
        let rows = self.directions.iter().zip(&self.curves).zip(self.resolutions(threshold));
        for (i, (([x, y, z], fsc), (resolution, crossed))) in rows.enumerate() {
            let values: Vec<String> = fsc.shells[1..].iter().map(|v| format!("{v:.6}")).collect();
            let crossed = u8::from(crossed);
            table += &format!("{i},{x:.6},{y:.6},{z:.6},{resolution:.4},{crossed},{}\n", values.join(","));
        }
        table
    }
}

/// For each direction and each shell below n/2, the sums of [`shell_sums`] over half the cone.
fn cone_sums(
    a: &Array3<Complex<f64>>,
    b: &Array3<Complex<f64>>,
    directions: &[[f64; 3]],
) -> Vec<Vec<[f64; 3]>> {
    let n = a.dim().0;
    let cosine = HALF_ANGLE.to_radians().cos();
    let mut sums = vec![vec![[0.0; 3]; n / 2]; directions.len()];
    for ((z, y, x), va) in a.indexed_iter() {
        let length = radius([z, y, x], n);
        let shell = length.round() as usize;
        let k = [x, y, z].map(|i| frequency(i, n));
        // Only one of k and -k: the other has the same terms.
        if shell >= n / 2 || [k[2], k[1], k[0]] < [0; 3] {
            continue;
        }
        let vb = b[[z, y, x]];
        let terms = [va.re * vb.re + va.im * vb.im, va.norm_sqr(), vb.norm_sqr()];
        let k = k.map(|k| k as f64);
        for (direction, sums) in directions.iter().zip(&mut sums) {
            let along = k[0] * direction[0] + k[1] * direction[1] + k[2] * direction[2];
            if along.abs() >= cosine * length {
                let sum = &mut sums[shell];
                (0..3).for_each(|i| sum[i] += terms[i]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fourier::{spectrum_of_volume, volume_of_spectrum};
    use crate::random::{self, Purpose};
    use rand_distr::{Distribution, StandardNormal};

    const N: usize = 40;

    fn noise(stream: u64) -> Volume {
        let mut random = random::stream(11, Purpose::Noise, 0, stream);
        let data = Array3::from_shape_simple_fn((N, N, N), || StandardNormal.sample(&mut random));
        Volume::new(data, 1.0)
    }

    #[test]
    fn directions_are_evenly_spread_unit_vectors() {
        let directions = hemisphere(DIRECTIONS);
        let sum = directions.iter().fold([0.0; 3], |s, d| [s[0] + d[0], s[1] + d[1], s[2] + d[2]]);
        assert!(sum[0].abs() < 2.0 && sum[1].abs() < 2.0 && (sum[2] / DIRECTIONS as f64 - 0.5).abs() < 1e-3);
        assert!(directions.iter().all(|d| (d.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12));
    }

    #[test]
    fn equal_maps_correlate_along_all_directions() {
        let map = noise(0);
        let found = Directional::between(&map, &map, None, 20).unwrap();
        assert!(found.curves.iter().flat_map(|f| &f.shells).all(|v| (v - 1.0).abs() < 1e-12));
        let summary = found.summary(0.143);
        assert_eq!((summary.open, summary.lowest, summary.highest), (20, 40.0 / 19.0, 40.0 / 19.0));
        assert!(Directional::between(&map, &map, None, 0).is_err());
    }

    #[test]
    fn lower_resolution_along_z_is_found() {
        // Equal up to a radius of 14, but within 30 degrees of z only up to 7. A shell begins half a step before its radius.
        let (signal, other) = (noise(0), noise(1));
        let mut mixed = spectrum_of_volume(&signal.data);
        let foreign = spectrum_of_volume(&other.data);
        for ((z, y, x), value) in mixed.indexed_iter_mut() {
            let length = radius([z, y, x], N);
            let along_z = (frequency(z, N) as f64).abs() >= 30f64.to_radians().cos() * length;
            if length > if along_z { 7.0 } else { 14.0 } {
                *value = foreign[[z, y, x]];
            }
        }
        let second = Volume::new(volume_of_spectrum(mixed), 1.0);
        let found = Directional::between(&signal, &second, None, DIRECTIONS).unwrap();
        let summary = found.summary(0.5);
        assert!((summary.lowest - 40.0 / 6.5).abs() < 0.4, "{summary:?}");
        assert!((summary.highest - 40.0 / 13.8).abs() < 0.2, "{summary:?}");
        assert!(summary.mean > summary.highest && summary.mean < summary.lowest && summary.spread > 0.3);
        let worst = (found.resolutions(0.5).iter().zip(&found.directions))
            .max_by(|a, b| a.0.0.total_cmp(&b.0.0))
            .map(|(_, direction)| *direction)
            .unwrap();
        assert!(worst[2] > 0.9, "{worst:?}");
        let band = found.band();
        assert!(band[10][0] < 0.3 && band[10][1] > 0.9, "{:?}", band[10]);
        let table = found.to_csv(0.5);
        assert_eq!(table.lines().count(), DIRECTIONS + 1);
        assert!(table.lines().all(|line| line.split(',').count() == 6 + N / 2 - 1));
    }
}
