//! Recipes: learning rate, schedule and Adam's constants from batch and number of particles (METHOD.md section 7).

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::gmm::{START_SCALE, Shape};
use crate::render::{AdamStep, RateFactors, Sampling, Weighting};

/// A named set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// The rate grows with the root of the batch, Adam's memory counts images, and a cosine ends at zero.
    Scaled,
    /// As published: rate 1e-3 for every parameter, times 0.1 at each epoch's end, 5 epochs, batch 1, 30,000 Gaussians.
    Paper,
}

/// How the rate falls over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine from the rate to zero.
    Cosine,
    /// Times 0.1 at the end of each epoch.
    Step,
    /// Never.
    Constant,
}

/// Where random Gaussians lie at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Normally distributed about the centre of the box, with a standard deviation of 0.075 of its edge.
    Published,
    /// Normally distributed, with the centre and the covariance that a quick backprojection of the half's particles shows.
    Fitted,
    /// Drawn from the density that it shows, at low resolution.
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

/// Gaussians that a mixture may have.
pub const GAUSSIANS_ALLOWED: RangeInclusive<u64> = 1..=50_000_000;

/// Image passes of one half that the scaled recipe wants at least.
pub const PASSES: usize = 100_000;
/// Base rate of the scaled recipe for [`PASSES`] image passes.
const RATE: f64 = 4e-4;
/// Base rate that the scaled recipe never exceeds.
const LARGEST_RATE: f64 = 1.5e-3;

/// Base rate of the scaled recipe for `passes` image passes of a half. Over more of them than [`PASSES`] Gaussians travel as
/// far as over these, with less noise; over fewer they travel less, rather than follow the noise in strides.
fn scaled_rate(passes: usize) -> f64 {
    let ratio = PASSES as f64 / passes as f64;
    (RATE * ratio.min(ratio.sqrt())).min(LARGEST_RATE)
}

/// Mixtures whose mean is a model of the scaled recipe, at most; and epochs of each, at least: many noisy images settle slowly.
const MOST_MIXTURES: usize = 4;
const MIXTURE_EPOCHS: usize = 8;
/// Image passes of each mixture, at least: so many, and one for so much of what the particles tell, in signal to noise of Fourier
/// voxels.
const MIXTURE_PASSES: f64 = 6_250.0;
const MIXTURE_INFORMATION: f64 = 40.0;

/// Where particles tell more of each voxel of the box than this, in signal to noise, and Gaussians have [`PASSES`], noise limits them
/// less than the last steps' strides do: half the rate.
const TOLD_WELL: f64 = 20.0;

/// Rates of the scaled recipe. Amplitudes must change a hundredfold where a Gaussian lies in solvent, scales hardly; where
/// scales move as fast as means, they follow the noise.
const FACTORS: RateFactors = RateFactors { mean: 1.0, scale: 0.3, quaternion: 1.0, amplitude: 10.0 };

/// Gaussians of the published recipe, and those that are many for the scaled one up to a box of [`BOX`] pixels; in larger ones as
/// many more as their images have more pixels.
const GAUSSIANS: usize = 30_000;
const BOX: usize = 128;
/// Pixels of all images of a half for each Gaussian beyond these, of which there are at most as many again: only particles that
/// tell much are worth their time.
const MANY_PIXELS: usize = 1_300;
/// Voxels of the box for each Gaussian of the scaled recipe, at least; and of those that the specimen fills, one.
const VOXELS: usize = 16;
/// Pixels of all images of a half for each Gaussian of the scaled recipe, at least, but for the part that is solvent: with fewer,
/// Gaussians follow the noise.
const PIXELS: f64 = 22.0;
/// Share of the box that a specimen fills which no look at the particles has shown.
const USUALLY_FILLED: f64 = 0.069;
/// Passes over a half of the scaled recipe, at most: more follow the noise too.
const MOST_EPOCHS: usize = 100;
/// Standard deviation of a random Gaussian at the start of the scaled recipe, in distances between Gaussians, within
/// [`START_PIXELS`]: scales change little, and a Gaussian that is too wide has lost the last shells.
const START_SPACING: f64 = 0.31;
/// The same in pixels, at least, and at most up to a box of [`BOX`] pixels: those of larger ones are finer than what their particles
/// tell, and it grows with the box.
const START_PIXELS: RangeInclusive<f64> = 0.25..=0.48;
/// The same in distances between Gaussians, at least: where few of them share a large box.
const SMALLEST_SPACING: f64 = 0.25;
/// Share of the box that a specimen spans which no look at the particles has shown.
const USUAL_SHARE: f64 = 0.095;

