//! Rank 0's decisions before the start: checks everything that can be wrong, fills the open settings, and makes the [`Plan`].

use std::path::Path;

use super::extension;
use super::foretold;
use super::init::from_file::Init;
use super::init::pilot::{self, PilotReconstruction};
use super::init::starts::InitialGuess;
use super::options::RunOptions;
use super::plan::{ModelPlan, Plan};
use crate::error::{Error, Result};
use crate::imaging::ctf::Ctf;
use crate::parallel::{EndSignal, Failure, World, group_size};
use crate::particles::noise::NoisePower;
use crate::particles::selection::{self, Models, SubsetRows};
use crate::particles::store::{Header, SetDigests, Store};
use crate::recipe::likelihood::NoiseModel;
use crate::recipe::rules::{GAUSSIANS_ALLOWED, gaussians_for};
use crate::recipe::{Choices, Recipe, Settings};
use crate::render::{Weighting, Weights};
use crate::run_folder::checkpoint::{self, Checkpoint};
use crate::run_folder::identity::RunIdentity;
use crate::run_folder::lifecycle::{self, ExistingRun, Start};
use crate::run_folder::owner::{Claim, Owner, Request};
use crate::run_folder::{assessment, names, overwriting};
use crate::voxels::detection;

/// Largest number of particles whose CTFs determine the weights of the spatial frequencies.
const CTF_SAMPLE: usize = 512;

/// Largest number of times that the Gaussians of a mixture are doubled.
const MAX_DENSIFICATIONS: usize = 16;

/// A run that is decided.
pub(crate) struct Decided {
    /// The particles.
    pub store: Store,
    /// What all ranks do.
    pub plan: Plan,
    /// What the initial Gaussians are made from; empty on all ranks but rank 0.
    pub guess: InitialGuess,
    /// What proves that the job holds the run folder.
    pub claim: Claim,
    /// The ownership of the run folder, on rank 0.
    pub owner: Option<Owner>,
}

/// What rank 0 has decided, and the ownership of the run folder.
type Planned = (Plan, InitialGuess, Owner);

/// Decides on rank 0, and broadcasts the plan. `None` where the run is done already. Every rank calls it.
///
/// # Errors
/// What rank 0 finds wrong, on every rank; or on this rank, a particle file that it cannot open.
pub(crate) fn decide_on_all_ranks(
    world: &World,
    options: &RunOptions,
    signal: &EndSignal,
) -> std::result::Result<Option<Decided>, Failure> {
    let (store, plan, guess, owner) = match world.on_root(|| decide(world, options, signal))? {
        Some((store, Some((plan, guess, owner)))) => (store, Some(plan), guess, Some(owner)),
        Some((store, None)) => (store, None, InitialGuess::default(), None),
        None => (Store::open(&options.particles)?, None, InitialGuess::default(), None),
    };
    let claim = owner.as_ref().map(|owner| owner.claim().clone());
    let decided: Option<(Plan, Claim)> = world.broadcast_json(&plan.zip(claim))?;
    Ok(decided.map(|(plan, claim)| Decided { store, plan, guess, claim, owner }))
}

/// A run that is only foreseen.
pub(crate) struct Foreseen {
    /// The particles.
    pub store: Store,
    /// What all ranks would do.
    pub plan: Plan,
    /// What the initial Gaussians would be made from; empty on all ranks but rank 0.
    pub guess: InitialGuess,
}

