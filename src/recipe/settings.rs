//! The settings of a training run, and the choices that a user may leave open (docs/method.md, section 7).

use serde::{Deserialize, Serialize};

use super::likelihood::{Contrast, Likelihood, NoiseModel, Weighing};
use super::refine::Refine;
use super::rules;
use crate::gmm::{START_SCALE, Shape};
use crate::imaging::Symmetry;
use crate::render::{RateFactors, Sampling, Weighting};

/// A named set of rules for the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Settings follow from the data: the rate grows with the square root of the batch, Adam's decay counts images, cosine schedule.
    Scaled,
    /// As published: rate 1e-3 for all parameters, times 0.1 after each epoch, 5 epochs, batch 1, 30,000 Gaussians.
    Paper,
}

/// Schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine from the base rate to zero.
    Cosine,
    /// Times 0.1 after each epoch.
    Step,
    /// Constant.
    Constant,
}

/// Distribution of random Gaussians at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Normal about the centre of the box, with a standard deviation of 0.075 box edges.
    Published,
    /// Normal, with the centre and covariance of the pilot reconstruction of the half.
    Fitted,
    /// Drawn from the density of the pilot reconstruction.
    Density,
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine to zero",
            Self::Step => "times 0.1 an epoch",
            Self::Constant => "constant",
        })
    }
}

/// Identity of an `--init` file: a resumed run must have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitIdentity {
    /// First 16 hexadecimal digits of the file's SHA-256.
    pub sha256: String,
    /// Resolution of the low-pass filter of a map, in angstrom; `None` for a mixture.
    pub low_pass: Option<f64>,
}

/// Everything that determines how one model is trained, with no default left open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Recipe that the defaults follow.
    pub recipe: Recipe,
    /// Number of Gaussians of a mixture at its end, those of the asymmetric unit.
    pub gaussians: usize,
    /// Point group of the specimen.
    #[serde(default, skip_serializing_if = "is_c1")]
    pub symmetry: Symmetry,
    /// One scale per Gaussian, and no quaternion.
    pub isotropic: bool,
    /// Number of mixtures, trained one after the other, whose mean is the model.
    pub mixtures: usize,
    /// Passes over the half, for all mixtures together, with the refining one and all extensions.
    pub epochs: usize,
    /// Epochs by which the finished run was extended, each time; the last mixture continues in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<usize>,
    /// What is refined of the particles.
    #[serde(default, skip_serializing_if = "Refine::is_none")]
    pub refine: Refine,
    /// Epochs of each mixture, from 1 and ascending, after which each of its Gaussians becomes two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub densify: Vec<usize>,
    /// Images per step, over all ranks of the half.
    pub batch: usize,
    /// Base learning rate, at batch 1.
    pub learning_rate: f64,
    /// Factors of the learning rate for each kind of parameter.
    pub rate_factors: RateFactors,
    /// Schedule of the learning rate.
    pub schedule: Schedule,
    /// Whether rate, betas and epsilon scale with the number of images in a step.
    pub scale_with_batch: bool,
    /// Adam's decay of the first moments, per image where `scale_with_batch`.
    pub beta1: f64,
    /// Adam's decay of the second moments, per image where `scale_with_batch`.
    pub beta2: f64,
    /// Adam's epsilon, at batch 1.
    pub epsilon: f64,
    /// Half width of a splat's support, in standard deviations.
    pub cutoff: f64,
    /// How splats are sampled.
    pub sampling: Sampling,
    /// Weights of the spatial frequencies in the loss.
    pub weighting: Weighting,
    /// What the loss takes into account of noise and contrast.
    #[serde(default, skip_serializing_if = "Likelihood::is_default")]
    pub likelihood: Likelihood,
    /// Distribution of random Gaussians at the start.
    pub start: Start,
    /// Standard deviation of a random Gaussian at the start, in box units; a pilot reconstruction replaces it
    /// ([`rules::start_scale`]).
    pub start_scale: f64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Identity of the `--init` file; absent where the start is random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitIdentity>,
}

fn is_c1(symmetry: &Symmetry) -> bool {
    *symmetry == Symmetry::C1
}

