//! What a run is made of, and everything that can be wrong with it before the start.

use std::ops::RangeInclusive;

use super::run::RunOptions;
use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::parallel::{Failure, World, group_size};
use crate::particles::parts::{self, Part, check_part, inspect, largest};
use crate::particles::store::{DataSetId, Header, Store};
use crate::recipe::{Choices, GAUSSIANS_ALLOWED, InitIdentity, Recipe, Settings, gaussians_for};
use crate::render::{Weighting, Weights};
use crate::run_folder::lifecycle::{self, Older};
use crate::run_folder::{assessment, checkpoint};
use crate::train::init::from_file::Init;
use crate::train::init::pilot::{self, Look};
use crate::train::init::starts::{Begun, Known};

/// What rank 0 has found out before the start.
pub struct Opened {
    /// The particles.
    pub store: Store,
    /// Their identity.
    pub set: DataSetId,
    /// Where the run begins.
    pub start: lifecycle::Start,
    /// What it knows of the starts.
    pub known: Known,
}

/// Everything that can be wrong before the start, seen from rank 0. What a start of their own decides goes into the choices.
///
/// # Errors
/// What is wrong.
pub fn open(world: &World, options: &mut RunOptions) -> Result<Opened> {
    let store = Store::open(&options.particles)?;
    let identity = inspect(&store)?;
    let init = match &options.init {
        Some(init) => Some(Init::read(init, &options.choices, options.isotropic, store.header())?),
        None => None,
    };
    if let (Some(init), Some(asked)) = (&init, &options.init) {
        init.decide(&mut options.choices);
        init.warn(&asked.file, options.models);
    }
    let parts = parts::parts(&store, options.models);
    for (index, part) in parts.iter().enumerate() {
        check_part(&store, &parts, index, world.size(), "train")?;
        let ranks = group_size(world.size(), parts.len(), index);
        let batch = resolve(options, store.header(), part.rows.len(), ranks).batch;
        if batch < ranks {
            return Err(Error::request(
                format!("a batch of {batch} images cannot be shared by {ranks} ranks: some would have none"),
                format!("use --batch {ranks} or more, or fewer ranks"),
            ));
        }
    }
    let Settings { mixtures, epochs, .. } = resolve(options, store.header(), largest(&parts), world.size());
    if mixtures > epochs {
        return Err(Error::request(
            format!("{epochs} epochs cannot be shared by {mixtures} mixtures: some would see no particle"),
            format!("use --mixtures {epochs} or fewer, or more --epochs"),
        ));
    }
    if let Some(truth) = &options.truth {
        assessment::check_truth(truth, &store)?;
    }
    let mut looks = decide(&store, &parts, options);
    let identities: Vec<(&str, String)> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let ranks = group_size(world.size(), parts.len(), index);
            let settings = resolve(options, store.header(), largest(&parts), ranks);
            (part.name(), checkpoint::identity(&settings, identity))
        })
        .collect();
    let start = lifecycle::prepare(&options.output, options.older, &identities)?;
    if let lifecycle::Start::At { steps, epoch, .. } = &start {
        let settings = resolve(options, store.header(), largest(&parts), world.size());
        let begun = Begun { steps, epochs: *epoch };
        if looks.is_empty() && settings.places() && begun.leaves_any(&settings) {
            looks = pilot::of_parts(&store, &parts);
        }
    }
    Ok(Opened { store, set: identity, start, known: Known { init, looks } })
}