/// Decides on rank 0 what a new run would do, without its folder, and broadcasts it. Every rank calls it. `whole` holds the particles
/// of each model of the run where the particle file is a sample of them.
///
/// # Errors
/// As [`decide_on_all_ranks`].
pub(crate) fn foresee_on_all_ranks(
    world: &World,
    options: &RunOptions,
    whole: Option<&[usize]>,
) -> std::result::Result<Foreseen, Failure> {
    let foresee = || {
        let store = Store::open(&options.particles)?;
        let Prepared { data_set, mut choices, init, subsets } = prepare(world, options, &store)?;
        let open = Open { world, options, header: store.header(), subsets: &subsets, whole };
        open.check_size(&choices)?;
        let pilots = open.fill(&mut choices, &store);
        check_growth(&open.settings(&choices, 0))?;
        let settings = open.check_size(&choices)?;
        let start = (vec![0; subsets.len()], 0, 0);
        let plan = plan_of(&store, data_set, &subsets, settings, start, &options.output)?;
        detection::report(&store, &subsets, options.choices.symmetry);
        let pilots = pilots_for(pilots, &plan, &store, &subsets, options);
        Ok((store, plan, InitialGuess { init, pilots }))
    };
    let (store, plan, guess) = match world.on_root(foresee)? {
        Some((store, plan, guess)) => (store, Some(plan), guess),
        None => (Store::open(&options.particles)?, None, InitialGuess::default()),
    };
    let plan: Option<Plan> = world.broadcast_json(&plan)?;
    Ok(Foreseen { store, plan: plan.expect("rank 0 has made a plan"), guess })
}

/// What a run works on, checked, with the settings that the user has chosen.
struct Prepared {
    data_set: SetDigests,
    choices: Choices,
    init: Option<Init>,
    subsets: Vec<SubsetRows>,
}

fn prepare(world: &World, options: &RunOptions, store: &Store) -> Result<Prepared> {
    let data_set = selection::check_centred(store)?;
    let mut choices = options.choices.clone();
    if options.recipe == Recipe::Scaled && store.header().optics.len() > 1 {
        // Measured (benches/results/defects.md): a gain where optics groups differ, none within a single one.
        choices.noise.get_or_insert(NoiseModel::Spectrum);
    }
    check_densify(&choices)?;
    check_refine(options, &choices, store)?;
    let init = read_init(options, &mut choices, store.header())?;
    let subsets = SubsetRows::of(store, options.models);
    let open = Open { world, options, header: store.header(), subsets: &subsets, whole: None };
    check_ranks(&open, &choices, store)?;
    if let Some(truth) = &options.truth {
        assessment::check_truth(truth, store)?;
    }
    Ok(Prepared { data_set, choices, init, subsets })
}

/// The plan of the models with these `settings`, from `(steps, epoch, ranks)` on: steps of each model, epoch and ranks of the run that
/// is resumed.
fn plan_of(
    store: &Store,
    data_set: SetDigests,
    subsets: &[SubsetRows],
    settings: Vec<Settings>,
    (steps, first_epoch, resumed_ranks): (Vec<u64>, usize, usize),
    folder: &Path,
) -> Result<Plan> {
    let models = subsets.iter().zip(settings).zip(steps);
    let models = models.map(|((subset, settings), steps_done)| {
        let noise = noise_of(store, subset, &settings, steps_done, folder)?;
        Ok(ModelPlan { subset: subset.clone(), settings, noise, steps_done })
    });
    let models: Vec<ModelPlan> = models.collect::<Result<_>>()?;
    let weights = weights(store, models[0].settings.weighting)?;
    Ok(Plan { data_set, models, weights, first_epoch, resumed_ranks })
}

/// The pilot reconstructions for the initial Gaussians of `plan`: those of before, or where there are none and it needs them, new ones.
fn pilots_for(
    pilots: Vec<PilotReconstruction>,
    plan: &Plan,
    store: &Store,
    subsets: &[SubsetRows],
    options: &RunOptions,
) -> Vec<PilotReconstruction> {
    if pilots.is_empty() && plan.models[0].settings.uses_pilot_density() && plan.has_mixtures_to_start() {
        return pilot::reconstruct_subsets(store, subsets, options.choices.symmetry);
    }
    pilots
}

