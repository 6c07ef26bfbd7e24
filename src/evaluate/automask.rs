//! A soft mask made from a map: low-pass filter, threshold, connected components, extension, soft edge.
//!
//! Steps and order follow RELION's `relion_mask_create`; the threshold and the component are chosen automatically.

use std::f64::consts::PI;

use ndarray::Array3;

use crate::error::{Error, Result};
use crate::evaluate::distance::squared_distances;
use crate::evaluate::filter::low_pass;
use crate::evaluate::mask::Mask;
use crate::imaging::mrc::Volume;

/// Low-pass filter before the threshold, in angstrom: keeps the outline of the particle, removes most noise.
pub const DEFAULT_LOW_PASS: f64 = 15.0;
/// Extension of the thresholded region in pixels, as in RELION's post-processing.
pub const DEFAULT_EXTEND: f64 = 3.0;
/// Width of the soft edge in pixels, as in RELION's post-processing.
pub const DEFAULT_SOFT_EDGE: f64 = 6.0;
/// Position of the automatic threshold between the median of the filtered map (solvent) and its [`TOP`] quantile.
const THRESHOLD: f64 = 0.2;
const TOP: f64 = 0.999;

/// Connected components of the thresholded region that form the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Components {
    /// The largest, connected by faces.
    Largest,
    /// All.
    All,
}

/// Parameters of an automatic mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoMask {
    /// Low-pass filter in angstrom; 0 for none.
    pub low_pass: f64,
    /// Density threshold in the filtered map. `None`: a fifth of the way from the median to the 0.999 quantile.
    pub threshold: Option<f64>,
    /// Components to keep.
    pub components: Components,
    /// Extension in pixels.
    pub extend: f64,
    /// Width of the raised-cosine edge outside the extended region, in pixels.
    pub edge: f64,
}

impl Default for AutoMask {
    fn default() -> Self {
        Self {
            low_pass: DEFAULT_LOW_PASS,
            threshold: None,
            components: Components::Largest,
            extend: DEFAULT_EXTEND,
            edge: DEFAULT_SOFT_EDGE,
        }
    }
}

impl AutoMask {
    /// The mask of a cubic `map`, and the threshold used.
    ///
    /// # Errors
    /// When a parameter is out of range, or no voxel or every voxel reaches the threshold.
    pub fn mask_from(&self, map: &Volume) -> Result<(Mask, f64)> {
        self.check()?;
        let filtered = if self.low_pass > 0.0 { low_pass(map, self.low_pass) } else { map.data.clone() };
        let threshold = self.threshold.unwrap_or_else(|| threshold_of(&filtered));
        let mut body = filtered.mapv(|v| f64::from(v) >= threshold);
        let count = body.iter().filter(|inside| **inside).count();
        if count == 0 || count == body.len() {
            let which = if count == 0 { "no" } else { "every" };
            return Err(Error::request(
                format!("no mask can be made: {which} voxel reaches the threshold of {threshold:.4e}"),
                "choose another --threshold (`cryosplat-mpi info` prints the map's range), or give a mask file",
            ));
        }
        if self.components == Components::Largest {
            body = largest_component(&body);
        }
        if self.extend > 0.0 {
            // Voxels at exactly this distance are not included.
            body = squared_distances(&body).mapv(|d2| d2 < self.extend * self.extend);
        }
        let weights = squared_distances(&body).mapv(|d2| {
            let d = d2.sqrt();
            if d == 0.0 {
                1.0
            } else if d < self.edge {
                0.5 + 0.5 * (PI * d / self.edge).cos()
            } else {
                0.0
            }
        });
        Ok((Mask::from_weights(weights), threshold))
    }

    fn check(&self) -> Result<()> {
        let finite = |value: f64| value.is_finite() && value >= 0.0;
        for (option, value) in
            [("--mask-lowpass", self.low_pass), ("--extend", self.extend), ("--edge", self.edge)]
        {
            if !finite(value) {
                return Err(Error::request(
                    format!("no mask can be made with {option} {value}"),
                    "give 0 or more",
                ));
            }
        }
        if self.threshold.is_some_and(|t| !t.is_finite()) {
            return Err(Error::request(
                "the threshold of a mask must be a number",
                "give another --threshold",
            ));
        }
        Ok(())
    }
}

fn threshold_of(map: &Array3<f32>) -> f64 {
    let mut values: Vec<f32> = map.iter().copied().collect();
    let mut quantile = |fraction: f64| {
        let at = ((values.len() - 1) as f64 * fraction) as usize;
        f64::from(*values.select_nth_unstable_by(at, f32::total_cmp).1)
    };
    let (solvent, top) = (quantile(0.5), quantile(TOP));
    solvent + THRESHOLD * (top - solvent)
}