/// Settings that the user may choose or leave open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// Number of Gaussians of a mixture at its end, those of the whole.
    pub gaussians: Option<usize>,
    /// Point group of the specimen.
    pub symmetry: Symmetry,
    /// Epochs of each mixture after which each of its Gaussians becomes two.
    pub densify: Vec<usize>,
    /// Number of mixtures whose mean is the model.
    pub mixtures: Option<usize>,
    /// Passes over the half, for all mixtures together but the refining one, without extensions.
    pub epochs: Option<usize>,
    /// Epochs by which the finished run is extended, each time.
    pub extensions: Vec<usize>,
    /// What is refined of the particles; its rounds, and a learning rate of 0, are filled in.
    pub refine: Refine,
    /// Images per step.
    pub batch: Option<usize>,
    /// Base learning rate.
    pub learning_rate: Option<f64>,
    /// Factors of the learning rate for each kind of parameter.
    pub rate_factors: Option<RateFactors>,
    /// Schedule of the learning rate.
    pub schedule: Option<Schedule>,
    /// How splats are sampled.
    pub sampling: Option<Sampling>,
    /// Weights of the spatial frequencies in the loss.
    pub weighting: Option<Weighting>,
    /// How the noise counts in the loss.
    pub noise: Option<NoiseModel>,
    /// Whether particles have a contrast of their own.
    pub contrast: Option<Contrast>,
    /// Whether particles that fit as noise would count less.
    pub weigh_particles: Option<Weighing>,
    /// Distribution of random Gaussians at the start.
    pub start: Option<Start>,
    /// Identity of the `--init` file; `None` where the start is random.
    pub init: Option<InitIdentity>,
}

impl Settings {
    /// Fills what `choices` leave open, for a half of `particles` particles in a box of `box_size` pixels.
    pub fn resolve(
        recipe: Recipe,
        choices: &Choices,
        isotropic: bool,
        cutoff: f64,
        seed: u64,
        particles: usize,
        box_size: usize,
    ) -> Self {
        let scaled = recipe == Recipe::Scaled;
        let (symmetry, order) = (choices.symmetry, choices.symmetry.order());
        // Each image tells each Gaussian of the unit as much as as many images as there are views.
        let particles = particles * order;
        let epochs = choices.epochs.unwrap_or(if scaled { rules::epochs_for(particles) } else { 5 });
        let mixtures = choices.mixtures.unwrap_or(1);
        // Images per mixture.
        let images = (epochs * particles / mixtures).max(1);
        let rate = if scaled { rules::base_rate(images) } else { 1e-3 };
        let mut refine = choices.refine.clone();
        if !refine.is_none() {
            refine.rounds = rules::rounds_for(epochs, particles);
            if refine.learning_rate == 0.0 {
                let rate = if scaled { rules::base_rate(refine.epochs() * particles) } else { 1e-3 };
                refine.learning_rate = choices.learning_rate.unwrap_or(rate);
            }
        }
        let gaussians = choices.gaussians.unwrap_or(if scaled {
            rules::gaussians_for(box_size, particles, None)
        } else {
            rules::GAUSSIANS
        });
        let at_start = (Self::of_unit(gaussians, symmetry) >> choices.densify.len()).max(1);
        Self {
            recipe,
            symmetry,
            gaussians: at_start << choices.densify.len(),
            densify: choices.densify.clone(),
            isotropic,
            mixtures,
            epochs: refine.epochs() + epochs + choices.extensions.iter().sum::<usize>(),
            extensions: choices.extensions.clone(),
            refine,
            batch: choices.batch.unwrap_or(if scaled { 8 } else { 1 }),
            learning_rate: choices.learning_rate.unwrap_or(rate),
            rate_factors: choices.rate_factors.unwrap_or(if scaled {
                rules::FACTORS
            } else {
                RateFactors::ONE
            }),
            schedule: choices.schedule.unwrap_or(if scaled { Schedule::Cosine } else { Schedule::Step }),
            scale_with_batch: scaled,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-15,
            cutoff,
            sampling: choices.sampling.unwrap_or(if scaled {
                Sampling::BandLimited
            } else {
                Sampling::Points
            }),
            weighting: choices.weighting.unwrap_or(if scaled { Weighting::Ctf } else { Weighting::Uniform }),
            likelihood: Likelihood {
                noise: choices.noise.unwrap_or_default(),
                contrast: choices.contrast.unwrap_or_default(),
                weigh_particles: choices.weigh_particles.unwrap_or(if scaled {
                    Weighing::Auto
                } else {
                    Weighing::No
                }),
            },
            start: choices.start.unwrap_or(if scaled { Start::Fitted } else { Start::Published }),
            start_scale: if scaled {
                rules::start_scale(at_start * order, box_size, rules::ELLIPSOID_FRACTION)
            } else {
                START_SCALE
            },
            seed,
            init: choices.init.clone(),
        }
    }

    /// Gaussians of the asymmetric unit of a whole of `gaussians`, rounded, at least one.
    pub(crate) fn of_unit(gaussians: usize, symmetry: Symmetry) -> usize {
        let order = symmetry.order();
        ((gaussians + order / 2) / order).max(1)
    }

    /// Number of mixtures for `particles` particles with a sum of `total_snr` over the Fourier voxels.
    pub fn mixtures_for(&self, total_snr: f64, particles: usize) -> usize {
        rules::mixtures_for(total_snr, self.epochs_of_mixtures(), particles * self.symmetry.order())
    }

    /// Base rate for `particles` particles in a box of `box_size` pixels with a sum of `total_snr` over the Fourier voxels.
    pub fn rate_for(&self, total_snr: f64, particles: usize, box_size: usize) -> f64 {
        let images = self.epochs_of_mixtures() * particles * self.symmetry.order();
        let halved = rules::halves_rate(total_snr, box_size, images, self.mixtures);
        if halved { 0.5 * self.learning_rate } else { self.learning_rate }
    }

