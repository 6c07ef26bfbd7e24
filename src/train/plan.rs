//! The plan of a run: everything that rank 0 decides before the start, broadcast once. Nothing changes it afterwards.

use serde::{Deserialize, Serialize};

use crate::loader::sampler::Sampler;
use crate::particles::noise::NoisePower;
use crate::particles::selection::SubsetRows;
use crate::particles::store::{Header, SetDigests};
use crate::recipe::Settings;
use crate::render::{Geometry, Weights};
use crate::run_folder::identity::RunIdentity;

/// What all ranks of a run do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Digests of the particle set.
    pub data_set: SetDigests,
    /// The models that are trained: both halves, one of them, or one model of all particles.
    pub models: Vec<ModelPlan>,
    /// Weights of the spatial frequencies in the loss, the same for all models.
    pub weights: Weights,
    /// First epoch, from 0, that some model has not finished.
    pub first_epoch: usize,
    /// Ranks of a group that trained the run before it was resumed; 0 for a new run.
    pub resumed_ranks: usize,
}

/// What is decided for one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelPlan {
    /// Its particles.
    pub subset: SubsetRows,
    /// Its settings, with nothing left open.
    pub settings: Settings,
    /// The noise of its particles; `None` where nothing depends on it.
    pub noise: Option<NoisePower>,
    /// Steps done in the checkpoint that it resumes from; 0 without one.
    pub steps_done: u64,
}

impl ModelPlan {
    /// File-name stem of its outputs: "half1", "half2" or "map".
    pub fn name(&self) -> &'static str {
        self.subset.name()
    }
}

impl Plan {
    /// The particles of each model.
    pub fn subsets(&self) -> Vec<SubsetRows> {
        self.models.iter().map(|model| model.subset.clone()).collect()
    }

    /// The number of particles of the largest model.
    pub fn most_particles(&self) -> usize {
        self.models.iter().map(|model| model.subset.rows.len()).max().unwrap_or(0)
    }

    /// The order of the particles of model `index`, of the set with this `header`.
    pub fn sampler(&self, index: usize, header: &Header) -> Sampler {
        let ModelPlan { subset: SubsetRows { subset, rows }, settings, .. } = &self.models[index];
        let image_bytes = header.pixels() * size_of::<f32>();
        Sampler::new(rows.clone(), settings.batch, image_bytes, settings.seed, *subset)
    }

    /// How model `index` is rendered, in the box of the set with this `header`.
    pub fn geometry(&self, index: usize, header: &Header) -> Geometry {
        let settings = &self.models[index].settings;
        Geometry {
            box_size: header.box_size,
            pixel_size: header.pixel_size,
            cutoff: settings.cutoff,
            sampling: settings.sampling,
            weights: self.weights,
            symmetry: settings.symmetry,
        }
    }

    /// What the checkpoints of model `index` must share to be resumed.
    pub fn identity(&self, index: usize) -> RunIdentity {
        RunIdentity::new(&self.data_set, &self.models[index].settings)
    }

    /// Whether the training of mixture `mixture` of model `index` has started before this run was resumed.
    pub fn has_started(&self, index: usize, mixture: usize) -> bool {
        let ModelPlan { settings, steps_done, .. } = &self.models[index];
        match mixture {
            0 => *steps_done > 0,
            _ => settings.first_epoch(mixture) < self.first_epoch,
        }
    }

    /// Whether some mixture of some model has not started.
    pub fn has_mixtures_to_start(&self) -> bool {
        let remaining = |index: usize| {
            (0..self.models[index].settings.all_mixtures()).any(|mixture| !self.has_started(index, mixture))
        };
        (0..self.models.len()).any(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::particles::Subset;
    use crate::recipe::{Choices, Recipe};

    /// Three mixtures in eight epochs, which begin with epochs 0, 2 and 5, resumed in `first_epoch`.
    fn plan(first_epoch: usize, steps_done: u64) -> Plan {
        let choices = Choices { epochs: Some(8), mixtures: Some(3), ..Choices::default() };
        let model = |subset| ModelPlan {
            subset: SubsetRows { subset, rows: 0..150 },
            settings: Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 150, 32),
            noise: None,
            steps_done,
        };
        Plan {
            data_set: SetDigests::default(),
            models: Subset::HALVES.map(model).to_vec(),
            weights: Weights::UNIFORM,
            first_epoch,
            resumed_ranks: 1,
        }
    }

    #[test]
    fn a_mixture_has_started_only_after_its_first_epoch_began() {
        let started = |epoch, steps| [0, 1, 2].map(|mixture| plan(epoch, steps).has_started(1, mixture));
        assert_eq!(started(0, 0), [false; 3]);
        assert_eq!(started(0, 5), [true, false, false]);
        // Resumed between two mixtures: the next one needs its start.
        assert_eq!(started(2, 40), [true, false, false]);
        assert_eq!(started(3, 60), [true, true, false]);
        assert_eq!(started(5, 100), [true, true, false]);
        assert_eq!(started(6, 120), [true; 3]);
        assert!(plan(5, 100).has_mixtures_to_start() && !plan(6, 120).has_mixtures_to_start());
    }

    #[test]
    fn a_plan_reaches_other_ranks_unchanged() {
        let sent = plan(3, 60);
        let text = serde_json::to_vec(&sent).unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&text).unwrap(), sent);
    }
}