/// The largest component connected by faces; of equal ones, the first in memory.
fn largest_component(body: &Array3<bool>) -> Array3<bool> {
    let mut left = body.clone();
    let mut best = (0, [0; 3]);
    for ((z, y, x), _) in body.indexed_iter().filter(|(_, inside)| **inside) {
        if left[[z, y, x]] {
            let size = flood(&mut left, [z, y, x], |_| ());
            if size > best.0 {
                best = (size, [z, y, x]);
            }
        }
    }
    let mut piece = Array3::from_elem(body.dim(), false);
    flood(&mut body.clone(), best.1, |at| piece[at] = true);
    piece
}

/// Clears the component of `start`, visits its voxels and returns their number.
fn flood(body: &mut Array3<bool>, start: [usize; 3], mut visit: impl FnMut([usize; 3])) -> usize {
    let n = body.dim().0;
    let mut waiting = vec![start];
    let mut count = 0;
    body[start] = false;
    while let Some(at) = waiting.pop() {
        visit(at);
        count += 1;
        for axis in 0..3 {
            for step in [-1, 1] {
                let mut next = at;
                let Some(place) = at[axis].checked_add_signed(step).filter(|&i| i < n) else { continue };
                next[axis] = place;
                if std::mem::replace(&mut body[next], false) {
                    waiting.push(next);
                }
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 40;

    /// A ball of `radius` pixels about (x, y, z), with a soft edge.
    fn ball(centre: [f64; 3], radius: f64) -> Array3<f32> {
        Array3::from_shape_fn((N, N, N), |(z, y, x)| {
            let d2: f64 = [x, y, z].iter().zip(centre).map(|(&i, c)| (i as f64 - c).powi(2)).sum();
            (1.0 / (1.0 + (4.0 * (d2.sqrt() - radius)).exp())) as f32
        })
    }

    fn volume(data: Array3<f32>) -> Volume {
        Volume::new(data, 2.0)
    }

    #[test]
    fn ball_is_extended_and_softened() {
        let options = AutoMask { low_pass: 0.0, threshold: Some(0.5), ..AutoMask::default() };
        let (mask, threshold) = options.mask_from(&volume(ball([20.0; 3], 8.2))).unwrap();
        assert_eq!(threshold, 0.5);
        // The ball ends at 8, its extension at 10 (11 is 3 pixels away), the edge at 16.
        let along: Vec<f64> = (0..20).map(|r| mask.weights()[[20, 20, 20 + r]]).collect();
        assert!(along[..=10].iter().all(|&w| w == 1.0), "{along:?}");
        assert!((along[13] - 0.5).abs() < 1e-12 && along[12] > along[13] && along[14] < along[13]);
        assert!(along[15] > 0.0 && along[16..].iter().all(|&w| w == 0.0), "{along:?}");
    }

    #[test]
    fn automatic_threshold_finds_ball_and_largest_component_excludes_dust() {
        let map = volume(ball([18.0, 20.0, 22.0], 8.0) + ball([33.0, 33.0, 33.0], 2.5) * 0.9 + 5.0);
        let hard = AutoMask { low_pass: 6.0, extend: 0.0, edge: 0.0, ..AutoMask::default() };
        let (mask, threshold) = hard.mask_from(&map).unwrap();
        assert!((5.1..5.4).contains(&threshold), "{threshold}");
        let volume_of = |mask: &Mask| mask.weights().sum();
        let ball = 4.0 / 3.0 * PI * 8.0f64.powi(3);
        assert!((volume_of(&mask) / ball - 1.0).abs() < 0.35, "{} {ball}", volume_of(&mask));
        assert_eq!((mask.weights()[[22, 20, 18]], mask.weights()[[33, 33, 33]]), (1.0, 0.0));
        let (all, _) = AutoMask { components: Components::All, ..hard }.mask_from(&map).unwrap();
        assert_eq!(all.weights()[[33, 33, 33]], 1.0);
        assert!(volume_of(&all) > volume_of(&mask));
    }

    #[test]
    fn impossible_masks_are_refused() {
        let map = volume(ball([20.0; 3], 8.0));
        let refused = |options: AutoMask, part: &str| {
            let message = options.mask_from(&map).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        let usual = AutoMask::default();
        refused(AutoMask { threshold: Some(9.0), ..usual }, "no voxel reaches");
        refused(AutoMask { threshold: Some(-9.0), ..usual }, "every voxel reaches");
        refused(AutoMask { threshold: Some(f64::NAN), ..usual }, "a number");
        refused(AutoMask { edge: -1.0, ..usual }, "--edge");
        refused(AutoMask { low_pass: f64::INFINITY, ..usual }, "--mask-lowpass");
    }
}
