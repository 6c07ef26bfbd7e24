//! A map for the 3-D view of the report: cropped, downsampled and quantised to 256 levels. viewer.js draws its surface.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ndarray::{Array3, s};

use crate::imaging::mrc::Volume;
use crate::imaging::resample;

/// Largest edge in voxels.
const MAX_EDGE: usize = 96;
/// Margin in voxels around the region above the level.
const MARGIN: usize = 2;

/// A quantised map.
#[derive(Clone, Debug, PartialEq)]
pub struct Surface {
    /// Voxels along an edge.
    pub size: usize,
    /// Edge of a voxel in angstrom.
    pub voxel: f64,
    /// Density of level 255; level 0 is zero density.
    pub most: f32,
    /// Initial level of the surface.
    pub level: u8,
    /// Levels `[z][y][x]`.
    pub levels: Vec<u8>,
}

impl Surface {
    /// Quantises a cubic `map` from 0 to its maximum. `None` if no value is above 0, or a value is not finite.
    pub fn from_map(map: &Volume) -> Option<Self> {
        let most = map.data.iter().copied().fold(0.0f32, f32::max);
        if !(most > 0.0 && map.data.iter().all(|value| value.is_finite())) {
            return None;
        }
        let level = otsu(&map.data, most);
        let cropped = crop(&map.data, 0.5 * level);
        let edge = cropped.dim().0;
        let size = edge.min(MAX_EDGE);
        let data = resample::to_size(cropped, size);
        let quantise = |&value: &f32| (255.0 * value / most).round().clamp(0.0, 255.0) as u8;
        Some(Self {
            size,
            voxel: map.pixel_size * edge as f64 / size as f64,
            most,
            level: quantise(&level).clamp(1, 254),
            levels: data.iter().map(quantise).collect(),
        })
    }

    /// The levels in base 64.
    pub fn encoded(&self) -> String {
        STANDARD.encode(&self.levels)
    }
}

/// Otsu's threshold of the densities above 0 (IEEE Trans. Syst. Man Cybern. 9 (1979) 62). Densities are clipped at twice their
/// density-weighted mean; otherwise a few high peaks, such as heavy atoms, would form one of the two classes.
fn otsu(data: &Array3<f32>, most: f32) -> f32 {
    const BINS: usize = 256;
    let (mut sum, mut squares) = (0.0, 0.0);
    for value in data.iter().map(|&value| f64::from(value.max(0.0))) {
        sum += value;
        squares += value * value;
    }
    let most = most.min((2.0 * squares / sum) as f32);
    let mut counts = [0u64; BINS];
    for &value in data {
        counts[((value / most * BINS as f32) as usize).min(BINS - 1)] += 1;
    }
    let total: f64 = counts.iter().sum::<u64>() as f64;
    let mean: f64 = counts.iter().enumerate().map(|(bin, &n)| bin as f64 * n as f64).sum::<f64>() / total;
    let (mut below, mut sum, mut best) = (0.0, 0.0, (0.0, 0));
    for (bin, &n) in counts.iter().enumerate().take(BINS - 1) {
        below += n as f64;
        sum += bin as f64 * n as f64;
        let above = total - below;
        if below > 0.0 && above > 0.0 {
            let apart = (mean * below - sum).powi(2) * total / (below * above);
            if apart > best.0 {
                best = (apart, bin + 1);
            }
        }
    }
    best.1.max(1) as f32 / BINS as f32 * most
}