/// Standard deviation of the Gaussians at the start of the scaled recipe, in box units, where `gaussians` of them lie in a
/// specimen that takes `share` of a box of `box_size` pixels.
pub fn start_scale(gaussians: usize, box_size: usize, share: f64) -> f64 {
    let distance = (share / gaussians as f64).cbrt();
    let least = START_PIXELS.start() / box_size as f64;
    let most = START_PIXELS.end() / box_size.min(BOX) as f64;
    (START_SPACING * distance).clamp(least, most).max(SMALLEST_SPACING * distance)
}

/// Gaussians of a mixture of the scaled recipe, for a half of `particles` particles whose specimen fills so much of a box of
/// `box_size` pixels, where a look at them has shown it.
pub fn gaussians_for(box_size: usize, particles: usize, filled: Option<f64>) -> usize {
    let pixels = particles * box_size.pow(2);
    let many = GAUSSIANS * box_size.max(BOX).pow(2) / BOX.pow(2);
    let most = (pixels / MANY_PIXELS).clamp(many, 2 * many);
    let voxels = box_size.pow(3);
    let seen = filled.map_or(voxels, |filled| (filled * voxels as f64) as usize);
    let of_pixels = (filled.unwrap_or(USUALLY_FILLED) * pixels as f64 / PIXELS) as usize;
    (voxels / VOXELS).min(seen).min(of_pixels).clamp(1, most)
}

/// What the settings of a run say of its start, which a run that goes on must share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitIdentity {
    /// The first 16 digits of the SHA-256 of the file.
    pub sha256: String,
    /// The resolution in angstrom that a map was filtered at; `None` for a mixture.
    pub low_pass: Option<f64>,
}

/// Everything that decides how one model is trained, with no default left open.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The rules that the defaults came from.
    pub recipe: Recipe,
    /// Number of Gaussians of a mixture.
    pub gaussians: usize,
    /// One scale per Gaussian, and no quaternion.
    pub isotropic: bool,
    /// Mixtures, trained one after the other, whose mean is the model.
    pub mixtures: usize,
    /// Passes over the half, of all mixtures together.
    pub epochs: usize,
    /// Images per step, over all ranks of a half.
    pub batch: usize,
    /// Base learning rate, at batch 1.
    pub learning_rate: f64,
    /// What the rate of each kind of parameter is multiplied by.
    pub rate_factors: RateFactors,
    /// How it falls.
    pub schedule: Schedule,
    /// True where rate, betas and epsilon follow the number of images in a step.
    pub scale_with_batch: bool,
    /// Adam's decay of the first moments, per image where `scale_with_batch`.
    pub beta1: f64,
    /// Adam's decay of the second moments, per image where `scale_with_batch`.
    pub beta2: f64,
    /// Adam's epsilon, at batch 1.
    pub epsilon: f64,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// How splats are sampled.
    pub sampling: Sampling,
    /// How much each frequency counts.
    pub weighting: Weighting,
    /// Where random Gaussians lie at the start.
    pub start: Start,
    /// Standard deviation of a random Gaussian at the start, in box units, where no look at the particles says better
    /// ([`start_scale`]).
    pub start_scale: f64,
    /// The seed of everything drawn.
    pub seed: u64,
    /// What the Gaussians start from; absent where they are random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<InitIdentity>,
}