/// The plan of a run, with the ownership of its folder; `None` in its place where the run is done.
fn decide(world: &World, options: &RunOptions, signal: &EndSignal) -> Result<(Store, Option<Planned>)> {
    if options.output.to_str().is_none() {
        let problem = "is a name that is not UTF-8, which HDF5 cannot use for checkpoints";
        return Err(Error::input(&options.output, "", problem, "choose another name for the run folder"));
    }
    let store = Store::open(&options.particles)?;
    let inputs = [
        (options.truth.as_deref(), "the ground truth"),
        (options.init.as_ref().map(|init| init.file.as_path()), "the file of --init"),
    ];
    overwriting::check_run(&options.output, &store, &inputs)?;
    let Prepared { data_set, mut choices, init, subsets } = prepare(world, options, &store)?;
    let open = Open { world, options, header: store.header(), subsets: &subsets, whole: None };
    // Before the pilot reconstruction, with what the user has chosen, and after it.
    open.check_size(&choices)?;
    let existing = extension::decide(options, &mut choices)?;
    let mut owner = lifecycle::enter(
        &options.output,
        existing,
        &Request {
            command: &options.command,
            waits_for_own_job: !matches!(existing, ExistingRun::Refuse | ExistingRun::Replace),
            stopped: &|| signal.received(),
        },
    )?;
    let mut pilots = open.fill(&mut choices, &store);
    check_growth(&open.settings(&choices, 0))?;
    let settings = open.check_size(&choices)?;
    let identity = |settings: &Settings| RunIdentity::new(&data_set, settings);
    let identities: Vec<_> =
        subsets.iter().map(|subset| subset.subset).zip(settings.iter().map(identity)).collect();
    let Start::At { steps, epoch, ranks } =
        lifecycle::prepare(&options.output, owner.as_mut(), existing, &identities)?
    else {
        return Ok((store, None));
    };
    let plan = plan_of(&store, data_set, &subsets, settings, (steps, epoch, ranks), &options.output)?;
    if existing == ExistingRun::Extend {
        extension::log(&plan.models[0].settings);
    }
    if plan.models.iter().all(|model| model.steps_done == 0) {
        detection::report(&store, &subsets, options.choices.symmetry);
    }
    pilots = pilots_for(pilots, &plan, &store, &subsets, options);
    Ok((store, owner.map(|owner| (plan, InitialGuess { init, pilots }, owner))))
}

/// Reads the file of `--init`, and sets the choices that it determines.
fn read_init(options: &RunOptions, choices: &mut Choices, header: &Header) -> Result<Option<Init>> {
    let Some(asked) = &options.init else { return Ok(None) };
    let init = Init::read(asked, choices, options.isotropic, header)?;
    init.apply_to(choices);
    init.warn_about_shared_start(&asked.file, options.models);
    Ok(Some(init))
}

/// Checks that every rank has particles and images of a batch, and every mixture an epoch.
fn check_ranks(open: &Open, choices: &Choices, store: &Store) -> Result<()> {
    selection::check_ranks(store, open.subsets, open.world.size(), "train")?;
    for index in 0..open.subsets.len() {
        let ranks = open.ranks(index);
        let batch = open.settings(choices, index).batch;
        if batch < ranks {
            return Err(Error::request(
                format!("a batch of {batch} images cannot be shared by {ranks} ranks: some would have none"),
                format!("use --batch {ranks} or more, or fewer ranks"),
            ));
        }
    }
    let Settings { mixtures, epochs, .. } = open.settings(choices, 0);
    if mixtures > epochs {
        return Err(Error::request(
            format!("{epochs} epochs cannot be shared by {mixtures} mixtures: some would see no particle"),
            format!("use --mixtures {epochs} or fewer, or more --epochs"),
        ));
    }
    Ok(())
}

/// Checks that what `--refine` asks for can be refined.
fn check_refine(options: &RunOptions, choices: &Choices, store: &Store) -> Result<()> {
    if choices.refine.is_none() {
        return Ok(());
    }
    if options.models != Models::Both {
        return Err(Error::request(
            "--refine needs both halves: poses are refined up to frequencies that the other half's particles confirm",
            "omit --half",
        ));
    }
    let premultiplied = store.header().optics.iter().position(|optics| optics.premultiplied);
    if let Some(group) = premultiplied.filter(|_| choices.refine.defocus) {
        return Err(Error::input(
            store.path(),
            format!("optics group {}", group + 1),
            "its images were multiplied by their CTF when they were extracted, so that --refine cannot change the defocus",
            "use --refine poses,shifts, or extract the particles again without CTF premultiplication",
        ));
    }
    Ok(())
}

