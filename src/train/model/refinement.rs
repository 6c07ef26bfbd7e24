//! The refinement of a model's particles between its epochs.

use super::{Core, Model};
use crate::error::Result;
use crate::imaging::Symmetry;
use crate::parallel::{Collective, EndSignal};
use crate::particles::refinement::Refinement;
use crate::run_folder::refinement::RoundSummary;
use crate::train::appraise;
use crate::train::refined_model::Round;
use crate::train::refiner::Refiner;

impl Model {
    /// Whether its particles are still to be refined before epoch `epoch`.
    pub fn needs_refinement(&self, epoch: usize) -> bool {
        let Core { setup, position, refined, .. } = &self.core;
        let is_done = refined.state.rounds.last().is_some_and(|round| round.epoch == epoch as u64);
        setup.identity.settings.refines_before(epoch) && !is_done && position.epoch == epoch
    }

    /// Refines its particles before epoch `epoch` against its own mixtures, of which `curve` is confirmed. Nothing of it is in effect
    /// until [`Model::finish_round`].
    ///
    /// # Errors
    /// When particles cannot be read, or the device fails.
    pub fn refine(
        &mut self,
        collective: &Collective,
        curve: &[f64],
        (symmetry, signal): (Symmetry, &EndSignal),
        epoch: usize,
    ) -> Result<Round> {
        let mixtures = self.mixtures()?;
        let Self { core: Core { setup, refined, .. }, shard } = self;
        let settings = &setup.identity.settings;
        let appraisal = setup.appraisal.as_ref().expect("noise is estimated where particles are refined");
        let (weights, noise) = appraisal.noise.weights();
        setup.device.set_noise_weights(&weights)?;
        let device = setup.device.as_mut();
        let refine = &settings.refine;
        let refiner = Refiner { device, shard, collective, refined, refine, noise, epoch, signal };
        let round = refiner.run((&mixtures, symmetry), curve)?;
        let (weights, _) = appraise::noise_weights(&settings.likelihood, &appraisal.noise);
        setup.device.set_noise_weights(&weights)?;
        Ok(round)
    }

    /// Uses what a round has refined from now on, and writes a checkpoint. Every rank of the group calls it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn finish_round(&mut self, round: Round, collective: &Collective) -> Result<()> {
        self.core.refined.finish(round, collective);
        self.shard.set_refinements(self.core.refined.own().to_vec());
        self.core.save_checkpoint()
    }

    /// Its rounds of refinement.
    pub fn rounds(&self) -> &[RoundSummary] {
        &self.core.refined.state.rounds
    }

    /// What was refined of all its particles, on every rank of the group; empty if nothing is. Every rank calls it.
    pub fn gather_refinements(&self, collective: &Collective) -> Vec<Refinement> {
        let Core { setup, refined, .. } = &self.core;
        if setup.identity.settings.refine.is_none() { Vec::new() } else { refined.gather(collective) }
    }
}
