//! What a step takes into account of each particle beside its view: contrast, weight, noise group.

use crate::render::Observation;

/// Contrasts and weights of the particles of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ParticleFactors {
    /// Row of the first particle.
    pub first: usize,
    /// Contrast of each particle; empty while all are 1.
    pub contrast: Vec<f32>,
    /// Weight of each particle; empty while all are 1.
    pub weight: Vec<f32>,
}

impl ParticleFactors {
    /// Sets contrast, weight and noise group of the particle in `row`, which is of this optics group.
    pub(crate) fn apply(&self, observation: &mut Observation, row: usize, optics_group: u32) {
        let of = |values: &[f32]| values.get(row - self.first).map_or(1.0, |&value| f64::from(value));
        observation.contrast = of(&self.contrast);
        observation.weight = of(&self.weight);
        observation.noise_group = optics_group as usize;
    }
}
