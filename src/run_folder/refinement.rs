//! What a training run has refined of its particles, and its rounds of refinement (docs/method.md, section 15), as checkpoints hold
//! them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hdf5::{exists, numeric_dataset};
use crate::particles::refinement::Refinement;

/// Name of the group of a checkpoint.
pub(super) const GROUP: &str = "refinement";
/// Numbers of a [`Refinement`].
const VALUES: usize = size_of::<Refinement>() / size_of::<f64>();
/// Largest length of a rotation vector, in radians: more than one turn means a damaged file.
const LARGEST_ROTATION: f64 = std::f64::consts::TAU;

/// What a model has refined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefinementState {
    /// The finished rounds, in order.
    pub rounds: Vec<RoundSummary>,
    /// One for each row of the model; empty before the first round.
    pub particles: Vec<Refinement>,
}

/// The outcome of one round of refinement over the particles of a model.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable, Serialize, Deserialize,
)]
#[repr(C)]
pub struct RoundSummary {
    /// The epoch, from 0, before which it took place.
    pub epoch: u64,
    /// Images were compared below this frequency, in cycles per box.
    pub limit: u64,
    /// Particles whose step was taken.
    pub accepted: u64,
    /// Particles whose pose was searched first.
    pub searched: u64,
    /// Width of the prior of the rotation, per axis in radians.
    pub rotation_width: f64,
    /// Width of the prior of the offset, per axis in pixels.
    pub offset_width: f64,
    /// Width of the prior of the defocus in angstrom.
    pub defocus_width: f64,
    /// Mean length of the rotations of the accepted steps, in radians.
    pub mean_rotation_step: f64,
    /// Mean length of the moves of the accepted steps, in pixels.
    pub mean_offset_step: f64,
}

impl RoundSummary {
    fn counts(&self) -> [u64; 4] {
        [self.epoch, self.limit, self.accepted, self.searched]
    }

    fn lengths(&self) -> [f64; 5] {
        let Self {
            rotation_width, offset_width, defocus_width, mean_rotation_step, mean_offset_step, ..
        } = *self;
        [rotation_width, offset_width, defocus_width, mean_rotation_step, mean_offset_step]
    }

    fn of([epoch, limit, accepted, searched]: [u64; 4], lengths: [f64; 5]) -> Self {
        let [rotation_width, offset_width, defocus_width, mean_rotation_step, mean_offset_step] = lengths;
        Self {
            epoch,
            limit,
            accepted,
            searched,
            rotation_width,
            offset_width,
            defocus_width,
            mean_rotation_step,
            mean_offset_step,
        }
    }
}

impl RefinementState {
    /// Writes the group `name` of a file.
    pub(super) fn write(&self, file: &hdf5::File, name: &str) -> hdf5::Result<()> {
        let group = file.create_group(name)?;
        let counts: Vec<u64> = self.rounds.iter().flat_map(RoundSummary::counts).collect();
        let lengths: Vec<f64> = self.rounds.iter().flat_map(RoundSummary::lengths).collect();
        group.new_dataset_builder().with_data(&counts).create("round_counts")?;
        group.new_dataset_builder().with_data(&lengths).create("round_lengths")?;
        let values: &[f64] = bytemuck::cast_slice(&self.particles);
        group.new_dataset_builder().with_data(values).create("particles")?;
        Ok(())
    }