/// Puts into the choices how many Gaussians a mixture of the scaled recipe has, how many mixtures a model, and its rate, where the
/// user has left that open: as a run that goes on has them, else by a look at the particles, which is given where it was taken.
fn decide(store: &Store, parts: &[Part], options: &mut RunOptions) -> Vec<Look> {
    let epochs = resolve(options, store.header(), largest(parts), 1).epochs as u64;
    let Choices { gaussians, mixtures, learning_rate, init, .. } = &mut options.choices;
    if options.recipe != Recipe::Scaled || init.is_some() {
        return Vec::new();
    }
    if matches!(options.older, Older::Resume | Older::ResumeOrStart) {
        // What another processor sees would differ by rounding.
        let decided = lifecycle::settings(&options.output);
        let number = |name: &str, allowed: RangeInclusive<u64>| {
            decided[name].as_u64().filter(|number| allowed.contains(number)).map(|number| number as usize)
        };
        *gaussians = gaussians.or_else(|| number("gaussians", GAUSSIANS_ALLOWED));
        *mixtures = mixtures.or_else(|| number("mixtures", 1..=epochs));
        let rate = decided["learning_rate"].as_f64().filter(|rate| *rate > 0.0 && rate.is_finite());
        *learning_rate = learning_rate.or(rate);
    }
    if gaussians.is_some() && mixtures.is_some() && learning_rate.is_some() {
        return Vec::new();
    }
    let looks = pilot::of_parts(store, parts);
    let mean = |values: Vec<f64>| {
        let sum: f64 = values.iter().sum();
        (!values.is_empty()).then(|| sum / values.len() as f64)
    };
    let filled = mean(looks.iter().filter_map(|look| Some(look.density.as_ref()?.filled())).collect());
    let information = mean(looks.iter().map(|look| look.information).collect()).unwrap_or(0.0);
    let (particles, header) = (largest(parts), store.header());
    gaussians.get_or_insert_with(|| gaussians_for(header.box_size, particles, filled));
    let settings = resolve(options, header, particles, 1);
    options.choices.mixtures.get_or_insert(settings.mixtures_for(information, particles));
    let settings = resolve(options, header, particles, 1);
    let rate = settings.rate_for(information, particles, header.box_size);
    options.choices.learning_rate.get_or_insert(rate);
    looks
}

/// Tells all ranks what rank 0 has decided.
pub fn share(world: &World, choices: &mut Choices) {
    type Decided = (Option<usize>, Option<usize>, Option<f64>, Option<InitIdentity>);
    let Choices { gaussians, mixtures, learning_rate, init, .. } = choices;
    let decided: Decided = (*gaussians, *mixtures, *learning_rate, init.clone());
    let bytes = serde_json::to_vec(&decided).unwrap_or_default();
    let decided: Decided = serde_json::from_slice(&world.broadcast_bytes(&bytes)).unwrap_or_default();
    (*gaussians, *mixtures, *learning_rate, *init) = decided;
}

/// Particles whose CTFs decide the weights of frequencies, at most.
const WEIGHED: usize = 512;

/// How much each frequency counts for all models over a set: both halves alike, and by the CTFs alone, no image. Every rank
/// calls it.
///
/// # Errors
/// When the particles cannot be read.
pub fn weights(world: &World, store: &Store, weighting: Weighting) -> std::result::Result<Weights, Failure> {
    let mut weights = Weights::UNIFORM;
    if weighting == Weighting::Ctf {
        weights = world.on_root(|| weights_of(store))?.unwrap_or(weights);
        world.broadcast_values(weights.values_mut());
    }
    Ok(weights)
}

/// By the CTFs of particles all over the set.
fn weights_of(store: &Store) -> Result<Weights> {
    let reader = store.reader();
    let count = store.len().min(WEIGHED);
    let ctf = |k: usize| {
        let row = (2 * k + 1) * store.len() / (2 * count);
        Ok(reader.ctf(&reader.particles(row..row + 1)?[0]))
    };
    let ctfs: Vec<Ctf> = (0..count).map(ctf).collect::<Result<_>>()?;
    Ok(Weights::of(&ctfs, store.header().pixel_size))
}

/// What the options come to for a model of `particles` particles of the set of `header` on `ranks` ranks.
pub fn resolve(options: &RunOptions, header: &Header, particles: usize, ranks: usize) -> Settings {
    let mut choices = options.choices.clone();
    if let Some(each) = options.batch_per_rank {
        choices.batch = Some(each * ranks);
    }
    Settings::resolve(
        options.recipe,
        &choices,
        options.isotropic,
        options.cutoff,
        options.seed,
        particles,
        header.box_size,
    )
}