/// Checks the epochs of `--densify` by themselves.
fn check_densify(choices: &Choices) -> Result<()> {
    let epochs = &choices.densify;
    let list = || epochs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if !epochs.is_sorted_by(|a, b| a < b) {
        return Err(Error::request(
            format!("--densify {} is not in ascending order", list()),
            "give each epoch once, the earliest first",
        ));
    }
    if epochs.len() > MAX_DENSIFICATIONS {
        return Err(Error::request(
            format!(
                "--densify {} has {} epochs, but at most {MAX_DENSIFICATIONS} are allowed",
                list(),
                epochs.len()
            ),
            "double the Gaussians less often",
        ));
    }
    Ok(())
}

/// Checks that every densification takes place within every mixture, and leads to an allowed number of Gaussians.
fn check_growth(settings: &Settings) -> Result<()> {
    let Some(last) = settings.densify.last() else { return Ok(()) };
    let shortest = settings.epochs_of_shortest_mixture();
    if *last >= shortest {
        let mixtures = match settings.mixtures {
            1 => "the run has".to_owned(),
            several => format!("the shortest of {several} mixtures has"),
        };
        return Err(Error::request(
            format!("--densify {last} leaves no epoch to train after it: {mixtures} {shortest}"),
            "give earlier epochs (they count within each mixture), more --epochs, or fewer --mixtures",
        ));
    }
    if !GAUSSIANS_ALLOWED.contains(&(settings.gaussians as u64)) {
        return Err(Error::request(
            format!(
                "--densify leads to {} Gaussians, but at most {} are allowed",
                settings.gaussians,
                GAUSSIANS_ALLOWED.end()
            ),
            "double the Gaussians less often, or start from fewer",
        ));
    }
    Ok(())
}

/// A run whose settings are still open.
struct Open<'a> {
    world: &'a World,
    options: &'a RunOptions,
    header: &'a Header,
    subsets: &'a [SubsetRows],
    /// Particles of each model, where the subsets are samples of them.
    whole: Option<&'a [usize]>,
}

impl Open<'_> {
    /// Ranks that train model `index`.
    fn ranks(&self, index: usize) -> usize {
        group_size(self.world.size(), self.subsets.len(), index)
    }

    /// The settings of all models, which the box and the memory allow.
    fn check_size(&self, choices: &Choices) -> Result<Vec<Settings>> {
        let all: Vec<_> = (0..self.subsets.len()).map(|index| self.settings(choices, index)).collect();
        foretold::check_gaussians(&all[0], self.header.box_size)?;
        foretold::check_memory(self.world, self.options, &all, (self.header.box_size, self.particles()))?;
        Ok(all)
    }

    /// Particles of the largest model, which the settings of all follow from.
    fn particles(&self) -> usize {
        let whole = self.whole.and_then(|whole| whole.iter().copied().max());
        whole.unwrap_or_else(|| selection::most_particles(self.subsets))
    }

    /// The settings of model `index` with these `choices`.
    fn settings(&self, choices: &Choices, index: usize) -> Settings {
        let mut choices = choices.clone();
        if let Some(per_rank) = self.options.batch_per_rank {
            choices.batch = Some(per_rank * self.ranks(index));
        }
        let RunOptions { recipe, isotropic, cutoff, seed, .. } = *self.options;
        Settings::resolve(recipe, &choices, isotropic, cutoff, seed, self.particles(), self.header.box_size)
    }

    /// Fills the choices of the scaled recipe that the user has left open: Gaussians per mixture, mixtures and rate. They come from
    /// the run that is resumed, else from a pilot reconstruction, which is returned where one was made.
    fn fill(&self, choices: &mut Choices, store: &Store) -> Vec<PilotReconstruction> {
        if self.options.recipe != Recipe::Scaled || choices.init.is_some() {
            return Vec::new();
        }
        // That of the refining mixture does not follow from the pilot reconstruction.
        choices.refine.learning_rate = self.settings(choices, 0).refine.learning_rate;
        if matches!(self.options.existing_run, ExistingRun::Resume | ExistingRun::ResumeOrStart) {
            // A pilot reconstruction on another CPU would differ by rounding.
            let epochs = self.settings(choices, 0).epochs;
            fill_from_run(choices, lifecycle::settings(&self.options.output), epochs);
        }
        let Choices { gaussians, mixtures, learning_rate, .. } = choices;
        if gaussians.is_some() && mixtures.is_some() && learning_rate.is_some() {
            return Vec::new();
        }
        let pilots = pilot::reconstruct_subsets(store, self.subsets, choices.symmetry);
        let filled = mean(pilots.iter().filter_map(|pilot| Some(pilot.density.as_ref()?.filled_fraction())));
        let scale = self.particles() as f64 / selection::most_particles(self.subsets).max(1) as f64;
        let snr = scale * mean(pilots.iter().map(|pilot| pilot.total_snr)).unwrap_or(0.0);
        let (particles, box_size) = (self.particles(), self.header.box_size);
        let counted = particles * choices.symmetry.order();
        gaussians.get_or_insert_with(|| gaussians_for(box_size, counted, filled));
        let settings = self.settings(choices, 0);
        choices.mixtures.get_or_insert(settings.mixtures_for(snr, particles));
        let settings = self.settings(choices, 0);
        choices.learning_rate.get_or_insert(settings.rate_for(snr, particles, box_size));
        pilots
    }
}

