//! What is refined of the particles, and when (docs/method.md, section 15).

use serde::{Deserialize, Serialize};

/// What is refined. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refine {
    /// Rotations.
    pub poses: bool,
    /// Shifts.
    pub shifts: bool,
    /// Defocus.
    pub defocus: bool,
    /// Numbers of epochs of the refining mixture after which particles are refined, ascending; the last is its length. Empty where
    /// nothing is refined.
    pub rounds: Vec<usize>,
    /// Base learning rate of the refining mixture, at batch 1.
    pub learning_rate: f64,
}

impl Refine {
    /// Whether nothing is refined.
    pub fn is_none(&self) -> bool {
        !(self.poses || self.shifts || self.defocus)
    }

    /// Epochs of the refining mixture.
    pub fn epochs(&self) -> usize {
        self.rounds.last().copied().unwrap_or(0)
    }

    /// The first epoch before which defoci are refined: in the second half of the rounds, when poses are nearly right.
    pub fn first_with_defocus(&self) -> usize {
        self.rounds.get(self.rounds.len() / 2).copied().unwrap_or(0)
    }
}