/// What the user may leave open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// Number of Gaussians of a mixture.
    pub gaussians: Option<usize>,
    /// Mixtures whose mean is the model.
    pub mixtures: Option<usize>,
    /// Passes over the half, of all mixtures together.
    pub epochs: Option<usize>,
    /// Images per step.
    pub batch: Option<usize>,
    /// Base learning rate.
    pub learning_rate: Option<f64>,
    /// What the rate of each kind of parameter is multiplied by.
    pub rate_factors: Option<RateFactors>,
    /// How it falls.
    pub schedule: Option<Schedule>,
    /// How splats are sampled.
    pub sampling: Option<Sampling>,
    /// How much each frequency counts.
    pub weighting: Option<Weighting>,
    /// Where random Gaussians lie at the start.
    pub start: Option<Start>,
    /// What the Gaussians start from; `None` where they are random.
    pub init: Option<InitIdentity>,
}

impl Settings {
    /// Fills what `choices` leave open, for a half of `particles` particles of `box_size` pixels.
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
        let epochs = choices.epochs.unwrap_or(if scaled {
            PASSES.div_ceil(particles.max(1)).clamp(5, MOST_EPOCHS)
        } else {
            5
        });
        let mixtures = choices.mixtures.unwrap_or(1);
        // Of each mixture.
        let passes = (epochs * particles / mixtures).max(1);
        let rate = if scaled { scaled_rate(passes) } else { 1e-3 };
        let gaussians = choices.gaussians.unwrap_or(if scaled {
            gaussians_for(box_size, particles, None)
        } else {
            GAUSSIANS
        });
        Self {
            recipe,
            gaussians,
            isotropic,
            mixtures,
            epochs,
            batch: choices.batch.unwrap_or(if scaled { 8 } else { 1 }),
            learning_rate: choices.learning_rate.unwrap_or(rate),
            rate_factors: choices.rate_factors.unwrap_or(if scaled { FACTORS } else { RateFactors::ONE }),
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
            start: choices.start.unwrap_or(if scaled { Start::Fitted } else { Start::Published }),
            start_scale: if scaled { start_scale(gaussians, box_size, USUAL_SHARE) } else { START_SCALE },
            seed,
            init: choices.init.clone(),
        }
    }

    /// How many mixtures a model of `particles` particles is the mean of, if these tell so much
    /// ([`crate::train::init::pilot::Look::information`]): as many as have epochs and image passes enough.
    pub fn mixtures_for(&self, information: f64, particles: usize) -> usize {
        let passes = (self.epochs * particles) as f64;
        let of_passes = (passes / MIXTURE_PASSES.max(information / MIXTURE_INFORMATION)) as usize;
        MOST_MIXTURES.min(self.epochs / MIXTURE_EPOCHS).min(of_passes).max(1)
    }

    /// The base rate for a model of `particles` particles of `box_size` pixels, if these tell so much
    /// ([`crate::train::init::pilot::Look::information`]).
    pub fn rate_for(&self, information: f64, particles: usize, box_size: usize) -> f64 {
        let told_well = information > TOLD_WELL * (box_size as f64).powi(3);
        let enough = self.epochs * particles >= PASSES * self.mixtures;
        if told_well && enough { 0.5 * self.learning_rate } else { self.learning_rate }
    }

    /// True where random Gaussians are placed by what the particles show.
    pub fn places(&self) -> bool {
        self.init.is_none() && self.start != Start::Published
    }

    /// The mixture that is trained in `epoch`, from 0; behind the last epoch, how many there are.
    pub fn mixture_in(&self, epoch: usize) -> usize {
        ((epoch + 1) * self.mixtures - 1) / self.epochs
    }

    /// The first epoch of a mixture; of one behind the last, how many epochs there are. Epochs are shared as evenly as they can be.
    pub fn first_epoch(&self, mixture: usize) -> usize {
        mixture * self.epochs / self.mixtures
    }

    /// The shape of all Gaussians.
    pub fn shape(&self) -> Shape {
        if self.isotropic { Shape::Isotropic } else { Shape::Anisotropic }
    }
}

