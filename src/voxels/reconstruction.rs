//! Maps from the sums of both halves.

use super::accumulator::Sums;
use super::wiener::{Filter, mean_weights};
use super::{gridding, inversion};
use crate::error::Result;
use crate::evaluate::{Fsc, Mask};
use crate::imaging::mrc::Volume;

/// Width of the edge of the sphere about the box's content, in voxels, as RELION has it.
const MASK_EDGE: f64 = 3.0;

/// The maps.
pub struct Maps {
    /// Of half 1 and half 2.
    pub halves: [Volume; 2],
    /// Of all particles.
    pub whole: Volume,
}

/// The map of `sums` times `factors`. Beyond the sphere that the box holds there is noise alone: RELION cuts it off alike.
fn inverted(sums: &Sums, factors: &[f32], pixel_size: f64) -> Result<Volume> {
    let mask = Mask::sphere(sums.box_size, (sums.box_size / 2) as f64 + MASK_EDGE, MASK_EDGE)?;
    let mut data = inversion::map(sums, factors);
    data.zip_mut_with(mask.weights(), |value, &weight| *value = (f64::from(*value) * weight) as f32);
    Ok(Volume { data, pixel_size })
}

/// The map of `sums` that is only divided by the weights.
///
/// # Errors
/// When the box has no voxels.
pub fn plain(sums: &Sums, pixel_size: f64) -> Result<Volume> {
    inverted(sums, &gridding::balanced(sums.box_size, &sums.weight), pixel_size)
}

/// The maps from the sums of both halves.
///
/// # Errors
/// When the maps are too small for an FSC.
pub fn reconstruct(halves: [Sums; 2], pixel_size: f64, wiener: bool) -> Result<Maps> {
    let [mut all, second] = halves;
    if !wiener {
        let maps = [plain(&all, pixel_size)?, plain(&second, pixel_size)?];
        all.add(&second);
        drop(second);
        return Ok(Maps { halves: maps, whole: plain(&all, pixel_size)? });
    }
    let evened =
        |sums: &Sums, filter: &Filter| inverted(sums, &gridding::inverses(filter.weights(sums)), pixel_size);
    let filtered =
        |sums: &Sums, filter: &Filter| -> Result<Volume> { Ok(filter.apply(&evened(sums, filter)?)) };
    let means = mean_weights([&all, &second]);
    let first_guess = Filter::floor(&means);
    let fsc = Fsc::between(&evened(&all, &first_guess)?, &evened(&second, &first_guess)?)?;
    let filter = Filter::new(&fsc, &means);
    let maps = [filtered(&all, &filter)?, filtered(&second, &filter)?];
    all.add(&second);
    drop(second);
    Ok(Maps { halves: maps, whole: filtered(&all, &filter.of_both())? })
}
