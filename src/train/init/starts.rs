//! The initial Gaussians of each mixture of each model: rank 0 makes them, and sends them to the ranks that train with them.

use super::from_file::Init;
use super::pilot::PilotReconstruction;
use super::random::{placement, random_start};
use crate::gmm::Gmm;
use crate::gmm::density::Density;
use crate::parallel::World;
use crate::particles::Subset;
use crate::recipe::rules::start_scale;
use crate::recipe::{Recipe, Settings, Start};
use crate::train::plan::Plan;

/// What the initial Gaussians are made from. Only rank 0 has it; on other ranks it is empty.
#[derive(Debug, Default)]
pub(crate) struct InitialGuess {
    /// The file of `--init`.
    pub init: Option<Init>,
    /// The pilot reconstruction of each model; empty where none was made.
    pub pilots: Vec<PilotReconstruction>,
}

impl InitialGuess {
    /// The initial Gaussians of the models `mine`, by index, that this rank trains: for each, those of its mixtures, in a box
    /// of `box_size` pixels. A mixture that a resumed run has started already has none, except the first: its random start
    /// is replaced by the checkpoint's. Every rank calls it.
    pub fn starts(
        &self,
        world: &World,
        plan: &Plan,
        box_size: usize,
        mine: &[usize],
    ) -> Vec<Vec<Option<Gmm>>> {
        let mut starts = Vec::new();
        for (index, model) in plan.models.iter().enumerate() {
            let (settings, subset) = (&model.settings, model.subset.subset);
            let is_random = settings.init.is_none() && !settings.uses_pilot_density();
            let wanted = mine.contains(&index);
            let of_mixture = |mixture| {
                if plan.has_started(index, mixture) {
                    return (wanted && mixture == 0).then(|| random_start(settings, subset, mixture));
                }
                let mut start = self.start(settings, box_size, (index, subset), mixture);
                if !is_random {
                    // Rank 0's values replace the random ones.
                    world.broadcast_values(start.values_mut());
                }
                wanted.then_some(start)
            };
            let of_model: Vec<Option<Gmm>> = (0..settings.all_mixtures()).map(of_mixture).collect();
            starts.extend(wanted.then_some(of_model));
        }
        starts
    }

    fn start(
        &self,
        settings: &Settings,
        box_size: usize,
        (index, subset): (usize, Subset),
        mixture: usize,
    ) -> Gmm {
        if let Some(init) = &self.init {
            return init.start(settings, subset, mixture);
        }
        let mut start = random_start(settings, subset, mixture);
        if let Some(density) = self.pilots.get(index).and_then(|pilot| pilot.density.as_ref()) {
            place(density, settings, box_size, subset, mixture, &mut start);
        }
        start
    }
}

/// Places a random start in the density of the pilot reconstruction, as the settings ask.
fn place(
    density: &Density,
    settings: &Settings,
    box_size: usize,
    subset: Subset,
    mixture: usize,
    start: &mut Gmm,
) {
    if !settings.uses_pilot_density() {
        return;
    }
    if settings.recipe == Recipe::Scaled {
        let whole = settings.gaussians_at_start() * settings.symmetry.order();
        start.set_scale(start_scale(whole, box_size, density.ellipsoid_fraction()));
    }
    if settings.start == Start::Density {
        density.draw_means(start, &mut placement(settings, subset, mixture));
    } else {
        density.match_moments(start);
    }
}