/// The smallest cube, with a margin, about the region above `level`.
fn crop(data: &Array3<f32>, level: f32) -> Array3<f32> {
    let n = data.dim().0;
    let mut ends = [[n, 0]; 3];
    for ((z, y, x), _) in data.indexed_iter().filter(|(_, value)| **value > level) {
        for (end, at) in ends.iter_mut().zip([z, y, x]) {
            *end = [end[0].min(at), end[1].max(at)];
        }
    }
    let edge = ends.iter().map(|[first, last]| last - first + 1).max().unwrap_or(n) + 2 * MARGIN;
    let edge = edge.min(n);
    let from = ends.map(|[first, last]| (first + last).div_ceil(2).saturating_sub(edge / 2).min(n - edge));
    let [z, y, x] = from.map(|from| from..from + edge);
    data.slice(s![z, y, x]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball(n: usize, radius: f64, centre: [f64; 3]) -> Volume {
        let data = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            let far = [z, y, x].iter().zip(centre).map(|(&a, c)| (a as f64 - c).powi(2)).sum::<f64>().sqrt();
            (3.0 / (1.0 + ((far - radius) / 1.5).exp())) as f32
        });
        Volume::new(data, 2.0)
    }

    #[test]
    fn ball_is_cropped_and_level_is_at_its_edge() {
        let map = ball(64, 10.0, [30.0, 25.0, 36.0]);
        let surface = Surface::from_map(&map).unwrap();
        assert!((24..34).contains(&surface.size), "{}", surface.size);
        assert_eq!(surface.voxel, 2.0);
        // Otsu's threshold is half way between the means of its two classes.
        let level = f32::from(surface.level) / 255.0 * surface.most;
        let (below, above): (Vec<f32>, Vec<f32>) = map.data.iter().partition(|value| **value <= level);
        let mean = |class: &[f32]| class.iter().sum::<f32>() / class.len() as f32;
        let half_way = 0.5 * (mean(&below) + mean(&above));
        assert!((level - half_way).abs() < 0.01 * surface.most, "{level} {half_way}");
        // The ball's edge is 3 voxels wide, at a radius of 10.
        let inside = surface.levels.iter().filter(|&&level| level > surface.level).count() as f64;
        let radius = (0.75 * inside / std::f64::consts::PI).cbrt();
        assert!((radius - 10.0).abs() < 1.5, "{radius}");
        let middle = surface.size / 2;
        assert!(surface.levels[(middle * surface.size + middle) * surface.size + middle] > 240);
    }

    #[test]
    fn large_map_is_downsampled() {
        let surface = Surface::from_map(&ball(160, 60.0, [80.0; 3])).unwrap();
        assert_eq!(surface.size, MAX_EDGE);
        let edge = surface.size as f64 * surface.voxel;
        assert!(edge > 240.0 && edge < 320.0, "{edge}");
        let inside = surface.levels.iter().filter(|&&level| level > 127).count() as f64;
        let volume = inside * surface.voxel.powi(3) / (4.0 / 3.0 * std::f64::consts::PI * 120f64.powi(3));
        assert!((volume - 1.0).abs() < 0.05, "{volume}");
    }

    #[test]
    fn high_peaks_do_not_raise_the_level() {
        let mut map = ball(64, 10.0, [32.0; 3]);
        map.data.slice_mut(s![30..33, 30..33, 30..33]).fill(60.0);
        let surface = Surface::from_map(&map).unwrap();
        let level = f32::from(surface.level) / 255.0 * surface.most;
        let shown = map.data.iter().filter(|value| **value > level).count() as f64;
        let radius = (0.75 * shown / std::f64::consts::PI).cbrt();
        assert!((radius - 10.0).abs() < 1.5, "{radius}");
    }

    #[test]
    fn empty_or_invalid_map_has_no_surface() {
        let empty = Volume::new(Array3::zeros((8, 8, 8)), 1.0);
        assert_eq!(Surface::from_map(&empty), None);
        let mut broken = ball(8, 2.0, [4.0; 3]);
        broken.data[[1, 1, 1]] = f32::NAN;
        assert_eq!(Surface::from_map(&broken), None);
        // A single voxel.
        let mut spike = empty;
        spike.data[[0, 7, 3]] = 1.0;
        assert!(Surface::from_map(&spike).is_some());
    }
}
