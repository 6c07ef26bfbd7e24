//! Options of phase randomisation.

use crate::evaluate::PhaseRandomization;

/// Options of commands that correct a masked FSC.
#[derive(Debug, clap::Args)]
pub(super) struct PhaseOptions {
    /// Randomise phases from the first shell whose unmasked FSC is below this.
    #[arg(long, value_name = "FSC", default_value_t = PhaseRandomization::default().below, allow_negative_numbers = true,
          help_heading = "Correction for the mask")]
    randomize_below: f64,
    /// Number of random draws whose FSC is averaged.
    #[arg(long, value_name = "N", default_value_t = PhaseRandomization::default().draws,
          help_heading = "Correction for the mask")]
    draws: usize,
    /// Seed of the random phases.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Correction for the mask")]
    seed: u64,
}

impl PhaseOptions {
    pub(super) fn randomization(&self) -> PhaseRandomization {
        PhaseRandomization { below: self.randomize_below, draws: self.draws, seed: self.seed }
    }
}