    /// Whether random Gaussians are placed by the density of a pilot reconstruction.
    pub fn uses_pilot_density(&self) -> bool {
        self.init.is_none() && self.start != Start::Published
    }

    /// Epochs before the first extension.
    pub fn epochs_unextended(&self) -> usize {
        self.epochs - self.extensions.iter().sum::<usize>()
    }

    /// Epochs of the mixtures whose mean is the model, without extensions.
    fn epochs_of_mixtures(&self) -> usize {
        self.epochs_unextended() - self.refine.epochs()
    }

    /// Mixtures that are trained only to refine the particles, before all others: 0 or 1.
    pub fn refining_mixtures(&self) -> usize {
        usize::from(!self.refine.rounds.is_empty())
    }

    /// Number of mixtures with the refining one.
    pub fn all_mixtures(&self) -> usize {
        self.refining_mixtures() + self.mixtures
    }

    /// The mixture, from 0 and with the refining one, that epoch `epoch` trains; after the last epoch, the number of mixtures.
    pub fn mixture_in(&self, epoch: usize) -> usize {
        match epoch.checked_sub(self.refine.epochs()) {
            None => 0,
            Some(_) if epoch >= self.epochs => self.all_mixtures(),
            Some(_) if epoch >= self.epochs_unextended() => self.all_mixtures() - 1,
            Some(done) => {
                self.refining_mixtures() + ((done + 1) * self.mixtures - 1) / self.epochs_of_mixtures()
            }
        }
    }

    /// The first epoch of a mixture; after the last mixture, the number of epochs. Epochs are shared as evenly as possible.
    pub fn first_epoch(&self, mixture: usize) -> usize {
        match mixture.checked_sub(self.refining_mixtures()) {
            None => 0,
            Some(number) if number >= self.mixtures => self.epochs,
            Some(number) => self.refine.epochs() + number * self.epochs_of_mixtures() / self.mixtures,
        }
    }

    /// The epochs of the cycle of the learning rate with epoch `epoch`: of its mixture, or of the refining mixture, from one round to
    /// the next. In an extension, the whole of the last mixture up to the end of that extension. After the last epoch an empty range.
    pub fn cycle_in(&self, epoch: usize) -> std::ops::Range<usize> {
        if epoch < self.refine.epochs() {
            let next = self.refine.rounds.partition_point(|&round| round <= epoch);
            let start = if next == 0 { 0 } else { self.refine.rounds[next - 1] };
            return start..self.refine.rounds[next];
        }
        let mixture = self.mixture_in(epoch);
        let mut end = self.first_epoch(mixture + 1);
        if mixture + 1 == self.all_mixtures() {
            end = self.epochs_unextended();
            end += self
                .extensions
                .iter()
                .scan(end, |end, more| {
                    (*end <= epoch).then(|| {
                        *end += more;
                        *more
                    })
                })
                .sum::<usize>();
        }
        self.first_epoch(mixture)..end
    }

    /// Whether the particles are refined before epoch `epoch`: after each round of the refining mixture.
    pub fn refines_before(&self, epoch: usize) -> bool {
        self.refine.rounds.contains(&epoch)
    }

    /// Number of Gaussians of a mixture at its start.
    pub fn gaussians_at_start(&self) -> usize {
        self.gaussians >> self.densify.len()
    }

    /// Number of Gaussians in epoch `epoch` of the mixture that it trains; after the last epoch, at the end.
    pub fn gaussians_in(&self, epoch: usize) -> usize {
        if epoch >= self.epochs {
            return self.gaussians;
        }
        if epoch < self.refine.epochs() {
            return self.gaussians_at_start();
        }
        let done = epoch - self.first_epoch(self.mixture_in(epoch));
        self.gaussians_at_start() << self.densify.iter().filter(|&&after| after <= done).count()
    }

    /// ", from 2500 by doubling after epochs 2 and 4 of each mixture"; empty without densification.
    pub fn densification(&self) -> String {
        let epochs: Vec<String> = self.densify.iter().map(ToString::to_string).collect();
        let Some((last, others)) = epochs.split_last() else { return String::new() };
        let epochs = match others {
            [] => format!("epoch {last}"),
            _ => format!("epochs {} and {last}", others.join(", ")),
        };
        let of_each = if self.mixtures > 1 { " of each mixture" } else { "" };
        format!(", from {} by doubling after {epochs}{of_each}", self.gaussians_at_start())
    }

    /// Number of epochs of the mixture that has the fewest.
    pub fn epochs_of_shortest_mixture(&self) -> usize {
        self.epochs_of_mixtures() / self.mixtures
    }

    /// The shape of all Gaussians.
    pub fn shape(&self) -> Shape {
        if self.isotropic { Shape::Isotropic } else { Shape::Anisotropic }
    }
}
