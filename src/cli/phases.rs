//! The options that say how the phases of half maps are randomised.

use crate::evaluate::PhaseRandomization;

/// Options of commands that correct a masked FSC.
#[derive(Debug, clap::Args)]
pub struct PhaseOptions {
    /// Randomise phases from the shell on where the FSC without a mask falls below this.
    #[arg(long, value_name = "FSC", default_value_t = PhaseRandomization::default().below, allow_negative_numbers = true,
          help_heading = "Correction for the mask")]
    randomize_below: f64,
    /// How many times phases are drawn; the mean FSC of the draws is taken.
    #[arg(long, value_name = "N", default_value_t = PhaseRandomization::default().draws,
          help_heading = "Correction for the mask")]
    draws: usize,
    /// Seed of the random phases.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Correction for the mask")]
    seed: u64,
}

impl PhaseOptions {
    pub fn randomization(&self) -> PhaseRandomization {
        PhaseRandomization { below: self.randomize_below, draws: self.draws, seed: self.seed }
    }
}
