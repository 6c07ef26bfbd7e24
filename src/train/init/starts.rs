//! Where each mixture of each model starts.

use crate::gmm::Gmm;
use crate::parallel::World;
use crate::particles::Subset;
use crate::particles::parts::Part;
use crate::random::{Purpose, Random, stream};
use crate::recipe::{Recipe, Settings, Start, start_scale};
use crate::train::init::density::Density;
use crate::train::init::from_file::Init;
use crate::train::init::pilot::Look;

/// The random start of a mixture (from 0) of a model.
pub fn random_start(settings: &Settings, subset: Subset, mixture: usize) -> Gmm {
    let mut random = stream(settings.seed, Purpose::Start, subset.seed_index(), mixture as u64);
    let mut gmm = Gmm::random(settings.gaussians, settings.shape(), &mut random);
    gmm.set_scale(settings.start_scale);
    gmm
}

/// The random numbers that place a mixture of a half in a density.
pub fn placement(settings: &Settings, subset: Subset, mixture: usize) -> Random {
    stream(settings.seed, Purpose::Placement, subset.seed_index(), mixture as u64)
}

/// What rank 0 knows of the starts, and no other rank.
#[derive(Debug, Default)]
pub struct Known {
    /// What the user has named.
    pub init: Option<Init>,
    /// What the particles of each model show; empty where nobody looked.
    pub looks: Vec<Look>,
}

/// What has begun already.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// Steps of each model.
    pub steps: &'a [u64],
    /// Epochs of all models.
    pub epochs: usize,
}

impl Begun<'_> {
    /// True where a mixture of the model `index` has begun.
    fn has(&self, settings: &Settings, index: usize, mixture: usize) -> bool {
        match mixture {
            0 => self.steps[index] > 0,
            _ => settings.first_epoch(mixture) < self.epochs,
        }
    }

    /// True where some mixture of some model has not.
    pub fn leaves_any(&self, settings: &Settings) -> bool {
        let left = |index| (0..settings.mixtures).any(|mixture| !self.has(settings, index, mixture));
        (0..self.steps.len()).any(left)
    }
}

impl Known {
    /// The starts of the models `mine` of `parts`, those that this rank trains, in their order, and for each those of its
    /// mixtures: what the user has named, else random Gaussians, placed as the settings say in a box of `box_size` pixels. A
    /// mixture that has begun has a random start if it is the first, whose place a checkpoint takes, or else none. Every rank
    /// calls it.
    pub fn starts(
        &self,
        world: &World,
        settings: &Settings,
        box_size: usize,
        parts: &[Part],
        begun: Begun,
        mine: &[usize],
    ) -> Vec<Vec<Option<Gmm>>> {
        let random = settings.init.is_none() && !settings.places();
        let mut starts = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let wanted = mine.contains(&index);
            let of_mixture = |mixture| {
                if begun.has(settings, index, mixture) {
                    return (wanted && mixture == 0).then(|| random_start(settings, part.subset, mixture));
                }
                let mut start = self.start(settings, box_size, (index, part), mixture);
                if !random {
                    // What rank 0 sends takes the place of the random values.
                    world.broadcast_values(start.values_mut());
                }
                wanted.then_some(start)
            };
            let of_model: Vec<Option<Gmm>> = (0..settings.mixtures).map(of_mixture).collect();
            starts.extend(wanted.then_some(of_model));
        }
        starts
    }

    fn start(
        &self,
        settings: &Settings,
        box_size: usize,
        (index, part): (usize, &Part),
        mixture: usize,
    ) -> Gmm {
        if let Some(init) = &self.init {
            return init.start(settings, part.subset, mixture);
        }
        let mut start = random_start(settings, part.subset, mixture);
        if let Some(density) = self.looks.get(index).and_then(|look| look.density.as_ref()) {
            place(density, settings, box_size, part.subset, mixture, &mut start);
        }
        start
    }
}

/// Places a random start where the particles show the specimen.
fn place(
    density: &Density,
    settings: &Settings,
    box_size: usize,
    subset: Subset,
    mixture: usize,
    start: &mut Gmm,
) {
    if !settings.places() {
        return;
    }
    if settings.recipe == Recipe::Scaled {
        start.set_scale(start_scale(settings.gaussians, box_size, density.share()));
    }
    if settings.start == Start::Density {
        density.place(start, &mut placement(settings, subset, mixture));
    } else {
        density.fit(start);
    }
}
