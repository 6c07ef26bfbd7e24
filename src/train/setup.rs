//! What a run is made of, and everything that can be wrong with it before the start.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use super::checkpoint;
use super::folder::{self, Older};
use super::init::{Identity, Init};
use super::recipe::{Choices, GAUSSIANS_ALLOWED, Recipe, Settings, gaussians_for};
use super::run::{Models, RunOptions};
use super::starts::{Begun, Known};
use super::survey::{self, Look};
use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::parallel::{Failure, World, group_size};
use crate::particles::Subset;
use crate::particles::store::{Header, Store};
use crate::render::{Weighting, Weights};

/// One model of the run and its particles.
#[derive(Clone, Debug)]
pub struct Part {
    /// The subset of the particles that it is trained on; names its outputs.
    pub subset: Subset,
    /// The rows of its particles.
    pub rows: Range<usize>,
}

impl Part {
    /// The file-name stem of its outputs.
    pub fn name(&self) -> &'static str {
        self.subset.name()
    }
}

/// The models of a run over a particle set.
pub fn parts(store: &Store, models: Models) -> Vec<Part> {
    let subsets: &[Subset] = match models {
        Models::Both => &Subset::HALVES,
        Models::First => &[Subset::Half1],
        Models::Second => &[Subset::Half2],
        Models::All => &[Subset::All],
    };
    subsets.iter().map(|&subset| Part { subset, rows: store.rows(subset) }).collect()
}

/// Particles of the largest part.
pub fn largest(parts: &[Part]) -> usize {
    parts.iter().map(|p| p.rows.len()).max().unwrap_or(0)
}

/// What rank 0 has found out before the start.
pub struct Opened {
    /// The particles.
    pub store: Store,
    /// Their identity.
    pub set: u32,
    /// Where the run begins.
    pub start: folder::Start,
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
    let parts = parts(&store, options.models);
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
        check_truth(truth, &store)?;
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
    let start = folder::prepare(&options.output, options.older, &identities)?;
    if let folder::Start::At { steps, epoch, .. } = &start {
        let settings = resolve(options, store.header(), largest(&parts), world.size());
        let begun = Begun { steps, epochs: *epoch };
        if looks.is_empty() && settings.places() && begun.leaves_any(&settings) {
            looks = survey::of_parts(&store, &parts);
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
        let decided = folder::settings(&options.output);
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
    let looks = survey::of_parts(store, parts);
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
    type Decided = (Option<usize>, Option<usize>, Option<f64>, Option<Identity>);
    let Choices { gaussians, mixtures, learning_rate, init, .. } = choices;
    let decided: Decided = (*gaussians, *mixtures, *learning_rate, init.clone());
    let bytes = serde_json::to_vec(&decided).unwrap_or_default();
    let decided: Decided = serde_json::from_slice(&world.broadcast_bytes(&bytes)).unwrap_or_default();
    (*gaussians, *mixtures, *learning_rate, *init) = decided;
}

/// Says what the particles of a run are.
pub fn introduce(store: &Store, parts: &[Part]) {
    let header = store.header();
    let sizes: Vec<String> =
        parts.iter().map(|part| format!("{} in {}", part.rows.len(), part.name())).collect();
    tracing::info!(
        "{}: {} px at {:.4} A; particles: {}",
        store.path().display(),
        header.box_size,
        header.pixel_size,
        sizes.join(", ")
    );
}

/// Checks that every particle can be used as it is. Gives the set's identity.
///
/// # Errors
/// Names the first particle that cannot be.
pub fn inspect(store: &Store) -> Result<u32> {
    store.inspect(|row, particle| {
        if particle.shift == [0.0; 2] {
            return Ok(());
        }
        Err(Error::input(
            store.path(),
            format!("particle {}", row + 1),
            format!("has a shift of {:?} pixels still to apply", particle.shift),
            "make the file with `cryosplat-mpi import`, which centres the particles",
        ))
    })
}

/// Checks that part `index` of `parts` has a particle for each of its ranks, of `size` in all, which are to `work` ("train")
/// on it.
///
/// # Errors
/// When there is none, or there are too few.
pub fn check_part(store: &Store, parts: &[Part], index: usize, size: usize, work: &str) -> Result<()> {
    let part = &parts[index];
    let (name, n) = (part.name(), part.rows.len());
    if n == 0 {
        return Err(Error::input(
            store.path(),
            "/half",
            format!("no particle is in {name}"),
            "import again with another --seed, or train one model with --half all",
        ));
    }
    let ranks = group_size(size, parts.len(), index);
    if ranks > n {
        return Err(Error::request(
            format!("{ranks} ranks are to {work} {name} with {n} particles: some would have none"),
            format!("start at most {} ranks", n * parts.len()),
        ));
    }
    Ok(())
}

/// Checks that the map at `truth` can be compared with what the particles give.
///
/// # Errors
/// When it cannot be read, or its box is another one.
pub fn check_truth(truth: &Path, store: &Store) -> Result<()> {
    let volume = crate::evaluate::maps::read_cube(truth)?;
    if volume.data.dim().0 == store.header().box_size {
        return Ok(());
    }
    Err(Error::input(
        truth,
        "",
        format!(
            "has a box of {} voxels, and the particles one of {} pixels",
            volume.data.dim().0,
            store.header().box_size
        ),
        "give the map that the particles were made from, in their box",
    ))
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
        weights = world.first(|| weights_of(store))?.unwrap_or(weights);
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