/// Where a run stands: Adam's bias corrections and the images seen. Part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Steps taken.
    pub step: u64,
    /// Images seen.
    pub images: u64,
    /// Product of all beta1 so far.
    pub beta1_power: f64,
    /// Product of all beta2 so far.
    pub beta2_power: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { step: 0, images: 0, beta1_power: 1.0, beta2_power: 1.0 }
    }
}

impl Clock {
    /// Images of the mixture that comes next or is being trained, where an epoch has `per_epoch`, as a range of the run's.
    fn images_of_mixture(&self, settings: &Settings, per_epoch: u64) -> Range<u64> {
        let mixture = settings.mixture_in((self.images / per_epoch) as usize);
        let first = |mixture| settings.first_epoch(mixture) as u64 * per_epoch;
        first(mixture)..first(mixture + 1)
    }

    /// The base rate of a step over `count` images, of `per_epoch` in an epoch. Each mixture has the whole schedule.
    pub fn base_rate(&self, settings: &Settings, count: u64, per_epoch: u64) -> f64 {
        let images = self.images_of_mixture(settings, per_epoch);
        let middle = (self.images - images.start) as f64 + 0.5 * count as f64;
        let total = images.end - images.start;
        settings.learning_rate
            * match settings.schedule {
                Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * middle / total as f64).cos()),
                Schedule::Step => 0.1f64.powi((middle / per_epoch as f64) as i32),
                Schedule::Constant => 1.0,
            }
    }

    /// Moves on by a step over `count` images, and gives its numbers. A short last batch counts for what it is; the first step of
    /// a mixture finds no moments.
    pub fn advance(&mut self, settings: &Settings, count: u64, per_epoch: u64) -> AdamStep {
        let base = self.base_rate(settings, count, per_epoch);
        if self.images == self.images_of_mixture(settings, per_epoch).start {
            (self.beta1_power, self.beta2_power) = (1.0, 1.0);
        }
        let images = if settings.scale_with_batch { count as f64 } else { 1.0 };
        let (beta1, beta2) = (settings.beta1.powf(images), settings.beta2.powf(images));
        self.step += 1;
        self.images += count;
        self.beta1_power *= beta1;
        self.beta2_power *= beta2;
        AdamStep {
            rate: base * images.sqrt(),
            beta1,
            beta2,
            epsilon: settings.epsilon / images.sqrt(),
            correction1: 1.0 - self.beta1_power,
            correction2: 1.0 - self.beta2_power,
            factors: settings.rate_factors,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::*;

    fn settings(recipe: Recipe) -> Settings {
        Settings::resolve(recipe, &Choices::default(), false, 3.0, 1, 5_000, 64)
    }

    #[test]
    fn the_rules_of_the_recipes() {
        let scaled = settings(Recipe::Scaled);
        assert_eq!((scaled.epochs, scaled.batch), (20, 8));
        assert!((scaled.learning_rate - 4e-4).abs() < 1e-12, "for 100,000 passes");
        let few = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100, 64);
        assert_eq!((few.epochs, few.gaussians), (100, 1_284));
        let larger = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100, 128);
        assert_eq!(larger.gaussians, 5_138, "0.069 128^2 / 22 for each particle");
        let one = Choices { epochs: Some(1), ..Choices::default() };
        assert_eq!(
            Settings::resolve(Recipe::Scaled, &one, false, 3.0, 1, 100, 64).learning_rate,
            LARGEST_RATE
        );
        let many = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100_000, 64);
        assert_eq!(many.epochs, 5);
        assert!((many.learning_rate - 8e-5).abs() < 1e-12, "a fifth over five times as many");
        let quarter = Choices { epochs: Some(5), ..Choices::default() };
        let quarter = Settings::resolve(Recipe::Scaled, &quarter, false, 3.0, 1, 5_000, 64);
        assert!((quarter.learning_rate - 8e-4).abs() < 1e-12, "twice over a quarter");
        assert_eq!(scaled.gaussians, 16_384, "64^3 / 16");
        let gaussians = |particles, box_size| {
            Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, particles, box_size)
                .gaussians
        };
        assert_eq!(
            [1_000, 3_000, 5_000, 50_000].map(|n| gaussians(n, 128)),
            [30_000, 37_809, 60_000, 60_000]
        );
        assert_eq!([2_000, 3_000, 50_000].map(|n| gaussians(n, 256)), [120_000, 151_236, 240_000]);
        assert_eq!(scaled.start, Start::Fitted);
        let paper = settings(Recipe::Paper);
        assert_eq!(
            (paper.start, paper.start_scale, paper.sampling),
            (Start::Published, 0.0075, Sampling::Points)
        );
        assert_eq!(paper.rate_factors, RateFactors::ONE);
        assert_eq!((scaled.weighting, paper.weighting), (Weighting::Ctf, Weighting::Uniform));
        assert_eq!((paper.epochs, paper.batch, paper.gaussians, paper.learning_rate), (5, 1, 30_000, 1e-3));
    }

    #[test]
    fn gaussians_start_as_wide_as_they_are_apart_but_for_pixels() {
        let pixels = |gaussians, box_size, share| start_scale(gaussians, box_size, share) * box_size as f64;
        assert!(
            (settings(Recipe::Scaled).start_scale * 64.0 - 0.31 * 1.150).abs() < 1e-3,
            "(0.095 64^3 / 16,384)^(1/3)"
        );
        assert!((pixels(16_384, 64, 0.2) - 0.31 * 1.474).abs() < 1e-3);
        assert!((pixels(6_400, 64, 0.15) - 0.48).abs() < 1e-12, "no wider than that");
        assert!((pixels(16_384, 64, 0.01) - 0.25).abs() < 1e-12, "no narrower");
        assert!((pixels(30_000, 128, 0.095) - 0.48).abs() < 1e-12);
        assert!((pixels(151_236, 256, 0.095) - 0.31 * 2.192).abs() < 1e-3, "but in a large box");
        assert!((pixels(40_000, 256, 0.095) - 0.96).abs() < 1e-12, "up to twice as wide there");
        assert!((pixels(5_120, 128, 0.095) - 0.25 * 3.388).abs() < 1e-3, "but few must cover the specimen");
    }

    #[test]
    fn a_batch_takes_the_step_of_its_images() {
        let scaled = settings(Recipe::Scaled);
        let mut clock = Clock::default();
        let step = clock.advance(&scaled, 4, 5_000);
        assert!((step.beta2 - 0.999f64.powi(4)).abs() < 1e-15);
        assert!((step.rate / 4e-4 - 2.0).abs() < 1e-6);
        assert!((step.correction1 - (1.0 - 0.9f64.powi(4))).abs() < 1e-15);
        // The last batch of an epoch is shorter, and weighs less.
        let short = clock.advance(&scaled, 1, 5_000);
        assert!((short.rate / step.rate - 0.5).abs() < 1e-4);
        assert_eq!(clock.images, 5);
    }

    #[test]
    fn gaussians_are_as_many_as_the_specimen_fills_voxels() {
        let filled = |share| gaussians_for(64, 5_000, Some(share));
        assert_eq!([0.5, 0.0625, 0.03].map(filled), [16_384, 16_384, 7_864]);
        assert_eq!(gaussians_for(64, 500, Some(0.03)), 2_792, "0.03 64^2 500 / 22");
        assert_eq!(gaussians_for(64, 500, Some(1e-9)), 1);
        assert_eq!(gaussians_for(128, 5_000, Some(0.5)), 60_000);
    }

    #[test]
    fn the_less_particles_tell_the_more_mixtures() {
        let mixtures = |choices: &Choices, particles: usize, snr: f64| {
            let settings = Settings::resolve(Recipe::Scaled, choices, false, 3.0, 1, particles, 64);
            settings.mixtures_for(snr * (particles * 64 * 64) as f64, particles)
        };
        let usual = Choices::default();
        // A hundred thousand passes for 12,288,000 pixels: 0.33 divided by the ratio.
        assert_eq!([0.0, 0.08, 0.1, 0.15, 0.2].map(|snr| mixtures(&usual, 3_000, snr)), [4, 4, 3, 2, 1]);
        assert_eq!([0.03, 0.08, 0.11].map(|snr| mixtures(&usual, 5_000, snr)), [2, 2, 1], "in 20 epochs");
        assert_eq!(mixtures(&usual, 50_000, 0.001), 1, "in 5 epochs");
        assert_eq!(mixtures(&usual, 500, 0.1), 4, "in 50,000 passes");
        assert_eq!(mixtures(&usual, 100, 0.1), 1, "in 10,000 passes");
        let few = Choices { epochs: Some(16), ..usual };
        assert_eq!([1_000, 2_000].map(|particles| mixtures(&few, particles, 0.05)), [2, 2]);
    }

    #[test]
    fn the_rate_is_half_where_particles_tell_much() {
        let settings = settings(Recipe::Scaled);
        let voxels = 64f64.powi(3);
        let ratio = |settings: &Settings, told: f64, particles: usize, box_size: usize| {
            settings.rate_for(told * voxels, particles, box_size) / settings.learning_rate
        };
        assert_eq!(
            [10.0, 19.9, 20.1, 1e9].map(|told| ratio(&settings, told, 5_000, 64)),
            [1.0, 1.0, 0.5, 0.5]
        );
        assert_eq!(ratio(&settings, 100.0, 5_000, 128), 1.0, "eight times as many voxels");
        assert_eq!(ratio(&settings, 100.0, 4_999, 64), 1.0, "in fewer passes");
        assert_eq!(ratio(&Settings { mixtures: 2, ..settings }, 100.0, 5_000, 64), 1.0, "of each");
    }

    #[test]
    fn mixtures_share_the_epochs() {
        let mut settings = settings(Recipe::Scaled);
        (settings.mixtures, settings.epochs) = (3, 8);
        assert_eq!([0, 1, 2, 3].map(|mixture| settings.first_epoch(mixture)), [0, 2, 5, 8]);
        let in_epoch: Vec<usize> = (0..=8).map(|epoch| settings.mixture_in(epoch)).collect();
        assert_eq!(in_epoch, [0, 0, 1, 1, 1, 2, 2, 2, 3]);
        // A mixture's first step is that of a run, and its last is nearly none.
        let mut clocks =
            [0, 10, 25].map(|images| Clock { images, beta1_power: 0.5, beta2_power: 0.25, step: images });
        let starts = clocks.each_mut().map(|clock| clock.advance(&settings, 1, 5));
        for (start, total) in starts.into_iter().zip([10.0, 15.0, 15.0]) {
            let rate = 0.5 * (1.0 + (0.5 * std::f64::consts::PI / total).cos()) * settings.learning_rate;
            assert!((start.rate / rate - 1.0).abs() < 1e-12, "{start:?}");
            assert_eq!((start.correction1, start.correction2), (1.0 - 0.9, 1.0 - 0.999));
        }
        let second = clocks[1].advance(&settings, 1, 5);
        assert_eq!((second.correction1, second.correction2), (1.0 - 0.9 * 0.9, 1.0 - 0.999 * 0.999));
        for images in [9, 24, 39] {
            let clock = Clock { images, ..Clock::default() };
            assert!(clock.base_rate(&settings, 1, 5) < 7e-3 * settings.learning_rate);
        }
    }

    #[test]
    fn schedules_end_where_they_should() {
        let mut paper = settings(Recipe::Paper);
        let late = Clock { images: 24_999, ..Clock::default() };
        assert!((late.base_rate(&paper, 1, 5_000) / 1e-7 - 1.0).abs() < 1e-9);
        paper.schedule = Schedule::Cosine;
        assert!(late.base_rate(&paper, 1, 5_000) < 1e-11);
    }
}