    /// Reads the group `name` of the file `path`; `None` if there is none.
    ///
    /// # Errors
    /// When its data sets do not fit each other, or a value is out of range.
    pub(super) fn read(
        file: &hdf5::File,
        name: &str,
        path: &Path,
        remedy: &'static str,
    ) -> Result<Option<Self>> {
        let fail = || Error::hdf5(path, "read the refinement", remedy);
        if !exists(file, name).map_err(fail())? {
            return Ok(None);
        }
        let group = crate::hdf5::group(file, name).map_err(fail())?;
        let counts: Vec<u64> = numeric_dataset(&group, "round_counts").map_err(fail())?;
        let lengths: Vec<f64> = numeric_dataset(&group, "round_lengths").map_err(fail())?;
        let bad =
            |at: &str, problem: String| Err(Error::input(path, format!("/{name}/{at}"), problem, remedy));
        let (counts, odd_counts) = counts.as_chunks::<4>();
        let (lengths, odd_lengths) = lengths.as_chunks::<5>();
        if !odd_counts.is_empty() || !odd_lengths.is_empty() || counts.len() != lengths.len() {
            let problem = format!("is of {} rounds, but round_counts of {}", lengths.len(), counts.len());
            return bad("round_lengths", problem);
        }
        if let Some(round) = lengths.iter().position(|of| !of.iter().all(|v| v.is_finite() && *v >= 0.0)) {
            let problem = format!("round {} holds {:?}, expected 0 or more", round + 1, lengths[round]);
            return bad("round_lengths", problem);
        }
        let rounds = counts.iter().zip(lengths).map(|(&counts, &of)| RoundSummary::of(counts, of)).collect();
        Ok(Some(Self { rounds, particles: read_rows(&group, path, remedy)? }))
    }

    /// Checks that the state, in the file `path`, is possible for a model of `rows` particles after `epochs` finished epochs.
    ///
    /// # Errors
    /// Names the data set that is out of range.
    pub(super) fn check_within(
        &self,
        path: &Path,
        rows: usize,
        epochs: usize,
        remedy: &'static str,
    ) -> Result<()> {
        let bad =
            |at: &str, problem: String| Err(Error::input(path, format!("/{GROUP}/{at}"), problem, remedy));
        let held = self.particles.len();
        if held != rows && !(held == 0 && self.rounds.is_empty()) {
            return bad("particles", format!("holds {held} particles, but the model has {rows}"));
        }
        if !self.rounds.is_sorted_by_key(|round| round.epoch) {
            return bad("round_counts", "its epochs do not ascend".into());
        }
        for (number, round) in (1..).zip(&self.rounds) {
            if round.epoch > epochs as u64 {
                let problem =
                    format!("round {number} is before epoch {}, but {epochs} are complete", round.epoch + 1);
                return bad("round_counts", problem);
            }
            if round.accepted.max(round.searched) > rows as u64 {
                let problem = format!(
                    "round {number} accepted {} steps and searched {} poses of {rows} particles",
                    round.accepted, round.searched
                );
                return bad("round_counts", problem);
            }
        }
        Ok(())
    }
}

