//! Which particles are searched, and where.

use super::grid::RotationGrid;
use super::newton::{Descent, Group, Posterior, descend, turned_in_view};
use crate::error::Result;
use crate::particles::refinement::Refinement;
use crate::render::{Device, OffsetGrid};

/// Distance from the centre of the specimen, in box edges, at which a rotation must be resolved.
const RADIUS: f64 = 0.25;
/// Largest change of phase, in radians, at the limit of a search between two neighbours of a grid.
const LARGEST_PHASE: f64 = 1.8;
/// Radius of a local search in widths of the prior, and its range in radians.
const LOCAL_WIDTHS: f64 = 3.5;
const LOCAL_RANGE: [f64; 2] = [0.2, 0.8];
/// Tilt of a search over all in-plane angles, in radians.
const WIDE_TILT: f64 = 0.3;
/// Gain in log-posterior that another minimum must bring.
const LEAST_GAIN: f64 = 3.0;
/// Share of a sample that must gain by a search before all are searched.
const GAINING: f64 = 0.05;
/// Standard deviations below the median from which a particle fits badly.
const BAD: f64 = 4.0;

/// The grids of a round.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    local: RotationGrid,
    wide: RotationGrid,
    offsets: OffsetGrid,
}

impl Search {
    /// For frequencies below `limit` cycles per box in images of `box_size` pixels, with the prior of `posterior`.
    pub fn new(limit: usize, box_size: usize, posterior: &Posterior) -> Self {
        let spacing = LARGEST_PHASE / (std::f64::consts::TAU * limit as f64 * RADIUS);
        let [rotation, offset, _] = posterior.widths.0;
        let [least, most] = LOCAL_RANGE;
        // Neighbours a fifth of the finest wave apart.
        let step = box_size as f64 / (5.0 * limit as f64);
        let (local, wide) = match rotation > 0.0 {
            true => {
                let radius = (LOCAL_WIDTHS * rotation).clamp(least, most);
                (RotationGrid::ball(radius, spacing), RotationGrid::in_plane(WIDE_TILT, spacing))
            }
            false => (RotationGrid::ball(0.0, spacing), RotationGrid::ball(0.0, spacing)),
        };
        let radius = if offset > 0.0 { (2.5 * offset / step).ceil().clamp(1.0, 4.0) as usize } else { 0 };
        Self { local, wide, offsets: OffsetGrid { step, radius } }
    }

    /// Searches the particles of a group about their starts, over all in-plane angles if `wide`, and descends from what is found.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(
        &self,
        device: &mut dyn Device,
        group: &Group,
        posterior: &Posterior,
        wide: bool,
    ) -> Result<Vec<Descent>> {
        let &Group { observations, starts, .. } = group;
        let Posterior { widths, noise } = posterior;
        let [rotation, offset, _] = widths.0;
        let grid = if wide { &self.wide } else { &self.local };
        let penalty_of = |angle: &f64| match wide || rotation == 0.0 {
            true => 0.0,
            false => 0.5 * noise * angle * rotation.powi(-2),
        };
        let penalty: Vec<f64> = grid.squared_angles.iter().map(penalty_of).collect();
        let of_offset = if offset > 0.0 { 0.5 * noise * offset.powi(-2) } else { 0.0 };
        let found = device.search(observations, &grid.rotations, &penalty, &self.offsets, of_offset)?;
        let others: Vec<Refinement> = found
            .iter()
            .zip(starts)
            .map(|(found, start)| Refinement {
                rotation: turned_in_view(&start.rotation, &grid.rotations[found.rotation]),
                offset: [0, 1]
                    .map(|axis| start.offset[axis] + self.offsets.step * f64::from(found.offset[axis])),
                ..*start
            })
            .collect();
        descend(device, &Group { starts: &others, ..*group }, posterior)
    }
}

/// Takes those of `others` that are better by far. Returns how many.
pub(crate) fn take_better(descents: &mut [Descent], others: Vec<Descent>) -> usize {
    let mut taken = 0;
    for (one, other) in descents.iter_mut().zip(others) {
        if other.objective > one.objective + LEAST_GAIN {
            *one = other;
            taken += 1;
        }
    }
    taken
}

/// How well a particle fits: <X, Y> - <X, X> over its standard deviation by noise, about 0 for a right pose of a right model.
pub(crate) fn misfit(descent: &Descent, posterior: &Posterior) -> f64 {
    let fit = &descent.fit;
    (fit.overlap - fit.power) / (fit.power * posterior.noise).sqrt().max(f64::MIN_POSITIVE)
}

/// What a sample of the particles of a model tells about all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Whether all particles are searched.
    pub search_all: bool,
    /// A particle that fits worse than this is searched.
    pub bad: f64,
}

impl Verdict {
    /// From the misfits of a sample, and how many of them gained by a search.
    pub fn new(mut misfits: Vec<f64>, gaining: usize) -> Self {
        misfits.retain(|value| value.is_finite());
        misfits.sort_by(f64::total_cmp);
        let Some(last) = misfits.len().checked_sub(1) else {
            return Self { search_all: false, bad: f64::NEG_INFINITY };
        };
        let at = |share: f64| misfits[(last as f64 * share) as usize];
        // Of a normal distribution, from the part that is not lost.
        let deviation = (at(0.8413) - at(0.5)).max(1.0);
        let search_all = gaining as f64 > GAINING * misfits.len() as f64;
        Self { search_all, bad: at(0.5) - BAD * deviation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_searched_where_a_sample_gains_and_else_those_that_fit_badly() {
        // Nearly normal, with two that are lost.
        let mut misfits: Vec<f64> = (-50..50).map(|i| f64::from(i) * 0.04).collect();
        misfits.extend([-20.0, -30.0, f64::NAN]);
        let verdict = Verdict::new(misfits.clone(), 2);
        assert!(!verdict.search_all && (-6.0..-4.0).contains(&verdict.bad), "{verdict:?}");
        assert!(Verdict::new(misfits, 10).search_all);
        assert!(!Verdict::new(Vec::new(), 0).search_all);
    }
}