/// Takes open choices from the settings of an older run, where they are in range.
fn fill_from_run(choices: &mut Choices, older: Option<Settings>, epochs: usize) {
    let Some(older) = older else { return };
    let Choices { gaussians, mixtures, learning_rate, .. } = choices;
    let whole = older.gaussians.saturating_mul(older.symmetry.order());
    *gaussians = gaussians.or(GAUSSIANS_ALLOWED.contains(&(whole as u64)).then_some(whole));
    *mixtures = mixtures.or((1..=epochs).contains(&older.mixtures).then_some(older.mixtures));
    let rate = older.learning_rate;
    *learning_rate = learning_rate.or((rate > 0.0 && rate.is_finite()).then_some(rate));
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

/// The noise of the particles of a model, where its loss or the weights of particles depend on it: that of the checkpoint that it
/// resumes from, or estimated now. Each half has its own.
fn noise_of(
    store: &Store,
    subset: &SubsetRows,
    settings: &Settings,
    steps_done: u64,
    folder: &Path,
) -> Result<Option<NoisePower>> {
    if settings.likelihood.is_default() && settings.refine.is_none() {
        return Ok(None);
    }
    if steps_done > 0 {
        let path = checkpoint::path(&names::checkpoints(folder), subset.subset, steps_done);
        let noise = Checkpoint::read(&path)?.appraisal.map(|appraisal| appraisal.noise);
        let fits = noise.filter(|noise| noise.groups.len() == store.header().optics.len());
        return match fits {
            Some(noise) => Ok(Some(noise)),
            None => Err(Error::input(
                &path,
                "/appraisal/noise",
                format!("does not hold the noise of {} optics groups", store.header().optics.len()),
                "remove the file to resume from the one before it, or start without --resume",
            )),
        };
    }
    let noise = NoisePower::estimate(store, subset.rows.clone())?;
    tracing::info!("{}: noise of {}", subset.name(), noise.describe());
    Ok(Some(noise))
}

/// Weights of the spatial frequencies, the same for all models of a set. They follow from the CTFs alone, so the halves stay
/// independent.
fn weights(store: &Store, weighting: Weighting) -> Result<Weights> {
    if weighting == Weighting::Uniform {
        return Ok(Weights::UNIFORM);
    }
    let reader = store.reader();
    let count = store.len().min(CTF_SAMPLE);
    let ctf = |k: usize| {
        let row = (2 * k + 1) * store.len() / (2 * count);
        Ok(reader.ctf(&reader.particles(row..row + 1)?[0]))
    };
    let ctfs: Vec<Ctf> = (0..count).map(ctf).collect::<Result<_>>()?;
    Ok(Weights::of(&ctfs, store.header().pixel_size))
}
