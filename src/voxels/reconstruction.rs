//! Maps from the Fourier sums of both halves.

use super::sums::FourierSums;
use super::wiener::{WienerFilter, mean_weights};
use super::{gridding, inversion};
use crate::error::Result;
use crate::evaluate::{Fsc, Mask};
use crate::imaging::mrc::Volume;

/// Width of the soft edge of the spherical mask in voxels, as in RELION.
const MASK_EDGE: f64 = 3.0;

/// The maps of a reconstruction.
pub(crate) struct Maps {
    /// Half 1 and half 2.
    pub halves: [Volume; 2],
    /// All particles.
    pub whole: Volume,
}

/// The map of `sums` times `factors`, masked by the sphere that fits the box: outside is only noise. RELION masks alike.
fn invert(sums: &FourierSums, factors: &[f32], pixel_size: f64) -> Result<Volume> {
    let mask = Mask::sphere(sums.box_size, (sums.box_size / 2) as f64 + MASK_EDGE, MASK_EDGE)?;
    let mut data = inversion::map(sums, factors);
    data.zip_mut_with(mask.weights(), |value, &weight| *value = (f64::from(*value) * weight) as f32);
    Ok(Volume::new(data, pixel_size))
}

/// The map of `sums` with density compensation and without a filter.
///
/// # Errors
/// When the box has no voxels.
pub(crate) fn unfiltered_map(sums: &FourierSums, pixel_size: f64) -> Result<Volume> {
    invert(sums, &gridding::density_compensation(sums.box_size, &sums.weight), pixel_size)
}

/// The map of `sums` divided by regularised `weights`.
///
/// # Errors
/// When the box has no voxels.
pub(super) fn regularized_map(sums: &FourierSums, weights: Vec<f32>, pixel_size: f64) -> Result<Volume> {
    invert(sums, &gridding::reciprocals(weights), pixel_size)
}

/// The maps of both halves and of all particles, Wiener-filtered by the FSC of the halves or unfiltered.
///
/// # Errors
/// When the maps are too small for an FSC.
pub(crate) fn reconstruct(halves: [FourierSums; 2], pixel_size: f64, wiener: bool) -> Result<Maps> {
    let [mut all, second] = halves;
    if !wiener {
        let maps = [unfiltered_map(&all, pixel_size)?, unfiltered_map(&second, pixel_size)?];
        all.add(&second);
        drop(second);
        return Ok(Maps { halves: maps, whole: unfiltered_map(&all, pixel_size)? });
    }
    let without_gain =
        |sums: &FourierSums, filter: &WienerFilter| regularized_map(sums, filter.weights(sums), pixel_size);
    let filtered = |sums: &FourierSums, filter: &WienerFilter| -> Result<Volume> {
        Ok(filter.apply_gain(&without_gain(sums, filter)?))
    };
    let means = mean_weights([&all, &second]);
    let floor = WienerFilter::floor(&means);
    let fsc = Fsc::between(&without_gain(&all, &floor)?, &without_gain(&second, &floor)?)?;
    let filter = WienerFilter::new(&fsc, &means);
    let maps = [filtered(&all, &filter)?, filtered(&second, &filter)?];
    all.add(&second);
    drop(second);
    Ok(Maps { halves: maps, whole: filtered(&all, &filter.for_whole_set())? })
}