/// Reads the data set `particles` of a group of the file `path`.
///
/// # Errors
/// When it is missing, holds no whole number of rows, or a value is out of range.
fn read_rows(group: &hdf5::Group, path: &Path, remedy: &'static str) -> Result<Vec<Refinement>> {
    let values: Vec<f64> =
        numeric_dataset(group, "particles").map_err(Error::hdf5(path, "read the refinement", remedy))?;
    let at = format!("{}/particles", group.name());
    if !values.len().is_multiple_of(VALUES) {
        let problem = format!("holds {} values, expected {VALUES} per particle", values.len());
        return Err(Error::input(path, at, problem, remedy));
    }
    let particles: Vec<Refinement> = bytemuck::cast_slice(&values).to_vec();
    let sound = |refined: &Refinement| {
        let Refinement { rotation: [x, y, z], offset, defocus } = *refined;
        // Not a number is not below.
        x.hypot(y).hypot(z) < LARGEST_ROTATION && offset.iter().chain([&defocus]).all(|v| v.is_finite())
    };
    match particles.iter().position(|refined| !sound(refined)) {
        None => Ok(particles),
        Some(row) => {
            let Refinement { rotation, offset, defocus } = particles[row];
            let problem = format!(
                "entry {} has rotation {rotation:?}, offset {offset:?} and defocus change {defocus}, expected finite numbers \
                 and less than a full turn",
                row + 1
            );
            Err(Error::input(path, at, problem, remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> RefinementState {
        let round = RoundSummary {
            epoch: 3,
            limit: 12,
            accepted: 2,
            searched: 1,
            rotation_width: 0.05,
            offset_width: 1.25,
            defocus_width: 150.0,
            mean_rotation_step: 0.03,
            mean_offset_step: 0.1 + 0.2,
        };
        let refined = Refinement { rotation: [0.1, -0.2, 0.3], offset: [1.5, -1.0 / 3.0], defocus: -250.0 };
        RefinementState {
            rounds: vec![round, RoundSummary { epoch: 5, limit: 20, searched: 0, ..round }],
            particles: vec![refined, Refinement::default(), refined],
        }
    }

    fn round_trip(state: &RefinementState) -> Result<Option<RefinementState>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.h5");
        let file = hdf5::File::create(&path).unwrap();
        state.write(&file, GROUP).unwrap();
        RefinementState::read(&file, GROUP, &path, "make it again")
    }

    #[test]
    fn states_survive_to_the_bit() {
        for state in [state(), RefinementState::default()] {
            assert_eq!(round_trip(&state).unwrap(), Some(state));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.h5");
        let file = hdf5::File::create(&path).unwrap();
        assert_eq!(RefinementState::read(&file, GROUP, &path, "").unwrap(), None);
    }

    #[test]
    fn damaged_values_are_refused() {
        let refused = |change: fn(&mut RefinementState), fragment: &str| {
            let mut damaged = state();
            change(&mut damaged);
            let message = round_trip(&damaged).unwrap_err().to_string();
            assert!(message.contains(fragment) && message.contains("make it again"), "{message}");
        };
        refused(|s| s.particles[1].rotation[2] = f64::NAN, "/refinement/particles: entry 2");
        refused(|s| s.particles[2].rotation[0] = 7.0, "/refinement/particles: entry 3");
        refused(|s| s.particles[0].offset[1] = f64::INFINITY, "entry 1");
        refused(|s| s.particles[0].defocus = f64::NAN, "entry 1");
        refused(|s| s.rounds[1].rotation_width = -1.0, "/refinement/round_lengths: round 2");
        refused(|s| s.rounds[0].mean_offset_step = f64::NAN, "/refinement/round_lengths: round 1");
    }

    #[test]
    fn data_sets_that_do_not_fit_each_other_are_refused() {
        for (name, fragment) in
            [("round_counts", "is of 2 rounds"), ("round_lengths", "is of"), ("particles", "holds 17 values")]
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c.h5");
            let file = hdf5::File::create(&path).unwrap();
            state().write(&file, GROUP).unwrap();
            let group = file.group(GROUP).unwrap();
            group.unlink(name).unwrap();
            match name {
                "round_counts" => group.new_dataset_builder().with_data(&[1u64; 4]).create(name).unwrap(),
                _ => group.new_dataset_builder().with_data(&[0.5f64; 17]).create(name).unwrap(),
            };
            let message = RefinementState::read(&file, GROUP, &path, "remedy").unwrap_err().to_string();
            assert!(message.contains(fragment), "{message}");
            group.unlink(name).unwrap();
            assert!(RefinementState::read(&file, GROUP, &path, "remedy").is_err(), "without {name}");
        }
    }

    #[test]
    fn states_out_of_range_are_refused() {
        let within = |change: fn(&mut RefinementState)| {
            let mut state = state();
            change(&mut state);
            state.check_within(Path::new("c.h5"), 3, 5, "remedy").map_err(|error| error.to_string())
        };
        let refused = |change: fn(&mut RefinementState), fragment: &str| {
            let message = within(change).unwrap_err();
            assert!(message.contains(fragment) && message.contains("c.h5"), "{message}");
        };
        assert_eq!(within(|_| ()), Ok(()));
        assert_eq!(within(|s| *s = RefinementState::default()), Ok(()));
        refused(|s| s.particles.truncate(2), "/refinement/particles: holds 2 particles");
        refused(|s| s.particles.clear(), "holds 0 particles, but the model has 3");
        refused(|s| s.rounds[1].epoch = 6, "round 2 is before epoch 7, but 5");
        refused(|s| s.rounds[0].epoch = 9, "do not ascend");
        refused(|s| s.rounds[0].accepted = 4, "round 1 accepted 4");
        refused(|s| s.rounds[1].searched = u64::MAX, "round 2 accepted 2");
    }
}
